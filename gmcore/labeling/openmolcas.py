"""D tensors from OpenMolcas: CASSCF of the d shell with spin-orbit coupling, frame by frame.

A frame starts from the converged orbitals of the nearest frame that has labels. Without such a frame, and where this
start fails, it starts from the 3d functions of the metal (`gmcore.labeling.openmolcas_orbitals`).

A frame is refused unless every module ended well, the active orbitals are d orbitals, and a D tensor describes the
ground multiplet: see `gmcore.exchange.rassi` for the latter.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcore.config.labeling import LabelConfig, OpenMolcas
from gmcore.errors import DamagedFileError, DataError, shortened
from gmcore.exchange.openmolcas_runs import calculations
from gmcore.exchange.rassi import read_rassi
from gmcore.exchange.spin_hamiltonian import spin_text
from gmcore.exchange.tensor_files import in_frame_of
from gmcore.files import atomic_path
from gmcore.inputs.hdf5 import open_hdf5, read_array
from gmcore.labeling.methods import FrameJob, LabelError, Labels, Refused
from gmcore.labeling.openmolcas_input import ActiveSpace, active_space, orbitals_of, start_input, states_input
from gmcore.labeling.openmolcas_orbitals import smallest_d_weight, write_start
from gmcore.units import conversion

if TYPE_CHECKING:
    from ase import Atoms

ORBITALS = "rasscf.h5"
"""Name of the converged orbitals that a frame keeps for later ones."""
PROJECT = "frame"
RESULT = f"{PROJECT}.rassi.h5"
START = "start.h5"
_ERROR = re.compile(r"^\s*###\s+ERROR:\s*(.*?)[\s#]*$")


class _Failed(Refused):
    """A calculation failed, or its active orbitals are no d orbitals; another start may help."""


class OpenMolcasMethod:
    """CASSCF with spin-orbit coupling for each frame.

    Parameters
    ----------
    config : with the section `openmolcas`.
    """

    needs_charge = True
    retries = False

    def __init__(self, config: LabelConfig):
        if config.openmolcas is None:
            raise LabelError("method openmolcas needs a section 'openmolcas'")
        self._settings: OpenMolcas = config.openmolcas
        self._driver: list[str] = []
        self._version = ""

    def check(self) -> None:
        """Find the program, and ask for its version.

        Raises
        ------
        LabelError : it is not installed, or does not start.
        """
        self._driver = driver(self._settings.command)
        try:
            done = subprocess.run(
                [*self._driver, "version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise LabelError(f"{self._settings.command} does not start: {shortened(str(error))}") from error
        self._version = done.stdout.strip()
        if done.returncode or not self._version:
            said = done.stderr.strip().splitlines() or ["it says nothing"]
            raise LabelError(f"{self._settings.command} does not tell its version: {shortened(said[-1])}")

    def identity(self) -> str:
        """Settings, without those of the machine, and the version."""
        settings = self._settings.model_dump(mode="json", exclude={"command", "memory"})
        return json.dumps(settings, sort_keys=True) + f" {self._version}"

    def label(self, atoms: Atoms, job: FrameJob) -> Labels:
        """Compute a frame.

        Raises
        ------
        Refused : the molecule is not one that is supported, or the calculation failed.
        DataError : the ground multiplet is not one that a D tensor describes.
        WriteError : the disk is full.
        """
        if job.total_charge is None or job.multiplicity is None:
            raise Refused("total charge and multiplicity must be known")
        space = active_space(atoms, job.total_charge, job.multiplicity, self._settings)
        nearest = job.nearest(ORBITALS)
        try:
            weight = self._compute(atoms, space, job, nearest)
        except _Failed:
            if nearest is None:
                raise
            weight = self._compute(atoms, space, job, None)
        path = job.folder / RESULT
        tensor = in_frame_of(read_rassi(path)[0], atoms)
        spin = (space.multiplicity - 1) / 2.0
        if tensor.spin != spin:
            raise Refused(f"the ground state must have S = {spin_text(spin)}, got S = {spin_text(tensor.spin or 0.0)}")
        with open_hdf5(path) as file:
            energies = np.asarray(read_array(file.get("SOS_ENERGIES"), path, "SOS_ENERGIES"))
        levels = np.maximum(energies - energies[0], 0.0) * conversion("d_tensor", "Hartree")[0]
        n = space.multiplicity
        extras: dict[str, float | str] = {
            "energy_casscf": float(tensor.energy or 0.0),
            "d_weight": weight,
            "levels_cm": " ".join(f"{level:.4f}" for level in levels[: n + 1]),
        }
        if len(levels) > n:
            extras["gap_cm"] = float(levels[n] - levels[n - 1])
        kept = job.folder / f"{PROJECT}.{ORBITALS}"
        return Labels({"d_tensor": tensor.tensor}, extras, {ORBITALS: kept})

    def close(self) -> None:
        """Nothing is running."""

    def _compute(self, atoms: Atoms, space: ActiveSpace, job: FrameJob, orbitals: Path | None) -> float:
        """Run the program, starting from a file of orbitals if there is one; return the smallest d weight."""
        for path in (*job.folder.glob(f"{PROJECT}.*"), *job.folder.glob("*.log")):  # of an earlier try
            path.unlink()
        scratch = job.folder / "scratch"
        try:
            (scratch / PROJECT).mkdir(parents=True)
            text = start_input(atoms, space, self._settings.basis, scf=orbitals is None)
            self._run(job, "start", text, needed=orbitals is not None)
            if orbitals is None:
                scf = job.folder / f"{PROJECT}.scf.h5"
                if not scf.is_file():
                    log = job.folder / "start.log"
                    raise _Failed(_reason(log) or f"OpenMolcas stopped before CASSCF: see the end of {log}")
                write_start(scf, scratch / PROJECT / START, space)
            else:
                _copy(orbitals, scratch / PROJECT / START)
            self._run(job, "states", states_input(space, len(atoms), self._settings, START), needed=True)
            spins = [space.multiplicity] + ([space.multiplicity - 2] if space.lower_roots else [])
            files = [scratch / PROJECT / orbitals_of(spin) for spin in spins]
            weight = min(smallest_d_weight(path, space.metal) for path in files)
            _copy(files[0], job.folder / f"{PROJECT}.{ORBITALS}")
            (job.folder / RESULT).stat()
        except FileNotFoundError as error:
            name = Path(error.filename or "").name
            raise _Failed(f"OpenMolcas left no {name}: see the end of {job.folder / 'states.log'}") from error
        except DamagedFileError as error:
            raise _Failed(str(error)) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not weight >= self._settings.min_d_weight:
            raise _Failed(
                f"every active orbital must have a d weight of {self._settings.min_d_weight:g} or more "
                f"(openmolcas.min_d_weight), got {weight:.2f}"
            )
        return weight

    def _run(self, job: FrameJob, name: str, text: str, needed: bool) -> None:
        """Run an input, all of whose modules must end well if `needed`."""
        with atomic_path(job.folder / f"{name}.input") as temporary:
            temporary.write_text(text, encoding="ascii")
        environment = {
            "MOLCAS_WORKDIR": str(job.folder / "scratch"),
            "MOLCAS_OUTPUT": str(job.folder),
            "MOLCAS_PROJECT": PROJECT,
            "MOLCAS_MEM": str(self._settings.memory),
            "MOLCAS_NPROCS": "1",
            "MOLCAS_NEW_WORKDIR": "NO",
            "MOLCAS_KEEP_WORKDIR": "YES",
        }
        code = job.run([*self._driver, f"{name}.input"], environment, f"{name}.log")
        if needed:
            log = job.folder / f"{name}.log"
            try:
                calculations(log.read_text(encoding="utf-8", errors="replace").splitlines(), str(log))
            except DataError as error:
                raise _Failed(_reason(log) or str(error)) from error
            if code:
                raise _Failed(f"OpenMolcas ended with code {code}: see the end of {log}")


def driver(command: str) -> list[str]:
    """Return how the driver of OpenMolcas is started.

    It is a script whose first line asks for the python3 of PATH. Another one than that of its distribution may stand
    there, without the packages that it needs, so that the python3 beside it is taken.

    Raises
    ------
    LabelError : it is not there.
    """
    found = shutil.which(command)
    if found is None:
        if command == "pymolcas":
            raise LabelError("openmolcas is not installed: apt-get install openmolcas")
        raise LabelError(
            f"there is no program {command}, which openmolcas.command names: install it, or correct the name"
        )
    path = Path(found).resolve()
    with open(path, "rb") as file:
        first = file.readline(200)
    python = path.parent / "python3"
    if first.startswith(b"#!") and b"python" in first and python.is_file():
        return [str(python), str(path)]
    return [str(path)]


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _reason(log: Path) -> str:
    """Return the errors that OpenMolcas prints in frames of hash signs; empty where there are none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = []
    for k, line in enumerate(lines):
        if match := _ERROR.match(line):
            below = itertools.takewhile(bool, (text.strip(" #") for text in lines[k + 1 :]))
            errors.append(" ".join((match[1], *below)))
    return f"OpenMolcas stopped: {shortened(' '.join(dict.fromkeys(errors)))}" if errors else ""
