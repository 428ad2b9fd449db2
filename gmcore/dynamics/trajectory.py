"""Reading trajectories: the folder of a run, finished or not, one of its parts, or the joined file.

A run that is still going, was killed, or stopped has one file per chunk in RUN/trajectory; a finished one has
RUN/trajectory.h5; a finished one that is being extended has both. `Trajectory` shows all of these as one. Positions
are never wrapped. Series of one quantity are read whole, frames one at a time. Layout, names and units are those of
`gmcore.dynamics.h5md`.

Not supported: H5MD files of other programs, whose groups may be arranged in other ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcore.dynamics.h5md import (
    PARTICLES,
    QUANTITIES,
    Header,
    TrajectoryError,
    names_in,
    place,
    read_header,
    write_segment,
)
from gmcore.suggest import did_you_mean
from gmcore.units import ASE_TIME

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["MERGED", "SEGMENTS", "Header", "Trajectory", "TrajectoryError", "write_segment"]

MERGED = "trajectory.h5"
SEGMENTS = "trajectory"
SCALARS = ("kinetic_energy", "temperature", "conserved", "energy_deviation", "forces_deviation")
"""Numbers of a sample that a frame carries in its `info`; the potential energy is that of its calculator."""


def segment_path(run: Path, number: int) -> Path:
    """File of a chunk of a run."""
    return run / SEGMENTS / f"{number:06d}.h5"


def trajectory_files(run: Path, n_chunks: int | None = None) -> list[Path]:
    """Files that together are the trajectory of a run folder, in the order of time; may be none.

    With `n_chunks` those of the first so many chunks, none of which may be missing or damaged.

    TrajectoryError: a file that cannot be read, or a chunk without its file.
    """
    merged = [run / MERGED] if (run / MERGED).is_file() else []
    first = _open(merged[0], lambda file: int(file["parameters"].attrs.get("n_segments", 0))) if merged else 0
    segments = sorted(path for path in (run / SEGMENTS).glob("[0-9]*.h5") if path.stem.isdigit())
    if n_chunks is None:
        return merged + [path for path in segments if int(path.stem) >= first]
    segments = [segment_path(run, number) for number in range(first, n_chunks)]
    for path in segments:
        _open(path, read_header)
    return merged + segments


class Trajectory:
    """The samples of a run.

    Parameters
    ----------
    path : folder of a run, its trajectory.h5, or one of its parts.

    Attributes
    ----------
    header : Header
    numbers, masses, pbc : (n_atoms,), (n_atoms,) amu, (3,) bool.
    n_atoms, n_replicas : int
    time_step : fs.
    ensemble : str
    temperatures : (n_replicas,) target, K; NaN for nve.
    seeds : (n_replicas,)
    molecule_numbers, molecules : (n_molecule_atoms,) and (n_molecules, n_molecule_atoms) indices, or None.

    Raises
    ------
    TrajectoryError : nothing there, or a file that is no trajectory of this layout.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        if path.is_dir():
            self._files = trajectory_files(path)
            if not self._files:
                raise TrajectoryError(f"{path} must be the folder of a run, it holds no {MERGED} and no {SEGMENTS}/")
        else:
            self._files = [path]
        self.path, self._names, self.header = path, (), _open(self._files[0], read_header)
        found = {name for file in self._files for name in _open(file, names_in)}
        self._names = tuple(name for name in QUANTITIES if name in found)
        self.numbers, self.masses, self.pbc = self.header.numbers, self.header.masses, self.header.pbc
        self.n_atoms, self.n_replicas = self.header.n_atoms, self.header.n_replicas
        self.time_step, self.ensemble = self.header.time_step, self.header.ensemble
        self.temperatures, self.seeds = self.header.temperatures, self.header.seeds
        self.molecule_numbers, self.molecules = self.header.molecule_numbers, self.header.molecules

    def __repr__(self) -> str:
        return f"Trajectory({str(self.path)!r}: {self.n_replicas} replicas of {self.n_atoms} atoms)"

    def names(self) -> tuple[str, ...]:
        """Quantities that were recorded."""
        return self._names

    def unit(self, name: str) -> str:
        """Unit of a quantity."""
        if name not in QUANTITIES:
            raise TrajectoryError(f"there is no quantity {name!r}{did_you_mean(name, QUANTITIES)}")
        return QUANTITIES[name].unit

    def steps(self, name: str) -> np.ndarray:
        """(n,) int64: steps at which a quantity was recorded, counted from the start of the production."""
        return self._series(name, 0, "step").astype(np.int64)

    def times(self, name: str) -> np.ndarray:
        """(n,) fs: times at which a quantity was recorded."""
        return self._series(name, 0, "time").astype(np.float64)

    def values(self, name: str, replica: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, ...) float64: samples start to stop of a quantity of a replica, all if not given, in the unit of `unit`;
        shapes as in `gmcore.dynamics.h5md`.
        """
        return self._series(name, replica, "value", start, stop).astype(np.float64)

    def frames(self, replica: int, every: int = 1) -> Iterator[Atoms]:
        """Yield every `every`-th recorded structure of a replica, with velocities where they were recorded.

        What was recorded at the same step stands in `info`: step, time (fs), scalars, `d_tensor` (n_molecules, 3, 3)
        cm^-1; the potential energy is that of a calculator.
        """
        if every < 1:
            raise TrajectoryError(f"every must be at least 1, got {every}")
        self._check("position", replica)
        return self._frames(replica, every)

    def _frames(self, replica: int, every: int) -> Iterator[Atoms]:
        import h5py

        names = (name for name in ("potential_energy", *SCALARS, "d_tensor") if name in self._names)
        series = {name: (self.steps(name), self.values(name, replica)) for name in names}
        count = 0
        for path in self._files:
            with h5py.File(path, "r") as file:
                here = {name: file[place(name, replica)] for name in names_in(file) if name in PARTICLES}
                steps = here["position"]["step"][()] if here else ()
                if "velocity" in here:  # read one by one, from the file
                    series["velocity"] = here["velocity"]["step"][()], here["velocity"]["value"]
                for row, step in enumerate(steps):
                    if count % every == 0:
                        yield self._frame(here, row, int(step), _recorded(series, step))
                    count += 1

    def _frame(self, here: dict[str, Any], row: int, step: int, recorded: dict[str, Any]) -> Atoms:
        """One structure from the groups of a file and what was recorded at its step."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        cell = here["box"]["value"][row] if "box" in here else None
        atoms = Atoms(self.numbers, here["position"]["value"][row], cell=cell, pbc=self.pbc, masses=self.masses)
        if "velocity" in recorded:
            atoms.set_velocities(recorded.pop("velocity").astype(np.float64) * ASE_TIME)
        atoms.info |= {"step": step, "time": step * self.time_step}
        if "potential_energy" in recorded:
            atoms.calc = SinglePointCalculator(atoms, energy=float(recorded.pop("potential_energy")))
        atoms.info |= {name: float(value) if np.ndim(value) == 0 else value for name, value in recorded.items()}
        return atoms

    def _check(self, name: str, replica: int) -> None:
        if name not in self._names:
            raise TrajectoryError(f"{self.path} holds {', '.join(self._names) or 'nothing'}, no {name!r}")
        if not 0 <= replica < self.n_replicas:
            raise TrajectoryError(f"the replica must be 0 to {self.n_replicas - 1}, got {replica}")

    def _series(self, name: str, replica: int, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        import h5py

        self._check(name, replica)
        parts, before = [], 0
        for path in self._files:
            with h5py.File(path, "r") as file:
                if place(name, replica) in file:
                    data = file[place(name, replica)][key]
                    last = len(data) if stop is None else max(stop - before, 0)
                    parts.append(data[max(start - before, 0) : last])
                    before += len(data)
        return np.concatenate(parts)


def _recorded(known: dict[str, tuple[np.ndarray, np.ndarray]], step: int) -> dict[str, Any]:
    """Values of the quantities that were recorded at a step."""
    found = {}
    for name, (steps, values) in known.items():
        at = np.searchsorted(steps, step)
        if at < len(steps) and steps[at] == step:
            found[name] = values[at]
    return found


def _open(path: Path, read: Any) -> Any:
    """What `read` finds in a file; errors of HDF5 and missing groups become one sentence."""
    import h5py

    if not path.is_file():
        raise TrajectoryError(f"the trajectory {path} does not exist")
    try:
        with h5py.File(path, "r") as file:
            return read(file)
    except (OSError, KeyError) as error:
        raise TrajectoryError(f"{path} is no trajectory of gmtensor: {' '.join(str(error).split())}") from error
