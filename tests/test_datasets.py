"""Data sets: every format gives the same numbers, everything wrong is one sentence that names the place."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import Trajectory, write

from gmcore.anisotropy import invariants
from gmcore.datasets import Dataset, read_dataset
from gmcore.labels import PER_ATOM
from gmcore.readers import DataError, read_frames
from gmcore.units import UnitError, conversion

UNITS = {
    "length": "A",
    "energy": "eV",
    "forces": "eV/A",
    "stress": "eV/A^3",
    "charges": "e",
    "dipole": "e*A",
    "d_tensor": "cm^-1",
    "tensor": "A^3",
}
LABELS = tuple(label for label in UNITS if label != "length")


def symmetric(rng: np.random.Generator) -> np.ndarray:
    tensor = rng.normal(size=(3, 3))
    return tensor + tensor.T


def reference(rng: np.random.Generator, sizes=(3, 2, 4)) -> Dataset:
    """A data set with every label; periodic, so that it has a stress."""
    atoms, labels = [], {label: [] for label in LABELS}
    for n in sizes:
        atoms.append(Atoms(rng.integers(1, 9, n), rng.uniform(0, 5, (n, 3)), cell=np.eye(3) * 6 + 0.1, pbc=True))
        atoms[-1].info["total_charge"] = -2.0
        labels["energy"].append(np.array(rng.normal()))
        labels["forces"].append(rng.normal(size=(n, 3)))
        labels["charges"].append(rng.normal(size=n))
        labels["dipole"].append(rng.normal(size=3))
        for label in ("stress", "tensor", "d_tensor"):
            labels[label].append(symmetric(rng))
        labels["d_tensor"][-1] -= np.trace(labels["d_tensor"][-1]) / 3 * np.eye(3)
    units = {label: UNITS[label] for label in LABELS}
    return Dataset(atoms, labels, units, np.full(len(sizes), -2.0))


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


def xyz(tmp_path, comment: str, n: int = 1, cell: str = "") -> str:
    """An extended XYZ file of `n` equal frames."""
    path = tmp_path / "frames.xyz"
    frame = f"2\n{cell} Properties=species:S:1:pos:R:3:my_forces:R:3 {comment}\nO 0 0 0 1 0 0\nH 0 0 1 -1 0 0\n"
    path.write_text(frame * n)
    return path


D_TEXTS = [
    '"_JSON [[-2, 1, 0], [1, 1, 0.5], [0, 0.5, 1]]"',
    '"-2 1 0 1 1 0.5 0 0.5 1"',
    '"[[-2, 1, 0], [1, 1, 0.5], [0, 0.5, 1]]"',
    "[[-2,1,0],[1,1,0.5],[0,0.5,1]]",
]


@pytest.mark.parametrize("text", D_TEXTS)
def test_tensors_as_json_or_nine_numbers(tmp_path, text):
    dataset = read_dataset(xyz(tmp_path, f"D={text}"), ["d_tensor"], units=UNITS)
    np.testing.assert_allclose(dataset.labels["d_tensor"][0], [[-2, 1, 0], [1, 1, 0.5], [0, 0.5, 1]], atol=1e-14)
    assert dataset.notes == ()


def test_missing_labels_are_counted(tmp_path):
    path = xyz(tmp_path, 'D="1 0 0 0 -1 0 0 0 0"', n=3)
    message = (
        r"labels asked for are missing: forces: 0 of 3 frames; d_tensor: 3 of 3 frames; available keys: D, my_forces; "
        r"did you mean forces: my_forces \(data: keys"
    )
    with pytest.raises(DataError, match=message):
        read_dataset(path, ["forces", "d_tensor"], units=UNITS)


def test_labels_in_some_frames_are_counted(tmp_path):
    path = xyz(tmp_path, "energy=1.0")
    path.write_text(path.read_text() + path.read_text().replace("energy", "enrgy"))
    with pytest.raises(DataError, match="energy: 1 of 2 frames; available keys: energy, "):
        read_dataset(path, ["energy"], units=UNITS)
    with pytest.raises(DataError, match=r"total_charge: 0 of 2 frames.*did you mean total_charge: "):
        read_dataset(xyz(tmp_path, "total_chrg=1", n=2), [], units=UNITS, total_charge="total_charge")


def test_misspelt_key_of_the_configuration(tmp_path):
    path = xyz(tmp_path, "energy=1.0")
    with pytest.raises(DataError, match=r"forces: 0 of 1 frames.*did you mean forces: my_forces"):
        read_dataset(path, ["forces"], units=UNITS, keys={"forces": "my_force"})


def test_unit_not_stated(tmp_path):
    path = xyz(tmp_path, "energy=1.0")
    with pytest.raises(UnitError, match="the unit of energy is not stated"):
        read_dataset(path, ["energy"], units={"length": "A"})
    with pytest.raises(UnitError, match="the unit of length is not stated"):
        read_dataset(path, ["energy"], units={"energy": "eV"})


def test_trace_is_taken_out_and_reported(tmp_path):
    path = tmp_path / "two.xyz"
    text = "".join(
        xyz(tmp_path, f'D="{a} 1 0 1 {b} 0 0 0 {c}"').read_text() for a, b, c in [(10, 20, 60), (20, 20, 70)]
    )
    path.write_text(text)
    dataset = read_dataset(path, ["d_tensor"], units=UNITS)
    np.testing.assert_allclose(np.trace(dataset.labels["d_tensor"], axis1=1, axis2=2), 0.0, atol=1e-12)
    np.testing.assert_allclose(dataset.labels["d_tensor"][0], [[-20, 1, 0], [1, -10, 0], [0, 0, 30]], atol=1e-12)
    assert dataset.notes == ("d_tensor: trace taken out, mean 100, deviation 10 cm^-1",)


def test_small_asymmetry_is_averaged_and_large_refused(tmp_path):
    path = xyz(tmp_path, 'alpha="10 1.02 0 1 10 0 0 0 10"')
    dataset = read_dataset(path, ["tensor"], units=UNITS, keys={"tensor": "alpha"})
    assert dataset.labels["tensor"][0][0, 1] == dataset.labels["tensor"][0][1, 0] == pytest.approx(1.01)
    assert dataset.notes == ("tensor: averaged with its transpose, largest difference 0.02 A^3",)
    path = xyz(tmp_path, 'D="10 2 0 1 -10 0 0 0 0"')
    with pytest.raises(
        DataError, match=r"d_tensor of frame 0 of frames.xyz must be symmetric to 1 % .* differ by 1 cm"
    ):
        read_dataset(path, ["d_tensor"], units=UNITS)


@pytest.mark.parametrize("bad", ["NaN", "inf"])
def test_values_that_are_not_finite(tmp_path, rng, bad):
    good = reference(rng, sizes=(2, 2))
    for label in LABELS:
        arrays = {key: [np.array(v) for v in values] for key, values in good.labels.items()}
        arrays[label][1].flat[0] = float(bad)
        data = {key: np.array(values) for key, values in arrays.items()}
        data["R"], data["Z"] = (np.array([getattr(a, name) for a in good.atoms]) for name in ("positions", "numbers"))
        np.savez(tmp_path / "bad.npz", cell=np.eye(3) * 6, **data)
        with pytest.raises(DataError, match=f"{label} of structure 1 of bad.npz must be finite, got {bad.lower()}"):
            read_dataset(tmp_path / "bad.npz", LABELS, units=UNITS)


def test_positions_that_are_not_finite(tmp_path):
    path = xyz(tmp_path, "energy=1.0", n=2)
    path.write_text(path.read_text().replace("H 0 0 1", "H 0 0 nan", 1))
    with pytest.raises(DataError, match=r"frame 0 of frames.xyz: positions must be finite"):
        read_dataset(path, ["energy"], units=UNITS)


def test_coincident_atoms_are_refused_with_the_name_of_the_frame(tmp_path):
    path = tmp_path / "two.xyz"
    apart, together = "H 0 0 0\nH 0 0 1\n", "H 0 0 1\nH 0 0 1\n"
    path.write_text(f"2\nenergy=1.0\n{apart}2\nenergy=1.0\n{together}")
    with pytest.raises(DataError, match=r"frame 1 of two.xyz: atoms must lie at least 1e-06 A apart"):
        read_dataset(path, ["energy"], units=UNITS)


@pytest.mark.parametrize(
    "label, comment, message",
    [
        ("energy", 'energy="1 2 3"', "energy of frame 0 of frames.xyz must have one number, got shape"),
        ("energy", "energy=low", "energy of frame 0 of frames.xyz must be numbers, got 'low'"),
        ("d_tensor", 'd_tensor="1 2 3"', "d_tensor of frame 0 .* must have 3x3 or 9 numbers, got shape"),
        ("dipole", "dipole=1.0", "dipole of frame 0 .* must have 3 numbers, got shape"),
        ("charges", "charges=1.0", r"charges of frame 0 .* must have shape \(2,\), got shape \(\)"),
    ],
)
def test_wrong_shapes(tmp_path, label, comment, message):
    path = xyz(tmp_path, comment, cell='Lattice="9 0 0 0 9 0 0 0 9"')
    with pytest.raises(DataError, match=message):
        read_dataset(path, [label], units=UNITS)


def test_stress_only_where_there_is_a_volume(tmp_path):
    cell = 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T"'
    periodic = xyz(tmp_path, 'stress="1 2 3 2 4 5 3 5 6"', cell=cell).read_text()
    molecule = xyz(tmp_path, "", cell='pbc="F F F"').read_text()
    path = tmp_path / "mixed.xyz"
    path.write_text(periodic + molecule)
    dataset = read_dataset(path, ["stress"], units=UNITS)
    np.testing.assert_allclose(dataset.labels["stress"][0], [[1, 2, 3], [2, 4, 5], [3, 5, 6]])
    assert np.isnan(dataset.labels["stress"][1]).all()
    path.write_text(molecule)
    with pytest.raises(DataError, match="stress: 0 of 1 frames"):
        read_dataset(path, ["stress"], units=UNITS)


def test_periodicity_can_be_overridden(tmp_path):
    path = xyz(tmp_path, "energy=1", cell='Lattice="0 0 0 0 0 0 0 0 0"')
    with pytest.raises(DataError, match=r"frame 0 of frames.xyz: the cell vectors .* must be linearly independent"):
        read_dataset(path, ["energy"], units=UNITS)
    assert not read_dataset(path, ["energy"], units=UNITS, pbc=False).atoms[0].pbc.any()


def test_total_charge(tmp_path):
    path = xyz(tmp_path, "charge=-2 odd=nan word=x")
    assert read_dataset(path, [], units=UNITS, total_charge=1).total_charge.tolist() == [1.0]
    dataset = read_dataset(path, [], units=UNITS, total_charge="charge")
    assert dataset.total_charge.tolist() == [-2.0] and dataset.atoms[0].info == {"total_charge": -2.0}
    nothing = read_dataset(path, [], units=UNITS)
    assert nothing.total_charge.tolist() == [0.0] and nothing.atoms[0].info == {}
    with pytest.raises(DataError, match=r"the total charge of frame 0 of frames.xyz must be finite, got nan"):
        read_dataset(path, [], units=UNITS, total_charge="odd")
    with pytest.raises(DataError, match="must be one number, got 'x'"):
        read_dataset(path, [], units=UNITS, total_charge="word")


# --- files that are not what they should be


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(DataError, match=r"data file .*no.xyz does not exist"):
        list(read_frames(tmp_path / "no.xyz"))
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(DataError, match=r"empty.xyz (holds no structures|cannot be read as extended XYZ)"):
        list(read_frames(tmp_path / "empty.xyz"))


def test_truncated_xyz(tmp_path):
    path = xyz(tmp_path, "energy=1.0", n=3)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"frames.xyz cannot be read as extended XYZ"):
        read_dataset(path, ["energy"], units=UNITS)


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
        ({"X": np.zeros(3)}, "must hold R and Z, or coords and nuclear_charges; its keys are: X"),
        ({"R": np.zeros((2, 3)), "Z": np.ones(3, int)}, r"R of a.npz must have shape \(n_structures, n_atoms, 3\)"),
        ({"R": np.zeros((2, 3, 3)), "Z": np.ones(4, int)}, r"Z of a.npz must be integers of shape \(3,\) or \(2, 3\)"),
        ({"R": np.zeros((2, 3, 3)), "Z": np.ones(3)}, "Z of a.npz must be integers"),
        ({"R": np.zeros((1, 2, 3)), "Z": np.array([[1, 0]]), "N": np.array([2])}, "N of a.npz says 2 atoms for str"),
        ({"R": np.zeros((1, 2, 3)), "Z": np.ones((1, 2), int), "N": np.array([3])}, "N of a.npz says 3 atoms"),
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


def replaced(file, name, values):
    del file[name]
    file[name] = values
    file[name].attrs["unit"] = "A"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: f.attrs.modify("version", 99), "has version 99 of the layout; this program reads versions up to 1"),
        (lambda f: f.__delitem__("numbers"), "cannot be read as an HDF5 data set"),
        (lambda f: f["offsets"].__setitem__(0, 1), "offsets of set.h5 must rise from 0 to the number of atoms 9"),
        (lambda f: f["cells"].attrs.modify("unit", "Bohr"), "cells and positions of set.h5 must have one unit"),
        (lambda f: f["labels/energy"].attrs.modify("per", "atom"), "labels/energy of set.h5 must have 9 rows, got 3"),
        (lambda f: f["positions"].attrs.__delitem__("unit"), "cannot be read as an HDF5 data set"),
        (lambda f: replaced(f, "offsets", np.zeros(0, np.int64)), "set.h5 cannot be read as an HDF5 data set"),
        (lambda f: replaced(f, "positions", np.zeros((9, 2))), "set.h5 cannot be read as an HDF5 data set"),
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


def test_subset_and_summary(rng):
    dataset = reference(rng, sizes=(3, 2, 4, 2))
    subset = dataset.subset([2, 0])
    assert [len(atoms) for atoms in subset.atoms] == [4, 3] and len(subset.total_charge) == 2
    np.testing.assert_array_equal(subset.labels["forces"][0], dataset.labels["forces"][2])
    lines = dataset.summary()
    assert lines[0].startswith("4 structures, 11 atoms, 4 periodic: ")
    assert any(line.startswith("d_tensor: mean ") and line.endswith(" cm^-1") for line in lines)


def test_shared_cobalt_tensors(shared_data):
    """Without detracing D would have the wrong sign and E/D an impossible value; the trace is that of the source."""
    path = shared_data / "co_pdms_D" / "train.extxyz"
    dataset = read_dataset(path, ["d_tensor"], units=UNITS, keys={"d_tensor": "D_raw"})
    assert len(dataset) == 1200 and dataset.species == (1, 6, 7, 8, 16, 27)
    assert "mean 79.48, deviation 6.59 cm^-1" in dataset.notes[0]
    assert dataset.summary()[2].startswith("D: mean -99.332, deviation 8.24 cm^-1; E: mean 1.05")
    same = read_dataset(path, ["d_tensor"], units=UNITS, keys={"d_tensor": "D_tensor"})
    np.testing.assert_allclose(dataset.labels["d_tensor"], same.labels["d_tensor"], atol=1e-9)
    d = invariants(np.array(dataset.labels["d_tensor"])).d
    assert d.mean() == pytest.approx(-99.3, abs=0.1) and d.std() == pytest.approx(8.2, abs=0.1)


def test_shared_crystals_and_potentials(shared_data):
    crystals = read_dataset(shared_data / "x23" / "06_benzene.traj", ["energy", "forces", "stress"], units=UNITS)
    assert len(crystals) == 132 and crystals.labels["stress"][0].shape == (3, 3)
    units = {"length": "A", "energy": "kcal/mol", "forces": "kcal/mol/A"}
    ethanol = read_dataset(shared_data / "rmd17" / "rmd17_ethanol_train_01.npz", ["energy", "forces"], units=units)
    assert len(ethanol) == 1000 and np.mean(ethanol.labels["energy"]) == pytest.approx(-4209.6, abs=0.1)
