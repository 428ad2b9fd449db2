"""The structures to choose from: recorded frames of runs, and structures of files.

A frame of a run is its whole structure, unless the D tensor of a molecule is wanted that the run cuts out of it: then
each recorded molecule is a candidate, alone and whole, as the D model saw it and as the reference method will.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.analysis.sections.run import run_config
from gmcore.config.dynamics import MDConfig
from gmcore.data.frames import Frame
from gmcore.data.reading import read_frames
from gmcore.dynamics.setup import starting_structure
from gmcore.dynamics.trajectory import Trajectory, TrajectoryError
from gmcore.errors import GMError
from gmcore.selection.soundness import bond_faults
from gmcore.units import conversion


class SelectionError(GMError):
    """Frames that cannot be chosen from, or a wish that cannot be met."""


@dataclass(eq=False)
class Candidate:
    """A structure to choose from.

    Attributes
    ----------
    atoms : A; `info` has total_charge and multiplicity where they are known.
    source : the run folder or the file, as it was given.
    index : place in its series: among the frames of a run, or of the structures of a file.
    series : number of the series in time that it belongs to, one for each replica and molecule; None in files.
    replica, molecule : their indices, where there are several.
    time : fs.
    temperature : K, target of the replica.
    fault : why the structure is broken; empty if it is not.
    """

    atoms: Atoms
    source: str
    index: int
    series: int | None = None
    replica: int | None = None
    molecule: int | None = None
    time: float | None = None
    temperature: float | None = None
    fault: str = ""

    @property
    def name(self) -> str:
        """Where it comes from, for messages: "runs/md, replica 2, 0.412 ps"."""
        parts = [self.source]
        if self.replica is not None:
            parts.append(f"replica {self.replica}")
        if self.molecule is not None:
            parts.append(f"molecule {self.molecule}")
        parts.append(f"frame {self.index}" if self.time is None else f"{self.time / 1000.0:.6g} ps")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class Run:
    """A run of molecular dynamics to choose from.

    Attributes
    ----------
    folder : as it was given.
    trajectory : its trajectory.
    config : its configuration; None if the folder has none.
    """

    folder: Path
    trajectory: Trajectory
    config: MDConfig | None

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run.

        Raises
        ------
        TrajectoryError : the folder has no trajectory, or a damaged one.
        """
        return cls(folder, Trajectory(folder), run_config(folder))

    @property
    def cuts_molecules(self) -> bool:
        """Whether D belongs to molecules that are only a part of the structure, or lie in a crystal."""
        molecules = self.trajectory.molecules
        if molecules is None:
            return False
        return bool(self.trajectory.pbc.any()) or np.size(molecules) != self.trajectory.n_atoms or len(molecules) > 1

    def files(self) -> list[Path]:
        """Return the files that are read."""
        return [*self.trajectory.files, self.folder / "config.yaml"]

    def start(self) -> Atoms | None:
        """Return the structure that the run started from; None if it is not known any more."""
        try:
            atoms = None if self.config is None else starting_structure(self.config)
        except GMError:  # the file has been moved
            return None
        return atoms if atoms is not None and np.array_equal(atoms.numbers, self.trajectory.numbers) else None


def run_candidates(run: Run, molecules: bool, every: int, first_series: int) -> list[Candidate]:
    """Return the candidates of a run, those with broken bonds marked.

    Parameters
    ----------
    molecules : the candidates are the molecules that the run cut out, not its frames.
    every : use only every `every`-th recorded frame.
    first_series : number of the first series.

    Raises
    ------
    TrajectoryError : no positions were recorded.
    """
    trajectory, name = run.trajectory, "molecule_position" if molecules else "position"
    if name not in trajectory.names():
        raise TrajectoryError(f"{run.folder} must have recorded {name} to choose frames from")
    found: list[Candidate] = []
    times, start = trajectory.times(name)[::every], None if molecules else run.start()
    numbers = trajectory.molecule_numbers if molecules else trajectory.numbers
    pbc = np.zeros(3, bool) if molecules else trajectory.pbc
    n_molecules = len(trajectory.molecules) if molecules else 1
    for replica in range(trajectory.n_replicas):
        positions = trajectory.values(name, replica)[::every]
        cells = trajectory.values("box", replica)[::every] if pbc.any() else np.zeros((len(positions), 3, 3))
        target = float(trajectory.temperatures[replica])
        for molecule in range(n_molecules):
            own = positions[:, molecule] if molecules else positions
            if start is None:
                start = Atoms(numbers, own[0], cell=cells[0], pbc=pbc)
            faults = bond_faults(start, own, cells)
            found += [
                Candidate(
                    Atoms(numbers, own[k], cell=cells[k], pbc=pbc),
                    str(run.folder),
                    k * every,
                    first_series + replica * n_molecules + molecule,
                    replica,
                    molecule if n_molecules > 1 else None,
                    float(times[k]),
                    target if np.isfinite(target) else None,
                    faults[k],
                )
                for k in range(len(own))
            ]
    return found


def file_candidates(path: Path, every: int = 1) -> list[Candidate]:
    """Return the structures of a file of any format that is read, with what it says of their time and replica.

    Raises
    ------
    DataError, UnitError : the file cannot be used, or its unit of length is not known.
    """
    found = []
    for k, frame in enumerate(read_frames(path)):
        if k % every:
            continue
        atoms = in_angstrom(frame)
        known = {key: _number(frame.fields.get(key)) for key in ("total_charge", "multiplicity")}
        atoms.info = {key: value for key, value in known.items() if value is not None}
        if "multiplicity" in atoms.info:
            atoms.info["multiplicity"] = round(atoms.info["multiplicity"])
        replica, time = (_number(frame.fields.get(key)) for key in ("replica", "time"))
        temperature = _number(frame.fields.get("temperature"))
        number = None if replica is None else int(replica)
        found.append(Candidate(atoms, str(path), k, None, number, time=time, temperature=temperature))
    return found


def in_angstrom(frame: Frame, unit: str = "A") -> Atoms:
    """Return the structure of a frame with its lengths in A; `unit` is that of a file that states none."""
    factor, _ = conversion("length", frame.units.get("length", unit))
    frame.atoms.set_cell(frame.atoms.cell.array * factor)
    frame.atoms.positions *= factor
    return frame.atoms


def open_sources(sources: Sequence[Path]) -> list[Run | Path]:
    """Return each source as a run (a folder) or a file.

    Raises
    ------
    TrajectoryError : a folder is not that of a run.
    """
    return [Run.open(source) if source.is_dir() else source for source in sources]


def read_candidates(sources: Iterable[Run | Path], wants_d: bool, wants_forces: bool, every: int) -> list[Candidate]:
    """Return the candidates of all sources.

    Raises
    ------
    SelectionError : both quantities are wanted of a run whose D belongs to a part of its structure.
    DataError, TrajectoryError : a source cannot be used.
    """
    found: list[Candidate] = []
    n_series = 0
    for source in sources:
        if isinstance(source, Path):
            found += file_candidates(source, every)
            continue
        molecules = wants_d and source.cuts_molecules
        if molecules and wants_forces:
            raise SelectionError(
                f"D and forces of {source.folder} belong to different structures, a molecule and the whole system: "
                "choose frames for each apart, with --for d_tensor and --for forces"
            )
        own = run_candidates(source, molecules, every, n_series)
        n_series = max([n_series, *(entry.series + 1 for entry in own if entry.series is not None)])
        found += own
    return found


def _number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    try:
        number = float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
