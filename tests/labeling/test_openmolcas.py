"""Labels from OpenMolcas: its inputs, its orbitals, what is refused, and the program itself where it is installed."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr
from scipy.spatial.transform import Rotation

from gmcore.config.labeling import LabelConfig, OpenMolcas
from gmcore.exchange.rassi import read_rassi
from gmcore.labeling.labeling import label_frames
from gmcore.labeling.methods import LabelError, Refused
from gmcore.labeling.openmolcas import OpenMolcasMethod, driver
from gmcore.labeling.openmolcas_input import active_space, start_input, states_input
from gmcore.labeling.openmolcas_orbitals import smallest_d_weight, write_start
from support.openmolcas_program import GOOD, write_program
from support.places import ROOT

GENUINE = ROOT / "tests" / "exchange" / "openmolcas" / "cocl4.rassi.h5"
TETRAHEDRON = np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])


def molecule(symbols: str) -> Atoms:
    """Metal and four neighbors."""
    return Atoms(symbols, 1.3 * TETRAHEDRON)


def label(folder: Path, frames: list[Atoms], **settings):
    """Label frames of charge -2 and S = 3/2 with a program; return the summary and the frames with labels."""
    ase.io.write(folder / "frames.extxyz", frames)
    limit, jobs = settings.pop("time_limit", 60.0), settings.pop("jobs", 1)
    config = LabelConfig(
        method="openmolcas", jobs=jobs, time_limit=limit, total_charge=-2, multiplicity=4, openmolcas=settings
    )
    summary = label_frames(folder / "frames.extxyz", config, folder / "out.extxyz")
    return summary, ase.io.read(folder / "out.extxyz", index=":") if summary.labeled else []


def moved(atoms: Atoms, distance: float) -> Atoms:
    """The molecule with another position of its last atom."""
    other = atoms.copy()
    other.positions[-1] += distance
    return other


def test_inputs():
    atoms = molecule("CoCl4")
    space = active_space(atoms, -2, 4, OpenMolcas(lower_spins=True))
    assert start_input(atoms, space, "ANO-RCC-VDZ", scf=True) == (
        "&GATEWAY\nCoord\n5\nAngstrom\n"
        "Co 0.0000000000 0.0000000000 0.0000000000\nCl 1.3000000000 1.3000000000 1.3000000000\n"
        "Cl -1.3000000000 -1.3000000000 1.3000000000\nCl -1.3000000000 1.3000000000 -1.3000000000\n"
        "Cl 1.3000000000 -1.3000000000 -1.3000000000\nBasis = ANO-RCC-VDZ\nGroup = NoSym\n"
        "AngMom\n0.00000000 0.00000000 0.00000000\nAMFI\nRICD\n&SEWARD\n"
        "&SCF\nCharge = -3\nIterations = 100\n"
    )
    assert states_input(space, 5, OpenMolcas(), "start.h5") == (
        "&RASSCF\nFileOrb = start.h5\nSpin = 4\nNActEl = 7 0 0\nInactive = 45\nRas2 = 5\nCIRoot = 10 10 1\n"
        "Thrs = 1e-10 1e-05 1e-05\nOrbListing = NOTHING\n"
        ">> COPY $Project.JobIph JOB001\n>> COPY $Project.rasscf.h5 converged4.h5\n"
        "&RASSCF\nFileOrb = converged4.h5\nSpin = 2\nNActEl = 7 0 0\nInactive = 45\nRas2 = 5\nCIRoot = 40 40 1\n"
        "Thrs = 1e-10 1e-05 1e-05\nOrbListing = NOTHING\n"
        ">> COPY $Project.JobIph JOB002\n>> COPY $Project.rasscf.h5 converged2.h5\n"
        "&RASSI\nNrOfJobIphs = 2 all\nSpinOrbit\nEJob\nMEES\nProperties = 3\n'ANGMOM' 1\n'ANGMOM' 2\n'ANGMOM' 3\n"
    )
    # the metal elsewhere than at the origin, an even number of electrons, and a molecule too large for tight thresholds
    atoms = Atoms("He20Ni", np.linspace(0.0, 20.0, 63).reshape(21, 3))
    atoms.positions[-1] = np.array([1.0, 2.0, 30.0]) * Bohr
    space = active_space(atoms, 2, 3, OpenMolcas(roots=3))
    text = start_input(atoms, space, "ANO-RCC-MB", scf=True)
    assert "AngMom\n1.00000000 2.00000000 30.00000000\n" in text and "Charge = 2\n" in text
    text = states_input(space, 21, OpenMolcas(), "start.h5")
    assert "NActEl = 8 0 0\nInactive = 29\n" in text and "CIRoot = 3 3 1\nThrs = 1e-07 0.0001 0.0001\n" in text


@pytest.mark.parametrize(
    ("symbols", "charge", "multiplicity", "d_electrons"),
    [("CoCl4", -2, 4, 7), ("CrF4", -1, 4, 3), ("FeCl4", -2, 5, 6), ("MnCl4", -1, 5, 4), ("VCl4", -1, 3, 2)],
)
def test_d_electrons_are_those_of_the_likeliest_oxidation_state(symbols, charge, multiplicity, d_electrons):
    assert active_space(molecule(symbols), charge, multiplicity, OpenMolcas()).d_electrons == d_electrons


@pytest.mark.parametrize(
    ("symbols", "charge", "multiplicity", "settings", "reason"),
    [
        ("CoCl4", -2, 2, {}, "Co with a multiplicity of 2 and a total charge of -2 is none of them"),
        ("CoCl4", -2.5, 4, {}, "a total charge of -2.5 is none of them"),
        ("CoCl4", -1, 4, {}, "a total charge of -1 leaves 96 electrons, which a multiplicity of 4 does not fit"),
        ("CoCl4", -2, 4, {"roots": 11}, "openmolcas.roots must be at most 10, which is all that d7 has, got 11"),
        ("MnCl4", -2, 6, {}, "S = 5/2 has no D without quartets"),
        ("CoCl3Zn", 0, 4, {}, "one transition metal from Sc to Zn, or openmolcas.metal must be stated; got 2"),
        ("CoCl4", -2, 4, {"metal": "Ni"}, "one atom of Ni, which is openmolcas.metal; got 0"),
        ("CH4", 0, 3, {}, "got 0 in CH4"),
    ],
)
def test_molecules_that_are_not_supported(symbols, charge, multiplicity, settings, reason):
    with pytest.raises(Refused) as caught:
        active_space(molecule(symbols), charge, multiplicity, OpenMolcas(**settings))
    assert reason in str(caught.value)
    crystal = molecule(symbols)
    crystal.pbc = True
    with pytest.raises(Refused, match="periodic"):
        active_space(crystal, charge, multiplicity, OpenMolcas(**settings))


def test_first_frame_starts_from_the_d_functions(tmp_path):
    write_program(tmp_path, GENUINE)
    space = active_space(molecule("CoCl4"), -2, 4, OpenMolcas())
    write_start(tmp_path / "scf.h5", tmp_path / "start.h5", space)
    assert smallest_d_weight(tmp_path / "start.h5", 0) == pytest.approx(1.0)
    assert smallest_d_weight(tmp_path / "rasscf.h5", 0) == pytest.approx(0.96)
    with h5py.File(tmp_path / "scf.h5") as scf, h5py.File(tmp_path / "start.h5") as start:
        overlap = scf["AO_OVERLAP_MATRIX"][()].reshape(54, 54)
        before, orbitals = (file["MO_VECTORS"][()].reshape(54, 54) @ overlap for file in (scf, start))
        vectors = start["MO_VECTORS"][()].reshape(54, 54)
        energies, kinds = scf["MO_ENERGIES"][()], start["MO_TYPEINDICES"][()]
        assert start["MO_OCCUPATIONS"][()].sum() == pytest.approx(2 * 45 + 7)
        levels = start["MO_ENERGIES"][()]
    assert b"".join(kinds) == b"I" * 45 + b"2" * 5 + b"S" * 4
    np.testing.assert_allclose(orbitals @ vectors.T, np.eye(54), atol=1e-12)
    fock = vectors @ before.T @ np.diag(energies) @ before @ vectors.T
    others = kinds != b"2"
    np.testing.assert_allclose(fock[np.ix_(others, others)], np.diag(levels[others]), atol=1e-12)
    assert (np.diff(levels[others]) > 0).all()


def test_program_that_is_missing_or_belongs_to_another_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for command, words in (
        ("pymolcas", "apt-get install openmolcas"),
        ("/nowhere/molcas", "no program /nowhere/molcas"),
    ):
        with pytest.raises(LabelError, match=words):
            OpenMolcasMethod(LabelConfig(method="openmolcas", openmolcas={"command": command})).check()
    script = tmp_path / "pymolcas"
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    assert driver("pymolcas") == [str(script)]
    (tmp_path / "python3").touch()
    assert driver("pymolcas") == [str(tmp_path / "python3"), str(script)]


def test_later_frames_start_from_the_nearest_and_if_that_fails_from_the_d_functions(tmp_path):
    # the second frame fails with the orbitals of the first one
    states = f"""
    if [ -e "$here/labeled" ] && [ ! -e "$out/frame.scf.h5" ]; then
        cmp -s "$MOLCAS_WORKDIR/frame/start.h5" "$here/rasscf.h5" && touch "$here/started_near"
        end _RC_NOT_CONVERGED_
        exit 96
    fi
    touch "$here/labeled"
    {GOOD}
    """
    atoms = read_rassi(GENUINE)[0].atoms
    program = write_program(tmp_path, GENUINE, states)
    summary, frames = label(tmp_path, [atoms, moved(atoms, 1e-6)], command=str(program))
    assert summary.labeled == 2 and (tmp_path / "started_near").exists()
    assert (tmp_path / "calls").read_text().split() == ["start.input", "states.input"] * 3
    info = frames[1].info
    np.testing.assert_allclose(info["d_tensor"], read_rassi(GENUINE)[0].tensor, atol=1e-8)
    assert info["d_weight"] == pytest.approx(0.96) and info["energy_casscf"] == pytest.approx(
        read_rassi(GENUINE)[0].energy
    )
    assert len(info["levels_cm"]) == 5 and info["gap_cm"] == pytest.approx(
        info["levels_cm"][4] - info["levels_cm"][3], abs=1e-3
    )


@pytest.mark.parametrize(
    ("states", "d_weight", "reason"),
    [
        ('echo " No convergence after 200 iterations"', 0.96, "did not converge or failed, 'No convergence after 200"),
        ("exit 137", 0.96, "the module STATES did not end; the calculation broke off"),
        (
            'echo " ###   ERROR: Basis set file X   \n ###   does not exist!   ###\n ###    ###"; exit 112',
            0.96,
            "OpenMolcas stopped: Basis set file X does not exist!",
        ),
        ("end _RC_ALL_IS_WELL_; exit 3", 0.96, "OpenMolcas ended with code 3"),
        ("end _RC_ALL_IS_WELL_", 0.96, "OpenMolcas left no converged4.h5: see"),
        (GOOD.replace("frame.rassi", "other.rassi"), 0.96, "OpenMolcas left no frame.rassi.h5: see"),
        (GOOD, 0.6, "every active orbital must have a d weight of 0.75 or more (openmolcas.min_d_weight), got 0.60"),
    ],
    ids=["not converged", "broken off", "stopped", "exit code", "no orbitals", "no result", "no d orbital"],
)
def test_calculations_that_fail(tmp_path, states, d_weight, reason):
    program = write_program(tmp_path, GENUINE, states, d_weight)
    summary, _ = label(tmp_path, [read_rassi(GENUINE)[0].atoms], command=str(program))
    assert summary.labeled == 0 and reason in summary.refused[0][1]
    # inputs and outputs stay, the scratch files do not
    refused = json.loads((tmp_path / "out.extxyz.work" / "refused.json").read_text())
    folder = tmp_path / "out.extxyz.work" / "scratch" / next(iter(refused.values()))["scratch"]
    assert (folder / "states.log").is_file() and not (folder / "scratch").exists()


def test_other_molecules_and_processes_over_time(tmp_path):
    atoms = read_rassi(GENUINE)[0].atoms
    program = write_program(tmp_path, GENUINE)
    summary, _ = label(tmp_path, [moved(atoms, 0.1)], command=str(program))
    assert summary.labeled == 0 and "the geometry must be that of" in summary.refused[0][1]
    (tmp_path / "scf.h5").unlink()
    summary, _ = label(tmp_path, [moved(atoms, 0.3)], command=str(program))
    assert "OpenMolcas stopped before CASSCF: see the end of" in summary.refused[0][1]
    # a module outlives the driver, and holds the lock
    (tmp_path / "alive").touch()
    program = write_program(
        tmp_path, GENUINE, 'exec 9<"$here/alive"; flock -s 9; sleep 1000 & touch "$here/running"; wait'
    )
    summary, _ = label(tmp_path, [moved(atoms, 0.2)], command=str(program), time_limit=3.0)
    assert (tmp_path / "running").exists() and "time limit of 3 s" in summary.refused[0][1]
    with open(tmp_path / "alive") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pymolcas") is None, reason="OpenMolcas is not installed")
def test_three_frames_by_openmolcas(tmp_path):
    """The molecule of a genuine calculation, the same rotated, and another one near it."""
    genuine = read_rassi(GENUINE)[0]
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    rotated = Atoms(genuine.atoms.numbers, genuine.atoms.positions @ turn.T)
    frames = [genuine.atoms, rotated, moved(genuine.atoms, 0.02)]
    summary, labeled = label(tmp_path, frames, basis="ANO-RCC-MB", jobs=2, time_limit=300.0)
    assert summary.labeled == 3, summary.refused
    tensors = [frame.info["d_tensor"] for frame in labeled]
    np.testing.assert_allclose(tensors[0], genuine.tensor, atol=1e-3)
    np.testing.assert_allclose(tensors[1], turn @ tensors[0] @ turn.T, atol=1e-4)
    assert 0.01 < np.abs(tensors[2] - tensors[0]).max() < 20.0
    assert all(frame.info["d_weight"] > 0.9 for frame in labeled)
