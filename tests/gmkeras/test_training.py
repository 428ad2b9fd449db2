"""Training: from a configuration to files, restarts that lose nothing, callbacks, batches, refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
import types

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import keras
import tensorflow as tf

from gmcore.config.loading import parse_config
from gmcore.data.datasets import Dataset
from gmcore.engine.settings import DescriptorSettings
from gmcore.errors import GMError
from gmcore.files import LOCK, LockError, WriteError, lock_folder
from gmcore.model import load_model
from gmcore.model_file import read_model
from gmcore.running.interruption import EndedEarly, Interruption
from gmkeras import callbacks, training
from gmkeras.checkpoint import CheckpointError, TrainingState
from gmkeras.data import PreparedData, epoch_order
from gmkeras.model import GMModel
from gmkeras.training import train, train_member
from support.keras_models import random_labels
from support.systems import molecule, single_atom, triclinic, water_molecule

pytestmark = pytest.mark.slow

UNITS = {
    "energy": "eV",
    "forces": "eV/A",
    "stress": "eV/A^3",
    "charges": "e",
    "dipole": "e*A",
    "d_tensor": "cm^-1",
    "tensor": "A^3",
}
ALL = """
  energy: {stress_weight: 1.0}
  charges: {}
  d_tensor: {basis: moments}
  tensor: {}
"""


def config(folder, properties: str, training: str = "", name: str = "run", epochs: int = 4, members: int = 1):
    """A small training on eight crystals of water and other things with random labels."""
    file = folder / "data.h5"
    if not file.is_file():
        rng = np.random.default_rng(1)
        frames = [triclinic(), water_molecule()] * 6
        for frame in frames:
            frame.rattle(0.05, rng=rng)
        Dataset(frames, random_labels(frames), UNITS, np.ones(12)).write(file)
    return parse_config(
        f"""
output: {name}
seed: 7
data:
  files: [data.h5]
  units: {{length: A}}
  total_charge: total_charge
  split: {{train: 7, validation: 2, test: 2, seed: 1}}
descriptor: {{r_max: 3.0, n_basis: 4, n_radial: 2}}
network: {{hidden: [6]}}
properties: {properties}
training: {{epochs: {epochs}, members: {members}, batch_size: 3, {training}}}
""",
        folder,
    )


def arrays(path):
    """All parameters of all members of a model file."""
    return [
        np.asarray(values)
        for member in read_model(path)[1]
        for values in (
            member.beta,
            member.feature_mean,
            member.feature_std,
            *member.weights,
            *member.biases,
            *member.scale.values(),
            *member.shift.values(),
        )
    ]


def same(a, b) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


def test_everything_in_one_model(tmp_path):
    settings = config(tmp_path, ALL, members=2)
    result = train(settings)
    (path,) = result.models
    run = tmp_path / "run"
    assert path == run / "model.h5" and result.folder == run
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"energy", "forces", "stress", "charges", "dipole", "d_tensor", "tensor"} <= metrics["test"].keys()
    assert metrics["train"] == result.metrics["train"]
    assert [found["about"] for found in metrics["advice"]] == ["epochs", "data"]
    assert result.advice == tuple(found["words"] for found in metrics["advice"])
    for name in ("config.yaml", "splits.json", "loss_curves.png", "parity_forces.png", "member_1/checkpoint.npz"):
        assert (run / name).is_file(), name
    assert any((run / "member_0" / "events").iterdir())

    model = load_model(path)
    first, second = read_model(path)[1]
    assert model.n_members == 2 and not np.array_equal(first.beta, second.beta)
    provenance = model.settings.provenance
    assert provenance["config"]["output"] == "." and str(tmp_path) not in json.dumps(provenance)
    assert provenance["config"]["seed"] == 7 and [m["seed"] for m in provenance["members"]] == [7, 8]
    assert provenance["total_charges"] == [1.0] and "multiplicities" not in provenance

    with open(run / "member_1" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    best = min(rows, key=lambda row: float(row["val_error"]))
    assert provenance["members"][1]["best_epoch"] == int(best["epoch"])


def test_the_best_epoch_is_the_one_that_is_kept(tmp_path, no_figures):
    """The validation errors in the history are those of the model that was written."""
    settings = config(tmp_path, "{d_tensor: {}}", "dtype: float64")
    result = train(settings)
    provenance = load_model(result.models[0]).settings.provenance
    kept = provenance["members"][0]["validation"]["val_d_tensor_mae"]
    assert result.metrics["validation"]["d_tensor"]["mae"] == pytest.approx(kept, rel=1e-9)


def test_the_mean_of_the_last_weights_is_kept_where_it_validates_better(tmp_path, no_figures, monkeypatch):
    """The recorded errors are those of the model that was written; a finished training stays what it is."""
    monkeypatch.setattr(callbacks, "AVERAGED", 0.5)
    error = callbacks.BestWeights.error

    def lowest_for_the_mean(self, logs, prefix="val_"):
        return error(self, logs, prefix) if prefix else 0.0

    monkeypatch.setattr(callbacks.BestWeights, "error", lowest_for_the_mean)
    settings = config(tmp_path, "{d_tensor: {}}", "dtype: float64")
    result = train(settings)
    model = load_model(result.models[0])
    (member,) = model.settings.provenance["members"][:1]
    assert member["averaged"] and member["validation"]["val_error"] == 0.0
    kept = member["validation"]["val_d_tensor_mae"]
    assert result.metrics["validation"]["d_tensor"]["mae"] == pytest.approx(kept, rel=1e-9)
    with open(tmp_path / "run" / "member_0" / "history.csv", newline="") as file:
        epochs = [float(row["val_d_tensor_mae"]) for row in csv.DictReader(file)]
    assert kept not in [pytest.approx(error, rel=1e-9) for error in epochs]
    before = arrays(result.models[0])
    assert same(before, arrays(train(settings).models[0]))


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take longer than these trainings."""
    monkeypatch.setattr(training, "write_evaluation", lambda *_: None)
    monkeypatch.setattr(training, "loss_curves", lambda *_: None)


def test_a_restart_loses_nothing(tmp_path, monkeypatch, no_figures):
    """Stopped in the middle of an epoch and continued: bit for bit the weights of the training that ran through."""
    whole = train(config(tmp_path, ALL, name="whole"))

    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    original = callbacks.ProgressBar.on_train_batch_end

    def interrupt(self, batch, logs=None):
        original(self, batch, logs)
        if self._state.epoch == 2 and batch == 1:
            raise KeyboardInterrupt

    parts = config(tmp_path, ALL, name="parts")
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.ProgressBar, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    assert not (tmp_path / "parts" / "model.h5").exists()
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    with Interruption(0.0) as interruption, pytest.raises(EndedEarly, match="ended by the time limit"):
        train(parts, interruption=interruption)  # one epoch more
    assert len((tmp_path / "parts" / "member_0" / "history.csv").read_text().splitlines()) == 1 + 3
    continued = train(parts)
    assert same(arrays(whole.models[0]), arrays(continued.models[0]))
    histories = [(tmp_path / name / "member_0" / "history.csv").read_text() for name in ("whole", "parts")]
    assert histories[0] == histories[1]

    again = train(parts)  # nothing is left to do
    assert same(arrays(whole.models[0]), arrays(again.models[0]))


def test_members_that_are_trained_apart_are_the_committee(tmp_path, no_figures):
    whole = train(config(tmp_path, "{d_tensor: {}}", name="whole", epochs=1, members=2))
    apart = config(tmp_path, "{d_tensor: {}}", name="apart", epochs=1, members=2)
    assert train_member(apart, 1) == [tmp_path / "apart" / "member_1" / "checkpoint.npz"]
    train_member(apart, 0)
    assert not (tmp_path / "apart" / "model.h5").exists()
    written = [(tmp_path / "apart" / f"member_{k}" / "history.csv").stat().st_mtime_ns for k in (0, 1)]
    assert same(arrays(whole.models[0]), arrays(train(apart).models[0]))
    assert written == [(tmp_path / "apart" / f"member_{k}" / "history.csv").stat().st_mtime_ns for k in (0, 1)]
    with lock_folder(tmp_path / "apart" / "member_1"), pytest.raises(LockError):
        train_member(apart, 1)
    with pytest.raises(GMError, match="the member must be one of 0 to 1, got 2"):
        train_member(apart, 2)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, no_figures):
    properties = "{d_tensor: {}}"
    train(config(tmp_path, properties, "dtype: float32", epochs=1))
    with pytest.raises(CheckpointError, match="belongs to a training with other settings or data: choose another"):
        train(config(tmp_path, properties, "dtype: float64", epochs=1))
    train(config(tmp_path, properties, "dtype: float64", epochs=1), resume=False)
    checkpoint = tmp_path / "run" / "member_0" / "checkpoint.npz"
    content, stored = checkpoint.read_bytes(), dict(np.load(checkpoint))
    checkpoint.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match="is damaged: remove it to train from the beginning"):
        train(config(tmp_path, properties, "dtype: float64", epochs=1))
    for odd in ({"progress": np.array("[1]")}, {"weights_0": np.zeros(2)}, {"weights_0": np.array("text")}):
        np.savez(checkpoint, **stored | odd)
        with pytest.raises(CheckpointError, match="is damaged: remove it to train from the beginning"):
            train(config(tmp_path, properties, "dtype: float64", epochs=1))


def test_a_finished_model_is_left_alone(tmp_path, monkeypatch, no_figures):
    """Also after an upgrade of the program; a damaged model, or one of other parameters, is written anew."""
    settings = config(tmp_path, "{d_tensor: {}}", epochs=1)
    (path,) = train(settings).models
    before = path.read_bytes()
    monkeypatch.setattr(training, "__version__", "9.9")
    train(settings)
    assert path.read_bytes() == before
    path.write_bytes(before[:-1000])
    train(settings)
    again = read_model(path)[0].provenance["versions"]["gmtensor"]
    assert again == "9.9" and path.read_bytes() != before
    train(config(tmp_path, "{d_tensor: {}}", epochs=1, members=2))
    assert len(read_model(path)[1]) == 2


def test_one_process_at_a_time(tmp_path, no_figures):
    pytest.importorskip("fcntl")
    settings = config(tmp_path, "{d_tensor: {}}", epochs=1)
    with lock_folder(tmp_path / "run"):
        with pytest.raises(LockError, match=r"another process \(\d+\) is writing to the folder .*run: wait"):
            train(settings)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    train(settings)
    assert not (tmp_path / "run" / LOCK).exists()


def test_separate_models(tmp_path, no_figures):
    settings = config(tmp_path, "{energy: {}, d_tensor: {}}", "separate_models: true", epochs=1)
    result = train(settings)
    assert [path.parent.name for path in result.models] == ["energy", "d_tensor"]
    assert list(load_model(result.models[0]).units) == ["energy", "forces", "stress"]
    assert list(load_model(result.models[1]).units) == ["d_tensor"]
    assert {"energy", "forces", "d_tensor"} <= result.metrics["test"].keys()


def test_the_paper_preset(tmp_path, no_figures):
    settings = config(tmp_path, "{d_tensor: {}}", "preset: paper", epochs=1)
    result = train(settings)
    (member,) = read_model(result.models[0])[1]
    assert not member.feature_mean.any() and (member.feature_std == 1.0).all()


def test_a_loss_that_is_no_number_stops_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(GMModel, "train_step", lambda self, data: {"loss": tf.constant(np.nan)})
    with pytest.raises(callbacks.DivergenceError, match="the loss must stay finite, got nan in epoch 1: lower the"):
        train(config(tmp_path, "{d_tensor: {}}"))


# Callbacks of the configuration

STOP = (
    "{class: keras.callbacks.EarlyStopping, "
    "arguments: {monitor: val_d_tensor_mae, mode: min, min_delta: 1.0e+9, patience: 1}}"
)


@pytest.fixture
def counted(monkeypatch):
    """A module with a callback of the user's, and the epochs that it has seen."""
    module = types.ModuleType("callbacks_of_the_user")

    class Counting(keras.callbacks.Callback):
        def __init__(self, label, only=None):
            super().__init__()
            self.label = label, only

        def on_epoch_end(self, epoch, logs=None):
            seen.append((*self.label, epoch, sorted(logs)))

    module.Counting = Counting
    seen = []
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_a_callback_that_ends_a_member_ends_it_for_good(tmp_path, monkeypatch, no_figures):
    """Each member stops by itself, and a repeated command trains neither of them on."""
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    settings = config(tmp_path, "{d_tensor: {}}", f"callbacks: [{STOP}]", epochs=5, members=2)
    (path,) = train(settings).models
    before = arrays(path)
    for member in range(2):
        rows = (tmp_path / "run" / f"member_{member}" / "history.csv").read_text().splitlines()
        assert len(rows) == 1 + 2
    with monkeypatch.context() as patch:
        patch.setattr(GMModel, "fit", lambda *_, **__: pytest.fail("a finished member is trained on"))
        train(settings)
    assert same(arrays(path), before)
    with pytest.raises(CheckpointError, match="belongs to a training with other settings"):
        train(config(tmp_path, "{d_tensor: {}}", epochs=5, members=2))


def test_callbacks_of_the_user(tmp_path, counted, no_figures):
    named = (
        "callbacks: [keras.callbacks.TerminateOnNaN, {class: callbacks_of_the_user.Counting, arguments: {label: a}}]"
    )
    train(config(tmp_path, "{d_tensor: {}}", named, epochs=2))
    names = ["d_tensor_mae", "loss", "val_d_tensor_mae", "val_loss"]
    assert counted == [("a", None, 0, names), ("a", None, 1, names)]


def test_a_training_without_callbacks_has_the_fingerprint_that_it_had(tmp_path):
    """Trainings that were interrupted before the key was there can be continued."""
    settings = config(tmp_path, "{d_tensor: {}}")
    plain = training._fingerprint(settings, {}, 0, None)
    content = settings.model_dump(
        mode="json",
        exclude={
            "output": True,
            "training": {"members", "threads", "start_from", "freeze", "new_species", "callbacks"},
            "data": {"added_files", "added_only"},
        },
    )
    assert plain == hashlib.sha256(json.dumps([training.LAYOUT, content, 0], sort_keys=True).encode()).hexdigest()
    others = [
        config(tmp_path, "{d_tensor: {}}", f"callbacks: {given}") for given in ("[a.B]", "[a.B, a.C]", f"[{STOP}]")
    ]
    assert len({plain, *(training._fingerprint(other, {}, 0, None) for other in others)}) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("keras.callback.EarlyStopping", "the module of keras.callback.EarlyStopping cannot be imported, Module"),
        ("keras.callbacks.EarlyStoping", "must be a subclass of keras.callbacks.Callback, got nothing of that name"),
        ("pathlib.Path", "pathlib.Path must be a subclass of keras.callbacks.Callback, got <class 'pathlib.Path'>"),
        ("keras.callbacks.BackupAndRestore", "because the same command continues an interrupted .*: leave it out"),
        ("{class: keras.callbacks.ReduceLROnPlateau}", "because training.learning_rates and the linear decay decide"),
        ("{class: callbacks_of_the_user.Counting, arguments: {lable: a}}",
         r"Counting cannot be made with the arguments \{'lable': 'a'\}, TypeError: .*unexpected keyword argument"),
    ],
)  # fmt: skip
def test_what_is_no_callback_is_said_in_one_sentence(tmp_path, counted, given, message):
    with pytest.raises(GMError, match=message) as caught:
        train(config(tmp_path, "{d_tensor: {}}", f"callbacks: {given}"))
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / "member_0" / "checkpoint.npz").exists()


# Batches


def test_batches_are_those_of_the_neighbor_list():
    """Any batch has the neighbor list that is built for it at once."""
    settings = DescriptorSettings((1, 6, 7, 8), 4.2)
    frames = [triclinic(), molecule(), single_atom(), water_molecule(), triclinic()]
    data = PreparedData(frames, settings)
    inputs, _ = data.batch([4, 2, 1])
    at_once, _ = PreparedData([frames[k] for k in (4, 2, 1)], settings).batch([0, 1, 2])
    assert inputs.keys() == at_once.keys()
    for name, values in at_once.items():
        assert inputs[name].dtype == values.dtype
        assert np.array_equal(inputs[name], values, equal_nan=name == "volume"), name


def test_epochs_are_shuffled_by_seed_and_epoch():
    settings = DescriptorSettings((1, 8), 3.0)
    frames = [Atoms("OHH", water_molecule().positions + k) for k in range(5)]
    data = PreparedData(frames, settings, {"energy": np.arange(5.0)})

    def order(first_epoch, n_batches, seed=1):
        dataset = data.dataset(2, seed=seed, first_epoch=first_epoch)
        return np.concatenate([labels["energy"].numpy() for _, labels in dataset.take(n_batches)])

    through = order(0, 9)
    assert [sorted(through[k : k + 5]) for k in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert np.array_equal(through[5:], order(1, 6))
    assert not np.array_equal(through, order(0, 9, seed=2))
    assert np.array_equal(through[:5], epoch_order(5, 1, 0))
    in_order = data.dataset(2)
    assert int(in_order.cardinality()) == 3
    assert np.concatenate([labels["energy"].numpy() for _, labels in in_order]).tolist() == [0, 1, 2, 3, 4]


def test_validation_that_diverges_is_said():
    best = callbacks.BestWeights(TrainingState(), {"energy": 1.0}, 10)
    with pytest.raises(callbacks.DivergenceError, match=r"validation errors must stay finite, got .*inf.*, epoch 3"):
        best.on_epoch_end(2, {"loss": 1.0, "val_energy_mae": float("inf")})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full, the always full device, on this system")
def test_logs_on_a_full_disk(tmp_path):
    state = TrainingState(history=[{"epoch": 1, "loss": 1.0}])
    logs = callbacks.Logs(tmp_path, state)
    (tmp_path / "history.csv").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"the logs in .* could not be written: no space left on the disk"):
        logs.on_epoch_end(0)


def test_logs_in_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WriteError, match=r"the logs in .*file could not be written: "):
        callbacks.Logs(tmp_path / "file", TrainingState())


def test_bad_data_are_refused():
    settings = DescriptorSettings((1, 8), 3.0)
    water = water_molecule()
    with pytest.raises(GMError, match="the data must hold at least one structure, got none"):
        PreparedData([], settings)
    with pytest.raises(GMError, match=r"label forces of structure 1 must have shape \(3, 3\), got \(2, 3\)"):
        PreparedData([water, water], settings, {"forces": [np.zeros((3, 3)), np.zeros((2, 3))]})
    with pytest.raises(GMError, match="label energy must be given for all 2 structures, got 1"):
        PreparedData([water, water], settings, {"energy": [0.0]})
    with pytest.raises(GMError, match=r"element C \(Z=6\) is not among the model's species H, O"):
        PreparedData([single_atom()], settings)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_bounds_of_the_training_section(tmp_path, rate):
    """One epoch of single structures with the smallest and with the largest learning rates."""
    rates = ", ".join(f"{group}: {rate}" for group in ("network", "radial", "scale", "shift"))
    settings = config(tmp_path, "{energy: {}}", f"learning_rates: {{{rates}}}", epochs=1)
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"batch_size": 1})})
    metrics = train(settings).metrics["train"]
    assert np.isfinite([errors["rmse"] for errors in metrics.values()]).all()
