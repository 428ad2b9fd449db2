"""Trajectories for other programs: extended XYZ and CSV.

extended XYZ   One file per replica. The comment line has step, time (fs), energies, temperature, deviations and the
               extrapolation grade. If D was evaluated at that step, it also has `d_tensor`, `D`, `E` (cm^-1) and
               `d_tensor_extrapolation`, numbered for several molecules.
CSV            One row per replica and step at which a scalar or D was recorded. The header states the units. A field is
               empty if the quantity was not recorded at that step. Tensors are written as elements i <= j, D, E, E/|D|
               and axis; the sign of the axis has no meaning.

Both are written frame by frame and row by row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmcore.anisotropy import zfs_parameters
from gmcore.dynamics.h5md import OBSERVABLES, TrajectoryError, replica_name
from gmcore.dynamics.trajectory import Trajectory
from gmcore.extxyz.writing import write_xyz
from gmcore.files import atomic_path
from gmcore.outputs import check_outputs
from gmcore.quantities import ELEMENTS, UNIQUE

SUFFIXES = (".extxyz", ".xyz", ".csv")


def export(
    trajectory: Trajectory, target: str | Path, replicas: Sequence[int] | None = None, every: int = 1
) -> list[Path]:
    """Write a trajectory in the format given by the suffix of `target`; return the files written.

    Parameters
    ----------
    trajectory : the trajectory.
    target : .extxyz, .xyz or .csv. With several replicas, each extended XYZ file has the name of its replica added.
    replicas : replicas to write (default: all).
    every : write only every `every`-th structure (extended XYZ) or row of a replica (CSV).

    Raises
    ------
    TrajectoryError : the suffix is unknown, a replica does not exist, `every` is below 1, or there is nothing to write.
    OutputError : a file is that of the trajectory, belongs to other results, or would be written twice.
    """
    target = Path(target)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise TrajectoryError(f"the suffix of the output must be one of {', '.join(SUFFIXES)}, got {str(target)!r}")
    chosen = list(range(trajectory.n_replicas)) if replicas is None else list(replicas)
    for replica in chosen:
        if not 0 <= replica < trajectory.n_replicas:
            raise TrajectoryError(f"the replica must be 0 to {trajectory.n_replicas - 1}, got {replica}")
    if every < 1:
        raise TrajectoryError(f"every must be at least 1, got {every}")
    paths = [target]
    if suffix != ".csv" and len(chosen) > 1:
        paths = [target.with_name(f"{target.stem}_{replica_name(replica)}{target.suffix}") for replica in chosen]
    check_outputs(paths, [trajectory.path, *trajectory.files])
    if suffix == ".csv":
        return [_write_csv(trajectory, target, chosen, every)]
    return [_write_extxyz(trajectory, path, replica, every) for path, replica in zip(paths, chosen)]


def _write_extxyz(trajectory: Trajectory, path: Path, replica: int, every: int) -> Path:
    frames = trajectory.frames(replica, every)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for atoms in frames:
            stated = {"positions": "A", "time": "fs", "energy": "eV"}
            units = {name: OBSERVABLES[name].unit for name in atoms.info if name in OBSERVABLES}
            stated |= {name: unit for name, unit in units.items() if unit}
            atoms.info["units"] = " ".join(f"{name}={unit}" for name, unit in stated.items())
            tensors, grades = (atoms.info.pop(name, ()) for name in ("d_tensor", "d_tensor_extrapolation"))
            for number, tensor in enumerate(tensors):
                end = f"_{number}" if len(tensors) > 1 else ""
                if len(grades):
                    atoms.info[f"d_tensor_extrapolation{end}"] = float(grades[number])
                found = zfs_parameters(tensor)
                atoms.info |= {f"d_tensor{end}": tensor, f"D{end}": float(found.d), f"E{end}": float(found.e)}
            write_xyz(file, [atoms])
    return path


def _write_csv(trajectory: Trajectory, path: Path, replicas: Sequence[int], every: int) -> Path:
    names = [name for name in OBSERVABLES if name in trajectory.names() and name != "molecule_position"]
    if not names:
        raise TrajectoryError(f"{trajectory.path} has no scalars and no tensors to write as CSV: write .extxyz instead")
    steps = np.unique(np.concatenate([trajectory.steps(name) for name in names]))[::every]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for replica in replicas:
            columns = dict(_columns(trajectory, names, steps, replica))
            if replica == replicas[0]:
                writer.writerow(["replica", "target_temperature [K]", "seed", "step", "time [fs]", *columns])
            constant = [replica, _field(trajectory.temperatures[replica]), int(trajectory.seeds[replica])]
            for row, step in enumerate(steps):
                fields = [_field(values[row]) for values in columns.values()]
                writer.writerow([*constant, int(step), _field(step * trajectory.time_step), *fields])
    return path


def _columns(
    trajectory: Trajectory, names: Sequence[str], steps: np.ndarray, replica: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield header and values (n_steps,) of each column; NaN where nothing was recorded."""
    for name in names:
        values, unit = trajectory.values(name, replica), trajectory.unit(name)
        _, at, here = np.intersect1d(trajectory.steps(name), steps, assume_unique=True, return_indices=True)
        if name == "d_tensor_members":
            name, values = "d_tensor_std", _deviation(trajectory, values, replica)
        for label, series in _series(name, values[at], unit):
            column = np.full(len(steps), np.nan)
            column[here] = series
            yield label, column


def _deviation(trajectory: Trajectory, members: np.ndarray, replica: int) -> np.ndarray:
    """Deviation of the elements of D over members or draws (n, n_members, ...), about the D that was recorded."""
    steps, of_members = trajectory.steps("d_tensor"), trajectory.steps("d_tensor_members")
    at = np.minimum(np.searchsorted(steps, of_members), len(steps) - 1)
    recorded = trajectory.values("d_tensor", replica)[at]
    recorded[steps[at] != of_members] = np.nan  # only in a file that has been changed
    return np.sqrt(np.mean((members - recorded[:, None]) ** 2, axis=1))


def _series(name: str, values: np.ndarray, unit: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the columns of a quantity: itself, or the elements of its tensors and D, E, E/|D| and axis."""
    if values.ndim < 3:
        columns = values.reshape(len(values), -1)
        for number in range(columns.shape[1]):
            end = f"_{number}" if columns.shape[1] > 1 else ""
            yield f"{name}{end}" + (f" [{unit}]" if unit else ""), columns[:, number]
        return
    tensors = values[:, None] if values.ndim == 3 else values
    for number in range(tensors.shape[1]):
        end = f"_{number}" if tensors.shape[1] > 1 else ""
        tensor = tensors[:, number]
        for element, (a, b) in zip(ELEMENTS, UNIQUE):
            yield f"{name}{end}_{element} [{unit}]", tensor[:, a, b]
        if name == "d_tensor":
            found = zfs_parameters(tensor)
            yield f"D{end} [{unit}]", found.d
            yield f"E{end} [{unit}]", found.e
            yield f"E/|D|{end}", found.e_over_d
            for a, axis in enumerate("xyz"):
                yield f"axis{end}_{axis}", found.axis[:, a]


def _field(value: Any) -> str:
    """Shortest text that reads back as the same number; empty for NaN."""
    return "" if np.isnan(value) else repr(float(value))
