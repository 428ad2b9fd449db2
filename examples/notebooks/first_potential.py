# %% [markdown]
# # A first potential in ten minutes
#
# We train a small potential of the ion [Co(pdms)2]2- with Keras, look at its errors, and relax the ion with it.
# The training takes about a minute on one core. Every step is explained in `docs/keras.md`.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.io import read
from ase.optimize import BFGS

from gmcore import Dataset, GMCalculator
from gmkeras import GMModel, GroupedMuon

# %% [markdown]
# The data lie in the repository: 400 structures of 53 atoms with energies and forces of GFN2-xTB. The notebook may
# run in any folder of the repository. What it writes goes to a temporary folder.

# %%
here = Path.cwd()
root = next(folder for folder in (here, *here.parents) if (folder / "examples" / "co_pdms").is_dir())
frames = read(root / "examples" / "co_pdms" / "potential.extxyz", ":")
output = Path(tempfile.mkdtemp())

# %% [markdown]
# The file has its own names for the labels, so we say which is which. Units must always be stated.

# %%
data = Dataset.from_atoms(
    frames,
    units={"energy": "eV", "forces": "eV/A"},
    keys={"energy": "energy_ref", "forces": "forces_ref"},
)
print(*data.summary(), sep="\n")

# %% [markdown]
# Three parts that share no structure: one to learn from, one to watch the training, one for an honest answer at the
# end. We use half of the structures, to be quick.

# %%
train, valid, test = data.split(120, 30, 50, seed=1)

# %% [markdown]
# The network is smaller than usual. `adapt` sets the zero of the energy and the statistics of the features.

# %%
model = GMModel(species=data.species, heads=["energy"], r_max=4.0, n_radial=4, hidden=(64, 64))
model.adapt(train)
model.summary()

# %% [markdown]
# `GroupedMuon` takes smaller and smaller steps until `max_step`. Forces are many and energies are few, but the losses
# are sums over the atoms, so the weights of a configuration are good defaults.

# %%
epochs = 40
batches = train.batches(8, seed=1)
model.compile(GroupedMuon(max_step=epochs * len(batches)), loss_weights={"energy": 1.0, "forces": 4.0})
history = model.fit(batches, validation_data=valid, epochs=epochs, verbose=2).history

# %% [markdown]
# Both curves should fall. If only that of the training falls, more structures would help.

# %%
figure, axes = plt.subplots(figsize=(4, 3), layout="constrained")
axes.plot(history["forces_mae"], label="training")
axes.plot(history["val_forces_mae"], label="validation")
axes.set(xlabel="epoch", ylabel="MAE of the forces (eV/Å)", ylim=(0, None))
axes.legend()
figure.savefig(output / "curves.png", dpi=150)

# %% [markdown]
# The errors on structures that the model has never seen, beside the spread of the data. A model that knows nothing
# would have errors of that size.

# %%
errors = model.evaluate(test, verbose=0, return_dict=True)
spread = np.concatenate(test.labels["forces"]).std()
print(f"MAE of the forces: {errors['forces_mae']:.3f} eV/A, spread of the forces: {spread:.2f} eV/A")
print(f"MAE of the energy: {1000 * errors['energy_mae'] / len(test.atoms[0]):.1f} meV per atom")

# %% [markdown]
# In a parity plot all points should lie on the diagonal. Points far from it are worth a look: they are hot
# structures, or wrong labels. Energies are relative to their mean.

# %%
predicted = model.predict(test, verbose=0)
pairs = {
    "energy": (np.array(test.labels["energy"]), predicted["energy"], "eV"),
    "forces": (np.concatenate(test.labels["forces"]), predicted["forces"], "eV/Å"),
}
figure, both = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
for axes, (name, (reference, found, unit)) in zip(both, pairs.items()):
    zero = reference.mean()
    axes.axline((0, 0), slope=1, color="gray", linewidth=1)
    axes.plot(reference.ravel() - zero, found.ravel() - zero, ".", markersize=3)
    axes.set(title=name, xlabel=f"reference ({unit})", ylabel=f"predicted ({unit})", aspect="equal")
figure.savefig(output / "parity.png", dpi=150)

# %% [markdown]
# The model file needs no TensorFlow. With the data sets of the training, it knows the size of its errors.

# %%
model.to_file(output / "model.h5", train=train, validation=valid)

# %% [markdown]
# As a calculator of ASE, it relaxes the hottest structure of the data. We compare the Co-N bonds with those of the
# structure that xTB has relaxed, which is the first one in the file.

# %%
atoms = max(frames, key=lambda frame: frame.info["temperature"]).copy()
atoms.calc = GMCalculator(output / "model.h5")
before = atoms.get_potential_energy()
BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
print(f"the energy fell by {before - atoms.get_potential_energy():.2f} eV")


def bonds_of_cobalt(structure):
    cobalt = structure.symbols.search("Co")[0]
    nitrogen = structure.symbols.search("N")
    return np.sort(structure.get_distances(cobalt, nitrogen))[:4]


print("Co-N bonds, relaxed with the model:", bonds_of_cobalt(atoms).round(3), "A")
print("Co-N bonds, relaxed with xTB:      ", bonds_of_cobalt(frames[0]).round(3), "A")
print(f"figures and model are in {output}")

# %% [markdown]
# To make it better: more structures, the network of the defaults (two layers of 256) and 300 epochs. To know how
# far to trust it: a committee, see `docs/keras.md`. To run dynamics of many replicas: `gmtensor md`.
