"""The model as ordinary Keras: the example of the documentation, losses, metrics, optimizers, callbacks, files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import keras
import tensorflow as tf
from ase.io import read, write

from gmcore import Dataset, GMCalculator, GMError, load_model
from gmkeras import (
    GaussianMomentsLayer,
    GMModel,
    GroupedAdam,
    GroupedMuon,
    NTKDense,
    PreparedData,
    StructureSum,
    symbolic_inputs,
)
from support.short_trainings import write_water
from support.tolerances import relative_error

pytestmark = [
    pytest.mark.slow,
    # Keras still asks variables for arrays in the way that NumPy 2 wants no longer
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

UNITS = {"energy": "eV", "forces": "eV/A"}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Water with a harmonic energy and its forces, by way of an extended XYZ file."""
    return read(write_water(tmp_path_factory.mktemp("data") / "train.extxyz", 40), ":")


@pytest.fixture(scope="module")
def data(frames):
    return Dataset.from_atoms(frames, units=UNITS)


def small(data, **options):
    settings = {"heads": ["energy"], "r_max": 3.0, "n_basis": 4, "n_radial": 2, "hidden": (8,)} | options
    return GMModel(species=data.species, **settings)


def d_tensors(frames, seed=0):
    """The frames with random traceless tensors."""
    rng = np.random.default_rng(seed)
    listed = []
    for atoms in frames:
        atoms = atoms.copy()
        tensor = rng.normal(size=(3, 3))
        tensor = tensor + tensor.T
        atoms.info = {"d_tensor": tensor - np.trace(tensor) / 3 * np.eye(3)}
        listed.append(atoms)
    return Dataset.from_atoms(listed, units={"d_tensor": "cm^-1"})


def test_the_example_of_the_documentation(frames, data, tmp_path):
    train, valid, test = data.split(24, 8, 8, seed=1)
    model = GMModel(species=data.species, heads=["energy"], r_max=5.0, hidden=(16, 16))
    model.adapt(train)
    model.compile(optimizer="adam", loss_weights={"energy": 1.0, "forces": 4.0})
    history = model.fit(train.batches(8, seed=1), validation_data=valid.batches(8), epochs=20, verbose=0).history
    assert (
        history["loss"][-1] < 0.5 * history["loss"][0] and history["val_forces_mae"][-1] < history["val_forces_mae"][0]
    )
    model.to_file(tmp_path / "model.h5")
    atoms = frames[0].copy()
    atoms.calc = GMCalculator(tmp_path / "model.h5")
    one = model.predict([atoms], verbose=0)
    assert relative_error(atoms.get_forces(), one["forces"]) < 1e-4
    assert model.evaluate(test, verbose=0, return_dict=True).keys() == {
        "loss", "energy_loss", "forces_loss", "energy_mae", "forces_mae"
    }  # fmt: skip
    predicted = model.predict(list(test.atoms), verbose=0)
    assert predicted["energy"].shape == (8,) and predicted["forces"].shape == (24, 3)
    model.to_file(tmp_path / "trusted.h5", train=train, validation=valid)
    assert "energy_error" in load_model(tmp_path / "trusted.h5").predict(frames[:2], errors=True)


def test_losses_of_keras_and_of_the_user(data):
    model = small(data)
    model.adapt(data)

    def cubed(y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred) ** 3)

    reference = {name: np.concatenate([np.ravel(v) for v in data.labels[name]]) for name in UNITS}
    outputs = {name: np.ravel(values) for name, values in model.predict(data, verbose=0).items()}
    errors = {name: outputs[name] - reference[name] for name in UNITS}
    cases = [
        ({"loss": "mse", "loss_weights": {"energy": 1.0, "forces": 2.0}},
         np.mean(errors["energy"] ** 2) + 2.0 * np.mean(errors["forces"] ** 2)),
        ({"loss": {"energy": keras.losses.Huber(delta=0.1), "forces": cubed}},
         float(keras.losses.Huber(delta=0.1)(reference["energy"], outputs["energy"]))
         + np.mean(np.abs(errors["forces"]) ** 3)),
        ({"loss": {"forces": "mae"}, "loss_weights": {"energy": 3.0}},
         np.mean(np.abs(errors["forces"])) + 3.0 * np.mean(errors["energy"] ** 2)),
    ]  # fmt: skip
    for arguments, expected in cases:
        model.compile("sgd", **arguments)
        assert model.evaluate(data.batches(40), verbose=0)[0] == pytest.approx(expected, rel=1e-4)


def test_metrics(data):
    model = small(data)
    metrics = {"energy": ["mse", keras.metrics.RootMeanSquaredError(name="rmse")], "forces": "mae"}
    model.compile("sgd", loss_weights={"energy": 1.0}, metrics=metrics)
    found = model.evaluate(data, verbose=0, return_dict=True)
    assert found.keys() == {"loss", "energy_mse", "energy_rmse", "forces_mae"}
    assert found["energy_rmse"] ** 2 == pytest.approx(found["energy_mse"], rel=1e-5)
    assert found["loss"] == pytest.approx(found["energy_mse"], rel=1e-6)
    model.compile("sgd", metrics=["mae"])
    assert model.evaluate(data, verbose=0, return_dict=True).keys() >= {"energy_mae", "forces_mae"}


OPTIMIZERS = {
    "Muon": lambda: keras.optimizers.Muon(1e-3),
    "AdamW, clipnorm": lambda: keras.optimizers.AdamW(1e-3, clipnorm=1.0),
    "global clipnorm": lambda: keras.optimizers.Adam(1e-3, global_clipnorm=1.0),
    "EMA": lambda: keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9),
    "accumulation": lambda: keras.optimizers.Adam(1e-3, gradient_accumulation_steps=2),
    "ScheduleFree": lambda: keras.optimizers.ScheduleFreeAdamW(1e-3),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 20)),
    "GroupedMuon, EMA": lambda: GroupedMuon(100, use_ema=True, clipnorm=10.0),
    "GroupedAdam, EMA": lambda: GroupedAdam(100, use_ema=True, clipnorm=10.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_of_keras(data, name):
    if name == "ScheduleFree" and not hasattr(keras.optimizers, "ScheduleFreeAdamW"):
        pytest.skip("this Keras has no ScheduleFreeAdamW")
    model = small(data)
    model.adapt(data.subset(range(8)))
    model.compile(OPTIMIZERS[name](), loss_weights={"energy": 1.0, "forces": 4.0})
    losses = model.fit(data.batches(10, seed=1), epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_callbacks_of_keras(data, tmp_path):
    tensors = d_tensors(data.atoms)
    train, valid = tensors.split(30, 10)
    model = small(tensors, heads=["d_tensor"])
    model.adapt(train)
    model.compile(keras.optimizers.Adam(1e-3, use_ema=True))
    stop = keras.callbacks.EarlyStopping("val_d_tensor_mae", patience=1, min_delta=1e9, mode="min")
    callbacks = [
        stop,
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", "val_d_tensor_mae", save_best_only=True,
                                        save_weights_only=True, mode="min"),
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        keras.callbacks.SwapEMAWeights(),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]  # fmt: skip
    history = model.fit(train, validation_data=valid, epochs=5, verbose=0, callbacks=callbacks)
    assert len(history.epoch) == 2 and stop.stopped_epoch == 1
    assert (tmp_path / "best.weights.h5").is_file() and any((tmp_path / "logs").rglob("events*"))


def test_a_training_that_is_restored_goes_on_as_if_nothing_had_happened(data, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(folder, *callbacks):
        model = small(data, dtype="float64")
        model.adapt(data)
        model.compile("adam")
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder)
        model.fit(data.batches(10, seed=1), epochs=4, verbose=0, callbacks=[backup, *callbacks])
        return model.get_weights()

    whole = fit("whole")
    with pytest.raises(KeyboardInterrupt):
        fit("broken", Interrupt())
    for a, b in zip(whole, fit("broken")):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-12)


LOAD = """
import sys
import keras, numpy as np
import gmkeras
from gmcore import Dataset
from ase.io import read
model = keras.saving.load_model(sys.argv[1])
data = Dataset.from_atoms(read(sys.argv[2], ":"), units={"energy": "eV", "forces": "eV/A"})
assert int(model.optimizer.iterations.numpy()) == 8, model.optimizer.iterations
model.fit(data.batches(10, seed=1), epochs=4, initial_epoch=2, verbose=0)
np.savez(sys.argv[3], *model.get_weights())
"""


def test_a_saved_model_goes_on_training_in_another_process(data, tmp_path):
    write(tmp_path / "data.extxyz", [_labeled(data, k) for k in range(len(data))])
    model = small(data, dtype="float64")
    model.adapt(data)
    model.compile(GroupedAdam(16, clipnorm=5.0), loss={"forces": "mae"}, metrics={"energy": ["mse"]})
    model.fit(data.batches(10, seed=1), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    arguments = [str(tmp_path / name) for name in ("model.keras", "data.extxyz", "weights.npz")]
    subprocess.run([sys.executable, "-c", LOAD, *arguments], check=True)
    model.fit(data.batches(10, seed=1), epochs=4, initial_epoch=2, verbose=0)
    with np.load(tmp_path / "weights.npz") as file:
        for k, weight in enumerate(model.get_weights()):
            assert np.allclose(file[f"arr_{k}"], weight, rtol=1e-6, atol=1e-9)


def _labeled(data, k):
    atoms = data.atoms[k].copy()
    atoms.info["energy"], atoms.arrays["forces"] = float(data.labels["energy"][k]), data.labels["forces"][k]
    return atoms


def test_layers_in_a_functional_model(data):
    """Features of this package, everything else of the user."""
    inputs = symbolic_inputs()
    descriptor = GaussianMomentsLayer(data.species, 3.0, n_basis=4, n_radial=2)
    features, _ = descriptor(inputs)
    atoms = keras.layers.Dense(1)(NTKDense(8, "scaled_swish")(keras.layers.LayerNormalization()(features)))
    model = keras.Model(inputs, {"energy": StructureSum()(atoms, inputs)[:, 0]})
    model.compile("adam", loss={"energy": "mse"})
    prepared = PreparedData(data.atoms, descriptor.settings, {"energy": np.array(data.labels["energy"]) + 14.0})
    losses = model.fit(prepared.dataset(10), epochs=3, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_frozen_layers_and_summary(data, capsys):
    model = small(data)
    model.adapt(data)
    model.moments_layer.trainable = False
    model.scale_shift["energy"].trainable = False
    before = model.moments_layer.beta.numpy()
    model.compile("adam")
    model.fit(data, epochs=1, verbose=0)
    assert np.array_equal(model.moments_layer.beta.numpy(), before)
    model.summary()
    printed = capsys.readouterr().out
    assert "descriptor" in printed and "Trainable params" in printed


def test_what_cannot_be_honoured_is_refused(data, tmp_path):
    model = small(data)
    with pytest.raises(ValueError, match="the model must be compiled before"):
        model.fit(data)
    refused = {
        "weighted_metrics is not possible": {"weighted_metrics": ["mae"]},
        "loss_weights has an unknown quantity 'torque'": {"loss_weights": {"torque": 1.0}},
        "loss asks for charges, but the heads of the model predict energy, forces, stress": {
            "loss": {"charges": "mse"}
        },
        "loss_weights must be a dict": {"loss_weights": [1.0, 2.0]},
        "the loss weight of energy must be a number, 0 or more": {"loss_weights": {"energy": -1.0}},
        "loss_weights must be above 0 for at least one": {"loss_weights": {"energy": 0.0}},
        "metrics asks for dipole": {"metrics": {"dipole": "mae"}},
    }
    for message, arguments in refused.items():
        with pytest.raises(ValueError, match=message):
            model.compile("adam", **arguments)
    model.compile("adam")
    for arguments in ({"class_weight": {0: 1.0}}, {"sample_weight": np.ones(40)}, {"validation_split": 0.1}, {"y": 1}):
        with pytest.raises(ValueError, match=f"fit cannot use {next(iter(arguments))}="):
            model.fit(data, **arguments)
    with pytest.raises(NotImplementedError, match="write a model file with to_file"):
        model.export(tmp_path / "graph")
    with pytest.raises(ValueError, match="the data have no labels forces"):
        model.fit(_energies(data))
    with pytest.raises(GMError, match="adapt needs labels for the head charges, got no charges or dipole"):
        small(data, heads=["charges"]).adapt(data)
    with pytest.raises(GMError, match="the batches have 4 structures, not 8"):
        model.fit(data.batches(4), batch_size=8)
    with pytest.raises(GMError, match="needs both data sets, train and validation"):
        model.to_file(tmp_path / "model.h5", train=data)


def _energies(data):
    frames = [_labeled(data, k) for k in range(4)]
    return Dataset.from_atoms(frames, ["energy"], units=UNITS)


def test_data_sets_from_structures(frames):
    with pytest.raises(GMError, match="needs a list of structures, got a single one"):
        Dataset.from_atoms(frames[0])
    with pytest.raises(GMError, match="at least one structure"):
        Dataset.from_atoms([])
    with pytest.raises(GMError, match="unknown label 'engery'"):
        Dataset.from_atoms(frames, ["engery"])
    with pytest.raises(GMError, match="the parts of the split need 50 structures, but the data have 40"):
        Dataset.from_atoms(frames).split(40, 10)
    parts = Dataset.from_atoms(frames, units=UNITS).split(20, 10, 10)
    seen = {frame.positions.tobytes() for part in parts for frame in part.atoms}
    assert len(seen) == 40
    assert frames[0].calc is not None or "energy" in frames[0].info  # left as they were
