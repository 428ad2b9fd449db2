"""The structures to choose from: recorded frames of runs, and structures of files.

A frame of a run is its whole structure, unless the D tensor of a molecule is wanted that the run cuts out of it: then
each recorded molecule is a candidate, alone and whole, as the D model saw it and as the reference method will. The
structures of a file in the folder of a run, such as stopped.extxyz, are treated like its frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.analysis.sections.run import run_config
from gmcore.config.dynamics import MDConfig
from gmcore.data.frames import default_length, in_angstrom
from gmcore.data.reading import Source, read_frames
from gmcore.dynamics.checkpoint import CHECKPOINT, read_checkpoint
from gmcore.dynamics.run_folder import CONFIG
from gmcore.dynamics.trajectory import Trajectory, TrajectoryError
from gmcore.errors import GMError
from gmcore.molecules.molecules import Molecules
from gmcore.selection.soundness import bond_faults


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
        return [*self.trajectory.files, self.folder / CONFIG, self.folder / CHECKPOINT]

    def start(self) -> Atoms:
        """Return the structure that the run started from, or its first frame if it has no checkpoint.

        Raises
        ------
        TrajectoryError : there is neither.
        """
        try:
            checkpoint = read_checkpoint(self.folder)
        except GMError:  # one that is damaged keeps nobody from using the frames
            checkpoint = None
        first = checkpoint.start if checkpoint is not None else next(self.trajectory.frames(0), None)
        if first is None:
            raise TrajectoryError(f"{self.folder} must have recorded a frame to choose from")
        return first


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
    times = trajectory.times(name)[::every]
    if not len(times):
        return found
    start = None if molecules else run.start()
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
                start = Atoms(numbers, own[0])
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


def file_candidates(source: Path | Source, every: int = 1) -> list[Candidate]:
    """Return the structures of a file of any format that is read, with what it says of their time and replica.

    Raises
    ------
    DataError, UnitError : the file cannot be used, or its unit of length is not known.
    """
    found, source = [], source if isinstance(source, Source) else Source(source)
    path = source.path
    for k, frame in enumerate(read_frames(source)):
        if k % every:
            continue
        atoms = in_angstrom(frame, path, default_length(path, source.format))
        known = {key: _number(frame.fields.get(key)) for key in ("total_charge", "multiplicity")}
        atoms.info = {key: value for key, value in known.items() if value is not None}
        if "multiplicity" in atoms.info:
            atoms.info["multiplicity"] = round(atoms.info["multiplicity"])
        replica, time = (_number(frame.fields.get(key)) for key in ("replica", "time"))
        temperature = _number(frame.fields.get("temperature"))
        number = None if replica is None else int(replica)
        found.append(Candidate(atoms, str(path), k, None, number, time=time, temperature=temperature))
    return found


def of_run(run: Run, entries: Sequence[Candidate], molecules: bool) -> list[Candidate]:
    """Return structures of a file in the folder of a run as frames of that run: molecules cut out, bonds looked at.

    Parameters
    ----------
    entries : of `file_candidates`; those of other atoms stay as they are.
    molecules : as for `run_candidates`.

    Raises
    ------
    TrajectoryError : the run has no structure that it started from.
    """
    start, found = run.start(), list[Candidate]()
    cut = Molecules.from_indices(start, run.trajectory.molecules.tolist()) if molecules else None
    for entry in entries:
        atoms = entry.atoms
        if not np.array_equal(atoms.numbers, run.trajectory.numbers):
            found.append(entry)
            continue
        positions, cells = atoms.positions[None], atoms.cell.array[None]
        if cut is None:
            found.append(replace(entry, fault=bond_faults(start, positions, cells)[0]))
            continue
        whole, reference = cut.extract(positions, cells)[0], Atoms(cut.numbers, cut.reference)
        faults = bond_faults(reference, whole, np.zeros((len(whole), 3, 3)))
        for k, (one, fault) in enumerate(zip(whole, faults)):
            number = k if len(whole) > 1 else None
            found.append(replace(entry, atoms=Atoms(cut.numbers, one), molecule=number, fault=fault))
    return found


def open_sources(sources: Sequence[Path], reading: Source | None = None) -> list[Run | Source]:
    """Return each source as a run (a folder) or a file.

    Parameters
    ----------
    reading : how the files are read; its path does not count.

    Raises
    ------
    TrajectoryError : a folder is not that of a run.
    """
    reading = reading or Source(Path())
    return [Run.open(source) if source.is_dir() else replace(reading, path=source) for source in sources]


def read_candidates(sources: Iterable[Run | Source], wants_d: bool, wants_forces: bool, every: int) -> list[Candidate]:
    """Return the candidates of all sources.

    Raises
    ------
    SelectionError : both quantities are wanted of a run whose D belongs to a part of its structure.
    DataError, TrajectoryError : a source cannot be used.
    """
    found: list[Candidate] = []
    sources, n_series = list(sources), 0
    runs = {source.folder.resolve(): source for source in sources if isinstance(source, Run)}
    for source in sources:
        if isinstance(source, Source):
            entries, run = file_candidates(source, every), runs.get(source.path.resolve().parent)
            found += entries if run is None else of_run(run, entries, wants_d and run.cuts_molecules)
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
