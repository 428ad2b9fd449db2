"""Readers: every format gives the same numbers, every broken file is one sentence that names it."""

from __future__ import annotations

import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import Trajectory, write

from gmcore.data.datasets import Dataset, read_dataset
from gmcore.data.readers import hdf5
from gmcore.data.reading import count_frames, read_frames
from gmcore.errors import DataError
from gmcore.quantities import PER_ATOM
from gmcore.units import conversion
from support.labeled_data import LABELS, UNITS, reference, xyz


def assert_equal(dataset: Dataset, expected: Dataset, atol: float = 1e-12) -> None:
    assert len(dataset) == len(expected) and set(dataset.labels) == set(expected.labels)
    for got, wanted in zip(dataset.atoms, expected.atoms):
        np.testing.assert_array_equal(got.numbers, wanted.numbers)
        np.testing.assert_array_equal(got.pbc, wanted.pbc)
        np.testing.assert_allclose(got.positions, wanted.positions, atol=atol)
        np.testing.assert_allclose(got.cell.array, wanted.cell.array, atol=atol)
        assert got.calc is None
    for label, values in expected.labels.items():
        for got, wanted in zip(dataset.labels[label], values):
            assert got.shape == wanted.shape and got.dtype == np.float64
            np.testing.assert_allclose(got, wanted, atol=atol, err_msg=label)
    np.testing.assert_array_equal(dataset.total_charge, expected.total_charge)


def dressed(dataset: Dataset, where: str) -> list[Atoms]:
    """Frames with their labels in a calculator, or in info and arrays, under plain names."""
    frames = []
    for k, atoms in enumerate(dataset.atoms):
        frame = atoms.copy()
        values = {label: dataset.labels[label][k] for label in dataset.labels}
        if where == "calculator":
            known = {name: values.pop(name) for name in ("energy", "forces", "charges", "dipole")}
            known["stress"] = values.pop("stress")[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            known["energy"] = float(known["energy"])
            frame.calc = SinglePointCalculator(frame, **known)
        for label, value in values.items():
            if label in PER_ATOM:
                frame.arrays[f"ref_{label}"] = value
            else:
                frame.info[f"ref_{label}"] = value
        frames.append(frame)
    return frames


KEYS = {label: f"ref_{label}" for label in LABELS}
CALCULATED = ("energy", "forces", "charges", "dipole", "stress")


# a trajectory keeps no per-atom array that ASE does not know, so there is no fourth case
@pytest.mark.parametrize("where, suffix", [("calculator", "extxyz"), ("info", "extxyz"), ("calculator", "traj")])
def test_ase_files_give_labels_from_wherever_ase_keeps_them(tmp_path, rng, where, suffix):
    expected = reference(rng)
    path = tmp_path / f"frames.{suffix}"
    frames = dressed(expected, where)
    if suffix == "extxyz":
        write(path, frames, format="extxyz")
    else:
        with Trajectory(path, "w") as trajectory:
            for frame in frames:
                trajectory.write(frame)
    keys = {label: key for label, key in KEYS.items() if where == "info" or label not in CALCULATED}
    assert_equal(read_dataset(path, LABELS, units=UNITS, keys=keys), expected, atol=1e-7)


def test_ase_database(tmp_path, rng):
    expected = reference(rng)
    path = tmp_path / "frames.db"
    with connect(path) as database:
        for k, frame in enumerate(dressed(expected, "calculator")):
            tensors = {label: expected.labels[label][k] for label in ("d_tensor", "tensor")}
            database.write(frame, data=tensors, key_value_pairs={"charge_of_all": -2.0})
    dataset = read_dataset(path, LABELS, units=UNITS, total_charge="charge_of_all")
    assert_equal(dataset, expected)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_padded_arrays_of_the_original_code(tmp_path, rng, suffix):
    """Three atoms at most, so that a 3x3 tensor looks like padded forces; garbage in the padding must not matter."""
    expected = reference(rng, sizes=(3, 1, 2))
    n_structures, n_max = 3, 3
    arrays = {"R": np.full((n_structures, n_max, 3), 7.0), "Z": np.zeros((n_structures, n_max), int)}
    arrays |= {"F": np.full((n_structures, n_max, 3), np.nan), "charges": np.full((n_structures, n_max), np.nan)}
    arrays["N"] = np.array([len(atoms) for atoms in expected.atoms])
    for k, atoms in enumerate(expected.atoms):
        n = len(atoms)
        arrays["R"][k, :n], arrays["Z"][k, :n] = atoms.positions, atoms.numbers
        arrays["F"][k, :n] = expected.labels["forces"][k]
        arrays["charges"][k, :n] = expected.labels["charges"][k]
    arrays["E"], arrays["D"] = np.array(expected.labels["energy"]), np.array(expected.labels["d_tensor"])
    for label in ("stress", "tensor", "dipole"):
        arrays[label] = np.array(expected.labels[label])
    arrays["cell"] = expected.atoms[0].cell.array
    arrays["Q"] = np.full(n_structures, -2.0)
    path = tmp_path / f"data.{suffix}"
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, array in arrays.items():
                file[key] = array
    assert_equal(read_dataset(path, LABELS, units=UNITS, total_charge="Q"), expected)
    del arrays["N"]  # the zeros in Z say it as well
    np.savez(tmp_path / "no_counts.npz", **arrays)
    assert_equal(read_dataset(tmp_path / "no_counts.npz", LABELS, units=UNITS, total_charge=-2), expected)


def test_rmd17_keys(tmp_path, rng):
    coords, forces, energies = rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2, 3)), rng.normal(size=5)
    numbers = np.array([8, 1], dtype=np.uint8)
    np.savez(tmp_path / "r.npz", nuclear_charges=numbers, coords=coords, energies=energies, forces=forces)
    units = {"length": "A", "energy": "kcal/mol", "forces": "kcal/mol/A"}
    dataset = read_dataset(tmp_path / "r.npz", ["energy", "forces"], units=units)
    factor = conversion("energy", "kcal/mol")[0]
    np.testing.assert_allclose(np.array(dataset.labels["energy"]), energies * factor)
    np.testing.assert_allclose(np.array(dataset.labels["forces"]), forces * factor)
    assert not any(atoms.pbc.any() for atoms in dataset.atoms)
    assert dataset.species == (1, 8)


def test_own_hdf5_round_trip(tmp_path, rng):
    expected = reference(rng)
    expected.write(tmp_path / "set.h5")
    assert_equal(read_dataset(tmp_path / "set.h5", LABELS), expected, atol=0.0)
    again = read_dataset(tmp_path / "set.h5", ["energy"], units={"energy": "eV", "length": "Å"})
    assert list(again.labels) == ["energy"]
    with pytest.raises(DataError, match=r"the unit of energy is eV in the file of structure 0 of set.h5, not Hartree"):
        read_dataset(tmp_path / "set.h5", ["energy"], units={"energy": "Hartree"})


def test_own_hdf5_is_read_in_windows(tmp_path, rng, monkeypatch):
    expected, path = reference(rng), tmp_path / "set.h5"
    expected.write(path)
    monkeypatch.setattr(hdf5, "WINDOW", 4)  # shorter than some structures, longer than others
    assert_equal(read_dataset(path, LABELS), expected, atol=0.0)
    n = len(expected.atoms)
    assert count_frames(path) == n
    for start in range(n + 1):
        rest = list(read_frames(path, start=start, stop=n))
        assert [frame.origin for frame in rest] == [f"structure {k} of set.h5" for k in range(start, n)]
        for frame, atoms in zip(rest, expected.atoms[start:]):
            np.testing.assert_array_equal(frame.positions, atoms.positions)
            np.testing.assert_array_equal(frame.cell, atoms.cell.array)
            assert (frame.numbers == atoms.numbers).all() and (frame.pbc == atoms.pbc).all()


def test_own_hdf5_that_becomes_shorter_while_it_is_read(tmp_path, rng, monkeypatch):
    expected, path = reference(rng), tmp_path / "set.h5"
    expected.write(path)
    monkeypatch.setattr(hdf5, "WINDOW", 1)
    frames = read_frames(path)
    next(frames)
    expected.subset([0]).write(path)
    with pytest.raises(DataError, match=r"set.h5 has changed while it was read: read the file again"):
        list(frames)


def test_units_are_converted(tmp_path, rng):
    expected = reference(rng)
    stated = {"length": "Bohr", "energy": "Hartree", "forces": "kcal/mol/A", "stress": "kbar", "charges": "a.u."}
    stated |= {"dipole": "Debye", "d_tensor": "MHz", "tensor": "a.u."}
    factors = {quantity: conversion(quantity, unit)[0] for quantity, unit in stated.items()}
    frames = []
    for atoms in expected.atoms:
        atoms = atoms.copy()
        atoms.set_cell(atoms.cell.array / factors["length"], scale_atoms=True)
        frames.append(atoms)
    labels = {label: [v / factors[label] for v in values] for label, values in expected.labels.items()}
    foreign = Dataset(frames, labels, {}, expected.total_charge)
    write(tmp_path / "foreign.extxyz", dressed(foreign, "info"), format="extxyz")
    dataset = read_dataset(tmp_path / "foreign.extxyz", LABELS, units=stated, keys=KEYS)
    assert_equal(dataset, expected, atol=1e-6)
    assert dataset.units == {label: UNITS[label] for label in LABELS}


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(DataError, match=r"data file .*no.xyz does not exist"):
        list(read_frames(tmp_path / "no.xyz"))
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(DataError, match=r"empty.xyz (contains no structures|cannot be read as extended XYZ)"):
        list(read_frames(tmp_path / "empty.xyz"))


def test_truncated_xyz(tmp_path):
    path = xyz(tmp_path, "energy=1.0", n=3)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"frames.xyz cannot be read as extended XYZ"):
        read_dataset(path, ["energy"], units=UNITS)


@pytest.mark.parametrize(
    "text, message",
    [
        ("999999999999\n\nH 0 0 0\n", "line 1 promises 999999999999 atoms, 8 bytes follow"),
        (f"{'9' * 99}\n\nH 0 0 0\n", "line 1 promises 9+ atoms, 8 bytes follow"),
        ("-1\n\nH 0 0 0\n", "line 1 promises -1 atoms"),
        ("1\n\nH 0 0 0\n1000000000\n\nH 0 0 0\n", "line 4 promises 1000000000 atoms, 8 bytes follow"),
        (
            "1\nProperties=species:S:1:pos:R:99999999999\nH 0 0 0\n",
            "line 2 declares 100000000000 columns, the row below has 4",
        ),
        ('0\nproperties = "species:S:1:pos:R:99999999999"\n', "line 2 declares 100000000000 columns"),
    ],
)
def test_xyz_that_promises_more_than_it_holds_is_refused_unread(tmp_path, text, message):
    """In a process of its own, since the reader of ASE would look for every row."""
    (tmp_path / "a.xyz").write_text(text)
    code = (
        "import resource, sys\nfrom gmcore.data.reading import read_frames\nfrom gmcore.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "try:\n    list(read_frames(sys.argv[1]))\nexcept DataError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.xyz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert re.search(f"a.xyz cannot be read as extended XYZ: {message}", done.stdout), done.stderr


def test_xyz_with_vectors_below_its_atoms_is_read_as_before(tmp_path):
    frame = "1\nmy_properties=a:b:9\nH 0 0 0\nVEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n"
    (tmp_path / "a.xyz").write_text(2 * frame)
    frames = list(read_frames(tmp_path / "a.xyz"))
    assert [frame.atoms().cell.lengths().tolist() for frame in frames] == [[5.0, 5.0, 5.0]] * 2


@pytest.mark.parametrize(
    "name, what",
    [
        ("a.npz", "npz"),
        ("a.h5", "an HDF5 data set"),
        ("a.traj", "an ASE trajectory"),
        ("a.db", "an ASE database"),
        ("a.json", "an ASE database"),
        ("a.xyz", "extended XYZ"),
    ],
)
def test_foreign_files(tmp_path, name, what):
    (tmp_path / name).write_bytes(b"\x00\x01 not what the suffix says\n" * 40)
    with pytest.raises(DataError, match=f"{name} cannot be read as {what}") as caught:
        list(read_frames(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_truncated_npz_and_hdf5(tmp_path, rng):
    expected = reference(rng)
    expected.write(tmp_path / "set.h5")
    np.savez(tmp_path / "set.npz", R=np.zeros((50, 40, 3)), Z=np.ones((50, 40), int))
    for name in ("set.h5", "set.npz"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=f"{name} cannot be read as"):
            list(read_frames(tmp_path / name))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"X": np.zeros(3)}, "must contain R and Z, or coords and nuclear_charges; its keys are: X"),
        ({"R": np.zeros((2, 3)), "Z": np.ones(3, int)}, r"R of a.npz must have shape \(n_structures, n_atoms, 3\)"),
        ({"R": np.zeros((2, 3, 3)), "Z": np.ones(4, int)}, r"Z of a.npz must be integers of shape \(3,\) or \(2, 3\)"),
        ({"R": np.zeros((2, 3, 3)), "Z": np.ones(3)}, "Z of a.npz must be integers"),
        ({"R": np.zeros((1, 2, 3)), "Z": np.array([[1, 0]]), "N": np.array([2])}, "N of a.npz gives 2 atoms for str"),
        ({"R": np.zeros((1, 2, 3)), "Z": np.ones((1, 2), int), "N": np.array([3])}, "N of a.npz gives 3 atoms"),
        ({"R": np.zeros((1, 2, 3)), "Z": np.ones(2, int), "N": np.ones(2)}, "N of a.npz must be integers of shape"),
        (
            {"R": np.zeros((1, 2, 3)), "Z": np.ones(2, int), "cell": np.ones(3)},
            r"cell of a.npz must have shape \(3, 3\)",
        ),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        list(read_frames(tmp_path / "a.npz"))


METHANE = {"R": np.arange(15.0).reshape(1, 5, 3), "Z": np.array([[6, 1, 1, 1, 1]])}


@pytest.mark.parametrize("suffix", ["npz", "h5"])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"N": np.array([-1])}, r"N of a\.\w+ gives -1 atoms for structure 0, but its atomic numbers give 5"),
        ({"N": np.array([-1], np.int8), "Z": METHANE["Z"][0]}, r"N of a\.\w+ gives -1 atoms"),
        ({"N": np.array([4])}, r"N of a\.\w+ gives 4 atoms for structure 0, but its atomic numbers give 5"),
        ({"N": np.array([2**64 - 1], np.uint64)}, r"N of a\.\w+ gives 18446744073709551615 atoms"),
        ({"N": np.array([2**32 + 5])}, r"N of a\.\w+ gives 4294967301 atoms"),
        ({"Z": METHANE["Z"] + 2**32}, r"Z of a\.\w+ must contain atomic numbers from 1 to 118.*, got 4294967302"),
        ({"Z": METHANE["Z"] * -1}, r"Z of a\.\w+ must contain atomic numbers from 1 to 118.*, got -6"),
        (
            {"Z": np.array([6, 1, 1, 1, 119], np.uint8)},
            r"Z of a\.\w+ must contain atomic numbers from 1 to 118.*, got 119",
        ),
        (
            {"Z": METHANE["Z"].astype(np.uint64) + 2**63},
            r"Z of a\.\w+ must contain atomic numbers .*, got 92233720368547758",
        ),
        ({"R": METHANE["R"] * 1j}, r"R of .* must be .*numbers, got data of type complex128"),
        (
            {"cell": np.zeros((3, 3), [("x", float)])},
            r"cell of .* must be .*numbers, got data of type \[\('x', '<f8'\)\]",
        ),
    ],
)
def test_no_atom_is_lost_and_none_changes_its_element(tmp_path, suffix, change, message):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, **(METHANE | change))
    else:
        with h5py.File(path, "w") as file:
            for key, array in (METHANE | change).items():
                file[key] = array
    with pytest.raises(DataError, match=message):
        list(read_frames(path))


def test_numbers_that_all_structures_share_leave_the_padding_to_the_counts(tmp_path):
    np.savez(tmp_path / "a.npz", R=np.zeros((2, 5, 3)), Z=METHANE["Z"][0], N=np.array([5, 4], np.uint8))
    assert [len(frame.numbers) for frame in read_frames(tmp_path / "a.npz")] == [5, 4]


def test_atoms_of_other_formats_are_elements_too(tmp_path):
    (tmp_path / "a.xyz").write_text("2\nProperties=species:S:1:pos:R:3\nC 0 0 0\nX 0 0 1\n")
    with pytest.raises(DataError, match=r"atomic numbers of frame 0 of a.xyz .* 1 and 118, got 0 for atom 1"):
        list(read_frames(tmp_path / "a.xyz"))


def replaced(file, name, values):
    del file[name]
    file[name] = values
    file[name].attrs["unit"] = "A"


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda f: f.attrs.modify("version", 99),
            "has version 99 of the layout, but this program reads versions up to 1: ",
        ),
        (lambda f: f.__delitem__("numbers"), "cannot be read as an HDF5 data set"),
        (lambda f: f["offsets"].__setitem__(0, 1), "offsets of set.h5 must increase from 0 to the number of atoms, 9"),
        (
            lambda f: f["cells"].attrs.modify("unit", "Bohr"),
            "must have the same unit, got Bohr and A",
        ),
        (lambda f: f["labels/energy"].attrs.modify("per", "atom"), "labels/energy of set.h5 must have 9 rows, got 3"),
        (lambda f: f["positions"].attrs.__delitem__("unit"), "cannot be read as an HDF5 data set"),
        (lambda f: replaced(f, "offsets", np.zeros(0, np.int64)), "set.h5 cannot be read as an HDF5 data set"),
        (lambda f: replaced(f, "positions", np.zeros((9, 2))), "set.h5 cannot be read as an HDF5 data set"),
        (
            lambda f: replaced(f, "numbers", f["numbers"][()] + np.int64(2**32)),
            "numbers of structure 0 of set.h5 must lie between",
        ),
        (
            lambda f: replaced(f, "numbers", f["numbers"][()] + 0.5),
            "set.h5 .*: numbers must be a list of integers, got float64",
        ),
        (lambda f: replaced(f, "offsets", np.array([0, 7, 2, 9], np.uint8)), "offsets of set.h5 must increase from 0"),
        (lambda f: (f.__delitem__("pbc"), f.create_group("pbc")), "set.h5 cannot be read as an HDF5 data set"),
    ],
)
def test_damaged_hdf5(tmp_path, rng, damage, message):
    path = tmp_path / "set.h5"
    reference(rng).write(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DataError, match=message):
        list(read_frames(path))


# --- what is done with a data set
