"""Data sets: units, labels counted, tensors detraced; everything wrong is one sentence that names the place."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from gmcore.anisotropy import zfs_parameters
from gmcore.data.datasets import read_dataset
from gmcore.data.frames import Frame
from gmcore.data.labels import label_array
from gmcore.data.structures import total_charge_of
from gmcore.errors import DataError
from gmcore.units import UnitError
from support.labeled_data import LABELS, UNITS, reference, xyz

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
        r"labels are missing: forces found in 0 of 3 frames; d_tensor found in 3 of 3 frames; available keys: D, "
        r"my_forces; did you mean my_forces \(data: keys: \{forces: my_forces\}\)\?"
    )
    with pytest.raises(DataError, match=message):
        read_dataset(path, ["forces", "d_tensor"], units=UNITS)


@pytest.mark.parametrize(
    ("label", "fields", "hint"),
    [
        ("d_tensor", 'D_iso=3.0 D_raw="1 0 0 0 -1 0 0 0 0"', "D_raw"),
        ("energy", "E_dft=1.0", "E_dft"),
        ("energy", "ref_energy=1.0", "ref_energy"),
        ("dipole", "dipol=1.0", None),  # not three numbers
    ],
)
def test_hints_have_the_label_among_their_words_and_its_shape(tmp_path, label, fields, hint):
    with pytest.raises(DataError) as caught:
        read_dataset(xyz(tmp_path, fields), [label], units=UNITS)
    assert (f"did you mean {hint} (data: keys: {{{label}: {hint}}})" in str(caught.value)) == (hint is not None)
    assert ("did you mean" in str(caught.value)) == (hint is not None)


def test_labels_in_some_frames_are_counted(tmp_path):
    path = xyz(tmp_path, "energy=1.0")
    path.write_text(path.read_text() + path.read_text().replace("energy", "enrgy"))
    with pytest.raises(DataError, match="energy found in 1 of 2 frames; available keys: energy, "):
        read_dataset(path, ["energy"], units=UNITS)
    with pytest.raises(
        DataError,
        match=r"total_charge found in 0 of 2 frames.*did you mean total_chrg \(data: total_charge: total_chrg\)\?",
    ):
        read_dataset(xyz(tmp_path, "total_chrg=1", n=2), [], units=UNITS, total_charge="total_charge")


def test_misspelt_key_of_the_configuration(tmp_path):
    path = xyz(tmp_path, "energy=1.0")
    with pytest.raises(
        DataError, match=r"forces found in 0 of 1 frames.*did you mean my_forces \(data: keys: \{forces: my_forces\}"
    ):
        read_dataset(path, ["forces"], units=UNITS, keys={"forces": "my_force"})


def test_unit_not_stated(tmp_path):
    path = xyz(tmp_path, "energy=1.0")
    with pytest.raises(UnitError, match="the unit of energy is not stated"):
        read_dataset(path, ["energy"], units={"length": "A"})
    with pytest.raises(UnitError, match="the unit of length is not stated"):
        read_dataset(path, ["energy"], units={"energy": "eV"})


def test_units_of_the_file_itself(tmp_path):
    """They are believed, under the file's names; what the configuration says must agree."""
    path = xyz(tmp_path, 'E_ref=1000.0 units="positions=A E_ref=meV"')
    found = read_dataset(path, ["energy"], keys={"energy": "E_ref"})
    assert found.labels["energy"][0] == pytest.approx(1.0) and found.units == {"energy": "eV"}
    with pytest.raises(DataError, match=r"the unit of energy is meV in the file of frame 0 .*, not eV: correct"):
        read_dataset(path, ["energy"], keys={"energy": "E_ref"}, units={"energy": "eV"})
    path = xyz(tmp_path, 'energy=1.0 units="positions=A energy=furlong"')
    with pytest.raises(UnitError, match=r"frame 0 of .* states the unit of energy: unknown unit 'furlong'"):
        read_dataset(path, ["energy"])
    path = xyz(tmp_path, 'energy=1.0 units="eV"')  # of what is not said
    with pytest.raises(UnitError, match="the unit of length is not stated"):
        read_dataset(path, ["energy"])
    arrays = {"R": np.array([[[0.0, 0.0, 1.0]]]), "Z": np.array([1]), "E": np.ones(1)}
    np.savez(tmp_path / "set.npz", **arrays, units=np.array('{"positions": "nm", "E": "Hartree"}'))
    found = read_dataset(tmp_path / "set.npz", ["energy"])
    assert found.atoms[0].positions[0, 2] == 10.0 and found.labels["energy"][0] == pytest.approx(27.2, abs=0.02)


def test_trace_is_taken_out_and_reported(tmp_path):
    path = tmp_path / "two.xyz"
    text = "".join(
        xyz(tmp_path, f'D="{a} 1 0 1 {b} 0 0 0 {c}"').read_text() for a, b, c in [(10, 20, 60), (20, 20, 70)]
    )
    path.write_text(text)
    dataset = read_dataset(path, ["d_tensor"], units=UNITS)
    np.testing.assert_allclose(np.trace(dataset.labels["d_tensor"], axis1=1, axis2=2), 0.0, atol=1e-12)
    np.testing.assert_allclose(dataset.labels["d_tensor"][0], [[-20, 1, 0], [1, -10, 0], [0, 0, 30]], atol=1e-12)
    assert dataset.notes == ("d_tensor: trace removed, mean 100, standard deviation 10 cm^-1",)


def test_small_asymmetry_is_averaged_and_large_refused(tmp_path):
    path = xyz(tmp_path, 'alpha="10 1.02 0 1 10 0 0 0 10"')
    dataset = read_dataset(path, ["tensor"], units=UNITS, keys={"tensor": "alpha"})
    assert dataset.labels["tensor"][0][0, 1] == dataset.labels["tensor"][0][1, 0] == pytest.approx(1.01)
    assert dataset.notes == ("tensor: averaged with the transpose, largest difference 0.02 A^3",)
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
    with pytest.raises(DataError, match="stress found in 0 of 1 frames"):
        read_dataset(path, ["stress"], units=UNITS)


def test_periodicity_can_be_overridden(tmp_path):
    path = xyz(tmp_path, "energy=1", cell='Lattice="0 0 0 0 0 0 0 0 0"')
    with pytest.raises(DataError, match=r"frame 0 of frames.xyz: the cell vectors .* must be linearly independent"):
        read_dataset(path, ["energy"], units=UNITS)
    assert not read_dataset(path, ["energy"], units=UNITS, pbc=False).atoms[0].pbc.any()


@pytest.mark.parametrize(
    "value", ["[" * 100_000, [10**400], 10**4000, np.zeros(1, [("x", float), ("y", float)])[0], {"a": 1}]
)
def test_labels_that_are_no_numbers(value):
    frame = Frame.of(Atoms("H"), {"energy": value, "q": value}, "frame 0 of a.json")
    with pytest.raises(DataError, match=r"energy of frame 0 of a.json must be numbers, got ") as caught:
        label_array("energy", value, frame)
    assert len(str(caught.value)) < 200
    with pytest.raises(DataError, match=r"total charge of frame 0 of a.json must be one number, got ") as caught:
        total_charge_of(frame, "q")
    assert len(str(caught.value)) < 300


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
    assert "mean 79.48, standard deviation 6.59 cm^-1" in dataset.notes[0]
    assert dataset.summary()[2].startswith("D: mean -99.332, standard deviation 8.24 cm^-1; E: mean 1.05")
    same = read_dataset(path, ["d_tensor"], units=UNITS, keys={"d_tensor": "D_tensor"})
    np.testing.assert_allclose(dataset.labels["d_tensor"], same.labels["d_tensor"], atol=1e-9)
    d = zfs_parameters(np.array(dataset.labels["d_tensor"])).d
    assert d.mean() == pytest.approx(-99.3, abs=0.1) and d.std() == pytest.approx(8.2, abs=0.1)


def test_shared_crystals_and_potentials(shared_data):
    crystals = read_dataset(shared_data / "x23" / "06_benzene.traj", ["energy", "forces", "stress"], units=UNITS)
    assert len(crystals) == 132 and crystals.labels["stress"][0].shape == (3, 3)
    units = {"length": "A", "energy": "kcal/mol", "forces": "kcal/mol/A"}
    ethanol = read_dataset(shared_data / "rmd17" / "rmd17_ethanol_train_01.npz", ["energy", "forces"], units=units)
    assert len(ethanol) == 1000 and np.mean(ethanol.labels["energy"]) == pytest.approx(-4209.6, abs=0.1)


def test_summary_of_a_label_without_values(rng):
    dataset = reference(rng)
    dataset.labels["stress"] = [np.full((3, 3), np.nan) for _ in dataset.atoms]
    assert "stress: no values" in dataset.summary()
