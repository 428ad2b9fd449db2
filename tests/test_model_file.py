"""Model files: what goes in comes out, and everything that is wrong with a file is said in one sentence."""

import dataclasses
import json
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from ase import Atoms

from gmcore import model_file
from gmcore.engine.consistency import check_model, member_arrays
from gmcore.engine.evaluator import Evaluator
from gmcore.engine.settings import HeadSettings
from gmcore.errors import GMError
from gmcore.model import load_model
from gmcore.model_file import (
    ModelFileError,
    golden_cluster,
    model_identity,
    read_content,
    read_model,
    verify_golden,
    write_model,
)
from support.models import make_head, random_model, random_parts, reseal
from support.places import TESTS, environment
from support.systems import mixed_batch, triclinic, water_molecule
from support.tolerances import relative_error

HEADS = (
    "energy",
    make_head("charges", 3, conserve=True, total_charge=-2.0),
    make_head("d_tensor", 3, basis="moments"),
)


SCHEMA_1 = TESTS / "files" / "model_schema1.h5"
"""Written before heads had typed options, with what it then predicted beside it."""


@pytest.fixture
def path(tmp_path):
    return random_model(tmp_path / "model.h5", HEADS, n_members=2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(tmp_path, dtype):
    settings, members = random_parts(HEADS, n_members=2, dtype=dtype)
    settings.provenance["metrics"] = {"mae": np.float64(0.25), "epochs": np.arange(3)}
    write_model(tmp_path / "model.h5", settings, members)
    read_settings, read_members = read_model(tmp_path / "model.h5")
    assert read_settings.descriptor == settings.descriptor
    assert read_settings.heads == settings.heads
    assert read_settings.dtype == dtype
    assert read_settings.provenance == {
        "origin": "random weights",
        "metrics": {"mae": 0.25, "epochs": [0, 1, 2]},
    }
    for old, new in zip(members, read_members, strict=True):
        old, new = member_arrays(old), member_arrays(new)
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[name], new[name]) and old[name].dtype == new[name].dtype for name in old)


@pytest.mark.parametrize(
    ("name", "frames"),
    [("water", lambda: [water_molecule()]), ("triclinic", lambda: [triclinic()]), ("mixed", mixed_batch)],
)
def test_a_file_of_an_earlier_version_predicts_what_it_did(name, frames):
    expected = np.load(SCHEMA_1.with_name("model_schema1_expected.npz"))
    keys = {key.removeprefix(f"{name}/") for key in expected if key.startswith(f"{name}/")}
    found = load_model(SCHEMA_1).predict(frames())
    assert found.keys() == keys and {"forces", "charges_std", "dipole", "d_tensor", "alpha_std"} < keys
    for key, values in found.items():
        values = np.concatenate(values) if isinstance(values, list) else values
        stored = expected[f"{name}/{key}"]
        known = np.isfinite(stored)
        assert np.array_equal(known, np.isfinite(values)) and known.any() == (name != "water" or "stress" not in key)
        assert values.shape == stored.shape and relative_error(values[known], stored[known]) < 1e-10, key


def test_a_file_of_an_earlier_version_keeps_its_metadata(tmp_path):
    """What a file of schema 1 says is said in the same words today."""
    write_model(tmp_path / "model.h5", *read_model(SCHEMA_1))
    texts = []
    for path in (SCHEMA_1, tmp_path / "model.h5"):
        with h5py.File(path, "r") as file:
            texts.append(json.loads(file["metadata"].asstr()[()]))
    old, new = texts
    assert new.pop("calibrations") == {}
    assert old.pop("written_by").keys() == new.pop("written_by").keys()
    assert new == old
    assert set(old["heads"][1]) == {"name", "kind", "width", "unit", "options"}
    assert set(old["heads"][1]["options"]) == {"conserve", "origin", "total_charge"}


@pytest.mark.parametrize("head", HEADS[1:], ids=lambda head: head.kind)
def test_heads_survive_json(head):
    assert HeadSettings.from_dict(json.loads(json.dumps(head.to_dict()))) == head


def test_more_than_ten_members_and_layers_stay_in_order(tmp_path):
    settings, members = random_parts(hidden=(3,) * 11, n_members=11)
    write_model(tmp_path / "model.h5", settings, members)
    read = read_model(tmp_path / "model.h5")[1]
    assert [m.beta.sum() for m in read] == [m.beta.sum() for m in members]
    assert all(np.array_equal(a, b) for a, b in zip(read[3].weights, members[3].weights, strict=True))


def test_it_is_plain_hdf5_with_json(path):
    with h5py.File(path, "r") as file:
        assert file.attrs["format"] == "gmtensor-model" and file.attrs["schema"] == 2
        metadata = json.loads(file["metadata"][()].decode())
        assert metadata["units"]["forces"] == "eV/A" and metadata["units"]["d_tensor"] == "cm^-1"
        kinds = []
        file.visititems(lambda name, item: kinds.append(item.dtype.kind) if isinstance(item, h5py.Dataset) else None)
    assert set(kinds) <= set("fiO")  # floats, integers and the one text: nothing pickled


def test_golden_reveals_a_changed_program(path, monkeypatch):
    """The file is untouched; the formula of the charges is not what it was."""
    original = model_file.Evaluator.evaluate
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, *a, **k: _double(original(self, *a, **k), "charges"))
    with pytest.raises(ModelFileError, match=r"golden output: charges must agree .*, but differs by 1"):
        load_model(path)


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 0.05), ("float32", 1e-3), ("float64", 1e-6)])
@pytest.mark.parametrize("where", ["program", "file"])
def test_golden_reveals_an_offset_of_the_energy(tmp_path, monkeypatch, dtype, offset, where):
    """eV an atom, beside energies of isolated atoms of tens of keV, which make it a rounding error of the total."""
    settings, members = random_parts(n_members=2, dtype=dtype)
    for member in members:
        member.shift["energy"] -= np.array([[14.0], [1030.0], [1480.0], [40000.0]])
    path = tmp_path / "model.h5"
    write_model(path, settings, members)
    assert max(verify_golden(read_content(path), load_model(path).evaluator).values()) < 1e-12
    assert load_model(path, "float64").evaluator.dtype == "float64"
    if where == "file":
        with h5py.File(path, "r+") as file:
            file["members/1/shift/energy"][...] += offset
        reseal(path)
    else:
        original = Evaluator.evaluate

        def shifted(self, batch, *rest, **options):
            outputs = original(self, batch, *rest, **options)
            return outputs | {"energy": outputs["energy"] + offset * batch.n_atoms}

        monkeypatch.setattr(Evaluator, "evaluate", shifted)
    with pytest.raises(ModelFileError, match=r"no longer reproduces its golden output: energy must agree within"):
        load_model(path)


def test_golden_accepts_the_rounding_of_large_atomic_energies(tmp_path):
    """The network contributes nearly nothing here; energies that are equal to the last digits are still accepted."""
    settings, members = random_parts(dtype="float64")
    members[0].scale["energy"] *= 1e-9
    members[0].shift["energy"] -= 3e5
    path = tmp_path / "model.h5"
    write_model(path, settings, members)
    with h5py.File(path, "r+") as file:
        file["golden/outputs/energy"][...] *= 1.0 + 4.0 * np.finfo(float).eps
    reseal(path)
    load_model(path)


def _double(outputs, key):
    return outputs | {key: 2.0 * outputs[key]}


def test_golden_holds_in_the_other_precision(tmp_path):
    for dtype, other in (("float32", "float64"), ("float64", "float32")):
        path = random_model(tmp_path / f"{dtype}.h5", HEADS, dtype=dtype)
        assert load_model(path, other).evaluator.dtype == other


def test_loading_reads_and_hashes_the_file_once(path, monkeypatch):
    calls, opened, hashed = [], h5py.File, model_file.checksum
    monkeypatch.setattr(model_file.h5py, "File", lambda *a, **k: calls.append("open") or opened(*a, **k))
    monkeypatch.setattr(model_file, "checksum", lambda *a: calls.append("checksum") or hashed(*a))
    load_model(path)
    assert calls == ["open", "checksum"]


def test_golden_structure_of_the_caller(tmp_path):
    """A periodic one: its stress is stored and checked too."""
    settings, members = random_parts()
    crystal = Atoms("CO", [[0, 0, 0], [1.2, 0.9, 1.0]], cell=[3.1, 2.9, 3.3], pbc=True)
    write_model(tmp_path / "model.h5", settings, members, crystal)
    with h5py.File(tmp_path / "model.h5", "r") as file:
        assert file["golden/outputs/stress"].shape == (1, 1, 3, 3)
        assert file["golden/numbers"][()].tolist() == [6, 8]
    load_model(tmp_path / "model.h5")


def test_golden_cluster_holds_every_pair_of_species():
    settings, _ = random_parts(species=(1, 6, 7, 8, 27, 30, 92))
    atoms = golden_cluster(settings.descriptor)
    assert sorted(atoms.numbers) == sorted(2 * [1, 6, 7, 8, 27, 30, 92])
    assert atoms.get_all_distances().max() < settings.descriptor.r_max
    assert atoms.get_all_distances()[np.triu_indices(14, 1)].min() > 0.5


def test_kill_during_a_write_leaves_the_old_file(path, tmp_path):
    before = path.read_bytes()
    code = (
        "import os, signal, h5py\nfrom support.models import random_model\nwritten = []\n"
        "original = h5py.File.__setitem__\n"
        "def killed(self, name, value):\n    original(self, name, value)\n    written.append(name)\n"
        "    self.flush()\n    if len(written) == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "h5py.File.__setitem__ = killed\nrandom_model(os.environ['TARGET'], seed=5)\n"
    )
    env = environment(TARGET=str(path))
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert path.read_bytes() == before
    load_model(path)


def test_error_during_a_write_leaves_the_old_file_and_no_other(path, tmp_path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(model_file, "checksum", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        random_model(path, seed=5)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.h5"]


def test_metadata_must_be_json(tmp_path):
    settings, members = random_parts()
    settings.provenance["network"] = object()
    with pytest.raises(GMError, match=r"metadata of a model must be values that JSON can hold, got one of type object"):
        write_model(tmp_path / "model.h5", settings, members)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: setattr(m, "beta", m.beta[:1]),
            r"beta of member 0 must have shape \(4, 4, 3, 5\), got \(1, 4, 3, 5\)",
        ),
        (lambda m: m.weights.pop(), r"exactly the arrays that its settings ask for, they differ in weights/2"),
        (lambda m: m.scale.clear(), r"they differ in scale/energy"),
        (lambda m: m.biases[0].fill(np.nan), r"biases/0 of member 0 must be finite, got NaN or infinity"),
        (lambda m: m.feature_std.fill(0.0), r"feature_std of member 0 must be positive, got 0.0"),
    ],
)
def test_parts_that_do_not_fit(tmp_path, change, message):
    settings, members = random_parts()
    change(members[0])
    with pytest.raises(GMError, match=message):
        write_model(tmp_path / "model.h5", settings, members)
    assert not list(tmp_path.iterdir())


def test_species_must_ascend():
    settings, members = random_parts()
    settings.descriptor = dataclasses.replace(settings.descriptor, species=(6, 1, 7, 8))
    with pytest.raises(GMError, match=r"species of a model must be ascending atomic numbers, got \[6, 1, 7, 8\]"):
        check_model(settings, members)


def test_identity_is_that_of_the_predictions(path):
    settings, members = read_model(path)
    identity = model_identity(settings, members)
    assert model_identity(dataclasses.replace(settings, provenance={"date": "another"}), members) == identity
    write_model(path, dataclasses.replace(settings, provenance={}), members)
    assert model_identity(*read_model(path)) == identity
    weights = [members[0].weights[0] + 1e-12, *members[0].weights[1:]]
    others = [
        (dataclasses.replace(settings, dtype="float32"), members),
        (
            dataclasses.replace(
                settings, descriptor=dataclasses.replace(settings.descriptor, r_max=settings.descriptor.r_max + 0.1)
            ),
            members,
        ),
        (settings, [*members, members[0]]),
        (settings, [dataclasses.replace(members[0], weights=weights), *members[1:]]),
    ]
    assert len({model_identity(*other) for other in others} - {identity}) == len(others)
