"""Trajectories of other programs as runs: RUN/trajectory.h5 of frames, with D of molecules evaluated along the way.

What `gmtensor analyze`, `report` and `select` need of a run is its trajectory. One of another program has positions,
cells, times and perhaps D; it has no velocities and no energies, and its models are not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms

from gmcore.dynamics.h5md import Header, TrajectoryError, merge_segments, write_segment
from gmcore.dynamics.run_folder import remove_segments
from gmcore.dynamics.tensor_observer import TensorObserver
from gmcore.dynamics.trajectory import MERGED, segment_path
from gmcore.files import lock_folder

FRAMES = 500
"""Frames that are in memory at a time."""


@dataclass(frozen=True)
class Imported:
    """What a trajectory does not say.

    Attributes
    ----------
    time_step : fs, of one of its steps.
    temperature : K, of its thermostat; None if it had none.
    observer : evaluates D of molecules; None for a trajectory without D.
    """

    time_step: float
    temperature: float | None = None
    observer: TensorObserver | None = None


def write_run(folder: Path, frames: Iterable[tuple[int, Atoms]], imported: Imported) -> int:
    """Write frames as the trajectory of a run, and return their number.

    Parameters
    ----------
    folder : of the run; it must not hold one.
    frames : the number of its step, and each structure, A; steps count from that of the first frame.

    Raises
    ------
    TrajectoryError : the folder holds a run, atoms or periodicity change, or steps do not increase.
    LockError : another process writes to the folder.
    WriteError : the disk is full or the folder cannot be written to.
    """
    if any((folder / name).exists() for name in (MERGED, "state.npz")):
        raise TrajectoryError(f"{folder} holds a run already: choose another folder")
    with lock_folder(folder):
        remove_segments(folder)
        header, first, paths, n_frames = None, 0, list[Path](), 0
        for group in _groups(iter(frames)):
            if header is None:
                first, start = group[0]
                header = _header(start, imported)
            paths.append(segment_path(folder, len(paths)))
            write_segment(paths[-1], header, _data(group, first, header, imported.observer))
            n_frames += len(group)
        if header is None:
            raise TrajectoryError("a trajectory needs at least one frame")
        merge_segments(folder / MERGED, header, paths, len(paths))
        remove_segments(folder)
    return n_frames


def _groups(frames: Iterator[tuple[int, Atoms]]) -> Iterator[list[tuple[int, Atoms]]]:
    while group := list(islice(frames, FRAMES)):
        yield group


def _header(start: Atoms, imported: Imported) -> Header:
    temperature = imported.temperature
    molecules = None if imported.observer is None else imported.observer.molecules
    return Header(
        start.numbers,
        start.get_masses(),
        start.pbc,
        imported.time_step,
        "nve" if temperature is None else "langevin",
        np.array([np.nan if temperature is None else temperature]),
        np.array([0]),
        None if molecules is None else molecules.numbers,
        None if molecules is None else molecules.indices,
    )


def _data(
    group: list[tuple[int, Atoms]], first: int, header: Header, observer: TensorObserver | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    for step, atoms in group:
        if not np.array_equal(atoms.numbers, header.numbers) or (atoms.pbc != header.pbc).any():
            raise TrajectoryError(
                f"all frames of a trajectory must have the same atoms and the same periodicity, but step {step} "
                "differs from the first"
            )
    steps = np.array([step - first for step, _ in group])
    positions = np.array([atoms.positions for _, atoms in group])
    cells = np.array([atoms.cell.array for _, atoms in group])
    found = {"position": positions}
    if header.pbc.any():
        found["box"] = cells
    if observer is not None:
        sampled = [observer(positions[k : k + 1], cells[k : k + 1]) for k in range(len(group))]
        found |= {name: np.concatenate([values[name] for values in sampled]) for name in sampled[0]}
    return {name: (steps, values[None]) for name, values in found.items()}
