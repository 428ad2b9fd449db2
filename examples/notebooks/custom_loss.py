# %% [markdown]
# # A loss of your own, and fine-tuning
#
# Part one: some labels are wrong, and a loss that forgives outliers learns more from them than the standard loss.
# Part two: a trained model learns new, hotter structures from a few labels.
#
# The quantity is the D tensor of the ion [Co(pdms)2]2-, which trains faster than energies and forces.

# %%
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from ase.io import read

from gmcore import Dataset
from gmkeras import GMModel, GroupedMuon

# %% [markdown]
# The data lie in the repository. Outputs go to a temporary folder.

# %%
here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "examples" / "co_pdms").is_dir())
frames = read(root / "examples" / "co_pdms" / "d_tensor.extxyz", ":")
output = Path(tempfile.mkdtemp())

# %% [markdown]
# The 300 K structures are kept for part two.


# %%
def as_dataset(listed):
    return Dataset.from_atoms(listed, units={"d_tensor": "cm^-1"}, keys={"d_tensor": "d_tensor_ref"})


cold = as_dataset([frame for frame in frames if frame.info["temperature"] <= 200])
hot = as_dataset([frame for frame in frames if frame.info["temperature"] > 200])
train, valid, test = cold.split(200, 40, 100, seed=1)

# %% [markdown]
# ## Part one: wrong labels
#
# We turn the sign of the tensor in one of ten training structures, as if a calculation had converged to the wrong
# state. Validation and test stay right, so that errors are honest.

# %%
wrong = train.subset(range(len(train)))
for k in range(0, len(wrong), 10):
    wrong.labels["d_tensor"][k] = -wrong.labels["d_tensor"][k]

# %% [markdown]
# A loss is a function of labels and predictions, here (n, 3, 3) each. This one is quadratic for small errors and
# linear for large ones, like the Huber loss, but takes the tensor as a whole: one wrong tensor pulls no harder than 2
# cm^-1 would.


# %%
@keras.saving.register_keras_serializable("notebook")
def tensor_huber(y_true, y_pred):
    error = keras.ops.sqrt(keras.ops.sum((y_true - y_pred) ** 2, axis=(1, 2)) + 1e-12)
    return keras.ops.where(error < 2.0, 0.5 * error**2, 2.0 * error - 2.0)


# %% [markdown]
# Two models with the same initial weights and the same order of the batches. Only the loss differs.

# %%
epochs = 40
rates = {"network": 0.005, "radial": 0.005, "scale": 0.005, "shift": 0.005}


def fitted(loss):
    model = GMModel(species=cold.species, heads=["d_tensor"], r_max=5.0, n_radial=4, hidden=(64, 64), seed=3)
    model.adapt(wrong)
    batches = wrong.batches(8, seed=1)
    model.compile(GroupedMuon(epochs * len(batches), rates), loss=loss)
    history = model.fit(batches, validation_data=valid, epochs=epochs, verbose=0).history
    return model, history


standard, standard_history = fitted(None)
robust, robust_history = fitted({"d_tensor": tensor_huber})

# %% [markdown]
# The metric is the same for both, the mean absolute error of the elements. Losses cannot be compared with each other.

# %%
figure, axes = plt.subplots(figsize=(4.5, 3), layout="constrained")
axes.plot(standard_history["val_d_tensor_mae"], label="standard loss")
axes.plot(robust_history["val_d_tensor_mae"], label="loss that forgives outliers")
axes.set(xlabel="epoch", ylabel="validation MAE of D (cm$^{-1}$)", ylim=(0, None))
axes.legend()
figure.savefig(output / "losses.png", dpi=150)
found = {name: model.evaluate(test, verbose=0, return_dict=True)["d_tensor_mae"]
         for name, model in (("standard", standard), ("robust", robust))}  # fmt: skip
print("MAE on the test structures (cm^-1):", {name: round(float(error), 2) for name, error in found.items()})

# %% [markdown]
# Predictions find the wrong labels, too: the largest errors on the training structures.

# %%
predicted = robust.predict(wrong, verbose=0)["d_tensor"]
errors = np.abs(predicted - np.array(wrong.labels["d_tensor"])).max(axis=(1, 2))
suspects = np.argsort(errors)[::-1][: len(wrong) // 10]
print(f"{np.mean(suspects % 10 == 0):.0%} of the {len(suspects)} most suspicious labels are wrong ones")

# %% [markdown]
# ## Part two: fine-tuning
#
# The model is saved as the file that all commands of gmtensor read.

# %%
robust.to_file(output / "cold.h5")

# %% [markdown]
# Twenty structures of 300 K are labeled. The others tell how good the model becomes.

# %%
few, rest = hot.split(20, len(hot) - 20, seed=1)

# %% [markdown]
# The descriptor and the first layer have learned what the environment of an atom looks like. They stay as they
# are, which leaves fewer numbers to fit. Freeze before `compile`. Small steps keep the model close to what it knows.


# %%
def tuned(data, epochs):
    model = GMModel.from_file(output / "cold.h5")
    model.moments_layer.trainable = False
    model.dense_layers[0].trainable = False
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(data, epochs=epochs, verbose=0)
    return model


# %% [markdown]
# Trained on the new structures alone, a model forgets some of the old ones. Trained on both, it forgets much less and
# learns more. The old labels are the right ones here: part one has told us which to repair.

# %%
models = {
    "before": robust,
    "new structures": tuned(few, epochs=60),
    "old and new": tuned(few.joined(train), epochs=20),
}
for name, model in models.items():
    errors = [model.evaluate(data, verbose=0, return_dict=True)["d_tensor_mae"] for data in (rest, test)]
    print(f"{name:15} MAE at 300 K {errors[0]:.2f}, up to 200 K {errors[1]:.2f} cm^-1")

# %% [markdown]
# Write the result and use it like any other model: with `gmtensor predict`, or along dynamics with `gmtensor md`.

# %%
model.to_file(output / "fine_tuned.h5")
print(f"figure and models are in {output}")
