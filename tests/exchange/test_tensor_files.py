"""D tensors of quantum chemistry programs: right matrix, right frame, right geometry, or one sentence why not."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from gmcore.anisotropy import axis_angle, zfs_parameters
from gmcore.commands.app import app
from gmcore.data.datasets import read_dataset
from gmcore.errors import DataError
from gmcore.exchange.tensor_files import in_frame_of, read_tensors
from gmcore.molecules.superposition import GeometryError
from gmcore.units import UnitError
from support.quantum_chemistry_files import (
    BANNER,
    energies,
    orca_geometry,
    orca_qdpt,
    orca_scf,
    property_5,
    property_6,
    rows,
    single_aniso,
)

SOC = "2ND ORDER SOC CONTRIBUTION"
ORCA_5 = tuple(f"({kind} SPIN-ORBIT COUPLING CONTRIBUTION)" for kind in ("2ND ORDER", "EFFECTIVE HAMILTONIAN"))
EFFECTIVE = "EFFECTIVE HAMILTONIAN SOC CONTRIBUTION"


def tensor(seed: int, d: float = -99.0, e: float = 1.5, trace: float = 79.5) -> np.ndarray:
    rotation = Rotation.random(random_state=seed).as_matrix()
    diagonal = np.diag([-d / 3 + e, -d / 3 - e, 2 * d / 3]) + trace / 3.0 * np.eye(3)
    return np.round(rotation @ diagonal @ rotation.T, 6)


def cobalt(seed: int = 0) -> Atoms:
    """Co with two different waters: no symmetry that could hide a wrong frame."""
    water = molecule("H2O")
    first, second = water.copy(), water.copy()
    first.translate([2.0, 0.1, 0.2])
    second.rotate(70.0, (1, 2, 3))
    second.translate([-0.5, 1.9, 0.4])
    atoms = Atoms("Co") + first + second
    atoms.positions = np.round(atoms.positions @ Rotation.random(random_state=seed).as_matrix().T, 6)
    return atoms


@pytest.fixture
def write(tmp_path):
    def written(text: str, name: str = "job.out"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


def casscf_nevpt2() -> tuple[dict[tuple[str, str], np.ndarray], str]:
    words = {
        "second-order": SOC,
        "effective": EFFECTIVE,
        "second-order+ssc": "2ND ORDER SOC and SSC CONTRIBUTION",
        "effective+ssc": "EFFECTIVE HAMILTONIAN SOC and SSC CONTRIBUTION",
    }
    levels = ("casscf", "nevpt2")
    matrices = {(level, kind): tensor(7 * k + j) for k, level in enumerate(levels) for j, kind in enumerate(words)}
    text = BANNER + orca_geometry(cobalt())
    for level in levels:
        text += energies(level.upper()) + "".join(orca_qdpt(matrices[level, kind], words[kind]) for kind in words)
    return matrices, text


def test_orca_scf_tensor_with_its_geometry(write):
    matrix = tensor(1, d=2.1, e=0.3, trace=-0.2)
    (found,) = read_tensors(write(BANNER + orca_geometry(cobalt()) + orca_scf(matrix)))
    np.testing.assert_allclose(found.tensor, matrix, atol=1e-12)
    np.testing.assert_allclose(found.atoms.positions, cobalt().positions, atol=1e-12)
    assert found.kind == "scf total" and found.unit == "cm^-1" and not found.notes
    assert str(found.atoms.symbols) == "CoOH2OH2"


def test_orca_numbers_that_are_none(write):
    matrix = tensor(1)
    matrix[0, 1] = matrix[1, 0] = np.nan
    text = orca_scf(tensor(1)).replace(rows(tensor(1)), rows(matrix))
    with pytest.raises(DataError, match="must be finite numbers"):
        read_tensors(write(BANNER + orca_geometry(cobalt()) + text))


def test_orca_levels_and_contributions_are_told_apart(write):
    matrices, text = casscf_nevpt2()
    path = write(text)
    for (level, kind), matrix in matrices.items():
        (found,) = read_tensors(path, level=level, contribution=kind)
        np.testing.assert_allclose(found.tensor, matrix, atol=1e-12)
        assert (found.level, found.contribution) == (level, kind)
    with pytest.raises(DataError, match=r"several D tensors, 'casscf second-order', 'casscf effective', .* choose one"):
        read_tensors(path)
    with pytest.raises(DataError, match=r"'casscf effective', 'nevpt2 effective': choose one by level and contr"):
        read_tensors(path, contribution="effective")
    with pytest.raises(DataError, match=r"no D tensor of the kind 'scf'; it contains 'casscf second-order'"):
        read_tensors(path, level="scf")


@pytest.mark.parametrize("names", [(SOC, EFFECTIVE), ORCA_5])
def test_blocks_that_do_not_say_their_energies_come_casscf_first(write, names):
    blocks = [orca_qdpt(tensor(seed), words) for seed, words in enumerate(names * 2)]
    text = BANNER + orca_geometry(cobalt()) + "NEVPT2 TOTAL ENERGIES\n" + "".join(blocks)
    for level, first in (("casscf", 0), ("nevpt2", 2)):
        for j, kind in enumerate(("second-order", "effective")):
            (found,) = read_tensors(write(text), level=level, contribution=kind)
            np.testing.assert_allclose(found.tensor, tensor(first + j), atol=1e-12)
    (alone,) = read_tensors(write(BANNER + orca_geometry(cobalt()) + blocks[1]))
    assert alone.kind == "unstated effective"
    with pytest.raises(DataError, match=r"2 D tensors of the kind 'unstated effective'.* nothing tells them apart"):
        read_tensors(write(BANNER + orca_geometry(cobalt()) + blocks[1] + blocks[3]))


def test_a_scan_gives_a_tensor_for_each_geometry_that_has_one(write):
    geometries, matrices = [cobalt(seed) for seed in range(3)], [tensor(seed) for seed in range(3)]
    text = BANNER + orca_geometry(geometries[0]) + orca_geometry(geometries[1]) + orca_scf(matrices[1])
    found = read_tensors(write(text + orca_geometry(geometries[2]) + orca_scf(matrices[2])))
    assert [tensor.step for tensor in found] == [1, 2]
    for tensor_found, k in zip(found, (1, 2)):
        np.testing.assert_allclose(tensor_found.tensor, matrices[k], atol=1e-12)
        np.testing.assert_allclose(tensor_found.atoms.positions, geometries[k].positions, atol=1e-12)


def test_printed_d_and_e_must_follow_from_the_matrix(write):
    head, matrix = BANNER + orca_geometry(cobalt()), tensor(3)
    for d, ratio in ((99.0, 1.5 / 99.0), (-99.0, 0.05), (-98.9, 1.5 / 99.0)):
        printed = f"D   = {d:12.6f}  cm-1\nE/D = {ratio:12.6f}\n"
        with pytest.raises(DataError, match=r"job.out, line 17 must agree with its matrix, which gives D = -99 and"):
            read_tensors(write(head + orca_qdpt(matrix, EFFECTIVE, printed)))
    zeros = "D   =     0.000000  cm-1\nE/D =     0.000000\n"
    (found,) = read_tensors(write(head + orca_qdpt(matrix, EFFECTIVE, zeros)))
    assert found.notes == ("the program printed zeros for D and E; they were computed from its matrix instead",)
    assert zfs_parameters(found.tensor).d == pytest.approx(-99.0, abs=1e-4)
    # in the rhombic limit the sign of D is rounding, and no disagreement
    rhombic = tensor(4, d=30.0, e=10.0, trace=0.0)
    either = [f"D   = {d:12.6f}  cm-1\nE/D = {1 / 3:12.6f}\n" for d in (30.0, -30.0)]
    for printed in either:
        read_tensors(write(head + orca_qdpt(rhombic, EFFECTIVE, printed)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("Raw matrix (cm-1)", "Raw matrix (MHz)"), "no 'Raw matrix.*layout is not known"),
        (lambda text: text.replace("E/D =", "E/d =").replace("D   =", "d   ="), "no D and E/D follow the matrix"),
        (lambda text: text.replace("  Co ", "  Xx "), "must consist of chemical elements, got 'Xx'"),
        (lambda text: text[: text.index("Raw") + 60], "no 'Raw matrix.*layout is not known"),
        (lambda text: text.replace("Raw matrix (cm-1):\n", "Raw matrix (cm-1):\n  1.0 nope 2.0\n"), "3 numbers here"),
        (lambda text: text.replace("(ANGSTROEM)\n", "(ANGSTROEM)\n\n\n"), "followed by the coordinates"),
        (lambda text: text[: text.index("ZERO")], "contains no D tensor in a known layout"),
    ],
)
def test_uncertain_orca_layouts_are_refused(write, change, message):
    text = BANNER + orca_geometry(cobalt()) + orca_qdpt(tensor(2), SOC)
    read_tensors(write(text))
    with pytest.raises(DataError, match=message):
        read_tensors(write(change(text)))


@pytest.mark.parametrize(
    ("make", "name", "change"),
    [
        (lambda: BANNER + orca_geometry(cobalt()) + orca_qdpt(tensor(2), SOC), "job.out", r"(D   = +)\S+"),
        (lambda: BANNER + orca_geometry(cobalt()) + orca_qdpt(tensor(2), SOC), "job.out", r"(Co +)\S+"),
        (lambda: BANNER + orca_geometry(cobalt()) + orca_scf(tensor(1)), "job.out", r"(raw-matrix : *\n *)\S+"),
        (lambda: property_5(cobalt(), tensor(5)), "job_property.txt", r"(?s)(DTensor.*?geom\. index: *)\d+"),
        (lambda: property_5(cobalt(), tensor(5)), "job_property.txt", r"(Geometry Index: *)\d+"),
        (lambda: property_6([cobalt()], [tensor(0)]), "job.property.txt", r"(?s)(D_Tensor.*?&GeometryIndex +)\d+"),
        (lambda: single_aniso(tensor(6), cobalt()), "aniso.out", r"(MULTIPLET +)\d+"),
        (lambda: single_aniso(tensor(6), cobalt()), "aniso.out", r"(Dx = +)\S+(?=\.)"),
    ],
)
@pytest.mark.parametrize("digits", [400, 5000])
def test_numbers_of_hundreds_of_digits_are_refused_in_their_place(write, make, name, change, digits):
    text, n = re.subn(change, lambda found: found[1] + "9" * digits, make(), count=1)
    assert n == 1
    with pytest.raises(DataError, match=rf"{name}.* must have (whole )?numbers .* here, got '9") as caught:
        read_tensors(write(text, name))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: BANNER + orca_geometry(cobalt()) + orca_qdpt(tensor(2), SOC), "job.out"),
        (lambda: property_5(cobalt(), tensor(5)), "job_property.txt"),
        (lambda: property_6([cobalt()], [tensor(0)]), "job.property.txt"),
        (lambda: single_aniso(tensor(6), cobalt()), "aniso.out"),
    ],
)
def test_files_cut_anywhere_are_read_or_refused(write, make, name):
    """Also with the end mark of sections after the cut, which a file has that lost lines in its middle."""
    lines = make().splitlines(keepends=True)
    refused = 0
    for kept in range(len(lines)):
        for end in ("", "$End\n"):
            try:
                read_tensors(write("".join(lines[:kept]) + end, name), unit="cm^-1")
            except DataError as error:
                refused += name in str(error)
    assert refused > len(lines) // 2


def test_property_file_of_orca_5_and_its_zero_eigenvalues(write):
    matrix = tensor(5, d=4.0, e=0.5, trace=0.3)
    (found,) = read_tensors(write(property_5(cobalt(), matrix), "job_property.txt"))
    np.testing.assert_allclose(found.tensor, matrix, atol=1e-12)
    np.testing.assert_allclose(found.atoms.positions, cobalt().positions, atol=1e-11)
    assert found.kind == "scf total" and not found.notes
    (found,) = read_tensors(write(property_5(cobalt(), matrix, np.zeros(3)), "job_property.txt"))
    assert "printed zero eigenvalues" in found.notes[0]
    assert zfs_parameters(found.tensor).d == pytest.approx(4.0, abs=1e-5)
    with pytest.raises(DataError, match=r"printed in .*job_property.txt, line 11 must be those of its matrix"):
        read_tensors(write(property_5(cobalt(), matrix, np.array([1.0, 2.0, 3.0])), "job_property.txt"))
    cut = property_5(cobalt(), matrix).replace("          0          1          2", "   x y z")
    with pytest.raises(DataError, match="must contain a matrix and its eigenvalues"):
        read_tensors(write(cut, "job_property.txt"))


def test_property_file_of_orca_6(write):
    geometries, matrices = [cobalt(seed) for seed in range(2)], [tensor(seed) for seed in range(2)]
    found = read_tensors(write(property_6(geometries, matrices), "job.property.txt"))
    for tensor_found, matrix, atoms in zip(found, matrices, geometries, strict=True):
        np.testing.assert_allclose(tensor_found.tensor, matrix, atol=1e-12)
        np.testing.assert_allclose(tensor_found.atoms.positions, atoms.positions, atol=1e-11)
    with pytest.raises(DataError, match=r"layout of \$CASSCF_D_Tensor is not known; read the output"):
        read_tensors(write(property_6(geometries, matrices, "CASSCF_D_Tensor"), "job.property.txt"))
    with pytest.raises(DataError, match="coordinates with their unit"):
        text = property_6(geometries, matrices).replace(', &Units "Bohr"', "")
        read_tensors(write(text, "job.property.txt"))
    with pytest.raises(DataError, match="must agree with its matrix"):
        text = property_6(geometries, matrices).replace('&D [&Type "Double"]', '&D [&Type "Double"] 1')
        read_tensors(write(text.replace(" 1  -", " 1"), "job.property.txt"))


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 1, 2), (1, 0, 2)])
def test_single_aniso(write, order):
    matrix = tensor(6)
    (found,) = read_tensors(write(single_aniso(matrix, cobalt(), order)))
    wanted = matrix - np.trace(matrix) / 3.0 * np.eye(3)
    np.testing.assert_allclose(found.tensor, wanted, atol=1e-3)  # main values have three decimals, axes six
    np.testing.assert_allclose(found.atoms.positions, cobalt().positions, atol=1e-6)
    assert str(found.atoms.symbols) == "CoOH2OH2"
    assert axis_angle(zfs_parameters(found.tensor).axis, zfs_parameters(matrix).axis) < 0.01


def test_uncertain_single_aniso_layouts_are_refused(write):
    text = single_aniso(tensor(6), cobalt())
    for change, message in (
        (text.replace(" Dy =", " Dq ="), "must contain Dx, Dy and Dz"),
        (text.replace("D =  -99", "D =  -98"), "D = -98.0000 cm.-1 printed in .* main values, which give -99"),
        (text.replace("\nE =", "\nX ="), "must contain E"),
        (re.sub(r"(Dx .*\|)[^|]+\|\n", r"\1  0.500000  0.500000  0.500000 |\n", text), "must be orthonormal"),
        (text.replace("MULTIPLET 1", "MULTIPLET"), "must belong to a multiplet"),
    ):
        assert change != text
        with pytest.raises(DataError, match=message):
            read_tensors(write(change), "single-aniso")
    (bare,) = read_tensors(write(single_aniso(tensor(6))))
    assert bare.atoms is None
    with pytest.raises(DataError, match="2 D tensors of the kind '' for one geometry"):
        read_tensors(write(text + single_aniso(tensor(6))), "single-aniso")


def test_plain_matrix_needs_unit_and_geometry(write):
    matrix = tensor(8)
    path = write("# cm-1\n" + rows(matrix), "d.txt")
    (found,) = read_tensors(path, unit="cm-1")
    np.testing.assert_allclose(found.tensor, matrix, atol=1e-12)
    (in_mhz,) = read_tensors(write(rows(matrix * 29979.2458), "d.txt"), unit="MHz")
    np.testing.assert_allclose(in_mhz.tensor, matrix, atol=1e-9)
    with pytest.raises(UnitError, match="unit of d_tensor is not stated"):
        read_tensors(path)
    with pytest.raises(DataError, match="needs the geometry that defines its frame"):
        in_frame_of(found, None)
    for text, message in (
        ("1 2\n3 4\n", "three rows of three numbers"),
        ("1 2 3\n2 1 x\n3 1 1\n", "3 numbers here, got '2 1 x'"),
        ("1 2 3\n4 1 5\n3 1 1\n", "symmetric to 1 %"),
        ("nan 0 0\n0 1 0\n0 0 1\n", "must be finite"),
    ):
        with pytest.raises(DataError, match=message):
            read_tensors(write(text, "bad.txt"), unit="cm^-1")


def test_geometries_are_compared_and_tensors_rotated(write):
    matrix, rotation = tensor(9), Rotation.random(random_state=10).as_matrix()
    (found,) = read_tensors(write(BANNER + orca_geometry(cobalt()) + orca_scf(matrix)))
    shifted = cobalt()
    shifted.translate([1.0, 2.0, 3.0])
    same = in_frame_of(found, shifted)
    np.testing.assert_array_equal(same.tensor, found.tensor)
    np.testing.assert_array_equal(same.atoms.positions, shifted.positions)
    rotated = shifted.copy()
    rotated.positions = shifted.positions @ rotation.T
    with pytest.raises(DataError, match=r"must be in the frame of .*job.out, line \d+, got one rotated by .* degrees"):
        in_frame_of(found, rotated)
    moved = in_frame_of(found, rotated, rotate=True)
    np.testing.assert_allclose(moved.tensor, rotation @ matrix @ rotation.T, atol=1e-3)
    assert "rotated by" in moved.notes[0]
    mirrored = shifted.copy()
    mirrored.positions[:, 2] *= -1
    for other, message in (
        (mirrored, "must be that of .*job.out.* differs by"),
        (shifted[::-1], "same order, CoOH2OH2, got H2OH2OCo"),
        (molecule("H2O"), "must have the atoms of .*job.out"),
    ):
        with pytest.raises(DataError, match=message):
            in_frame_of(found, other, rotate=True)
    rod = Atoms("CoO", [[0, 0, 0], [0, 0, 1.9]])
    (on_line,) = read_tensors(write(BANNER + orca_geometry(rod) + orca_scf(matrix)))
    lying = Atoms("CoO", [[0, 0, 0], [1.9, 0, 0]])
    with pytest.raises(GeometryError, match="one line"):
        in_frame_of(on_line, lying, rotate=True)


def test_unknown_files_and_formats_are_refused(write, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_tensors(tmp_path / "nothing.out")
    with pytest.raises(DataError, match=r"format must be one of auto, orca, .* got 'molpro'"):
        read_tensors(write("x"), "molpro")
    with pytest.raises(DataError, match=r"cm\^-1 in .*job.out, not MHz"):
        read_tensors(write(BANNER + orca_geometry(cobalt()) + orca_scf(tensor(1))), unit="MHz")


def test_command_writes_a_data_set(write, tmp_path):
    matrices, text = casscf_nevpt2()
    files = [write(text, "first.out"), write(text.replace("0.000000", "0.000000"), "second.out")]
    output = tmp_path / "data.extxyz"
    arguments = ["import", *map(str, files), "-o", str(output), "--level", "nevpt2", "--contribution", "effective"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "D = -99.0000, E = 1.5000 cm^-1, E/|D| = 0.0152, axis" in result.output
    assert "(nevpt2 effective)" in result.output and "trace removed, mean 79.5" in result.output
    dataset = read_dataset(output, ["d_tensor"], units={"length": "A", "d_tensor": "cm^-1"})
    assert len(dataset) == 2
    expected = matrices["nevpt2", "effective"]
    np.testing.assert_allclose(dataset.labels["d_tensor"][1], expected - np.trace(expected) / 3 * np.eye(3), atol=1e-6)
    np.testing.assert_allclose(dataset.atoms[0].positions, cobalt().positions, atol=1e-6)
    # an HDF5 data set states its units itself
    stored = tmp_path / "data.h5"
    assert CliRunner().invoke(app, [*arguments[:3], "-o", str(stored), *arguments[5:]]).exit_code == 0
    assert read_dataset(stored, ["d_tensor"]).units == {"d_tensor": "cm^-1"}


def test_command_finds_the_geometry_beside_a_plain_matrix(write, tmp_path):
    matrix = tensor(11)
    path = write("\ufeff" + rows(matrix), "d.txt")  # as some editors of Windows begin a text
    output = tmp_path / "data.extxyz"
    arguments = ["import", str(path), "-o", str(output), "--unit", "d_tensor=cm^-1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "needs the geometry that defines its frame" in result.output
    ase.io.write(tmp_path / "d.xyz", cobalt())
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "written" in result.output
    assert len(read_dataset(output, ["d_tensor"], units={"length": "A", "d_tensor": "cm^-1"})) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "data.csv"], "suffix of the output"),
        (["-o", "data.h5", "--rotate"], "--rotate needs --geometry"),
        (["-o", "data.h5", "--geometry", "two.xyz"], "a geometry must be one structure, got 2 in two.xyz"),
        (["-o", "data.h5", "--unit", "energy=eV"], "unknown name 'energy' in --unit"),
        (["other.out", "-o", "data.h5", "--geometry", "two.xyz"], "--geometry can only be used with one file, got 2"),
    ],
)
def test_command_refuses(write, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write(BANNER + orca_geometry(cobalt()) + orca_scf(tensor(1)))
    write("", "other.out")
    ase.io.write("two.xyz", [cobalt(), cobalt()])
    result = CliRunner().invoke(app, ["import", "job.out", *options])
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "data.h5").exists()
