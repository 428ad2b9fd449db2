"""Genuine outputs of OpenMolcas, shortened: the good ones are read, and none of the bad ones gives a D."""

from __future__ import annotations

import re
import shutil

import h5py
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from gmcore.anisotropy import zfs_parameters
from gmcore.commands.app import app
from gmcore.data.datasets import read_dataset
from gmcore.errors import DamagedFileError, DataError
from gmcore.exchange.spin_hamiltonian import check_multiplet, levels_of, spin_matrices, tensor_of
from gmcore.exchange.tensor_files import in_frame_of, read_tensors
from gmcore.molecules.superposition import align
from support.places import TESTS
from support.quantum_chemistry_files import single_aniso

GENUINE = TESTS / "exchange" / "openmolcas"
GATEWAY = "--- Start Module: gateway"


def text_of(name: str) -> str:
    return (GENUINE / name).read_text()


@pytest.fixture
def write(tmp_path):
    def written(text: str, name: str = "job.out"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


@pytest.fixture
def rassi(tmp_path):
    return shutil.copy(GENUINE / "cocl4.rassi.h5", tmp_path / "job.rassi.h5")


@pytest.mark.parametrize(
    ("name", "formula", "d", "spin", "charge", "energy"),
    [
        ("cocl4.out", "CoCl4", -22.1578, 1.5, -2.0, -3235.70698471),
        ("two_multiplets.out", "CoCl4", -22.1578, 1.5, None, None),
        ("nih2o6_S1.out", "NiOH2OH2OH2OH2OH2OH2", 3.4707, 1.0, 2.0, None),
        ("fecl4_S2.out", "FeCl4", 9.9496, 2.0, -2.0, -3115.18805754),
        ("mncl4_S5_2.out", "MnCl4", -0.0047, 2.5, -2.0, -3001.24120442),
    ],
)
def test_sound_outputs(name, formula, d, spin, charge, energy):
    (found,) = read_tensors(GENUINE / name)
    assert zfs_parameters(found.tensor).d == pytest.approx(d, abs=2e-4)
    assert (str(found.atoms.symbols), found.spin, found.charge) == (formula, spin, charge)
    assert energy is None or found.energy / 27.211386246 == pytest.approx(energy, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nicl4_degenerate_bad.out", r"S = 1, 0\.0, 81\.4, 200\.4 cm\^-1, got 0\.0, 319\.4, 319\.4 cm\^-1"),
        ("fecl4_as_triplet_bad.out", "must be that of the states given to RASSI, 5, got 3: correct MLTP"),
        ("fecl4_as_quartet_bad.out", r"with S = 3/2, 0\.0, 0\.0, 9\.8, 9\.8 cm\^-1, got 0\.0, 7\.6, 12\.5, 39\.7 cm"),
        ("other_molecule_before_bad.out", "the module RASSCF must end with _RC_ALL_IS_WELL_, got '-6'"),
        ("rassi_only.out", "OpenMolcas output without a D tensor: the SINGLE_ANISO part is missing"),
        ("two_doublets_no_D.out", "OpenMolcas output without a D tensor: .* effective spin of 1/2"),
    ],
)
def test_unsound_outputs(name, message):
    with pytest.raises(DataError, match=message) as caught:
        read_tensors(GENUINE / name)
    assert str(GENUINE / name) in str(caught.value)


def test_rotated_molecule_has_the_rotated_tensor():
    first, second = (read_tensors(GENUINE / name)[0] for name in ("cocl4.out", "cocl4_turned.out"))
    ours, theirs = (found.atoms.positions - found.atoms.positions.mean(axis=0) for found in (first, second))
    rotation = align(ours[None], theirs)[0]
    assert np.abs(rotation - np.eye(3)).max() > 0.5
    np.testing.assert_allclose(rotation @ first.tensor @ rotation.T, second.tensor, atol=1e-4)


def test_tensor_and_geometry_are_of_one_calculation(write):
    cobalt, nickel = text_of("cocl4.out"), text_of("nih2o6_S1.out")
    other = nickel[nickel.index(GATEWAY) : nickel.index("--- Start Module: scf")]
    (found,) = read_tensors(write(cobalt + other))  # a geometry after the tensor
    assert str(found.atoms.symbols) == "CoCl4"
    (found,) = read_tensors(write(other + cobalt))
    assert str(found.atoms.symbols) == "CoCl4"
    both = read_tensors(write(nickel + cobalt))
    assert [str(found.atoms.symbols) for found in both] == ["NiOH2OH2OH2OH2OH2OH2", "CoCl4"]
    with pytest.raises(DataError, match="must have one molecule in each calculation"):
        read_tensors(write(other + cobalt[cobalt.index("--- Start Module: rasscf") :]))
    # a run of SINGLE_ANISO alone, in another project
    two = text_of("two_multiplets.out")
    start = two.rindex("This run of MOLCAS")
    (found,) = read_tensors(write(other + two[start:].replace("Project: mol", "Project: cobalt")))
    assert found.atoms is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Convergence after 25 iterations", "No convergence after 200 iterations", r"'No convergence after 200"),
        (r"(module: rasscf.*)_RC_ALL_IS_WELL_", r"\1_RC_NOT_CONVERGED_", "did not converge or failed"),
        (
            r"(module: rassi.*)_RC_ALL_IS_WELL_",
            r"\1_RC_CHECK_ERROR_",
            "RASSI must end with _RC_ALL_IS_WELL_, got '_RC_CH",
        ),
        (r"--- Stop Module: single_aniso.*", "", "the module SINGLE_ANISO did not end"),
        (r"(?s)--- Start Module: rassi.*", "", "without a D tensor: the RASSI part is missing"),
        (r"(energy\([34]\) =      4)5", r"\g<1>6", r"must be those of S\.D\.S with S = 3/2, 0\.0, 0\.0, 45\.3, 45\.3"),
        (
            r"SPIN MULTIPLICITY:( +)4",
            r"SPIN MULTIPLICITY:\g<1>2",
            "must be that of the states given to RASSI, 2, got 4",
        ),
        (r"(SO-RASSI State +3 .*)0760872", r"\g<1>0770872", "must be those of RASSI in the same file"),
        (r"spin-orbit state 4\. .*\n", "", "must list the 4 states of a multiplet with S = 3/2, got 3"),
        (r"2 \|   2 \|       1.50  \|  0.274", "2 |   2 |       1.50  |  0.284", r"agree with the parameters B\(2,q\)"),
        ("CL2 ", "CA  ", "elements whose basis sets the output lists, got 'CA'"),
        ("CL2 ", "CO2 ", "must give the nuclear repulsion of 658.081 Hartree .*; Co2Cl3 does not"),
        ("CL2( +)1.78", r"CL2\g<1>1.98", "must give the nuclear repulsion"),
    ],
)
def test_changed_outputs_are_refused(write, old, new, message):
    text, n = re.subn(old, new, text_of("cocl4.out"), flags=re.IGNORECASE if "module" in old else 0)
    assert n
    with pytest.raises(DataError, match=message):
        read_tensors(write(text))


def test_labels_with_a_suffix_are_elements_of_the_calculation(write):
    """A carbon with a basis set of its own may be called CA."""
    from ase import Atoms

    atoms = Atoms("CoC2", [[0, 0, 0], [0, 0, 1.9], [1.8, 0, 0.2]])
    matrix = np.diag([10.0, 12.0, -22.0])
    text = single_aniso(matrix, atoms).replace("C2 ", "CA ").replace("C3 ", "C_B")
    (found,) = read_tensors(write(text))
    assert str(found.atoms.symbols) == "CoC2"
    for missing in (r".*Associated.*\n", r"(?m)^ +C_B.*\n"):  # basis sets stand in another output
        (found,) = read_tensors(write(re.sub(missing, "", text)))
        assert str(found.atoms.symbols) == "CoC2"
    with pytest.raises(DataError, match="may be CoCaC or CoC2 or CCaC or C3, no nuclear repulsion"):
        read_tensors(write(re.sub(r".*(Associated|Nuclear Potential).*\n", "", text)))


def test_forces_are_those_of_the_lowest_state():
    (found,) = read_tensors(GENUINE / "cocl4_gradient.out")
    # CASSCF energies of root 1, Hartree, with x of the first chlorine 0.0025 A higher and lower
    expected = -(-3235.70722436 - -3235.70704668) * 27.211386246 / 0.005
    assert found.forces[1, 0] == pytest.approx(expected, abs=2e-3) and found.forces.shape == (5, 3)
    np.testing.assert_allclose(found.forces.sum(axis=0), 0.0, atol=1e-10)
    (other,) = read_tensors(GENUINE / "cocl4_gradient_of_root_10.out")  # the default of ALASKA
    assert other.forces is None and other.energy == pytest.approx(found.energy, abs=1e-6)
    assert "a state at -3235.61223511 Hartree, the lowest one lies at -3235.70713608" in other.notes[0]
    (single,) = read_tensors(GENUINE / "mncl4_S5_2.out")  # one sextet, before its quartets
    assert single.forces[1] == pytest.approx([1.69088, 1.69150, 1.69053], abs=1e-5)
    turned = found.atoms.copy()
    turned.rotate(40.0, (1, 2, 3))
    moved = in_frame_of(found, turned, rotate=True)
    np.testing.assert_allclose(np.sum(moved.forces * turned.positions), np.sum(found.forces * found.atoms.positions))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Wavefunction type: State average CASSCF", "Wavefunction type: State average MCPDFT"),
        ("for state no.   1", "for states no.   1/  2"),
        ("RASSCF state energy", "energy"),
        (
            "--- Start Module: alaska",
            "--- Start Module: caspt2 at\n--- Stop Module: caspt2 at /rc=_RC_ALL_IS_WELL_\n\\g<0>",
        ),
        ("Wavefunction type", "Hellmann-Feynman gradient is active.\n\\g<0>"),
    ],
)
def test_gradients_of_no_certain_state_are_left_out(write, old, new):
    text, n = re.subn(old, new, text_of("cocl4_gradient.out"))
    (found,) = read_tensors(write(text))
    assert n and found.forces is None and "not those of one state of CASSCF" in found.notes[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            r"(?m)^  CL5 .*E-.*\n",
            "",
            "of the atoms of line .* in the same order, 'FE1 CL2 CL3 CL4 CL5', got 'FE1 CL2 CL3 CL4'",
        ),
        (r"(?s)(  CL2 [^\n]*E-[^\n]*\n)(  CL3 [^\n]*\n)", r"\2\1", "in the same order"),
        (r"  CL2 (.*E-.*\n)  CL3 (.*\n)", r"  CL2 \2  CL3 \1", "must leave no torque on the whole molecule"),
        (r"(FE1 +)3.10", r"\g<1>7.10", "must leave no force on the whole molecule"),
        (r"(FE1 +3.\d+E-03)  +\S+", r"\1", "must have 3 numbers here"),
        (r"(?m)^ -+\n(--- Stop Module: alaska)", r"\1", "between lines of dashes"),
        (
            r"--- Start Module: mclr",
            "Cartesian coordinates in Angstrom:\n 1 FE1 0 0 0\n 2 CL2 1 1 1\n 3 CL3 1 -1 -1\n 4 CL4 -1 1 -1\n"
            " 5 CL5 -1 -1 1\n\n\\g<0>",
            "must be for the geometry of the D tensor",
        ),
        (r"(?s)--- Start Module: mclr.*", "", "the module ALASKA did not end"),
    ],
)
def test_wrong_gradients_are_refused(write, old, new, message):
    text, n = re.subn(old, new, text_of("fecl4_S2.out"))
    assert n
    with pytest.raises(DataError, match=message):
        read_tensors(write(text))


def test_gradient_beside_a_rassi_file(tmp_path):
    path = shutil.copy(GENUINE / "fecl4.rassi.h5", tmp_path / "job.rassi.h5")
    text = text_of("fecl4_S2.out")
    (alone,) = read_tensors(path)
    assert alone.forces is None and alone.spin == 2.0 and "residual 0.41 cm^-1" in alone.notes[0]
    expected = read_tensors(GENUINE / "fecl4_S2.out")[0].forces
    no_tensor = re.sub("(?s)--- Start Module: single_aniso.*?(?=--- Start Module: alaska)", "", text)
    for beside in (text, no_tensor):
        (tmp_path / "job.out").write_text(beside)
        (found,) = read_tensors(path)
        np.testing.assert_array_equal(found.forces, expected)
    (tmp_path / "job.out").write_text(re.sub(r"-3115\.188057538", "-3115.188157538", text))
    with pytest.raises(
        DataError, match=r"one calculation, got energies of -3115\.18805754 and -3115\.18815754 Hartree"
    ):
        read_tensors(path)


def test_command_writes_energies_with_their_forces(tmp_path):
    arguments = ["import", str(GENUINE / "cocl4_gradient.out"), "-o", str(tmp_path / "data.extxyz")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "forces in eV/A" in result.output
    (found,) = read_tensors(GENUINE / "cocl4_gradient.out")
    data = read_dataset(tmp_path / "data.extxyz", ["energy", "forces", "d_tensor"])
    np.testing.assert_allclose(data.labels["forces"][0], found.forces, atol=1e-7)
    np.testing.assert_allclose(data.labels["energy"], found.energy, rtol=1e-12)
    result = CliRunner().invoke(app, [*arguments, str(GENUINE / "cocl4.out")])
    assert result.exit_code == 0 and "forces are left out: only 1 of 2 structures have them" in result.output


def test_a_multiplet_must_be_complete_and_apart():
    """Three states of a quartet have levels that some S = 1 has; the fourth lies at the same place as the third."""
    tensor = np.diag([15.1, 15.1, -30.2])
    check_multiplet(tensor, 1.0, np.array([0.0, 0.0, 45.3]), 91.0, "job.out")
    with pytest.raises(DataError, match=r"levels up to 45\.3 cm\^-1 and the next state at 45\.3 cm\^-1.*S = 1 is not"):
        check_multiplet(tensor, 1.0, np.array([0.0, 0.0, 45.3]), 45.3, "job.out")
    with pytest.raises(DataError, match=r"must be those of S\.D\.S with S = 5/2"):  # six of four states and more
        check_multiplet(np.diag([76.0, 77.0, -153.0]), 2.5, np.repeat([0.0, 45.3, 2024.3], 2), 2133.8, "job.out")
    quintet = levels_of(tensor, 2.0)
    check_multiplet(tensor, 2.0, quintet * 1.05, None, "job.out")  # terms of fourth order
    with pytest.raises(DataError, match=r"must be those of S\.D\.S with S = 2"):
        check_multiplet(tensor, 2.0, quintet * 1.2, None, "job.out")


@pytest.mark.parametrize("spin", [1.0, 1.5, 2.0, 2.5])
def test_tensor_of_a_spin_hamiltonian(spin, rng):
    tensor = rng.normal(size=(3, 3))
    tensor += tensor.T - 2.0 / 3.0 * np.trace(tensor) * np.eye(3)
    s = spin_matrices(spin)
    np.testing.assert_allclose(s[0] @ s[1] - s[1] @ s[0], 1j * s[2], atol=1e-12)
    hamiltonian = np.einsum("ab,aij,bjk->ik", tensor, s, s) + 7.0 * np.eye(len(s[0]))
    np.testing.assert_allclose(tensor_of(hamiltonian, spin), tensor, atol=1e-12)


def test_rassi_file(rassi, tmp_path):
    (alone,) = read_tensors(rassi)
    assert (str(alone.atoms.symbols), alone.spin, alone.charge) == ("CoCl4", 1.5, None)
    assert alone.notes == (
        "next multiplet 1979 cm^-1 above the ground one, smallest weight of pure-spin states 0.928, residual 5.1e-08 "
        "cm^-1",
    )
    np.testing.assert_allclose(levels_of(alone.tensor, 1.5)[2:], 45.3215827, atol=1e-5)  # as RASSI prints
    shutil.copy(GENUINE / "cocl4.out", tmp_path / "job.out")
    (compared,) = read_tensors(rassi)
    assert re.search(r"SINGLE_ANISO in .*job.out, line 474 differs by at most 0.037 cm\^-1", compared.notes[1])
    assert compared.charge == -2.0
    np.testing.assert_allclose(compared.tensor, read_tensors(tmp_path / "job.out")[0].tensor, atol=0.04)
    shutil.copy(GENUINE / "other_molecule_before_bad.out", tmp_path / "job.out")
    with pytest.raises(DataError, match="the module RASSCF must end with"):
        read_tensors(rassi)
    magnetism = text_of("cocl4.out")
    (tmp_path / "job.out").write_text(magnetism[: magnetism.index("--- Start Module: rassi")])  # without a D tensor
    assert read_tensors(rassi)[0].charge == -2.0
    (tmp_path / "job.out").write_text(magnetism + text_of("cocl4_turned.out"))
    with pytest.raises(DataError, match=r"has 2 D tensors and .* only one"):
        read_tensors(rassi)
    for name, message in (("cocl4_turned.out", "must be in the frame of"), ("nih2o6_S1.out", "must have the atoms of")):
        shutil.copy(GENUINE / name, tmp_path / "job.out")
        with pytest.raises(DataError, match=message):
            read_tensors(rassi)


def test_rotated_rassi_file(rassi):
    """Rotating the molecule rotates the spin of every state."""
    (before,) = read_tensors(rassi)
    vector = np.array([0.7, -1.1, 0.4])
    spin = expm(-1j * np.einsum("a,aij->ij", vector, spin_matrices(1.5)))
    rotation = Rotation.from_rotvec(vector)
    with h5py.File(rassi, "r+") as file:
        states = file["SOS_COEFFICIENTS_REAL"][()] + 1j * file["SOS_COEFFICIENTS_IMAG"][()]
        states = states @ np.kron(np.eye(10), spin).T
        file["SOS_COEFFICIENTS_REAL"][...], file["SOS_COEFFICIENTS_IMAG"][...] = states.real, states.imag
        file["CENTER_COORDINATES"][...] = rotation.apply(file["CENTER_COORDINATES"][()])
    (after,) = read_tensors(rassi)
    np.testing.assert_allclose(after.tensor, rotation.as_matrix() @ before.tensor @ rotation.as_matrix().T, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["SOS_COEFFICIENTS_REAL"].write_direct(np.eye(40)), "must be orthonormal"),
        (lambda file: file["SFS_ENERGIES"].write_direct(-np.arange(10.0)), "a weight of 0.5 or more"),
        (lambda file: file["SOS_ENERGIES"].__setitem__(slice(4, 6), -0.0006), "and the next state at 50.6 cm"),
        (lambda file: file["SOS_ENERGIES"].__setitem__(0, 1.0), "in order of their energies"),
        (lambda file: file["CENTER_ATNUMS"].__setitem__(0, 0), "must be atomic numbers"),
        (lambda file: file.attrs.__setitem__("STATE_SPINMULT", [2] * 10), "must fit together"),
        (lambda file: file.attrs.__setitem__("STATE_SPINMULT", [[4]]), "must be the multiplicities"),
        (lambda file: file.attrs.__setitem__("IRREP_LABELS", [b"a'", b'a"']), "group = NoSym"),
        (lambda file: file.__delitem__("SOS_ENERGIES"), "ask RASSI for SpinOrbit"),
        (lambda file: file.__delitem__("CENTER_ATNUMS"), "must be an array of numbers"),
    ],
)
def test_changed_rassi_files_are_refused(rassi, change, message):
    with h5py.File(rassi, "r+") as file:
        change(file)
    with pytest.raises((DataError, DamagedFileError), match=message):
        read_tensors(rassi)


def test_command_reads_folders_and_lists_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for name in ("cocl4.out", "cocl4.rassi.h5", "cocl4_turned.out", "nicl4_degenerate_bad.out", "rassi_only.out"):
        shutil.copy(GENUINE / name, jobs)
    arguments = ["import", "jobs", "-o", "data.extxyz"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "jobs/nicl4_degenerate_bad.out, line" in result.output
    result = CliRunner().invoke(app, [*arguments, "--skip"])
    assert result.exit_code == 0, result.output
    assert "jobs/cocl4.rassi.h5: D = -22.1532" in result.output and "S = 3/2" in result.output
    assert "left out: 2 of 4 files\n  the levels of jobs/nicl4_degenerate_bad.out, line" in result.output
    data = read_dataset("data.extxyz", ["energy", "d_tensor"])
    assert [atoms.info for atoms in data.atoms] == [{"multiplicity": 4, "total_charge": -2.0}] * 2
    np.testing.assert_allclose(data.labels["energy"], -88048.0725, atol=1e-3)
    stored = CliRunner().invoke(app, ["import", "jobs/coc*.out", "-o", "data.h5"])
    assert stored.exit_code == 0 and "cocl4.out, line" in stored.output
    assert read_dataset("data.h5", ["d_tensor"]).atoms[1].info["multiplicity"] == 4
    shutil.copy(GENUINE / "nih2o6_S1.out", jobs)
    mixed = CliRunner().invoke(app, [*arguments, "--skip"])
    assert mixed.exit_code == 2 and "same spin, got S = 1 in jobs/nih2o6_S1.out" in mixed.output
    nothing = CliRunner().invoke(app, ["import", "none*.out", "-o", "data.h5"])
    assert nothing.exit_code == 2 and "none*.out names no output" in nothing.output
