"""Training on: what is taken over from a model file, what is frozen, appended and refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from gmcore.config.loading import parse_config
from gmcore.data.datasets import Dataset
from gmcore.errors import GMError
from gmcore.model import Model, load_model
from gmcore.model_file import read_model
from gmkeras import training
from gmkeras.checkpoint import CheckpointError
from gmkeras.data import PreparedData
from gmkeras.model import GMModel
from gmkeras.optimizer import GroupedAdam
from gmkeras.start import read_start
from gmkeras.training import train
from support.keras_models import make_head, random_labels
from support.models import random_model
from support.systems import water_molecule
from support.tolerances import relative_error

pytestmark = pytest.mark.slow

UNITS = {"energy": "eV", "d_tensor": "cm^-1", "tensor": "A^3"}
HEADS = (make_head("energy", 2), make_head("d_tensor", 2, basis="moments"))
STILL = "learning_rates: {network: 0, radial: 0, scale: 0, shift: 0}"


def rattled(frames):
    rng = np.random.default_rng(1)
    for frame in frames:
        frame.rattle(0.05, rng=rng)
    return frames


FRAMES = rattled([water_molecule() for _ in range(8)])


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Figures take longer than these trainings."""
    monkeypatch.setattr(training, "write_evaluation", lambda *_: None)
    monkeypatch.setattr(training, "loss_curves", lambda *_: None)


@pytest.fixture
def old(tmp_path):
    """A committee of two for energies and D of hydrogen and oxygen."""
    return random_model(tmp_path / "old.h5", HEADS, species=(1, 8), hidden=(6,), n_members=2, n_radial=2)


def config(folder, training="", properties="{d_tensor: {}}", extra="", frames=FRAMES, labels=None):
    """Eight rattled molecules of water with random labels, or the given ones."""
    labels = random_labels(frames) | (labels or {})
    chosen = {label: labels[label] for label in UNITS}
    Dataset(list(frames), chosen, UNITS, np.zeros(len(frames))).write(folder / "data.h5")
    return parse_config(
        f"""
output: run
data:
  files: [data.h5]
  units: {{length: A}}
  split: {{validation: 2}}
properties: {properties}
training: {{start_from: old.h5, epochs: 1, batch_size: 3, {training}}}
{extra}
""",
        folder,
    )


def started_from(name, settings):
    paths = [settings.output.parent / name]
    return settings.model_copy(update={"training": settings.training.model_copy(update={"start_from": paths})})


def first_member(path) -> Model:
    settings, members = read_model(path)
    return Model(settings, members[:1])


def test_training_on_begins_with_the_predictions_of_the_file(tmp_path, old):
    """With rates of zero nothing moves: three members from two, decorrelated features, one head dropped."""
    result = train(config(tmp_path, STILL))
    (path,) = result.models
    before, after = read_model(old)[1], read_model(path)[1]
    assert len(after) == 3
    for k, member in enumerate(after):
        assert relative_error(member.beta, before[k % 2].beta) < 1e-12
        assert relative_error(member.weights[0], before[k % 2].weights[0]) < 1e-9
        assert relative_error(member.scale["d_tensor"], before[k % 2].scale["d_tensor"]) < 1e-12
    assert list(load_model(path).units) == ["d_tensor"]
    notes = " ".join(result.notes)
    assert "3 members from 2: some start from the same one" in notes and "the heads of energy are dropped" in notes
    provenance = load_model(path).settings.provenance
    assert provenance["start_from"]["files"] == ["../old.h5"] and provenance["config"]["network"]["hidden"] == [6]


def test_frozen_groups_stay_and_the_others_move(tmp_path, old):
    result = train(config(tmp_path, "members: 1, freeze: [radial, hidden_0, scale]"))
    (after,) = read_model(result.models[0])[1]
    before = read_model(old)[1][0]
    assert relative_error(after.beta, before.beta) == 0.0
    assert relative_error(after.weights[0], before.weights[0]) < 1e-9
    assert relative_error(after.scale["d_tensor"], before.scale["d_tensor"]) < 1e-12
    assert relative_error(after.weights[1], before.weights[1][:, 1:]) > 1e-5
    assert not np.array_equal(after.shift["d_tensor"], before.shift["d_tensor"])
    assert np.ptp(after.draws, axis=0).any()  # its errors are known


def test_a_new_species_changes_nothing_for_the_old_ones(tmp_path, old):
    """The energy of an atom of the new element comes from its structures, of the old ones from the file."""
    before = first_member(old).predict(FRAMES, ["energy"])["energy"]
    with_carbon = rattled([water_molecule() for _ in range(8)])
    for frame in with_carbon:
        frame.numbers[-1] = 6
    energies = [*before, *(before - 1000.0)]
    frames = [*FRAMES, *with_carbon]
    settings = config(tmp_path, STILL, "{energy: {forces_weight: 0}}", frames=frames, labels={"energy": energies})
    with pytest.raises(
        GMError, match=r"data contain C, but .*old.h5 knows only H, O: set training.new_species to true"
    ):
        train(settings)
    update = {"training": settings.training.model_copy(update={"new_species": True, "members": 1})}
    model = load_model(train(settings.model_copy(update=update)).models[0])
    assert model.settings.descriptor.species == (1, 6, 8)
    after = model.predict(frames, ["energy"])["energy"]
    assert relative_error(after[:8], before) < 1e-12
    assert abs(np.mean(after[8:] - energies[8:])) < 5.0


def test_energies_with_another_zero(tmp_path, old):
    """Those of another method differ by thousands of eV, which no learning rate would bridge."""
    before = first_member(old).predict(FRAMES, ["energy"])["energy"]
    training = f"{STILL}, members: 1"
    settings = config(tmp_path, training, "{energy: {forces_weight: 0}}", labels={"energy": list(before - 2e4)})
    after = load_model(train(settings).models[0]).predict(FRAMES, ["energy"])["energy"]
    assert np.abs(after - (before - 2e4)).max() < 1.0


def test_a_new_head(tmp_path, old):
    """The layers below it are those of the file."""
    result = train(config(tmp_path, f"{STILL}, members: 1", "{tensor: {}, d_tensor: {}}"))
    (after,), before = read_model(result.models[0])[1], read_model(old)[1][0]
    assert relative_error(after.scale["d_tensor"], before.scale["d_tensor"]) < 1e-12
    assert np.ptp(after.scale["tensor"][:, -1]) == 0.0 and after.scale["tensor"].all()
    assert any("the heads of tensor are new" in note for note in result.notes)


def test_a_checkpoint_knows_the_content_of_the_file(tmp_path, old):
    settings = config(tmp_path, "members: 1")
    train(settings)
    shutil.copy(old, tmp_path / "copy.h5")
    train(started_from("copy.h5", settings))
    random_model(tmp_path / "other.h5", HEADS, species=(1, 8), hidden=(6,), n_radial=2, seed=1)
    with pytest.raises(CheckpointError, match="belongs to a training with other settings or data"):
        train(started_from("other.h5", settings))


@pytest.mark.parametrize(
    "training, properties, extra, message",
    [
        ("", "{d_tensor: {}}", "descriptor: {r_max: 5}", r"descriptor.r_max is 5.0, but 4.2 in .*old.h5, which the"),
        (
            "",
            "{d_tensor: {}}",
            "network: {hidden: [7]}",
            r"network.hidden is \[7\], but \[6\] in .*: leave the key out",
        ),
        ("", "{d_tensor: {basis: positions}}", "", "properties.d_tensor.basis is 'positions', but 'moments' in"),
        ("dtype: float32", "{d_tensor: {}}", "", "training.dtype is 'float32', but 'float64' in"),
        ("freeze: [hidden_1]", "{d_tensor: {}}", "", "the model has no 'hidden_1'; did you mean 'hidden_0'"),
        ("freeze: [radial, network, scale, shift]", "{d_tensor: {}}", "", "training.freeze leaves nothing to train"),
    ],
)
def test_what_contradicts_the_file_is_refused(tmp_path, old, training, properties, extra, message):
    with pytest.raises(GMError, match=message):
        train(config(tmp_path, training, properties, extra))
    assert not (tmp_path / "run" / "member_0" / "checkpoint.npz").exists()


def test_other_units_and_other_committees_are_refused(tmp_path, old):
    susceptibility = replace(make_head("tensor", 2, basis="moments"), unit="1")
    random_model(tmp_path / "other.h5", [susceptibility], species=(1, 8), n_radial=2)
    with pytest.raises(GMError, match=r"labels of tensor are in A\^3, but those of .*other.h5 were in 1: use labels"):
        train(started_from("other.h5", config(tmp_path, "", "{tensor: {}}")))
    with pytest.raises(
        GMError, match=r"must be alike, but heads is .* in .*old.h5 and .*: name files of one committee"
    ):
        read_start([old, tmp_path / "other.h5"])


def test_a_keras_user_freezes_layers(tmp_path, old):
    """`layer.trainable = False` as with any model; the file's member predicts what it did."""
    model = GMModel.from_file(old, member=1)
    second = read_model(old)[1][1]
    assert relative_error(model.member().scale["d_tensor"], second.scale["d_tensor"]) < 1e-15
    data = PreparedData(FRAMES, model.descriptor, {"d_tensor": random_labels(FRAMES)["d_tensor"]})
    model.moments_layer.trainable = False
    model.dense_layers[0].trainable = False
    before = [weight.numpy() for weight in model.weights]
    model.compile(
        optimizer=GroupedAdam(100, {group: 0.01 for group in ("network", "radial", "scale", "shift")}),
        loss_weights={"d_tensor": 1.0},
    )
    model.fit(data.dataset(4), epochs=1, shuffle=False, verbose=0)
    moved = {w.path for w, old_w in zip(model.weights, before) if not np.array_equal(w.numpy(), old_w)}
    assert moved == {"output/kernel", "output/bias", "d_tensor/scale", "d_tensor/shift"}
    with pytest.raises(GMError, match="has the members 0 to 1, got 2"):
        GMModel.from_file(old, member=2)
