"""Data files that are damaged or made to harm: one sentence each, without the memory that they claim."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest

from gmcore.data.datasets import read_dataset
from gmcore.data.reading import read_frames
from gmcore.errors import DataError
from gmcore.files import atomic_hdf5
from gmcore.inputs.seal import is_sealed, seal_file
from support.labeled_data import UNITS, reference

pytestmark = pytest.mark.slow

HUGE = 3 * 10**9
"""Numbers; as float64 they take 24 GB."""


@pytest.fixture
def own(tmp_path, rng):
    path = tmp_path / "set.h5"
    reference(rng).write(path)
    return path


def flat(path, **arrays):
    """A small flat file, HDF5 or npz by its suffix."""
    arrays = {"R": np.array([[[0.0, 0, 0], [0, 0, 1]]]), "Z": np.array([[8, 1]]), "E": np.array([1.0])} | arrays
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file[key] = value
    return path


def test_own_files_are_sealed_and_damage_is_found(own):
    assert is_sealed(own)
    content = own.read_bytes()
    own.write_bytes(content[:3000] + bytes(8) + content[3000:])
    with pytest.raises(DataError, match=r"set\.h5 cannot be read as an HDF5 data set: it is truncated or damaged"):
        read_dataset(own, ["energy"])


def claim(path, name, shape):
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file.create_dataset(name, shape, "f8", chunks=tuple(min(n, 100) for n in shape) if all(shape) else None)


def test_a_huge_label_that_nobody_asks_for_is_not_read(own, tmp_path):
    claim(own, "labels/junk", (3, HUGE))
    assert own.stat().st_size < 50_000
    assert len(read_dataset(own, ["energy"])) == 3
    path = flat(tmp_path / "flat.h5")
    claim(path, "junk", (1, HUGE))
    claim(path, "more", (HUGE,))
    assert len(read_dataset(path, ["energy"], units=UNITS)) == 1


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("labels/energy", (3, HUGE), "energy of set.h5 must have at most 9 numbers per row"),
        ("labels/energy", (HUGE,), "labels/energy of set.h5 must have 3 rows, got 3000000000"),
        ("offsets", (HUGE,), "cells of set.h5 must have 2999999999 rows, got 3"),
        ("numbers", (HUGE,), "positions of set.h5 must have 3000000000 rows, got 9"),
        ("positions", (9, HUGE), r"positions must have shape \(9, 3\), got"),
        ("cells", (3, 3, HUGE), r"cells must have shape \(3, 3, 3\), got"),
    ],
)
def test_own_layout_with_a_claim_that_cannot_be(own, name, shape, message):
    claim(own, name, shape)
    with pytest.raises(DataError, match=message):
        read_dataset(own, ["energy"], units=UNITS)


def test_own_layout_whose_claims_agree(own):
    for name, shape in {"offsets": (HUGE + 1,), "cells": (HUGE, 3, 3), "pbc": (HUGE, 3)}.items():
        claim(own, name, shape)
    with pytest.raises(
        DataError, match=r"set\.h5 cannot be .*: the content of it would take \d+\.\d GB of memory, the file itself"
    ):
        read_dataset(own, [])


def test_flat_files_that_claim_too_much(tmp_path):
    path = flat(tmp_path / "flat.h5")
    claim(path, "R", (10**9, 2, 3))
    with pytest.raises(DataError, match=r"Z of flat\.h5 must be integers of shape \(2,\) or \(1000000000, 2\), got"):
        read_dataset(path, [])
    with h5py.File(path, "r+") as file:
        del file["Z"]
        file["Z"] = [8, 1]
    with pytest.raises(DataError, match=r"R of it would take 48\.0 GB of memory, the file itself has"):
        read_dataset(path, [])
    claim(path, "R", (10**15, 0, 3))
    with pytest.raises(DataError, match=r"R of flat\.h5 must have shape \(n_structures, n_atoms, 3\)"):
        read_dataset(path, [])


def bomb(path, name, shape):
    """Add an array of zeros to an npz file, compressed, without ever having it in memory."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as stream:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(bytes(10**6))
    return path


def test_a_compressed_npz_is_asked_for_its_shapes_first(tmp_path):
    arrays = {"Z": np.array([8, 1]), "E": np.array([1.0])}
    path = tmp_path / "bomb.npz"
    np.savez(path, **arrays)
    bomb(path, "R", (10**9, 2, 3))
    with pytest.raises(DataError, match=r"R of .*bomb\.npz would take 48\.0 GB of memory, the file itself has"):
        read_dataset(path, [])
    path = bomb(flat(tmp_path / "more.npz"), "junk", (1, HUGE))
    assert len(read_dataset(path, ["energy"], units=UNITS)) == 1
    with pytest.raises(DataError, match=r"junk of more\.npz must have at most 18 numbers per row"):
        read_dataset(path, ["energy"], units=UNITS, keys={"energy": "junk"})


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"cell": np.zeros((3, 3), "f8,i4")}, "cell of .* must be (numbers|an array of numbers)"),
        ({"R": np.zeros((1, 2, 3), "f8,i4")}, "R of .* must be (numbers|an array of numbers)"),
        ({"Z": np.zeros((1, 2), "i4,i4")}, "Z of .* must be (numbers|an array of numbers)"),
        ({"E": np.zeros(1, "f8,i4")}, "E of .* must be (numbers|an array of numbers)"),
        ({"N": np.array([[2]])}, r"N of .* must be integers of shape \(1,\), got \(1, 1\)"),
        ({"pbc": np.zeros((1, 2))}, r"pbc of .* must have shape \(3,\) or \(1, 3\), got \(1, 2\)"),
        ({"R": np.zeros(())}, "R of .* must have shape|must contain R and Z"),
    ],
)
def test_flat_arrays_of_a_wrong_kind(tmp_path, suffix, arrays, message):
    path = flat(tmp_path / f"flat{suffix}", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(path, ["energy"], units=UNITS)
    assert f"flat{suffix}" in str(caught.value)


def regroup(file, name):
    del file[name]
    file.create_group(name)


STRANGE = {
    **{f"{name} a group": (lambda f, name=name: regroup(f, name)) for name in ("offsets", "numbers", "positions")},
    **{f"{name} a group": (lambda f, name=name: regroup(f, name)) for name in ("cells", "pbc", "labels/energy")},
    "charge a group": lambda f: regroup(f, "total_charge"),
    "labels an array": lambda f: (f.__delitem__("labels"), f.__setitem__("labels", [1.0])),
    "energy a text": lambda f: (f.__delitem__("labels/energy"), f.__setitem__("labels/energy", "none")),
    "energy texts": lambda f: (f.__delitem__("labels/energy"), f.__setitem__("labels/energy", ["a", "b", "c"])),
    "numbers real": lambda f: (f.__delitem__("numbers"), f.__setitem__("numbers", np.ones(9))),
    "numbers in a table": lambda f: (f.__delitem__("numbers"), f.__setitem__("numbers", np.ones((9, 2), int))),
    "offsets in a table": lambda f: (f.__delitem__("offsets"), f.__setitem__("offsets", np.zeros((4, 1), int))),
    "pbc a scalar": lambda f: (f.__delitem__("pbc"), f.__setitem__("pbc", True)),
    "version a text": lambda f: f.attrs.__setitem__("version", "one"),
    "version a list": lambda f: f.attrs.__setitem__("version", [1, 1]),
    "loop": lambda f: f.__setitem__("labels/loop", h5py.SoftLink("/labels/loop")),
    "other file": lambda f: f.__setitem__("labels/loop", h5py.ExternalLink("/etc/passwd", "/x")),
}


@pytest.mark.parametrize("seal", [False, True], ids=["foreign", "sealed"])
@pytest.mark.parametrize("case", STRANGE)
def test_own_layout_with_strange_objects(own, case, seal):
    with h5py.File(own, "r+") as file:
        STRANGE[case](file)
    if seal:
        seal_file(own)
    with pytest.raises(DataError, match=r"set\.h5") as caught:
        read_dataset(own, ["energy"], units=UNITS)
    assert "\n" not in str(caught.value)


def test_labels_are_read_when_they_are_asked_for(own, monkeypatch):
    frames = list(read_frames(own))
    own.unlink()
    assert "energy" in frames[0].fields and "nothing" not in frames[0].fields
    with pytest.raises(DataError, match=r"set\.h5 cannot be read"):
        frames[0].fields["energy"]


def test_a_file_without_arrays(tmp_path):
    with atomic_hdf5(tmp_path / "empty.h5"):
        pass
    with pytest.raises(DataError, match=r"empty\.h5 must contain R and Z, or coords and nuclear_charges"):
        list(read_frames(tmp_path / "empty.h5"))
