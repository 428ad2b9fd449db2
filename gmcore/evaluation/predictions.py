"""Files of predictions: extended XYZ, HDF5, npz or CSV, chosen by the suffix; every format states the units.

========  ===============================================================================================
suffix    layout
========  ===============================================================================================
.extxyz   quantities of a structure in the comment line, those of atoms as columns; `units` lists the units
.h5       the data set layout of `gmcore.data.readers.hdf5`: readable as training or test data again
.npz      arrays as of `Model.predict`, per-atom ones concatenated, with `offsets`; `units` is a JSON text
.csv      one row per structure, unit in the header; per-atom quantities are left out
========  ===============================================================================================

For a D tensor the CSV file also has D, E and E/|D|, and the calibrated errors of D, E and axis. Deviations between
members are written as `<quantity>_std`, calibrated errors as `<quantity>_error`, extrapolation grades, which have no
unit, as `extrapolation` and `extrapolation_atoms`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from gmcore.anisotropy import zfs_parameters
from gmcore.data.readers.hdf5 import write_hdf5
from gmcore.errors import GMError
from gmcore.files import atomic_path
from gmcore.quantities import ELEMENTS, GRADE, UNIQUE, is_per_atom, unit_of
from gmcore.uncertainty.uncertainty import Uncertainty

SUFFIXES = (".extxyz", ".xyz", ".h5", ".hdf5", ".npz", ".csv")


class PredictionFileError(GMError):
    """Predictions that cannot be written to the requested file."""


def check_suffix(path: str | Path) -> None:
    """Check the suffix of an output file before anything is computed.

    Raises
    ------
    PredictionFileError : if no format has this suffix.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise PredictionFileError(f"the suffix of the output must be one of {', '.join(SUFFIXES)}, got {str(path)!r}")


def write_predictions(
    path: str | Path,
    atoms: Sequence[Atoms],
    predictions: Mapping[str, Any],
    units: Mapping[str, str],
    uncertainty: Uncertainty | None = None,
) -> tuple[str, ...]:
    """Write the predictions for `atoms`; return the quantities that the format cannot hold.

    Parameters
    ----------
    path : the file; its suffix chooses the format.
    atoms : the structures.
    predictions : result of `Model.predict`: name -> array or list, one entry per structure.
    units : unit of each quantity.
    uncertainty : of the model, for the errors of D, E and axis in a CSV file.

    Raises
    ------
    PredictionFileError : if no format has this suffix.
    """
    check_suffix(path)
    path = Path(path)
    units = {key: unit_of(key, units) for key in predictions}
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _write_csv(path, atoms, predictions, units, uncertainty or Uncertainty())
    if suffix == ".npz":
        _write_npz(path, atoms, predictions, units)
    elif suffix in (".h5", ".hdf5"):
        per_atom = [key for key in predictions if is_per_atom(key)]
        charges = [frame.info.get("total_charge") for frame in atoms]
        known = None if None in charges else np.array(charges, dtype=np.float64)
        write_hdf5(path, atoms, predictions, units, per_atom, known)
    else:
        _write_extxyz(path, atoms, predictions, units)
    return ()


def _write_extxyz(path: Path, atoms: Sequence[Atoms], predictions: Mapping[str, Any], units: Mapping[str, str]) -> None:
    frames = []
    for k, frame in enumerate(atoms):
        frame = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, info=dict(frame.info))
        for key, values in predictions.items():
            value = np.asarray(values[k], dtype=np.float64)
            if is_per_atom(key):
                frame.arrays[key] = value
            elif np.isfinite(value).all():  # a molecule has no stress
                frame.info[key] = float(value) if value.ndim == 0 else value
        frame.info["units"] = " ".join(["positions=A", *(f"{key}={unit}" for key, unit in units.items() if unit)])
        frames.append(frame)
    with atomic_path(path) as temporary:
        write(temporary, frames, format="extxyz")


def _write_npz(path: Path, atoms: Sequence[Atoms], predictions: Mapping[str, Any], units: Mapping[str, str]) -> None:
    arrays: dict[str, Any] = {
        "offsets": np.cumsum([0, *(len(frame) for frame in atoms)]),
        "numbers": np.concatenate([frame.numbers for frame in atoms]),
        "positions": np.concatenate([frame.positions for frame in atoms]),
        "units": np.array(json.dumps({"positions": "A", **units})),
    }
    for key, values in predictions.items():
        arrays[key] = np.concatenate(list(values)) if is_per_atom(key) else np.array(values)
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def _write_csv(
    path: Path,
    atoms: Sequence[Atoms],
    predictions: Mapping[str, Any],
    units: Mapping[str, str],
    uncertainty: Uncertainty,
) -> tuple[str, ...]:
    columns: dict[str, Sequence[Any] | np.ndarray] = {
        "structure": range(len(atoms)),
        "formula": [frame.get_chemical_formula() for frame in atoms],
    }
    left_out = tuple(key for key in predictions if is_per_atom(key))
    for key, values in predictions.items():
        if key not in left_out:
            columns |= _columns(key, np.asarray(values, dtype=np.float64), units[key])
    if "d_tensor_std" in predictions:
        tensors, deviations = (np.asarray(predictions[key]) for key in ("d_tensor", "d_tensor_std"))
        errors = uncertainty.anisotropy_errors(tensors, deviations, predictions.get(GRADE))
        for name, values in errors.items():
            columns |= _columns(f"{name}_error", values, "deg" if name == "axis" else units["d_tensor"])
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))
    return left_out


def _columns(key: str, values: np.ndarray, unit: str) -> dict[str, np.ndarray]:
    """Return header -> column for one quantity of the structures."""
    if values.ndim == 1:
        return {f"{key} [{unit}]" if unit else key: values}
    if values.ndim == 2:
        return {f"{key}_{axis} [{unit}]": values[:, a] for a, axis in enumerate("xyz")}
    columns = {f"{key}_{name} [{unit}]": values[:, a, b] for name, (a, b) in zip(ELEMENTS, UNIQUE)}
    if key == "d_tensor":
        found = zfs_parameters(values)
        columns |= {f"D [{unit}]": found.d, f"E [{unit}]": found.e, "E/|D|": found.e_over_d}
    return columns
