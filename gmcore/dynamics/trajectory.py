"""Reading trajectories: from the folder of a run, complete or not, or from one of its files.

A run that is not complete has one file per chunk in RUN/trajectory. A complete run has RUN/trajectory.h5. A complete
run that is being extended has both. `Trajectory` reads all of these as one trajectory. Positions are never wrapped. The
series of a quantity is read as a whole, frames are read one at a time. Layout, names and units are those of
`gmcore.dynamics.h5md`.

Not supported: H5MD files of other programs, whose groups may be arranged differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcore.dynamics.h5md import (
    PARTICLES,
    QUANTITIES,
    Header,
    TrajectoryError,
    group_path,
    names_in,
    read_header,
    recorded_group,
    write_segment,
)
from gmcore.formats import FOREIGN, SUFFIXES
from gmcore.inputs.hdf5 import open_hdf5
from gmcore.suggest import did_you_mean
from gmcore.units import ASE_TIME

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["MERGED", "SEGMENTS", "Header", "Trajectory", "TrajectoryError", "write_segment"]

MERGED = "trajectory.h5"
SEGMENTS = "trajectory"
_NUMBER = re.compile(r"[0-9]{6}|[1-9][0-9]{6,}")
"""The stem of `segment_path`."""

SCALARS = ("kinetic_energy", "temperature", "conserved", "energy_deviation", "forces_deviation", "extrapolation")
"""Scalars in the `info` of a frame; the potential energy is in its calculator."""


def segment_path(run: Path, number: int) -> Path:
    """Path of the trajectory file of a chunk."""
    return run / SEGMENTS / f"{number:06d}.h5"


def segments_in(run: Path) -> list[Path]:
    """Return the trajectory files of chunks, in the order of time, known by their names."""
    numbers = sorted(int(path.stem) for path in (run / SEGMENTS).glob("*.h5") if _NUMBER.fullmatch(path.stem))
    return [segment_path(run, number) for number in numbers]


def trajectory_files(run: Path, n_chunks: int | None = None) -> list[Path]:
    """Return the files that make up the trajectory of a run, in the order of time; may be empty.

    Parameters
    ----------
    run : folder of the run.
    n_chunks : return the files of the first `n_chunks` chunks and check that they are complete (default: all files).

    Raises
    ------
    TrajectoryError : a file cannot be read, or the file of a chunk is missing.
    """
    merged = [run / MERGED] if (run / MERGED).is_file() else []
    first = _open(merged[0], lambda file: int(file["parameters"].attrs.get("n_segments", 0))) if merged else 0
    segments = segments_in(run)
    if n_chunks is None:
        return merged + [path for path in segments if int(path.stem) >= first]
    segments = [segment_path(run, number) for number in range(first, n_chunks)]
    for path in segments:
        _open(path, read_header)
    return merged + segments


class Trajectory:
    """The trajectory of a run.

    Parameters
    ----------
    path : folder of a run, its trajectory.h5, or the file of one chunk.

    Attributes
    ----------
    files : the files that are read, in the order of time.
    header : Header; all data that do not change in time.
    numbers : (n_atoms,) atomic numbers.
    masses : (n_atoms,) amu.
    pbc : (3,) bool.
    n_atoms, n_replicas : numbers of atoms of a replica and of replicas.
    time_step : fs.
    ensemble : "nve", "langevin", "nose_hoover" or "npt".
    temperatures : (n_replicas,) target temperatures, K; NaN for nve.
    seeds : (n_replicas,) seeds of the random numbers.
    molecule_numbers : (n_molecule_atoms,) atomic numbers of a molecule, or None.
    molecules : (n_molecules, n_molecule_atoms) indices of the atoms of each molecule, or None.

    Raises
    ------
    TrajectoryError : there is no trajectory, or the file has another layout.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        if path.is_dir():
            self.files = trajectory_files(path)
            if not self.files:
                raise TrajectoryError(f"the folder {path} has no trajectory: neither {MERGED} nor files in {SEGMENTS}/")
        else:
            self.files = [path]
        self.path, self.header = path, _open(self.files[0], read_header)
        found = {name for file in self.files for name in _open(file, names_in)}
        self._names: tuple[str, ...] = tuple(name for name in QUANTITIES if name in found)
        self.numbers, self.masses, self.pbc = self.header.numbers, self.header.masses, self.header.pbc
        self.n_atoms, self.n_replicas = self.header.n_atoms, self.header.n_replicas
        self.time_step, self.ensemble = self.header.time_step, self.header.ensemble
        self.temperatures, self.seeds = self.header.temperatures, self.header.seeds
        self.molecule_numbers, self.molecules = self.header.molecule_numbers, self.header.molecules

    def __repr__(self) -> str:
        """Path and size."""
        return f"Trajectory({str(self.path)!r}: {self.n_replicas} replicas of {self.n_atoms} atoms)"

    def names(self) -> tuple[str, ...]:
        """Names of the recorded quantities."""
        return self._names

    def unit(self, name: str) -> str:
        """Return the unit of a quantity.

        Raises
        ------
        TrajectoryError : there is no such quantity.
        """
        if name not in QUANTITIES:
            raise TrajectoryError(f"unknown quantity {name!r}{did_you_mean(name, QUANTITIES)}")
        return QUANTITIES[name].unit

    def steps(self, name: str) -> np.ndarray:
        """(n,) int64: steps at which a quantity was recorded, counted from the start of the production."""
        return self._series(name, 0, "step").astype(np.int64)

    def times(self, name: str) -> np.ndarray:
        """(n,) fs: times at which a quantity was recorded."""
        return self._series(name, 0, "time").astype(np.float64)

    def values(self, name: str, replica: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(n, ...) float64: samples of a quantity of a replica, in the unit that `unit` returns.

        Parameters
        ----------
        name : name of the quantity; shapes as in `gmcore.dynamics.h5md.QUANTITIES`.
        replica : index of the replica.
        start, stop : range of samples (default: all).

        Raises
        ------
        TrajectoryError : the quantity was not recorded, or the replica does not exist.
        """
        return self._series(name, replica, "value", start, stop).astype(np.float64)

    def frames(self, replica: int, every: int = 1) -> Iterator[Atoms]:
        """Iterate over every `every`-th recorded structure of a replica, with velocities if they were recorded.

        `info` has step, time (fs) and everything recorded at the same step: scalars, `d_tensor` (n_molecules, 3, 3)
        cm^-1 and `d_tensor_extrapolation` (n_molecules,). The potential energy is in the calculator.

        Raises
        ------
        TrajectoryError : `every` is below 1, no positions were recorded, or the replica does not exist.
        """
        if every < 1:
            raise TrajectoryError(f"every must be at least 1, got {every}")
        self._check("position", replica)
        return self._frames(replica, every)

    def _frames(self, replica: int, every: int) -> Iterator[Atoms]:
        """Yield the frames; a generator of its own, so that `frames` checks its arguments when it is called."""
        wanted = ("potential_energy", *SCALARS, "d_tensor", "d_tensor_extrapolation")
        names = (name for name in wanted if name in self._names)
        series = {name: (self.steps(name), self.values(name, replica)) for name in names}
        count = 0
        for path in self.files:
            with _opened(path) as file:
                recorded_here = [name for name in names_in(file) if name in PARTICLES]
                here = {name: recorded_group(file, self.header, name, replica) for name in recorded_here}
                steps = here["position"]["step"][()] if here else ()
                if "velocity" in here:  # read from the file one by one
                    series["velocity"] = here["velocity"]["step"][()], here["velocity"]["value"]
                for row, step in enumerate(steps):
                    if count % every == 0:
                        yield self._frame(here, row, int(step), _recorded(series, step))
                    count += 1

    def _frame(self, here: dict[str, Any], row: int, step: int, recorded: dict[str, Any]) -> Atoms:
        """Return one structure from the groups of a file and the values recorded at its step."""
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
        """Make sure that a quantity was recorded and that a replica exists."""
        if name not in self._names:
            raise TrajectoryError(
                f"{self.path} has no {name!r}; recorded are {', '.join(self._names) or 'no quantities'}"
            )
        if not 0 <= replica < self.n_replicas:
            raise TrajectoryError(f"the replica must be 0 to {self.n_replicas - 1}, got {replica}")

    def _series(self, name: str, replica: int, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read the dataset `key` of a quantity from all files and join it."""
        self._check(name, replica)
        parts, before = [], 0
        for path in self.files:
            with _opened(path) as file:
                if group_path(name, 0) in file:
                    data = recorded_group(file, self.header, name, replica)[key]
                    last = len(data) if stop is None else max(stop - before, 0)
                    parts.append(data[max(start - before, 0) : last])
                    before += len(data)
        if len({part.shape[1:] for part in parts}) != 1:
            raise TrajectoryError(f"the files of {self.path} do not belong together: {name} differs in shape")
        return np.concatenate(parts)


def _recorded(known: dict[str, tuple[np.ndarray, np.ndarray]], step: int) -> dict[str, Any]:
    """Select the values that were recorded at a step."""
    found = {}
    for name, (steps, values) in known.items():
        at = np.searchsorted(steps, step)
        if at < len(steps) and steps[at] == step:
            found[name] = values[at]
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield a file of a trajectory; errors of HDF5 and missing groups become a TrajectoryError."""
    if not path.is_file():
        raise TrajectoryError(f"the trajectory {path} does not exist")
    try:
        with open_hdf5(path) as file:
            yield file
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        if SUFFIXES.get(path.suffix.lower()) in FOREIGN:
            raise TrajectoryError(
                f"{path} is a trajectory of another program: make a run of it with gmtensor convert, and use that"
            ) from error
        reason = " ".join(str(error).split()).replace(str(path), "it", 1)[:500]
        raise TrajectoryError(f"{path} is not a trajectory of gmtensor, or it is damaged: {reason}") from error


def _open(path: Path, read: Any) -> Any:
    """Open a file and call `read` with it; raises as `_opened`."""
    with _opened(path) as file:
        return read(file)
