"""Model files that are damaged, incomplete or no model: each is refused in one sentence."""

import json

import h5py
import numpy as np
import pytest

from gmcore.model import load_model
from gmcore.model_file import ModelFileError, read_model
from support.models import make_head, random_model, reseal


@pytest.fixture
def path(tmp_path):
    heads = ("energy", make_head("charges", 3), make_head("d_tensor", 3, basis="moments"))
    return random_model(tmp_path / "model.h5", heads, n_members=2)


def test_an_unknown_option_is_refused(path):
    with h5py.File(path, "r+") as file:
        content = json.loads(file["metadata"].asstr()[()])
        content["heads"][2]["options"]["color"] = "red"
        file["metadata"][()] = json.dumps(content)
    reseal(path)
    words = r"model.h5 does not hold a usable model: the options of head d_tensor must be among .*basis.*, got 'color'"
    with pytest.raises(ModelFileError, match=words):
        read_model(path)


def test_a_changed_byte_is_found(path):
    with h5py.File(path, "r+") as file:
        file["members/1/scale/energy"][0, 0] += 1e-12
    with pytest.raises(ModelFileError, match=r"is damaged: its content does not match its checksum"):
        read_model(path)


@pytest.mark.parametrize(
    "name", ["members/1/weights/1", "members/0/beta", "members/0/shift/energy", "golden/positions"]
)
def test_a_file_that_no_longer_reproduces_itself_is_refused(path, name):
    with h5py.File(path, "r+") as file:
        file[name][...] = file[name][()] * 1.01
    reseal(path)
    read_model(path)
    with pytest.raises(ModelFileError, match=r"no longer reproduces its golden output: \w+ must agree within"):
        load_model(path)


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"model file .*none.h5 does not exist"):
        load_model(tmp_path / "none.h5")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"\x80\x04\x95 a pickle"])
def test_foreign_file(tmp_path, content):
    (tmp_path / "model.h5").write_bytes(content)
    with pytest.raises(
        ModelFileError, match=r"is not a gmtensor model: it is not an HDF5 file, or its beginning is missing"
    ):
        load_model(tmp_path / "model.h5")


def test_foreign_hdf5(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layers"] = np.zeros(3)
    with pytest.raises(ModelFileError, match=r"is an HDF5 file, but not a gmtensor model"):
        load_model(tmp_path / "weights.h5")


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ModelFileError, match=r"truncated or damaged|beginning is missing"):
        load_model(path)


def test_overwritten_middle(path, rng):
    """Damage anywhere gives one sentence or, in unused space, none; never a crash or a wrong model."""
    content, refused = path.read_bytes(), 0
    expected = read_model(path)[1][1].beta
    for start in rng.integers(0, len(content) - 64, 40):
        path.write_bytes(content[:start] + rng.bytes(64) + content[start + 64 :])
        try:
            assert np.array_equal(read_model(path)[1][1].beta, expected)
        except ModelFileError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_newer_schema(path):
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 3
    with pytest.raises(
        ModelFileError, match=r"has schema 3, but this version of gmtensor .* reads up to 2: update gmtensor"
    ):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("members/0/beta", r"is incomplete: member 0 has no 'beta'"),
        ("members/1/weights/2", r"does not hold a usable model: member 1 must have exactly the arrays .* weights/2"),
        ("members", r"does not hold a usable model: a model must have at least one member, got none"),
        ("golden/positions", r"is incomplete: its golden input or output has no 'positions'"),
        ("golden/outputs/forces", r"is incomplete: its golden input or output has no 'outputs/forces'"),
    ],
)
def test_incomplete_file(path, name, message):
    with h5py.File(path, "r+") as file:
        del file[name]
    reseal(path)
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def _metadata(change):
    """A change of the JSON text of a model file."""

    def damage(file):
        content = json.loads(file["metadata"].asstr()[()])
        file["metadata"][()] = change(content) or json.dumps(content)

    return damage


def _replaced(name, value):
    def damage(file):
        del file[name]
        file[name] = value

    return damage


ODD = {
    "a list": _metadata(lambda _: "[1, 2]"),
    "a number": _metadata(lambda _: "7"),
    "no JSON": _metadata(lambda _: "{"),
    "deep brackets": _metadata(lambda _: "[" * 100000),
    "digits": _metadata(lambda _: "9" * 5000),
    "no heads": _metadata(lambda c: c.pop("heads") and None),
    "heads a text": _metadata(lambda c: c.update(heads="energy")),
    "head a number": _metadata(lambda c: c["heads"].append(3)),
    "head without kind": _metadata(lambda c: c["heads"][0].pop("kind") and None),
    "options a list": _metadata(lambda c: c["heads"][0].update(options=[])),
    "name a list": _metadata(lambda c: c["heads"][0].update(name=[])),
    "width a text": _metadata(lambda c: c["heads"][0].update(width="1")),
    "species texts": _metadata(lambda c: c["descriptor"].update(species=["C", "H"])),
    "species too large": _metadata(lambda c: c["descriptor"].update(species=[1, 6, 7, 119])),
    "species none": _metadata(lambda c: c["descriptor"].update(species=None)),
    "infinite radius": _metadata(lambda c: c["descriptor"].update(r_max=float("inf"))),
    "radius a text": _metadata(lambda c: c["descriptor"].update(r_max="4.2")),
    "huge basis": _metadata(lambda c: c["descriptor"].update(n_basis=10**30)),
    "huge radial": _metadata(lambda c: c["descriptor"].update(n_radial=10**9)),
    "dtype": _metadata(lambda c: c.update(dtype="float16")),
    "provenance": _metadata(lambda c: c.update(provenance=[1])),
    "metadata a group": lambda file: (file.__delitem__("metadata"), file.create_group("metadata")),
    "metadata numbers": _replaced("metadata", np.arange(3)),
    "metadata texts": _replaced("metadata", ["a", "b"]),
    "beta texts": _replaced("members/0/beta", ["a", "b"]),
    "beta structured": _replaced("members/0/beta", np.zeros(2, "f8,i4")),
    "positions flat": _replaced("golden/positions", np.zeros(3)),
    "numbers real": _replaced("golden/numbers", np.array([6.5, 1.0])),
    "numbers unknown": _replaced("golden/numbers", np.array([92] * 8)),
    "cell": _replaced("golden/cell", np.zeros(9)),
    "pbc": _replaced("golden/pbc", np.zeros((3, 3), int)),
    "charge": _replaced("golden/total_charge", np.array([np.nan])),
    "schema a text": lambda file: file.attrs.__setitem__("schema", "one"),
    "schema a list": lambda file: file.attrs.__setitem__("schema", [1, 2]),
    "format a list": lambda file: file.attrs.__setitem__("format", ["gmtensor-model"] * 2),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_content_with_a_right_checksum_is_one_sentence(path, case):
    with h5py.File(path, "r+") as file:
        ODD[case](file)
    reseal(path)
    with pytest.raises(ModelFileError, match=r"model\.h5") as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_bytes_inserted_in_mid_file(path):
    """They made libhdf5 search for ever."""
    content = path.read_bytes()
    path.write_bytes(content[:3000] + bytes(8) + content[3000:])
    with pytest.raises(ModelFileError, match=r"is truncated or damaged: its bytes do not have the checksum"):
        load_model(path)


@pytest.mark.parametrize("n", [3 * 10**9 // 2, 250 * 10**9])
def test_a_model_that_claims_more_memory_than_it_can_need(path, n):
    with h5py.File(path, "r+") as file:
        del file["members/0/beta"]
        file.create_dataset("members/0/beta", (n,), "f8", chunks=(1000,))
    with pytest.raises(ModelFileError, match=r"the content of .*model\.h5 would take \d+\.\d [GT]B of memory"):
        load_model(path)
