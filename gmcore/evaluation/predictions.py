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
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.symbols import Symbols

from gmcore.anisotropy import zfs_parameters
from gmcore.data.readers.hdf5 import write_hdf5_parts
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.extxyz.writing import xyz_text
from gmcore.files import atomic_path
from gmcore.quantities import ELEMENTS, GRADE, UNIQUE, is_per_atom, unit_of
from gmcore.uncertainty.uncertainty import Uncertainty

SUFFIXES = (".extxyz", ".xyz", ".h5", ".hdf5", ".npz", ".csv")
OF_TEXT = (".extxyz", ".xyz", ".csv")
"""Formats whose files can be joined end to end."""


class PredictionFileError(GMError):
    """Predictions that cannot be written to the requested file."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Structures and what is predicted for them.

    Attributes
    ----------
    batch : the structures.
    info : entries of the comment line of each structure; a `total_charge` is also written elsewhere.
    values : name -> array with a row per structure or, for quantities of atoms, per atom of all structures.
    units : unit of each of them; "" for none.
    first : number of the first structure in its file.
    """

    batch: Batch
    info: Sequence[Mapping[str, Any]]
    values: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    first: int = 0

    @property
    def without_charge(self) -> int:
        """Number of structures whose total charge is not known."""
        return sum(entries.get("total_charge") is None for entries in self.info)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything that formats of arrays hold; total charges are NaN where they are not known."""
        batch, charges = self.batch, [entries.get("total_charge") for entries in self.info]
        structures = {"numbers": batch.numbers, "positions": batch.positions, "cells": batch.cells, "pbc": batch.pbc}
        known = np.array([np.nan if charge is None else charge for charge in charges], np.float64)
        return structures | {"sizes": np.diff(batch.offsets), "total_charge": known, **self.values}


@dataclass(frozen=True)
class Part:
    """A part of a file of arrays: numbers of its structures and atoms, and a function that returns its arrays."""

    n_structures: int
    n_atoms: int
    arrays: Callable[[], Mapping[str, np.ndarray]]


def check_suffix(path: str | Path) -> None:
    """Check the suffix of an output file before anything is computed.

    Raises
    ------
    PredictionFileError : if no format has this suffix.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise PredictionFileError(f"the suffix of the output must be one of {', '.join(SUFFIXES)}, got {str(path)!r}")


def left_out(path: str | Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the quantities that a format cannot hold: CSV has none of atoms."""
    return tuple(name for name in names if is_per_atom(name)) if Path(path).suffix.lower() == ".csv" else ()


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
    values = {key: np.concatenate(list(v)) if is_per_atom(key) else np.array(v) for key, v in predictions.items()}
    units = {key: unit_of(key, units) for key in predictions}
    batch = Batch.from_atoms(atoms)
    predicted = Predicted(batch, [frame.info for frame in atoms], values, units)
    if path.suffix.lower() in OF_TEXT:
        write_text_part(path, predicted, uncertainty or Uncertainty())
    else:
        part = Part(batch.n_structures, batch.n_atoms, predicted.arrays)
        join_arrays(path, [part], units, total_charge=not predicted.without_charge)
    return left_out(path, list(predictions))


def write_text_part(path: Path, predicted: Predicted, uncertainty: Uncertainty) -> None:
    """Write a file of text, which may be a part of a longer one."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        if path.suffix.lower() == ".csv":
            columns = _csv_columns(predicted, uncertainty)
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values()))
        else:
            for text in _xyz_texts(predicted):
                file.write(text)


def join_text(path: Path, parts: Sequence[Path]) -> None:
    """Join files of text; of CSV files only the first keeps its header."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        for number, part in enumerate(parts):
            with open(part, "rb") as stream:
                if number and path.suffix.lower() == ".csv":
                    stream.readline()
                shutil.copyfileobj(stream, file, 1 << 20)


def join_arrays(path: Path, parts: Sequence[Part], units: Mapping[str, str], total_charge: bool) -> None:
    """Write the arrays of all parts to an HDF5 or npz file, with one part at a time in memory.

    Parameters
    ----------
    units : unit of each quantity that was predicted.
    total_charge : whether that of every structure is known; HDF5 files then have it.
    """
    if path.suffix.lower() == ".npz":
        _write_npz(path, parts, units)
        return
    n_structures, n_atoms = sum(part.n_structures for part in parts), sum(part.n_atoms for part in parts)
    per_atom = [key for key in units if is_per_atom(key)]
    contents = (part.arrays() for part in parts)
    write_hdf5_parts(path, (n_structures, n_atoms), contents, units, per_atom, total_charge)


def _xyz_texts(predicted: Predicted) -> Iterator[str]:
    batch, units = predicted.batch, predicted.units
    stated = " ".join(["positions=A", *(f"{key}={unit}" for key, unit in units.items() if unit)])
    values = {key: np.asarray(array, np.float64) for key, array in predicted.values.items()}
    finite: dict[str, Any] = {
        key: np.isfinite(array.reshape(len(array), -1)).all(axis=1).tolist()
        for key, array in values.items()
        if not is_per_atom(key)
    }
    of_structures = {key: values[key].tolist() if values[key].ndim == 1 else values[key] for key in finite}
    of_atoms = {key: array for key, array in values.items() if key not in finite}
    offsets = batch.offsets.tolist()
    for k, (first, last) in enumerate(pairwise(offsets)):
        info = dict(predicted.info[k])
        info |= {key: array[k] for key, array in of_structures.items() if finite[key][k]}  # a molecule has no stress
        info["units"] = stated
        columns = {key: array[first:last] for key, array in of_atoms.items()}
        own = slice(first, last)
        yield xyz_text(batch.numbers[own], batch.positions[own], batch.cells[k], batch.pbc[k], info, columns)


def _write_npz(path: Path, parts: Sequence[Part], units: Mapping[str, str]) -> None:
    """Write an npz file array by array, as `numpy.savez` does, but from parts."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:

        def write(name: str, n_rows: int, arrays: Iterator[np.ndarray]) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                for number, array in enumerate(map(np.asarray, arrays)):
                    if not number:
                        described = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(array))
                        shape = (n_rows, *array.shape[1:]) if array.ndim else ()
                        np.lib.format.write_array_header_1_0(stream, described | {"shape": shape})
                    stream.write(np.ascontiguousarray(array).tobytes())

        n_structures, n_atoms = sum(part.n_structures for part in parts), sum(part.n_atoms for part in parts)
        sizes = np.concatenate([part.arrays()["sizes"] for part in parts])
        write("offsets", n_structures + 1, iter([np.concatenate([[0], np.cumsum(sizes)])]))
        for key in ("numbers", "positions"):
            write(key, n_atoms, (part.arrays()[key] for part in parts))
        write("units", 0, iter([np.array(json.dumps({"positions": "A", **units}))]))
        for key in units:
            write(key, n_atoms if is_per_atom(key) else n_structures, (part.arrays()[key] for part in parts))


def _csv_columns(predicted: Predicted, uncertainty: Uncertainty) -> dict[str, Sequence[Any] | np.ndarray]:
    batch, units = predicted.batch, predicted.units
    names = np.split(batch.numbers, batch.offsets[1:-1])
    columns: dict[str, Sequence[Any] | np.ndarray] = {
        "structure": range(predicted.first, predicted.first + batch.n_structures),
        "formula": [Symbols(numbers).get_chemical_formula() for numbers in names],
    }
    values = {key: array for key, array in predicted.values.items() if not is_per_atom(key)}
    for key, array in values.items():
        columns |= _columns(key, np.asarray(array, dtype=np.float64), units[key])
    if "d_tensor_std" in values:
        errors = uncertainty.anisotropy_errors(values["d_tensor"], values["d_tensor_std"], values.get(GRADE))
        for name, error in errors.items():
            columns |= _columns(f"{name}_error", error, "deg" if name == "axis" else units["d_tensor"])
    return columns


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
