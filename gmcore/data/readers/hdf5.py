"""The HDF5 data set of this project (structures end to end, labels with units), and flat files like npz.

::

    /                 attributes: format = "gmtensor-dataset", version = 1
    /offsets          (n_structures + 1,) int64: structure k has the atoms offsets[k] ... offsets[k + 1] - 1
    /numbers          (n_atoms,) int32
    /positions        (n_atoms, 3) float64, attribute unit
    /cells            (n_structures, 3, 3) float64, attribute unit; rows are the cell vectors
    /pbc              (n_structures, 3) bool
    /total_charge     (n_structures,) float64, e; may be missing
    /labels/NAME      (n_structures, ...) or (n_atoms, ...), attributes unit and per = "structure" | "atom"

A file without the attribute `format` but with arrays R, Z, N, ... at its top is read as described in
`gmcore.data.readers.arrays`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms

from gmcore.data.frames import Columns, Fields, Frame
from gmcore.data.readers.arrays import frames_from_arrays
from gmcore.errors import DamagedFileError, DataError
from gmcore.files import streamed_hdf5
from gmcore.inputs.claims import check_claim
from gmcore.inputs.hdf5 import check_array, open_hdf5, read_array
from gmcore.inputs.hdf5_walk import claimed

FORMAT = "gmtensor-dataset"
VERSION = 1


WINDOW = 2**16
"""Rows of an array of structures or atoms that are in memory at a time."""


def read_hdf5(path: Path, start: int = 0) -> Iterator[Frame]:
    """Yield the structures of an HDF5 file from number `start` on; of a data set of this project, parts are in memory.

    Raises
    ------
    DataError : the file cannot be read, has a newer version, or its arrays do not fit together.
    """
    with _errors_of(path), open_hdf5(path) as file:
        if _is_own(file):
            return _own_layout(file, path, start)
    return islice(_flat_layout(path), start, None)


def count_hdf5(path: Path) -> int:
    """Return the number of structures of an HDF5 file.

    Raises
    ------
    DataError : as `read_hdf5`, but the arrays of a data set of this project are not looked at.
    """
    with _errors_of(path), open_hdf5(path) as file:
        if _is_own(file):
            return max(len(file["offsets"]) - 1, 0)
    return sum(1 for _ in _flat_layout(path))


def _is_own(file: h5py.File) -> bool:
    return np.array_equal(file.attrs.get("format"), FORMAT)


def _flat_layout(path: Path) -> Iterator[Frame]:
    with _errors_of(path), open_hdf5(path) as file:
        shapes = {name: item.shape for name, item in file.items() if isinstance(item, h5py.Dataset) and item.shape}
    return frames_from_arrays(Columns(path.name, shapes, _later(path, "")))


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn the errors of HDF5, NumPy and ASE into one sentence with the name of the file."""
    try:
        yield
    except DataError:
        raise
    except DamagedFileError as error:
        reason = str(error).replace(str(path), "it", 1)
        raise DataError(f"{path} cannot be read as an HDF5 data set: {reason}") from error
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path} cannot be read as an HDF5 data set: {reason}") from error


def _later(path: Path, group: str) -> Callable[[str], np.ndarray]:
    """Return a function that opens the file again and reads a dataset of a group."""

    def read(key: str) -> np.ndarray:
        with _errors_of(path), open_hdf5(path) as file:
            return read_array(file[group + key], path, group + key)

    return read


class _Rows:
    """A dataset of which only a window of rows is in memory; rows must be asked for in their order."""

    def __init__(self, item: h5py.Dataset, path: Path):
        self._key, self._path, self._n_rows = item.name, path, len(item)
        self._first, self._values = 0, np.asarray(item[:0])

    def __getitem__(self, rows: slice) -> np.ndarray:
        if not self._first <= rows.start <= rows.stop <= self._first + len(self._values):
            last = min(max(rows.stop, rows.start + WINDOW), self._n_rows)
            with _errors_of(self._path), open_hdf5(self._path) as file:
                self._first, self._values = rows.start, np.asarray(file[self._key][rows.start : last])
            if len(self._values) < last - rows.start:
                raise DataError(f"{self._path} has changed while it was read: read the file again")
        return self._values[rows.start - self._first : rows.stop - self._first]


def _own_layout(file: h5py.File, path: Path, start: int) -> Iterator[Frame]:
    name = path.name
    version = int(file.attrs.get("version", 0))
    if version > VERSION:
        raise DataError(
            f"{name} has version {version} of the layout, but this program reads versions up to {VERSION}: "
            "update gmtensor"
        )
    needed = {key: file[key] for key in ("offsets", "numbers", "positions", "cells", "pbc")}
    for key, item in needed.items():
        if not isinstance(item, h5py.Dataset) or not item.shape:
            raise ValueError(f"{key} must be an array")
    if len(needed["offsets"]) == 0:
        raise ValueError("offsets must have at least one element")
    n_structures, n_atoms = len(needed["offsets"]) - 1, len(needed["numbers"])
    for key, rows, row in (("positions", n_atoms, (3,)), ("cells", n_structures, (3, 3)), ("pbc", n_structures, (3,))):
        shape = needed[key].shape
        if shape[0] != rows:
            raise DataError(f"{key} of {name} must have {rows} rows, got {shape[0]}")
        if shape[1:] != row:
            raise ValueError(f"{key} must have shape {(rows, *row)}, got {shape}")
    check_claim(path, "the content", sum(claimed(item) for item in needed.values()))
    for key, item in needed.items():
        check_array(item, path, key)
    for key in ("offsets", "numbers"):
        if needed[key].ndim != 1 or needed[key].dtype.kind not in "iu":
            raise ValueError(f"{key} must be a list of integers, got {needed[key].dtype} {needed[key].shape}")
    given = read_array(needed["offsets"], path, "offsets")
    if given[0] != 0 or given[-1] != n_atoms or (given[1:] < given[:-1]).any():
        raise DataError(f"offsets of {name} must increase from 0 to the number of atoms, {n_atoms}")
    offsets = given.astype(np.int64)
    units = {"length": _unit(file["positions"])}
    if _unit(file["cells"]) != units["length"]:
        raise DataError(
            f"cells and positions of {name} must have the same unit, got {_unit(file['cells'])} and {units['length']}"
        )
    columns, per_atom = _columns(file, path, n_structures, n_atoms, units)
    for key, kinds in (("positions", "iuf"), ("cells", "iuf"), ("pbc", "biuf")):
        if needed[key].dtype.kind not in kinds:
            raise ValueError(f"{key} must be numbers, got {needed[key].dtype}")
    numbers, positions, cells, pbc = (_Rows(needed[key], path) for key in ("numbers", "positions", "cells", "pbc"))

    def frame(k: int) -> Frame:
        own, here = slice(offsets[k], offsets[k + 1]), slice(k, k + 1)
        fields = Fields(columns, columns.shapes, k, 1, own, per_atom)
        place = numbers[own], positions[own], cells[here][0], pbc[here][0].astype(bool)
        return Frame(*place, fields, f"structure {k} of {name}", units=units)

    return map(frame, range(start, n_structures))


def _columns(
    file: h5py.File, path: Path, n_structures: int, n_atoms: int, units: dict[str, str]
) -> tuple[Columns, set[str]]:
    """Return the labels and which of them have a row per atom; their units are added to `units`."""
    items = {}
    if "labels" in file:
        if not isinstance(file["labels"], h5py.Group):
            raise ValueError("labels must be a group")
        items = dict(file["labels"].items())
    places = {key: f"labels/{key}" for key in items}
    if "total_charge" in file:
        items["total_charge"], places["total_charge"] = file["total_charge"], "total_charge"
    shapes, per_atom = {}, set()
    for key, item in items.items():
        if not isinstance(item, h5py.Dataset) or not item.shape:
            raise ValueError(f"{places[key]} must be an array")
        if places[key] != key and np.array_equal(item.attrs.get("per"), "atom"):
            per_atom.add(key)
        n = n_atoms if key in per_atom else n_structures
        if item.shape[0] != n:
            raise DataError(f"{places[key]} of {path.name} must have {n} rows, got {item.shape[0]}")
        if places[key] != key and "unit" in item.attrs:
            units[key] = _unit(item)
        shapes[key] = item.shape
    read = _later(path, "")
    return Columns(path.name, shapes, lambda key: read(places[key])), per_atom


def _unit(item: h5py.Dataset) -> str:
    unit = item.attrs["unit"]
    return unit.decode() if isinstance(unit, bytes) else str(unit)


def write_hdf5(
    path: str | Path,
    atoms: Sequence[Atoms],
    labels: Mapping[str, Sequence[np.ndarray]],
    units: Mapping[str, str],
    per_atom: Sequence[str] = (),
    total_charge: np.ndarray | None = None,
) -> None:
    """Write structures (A) and labels, one array per structure, in the layout above; whole or not at all.

    Parameters
    ----------
    units : unit of each label; it is stored with the label.
    per_atom : labels whose arrays have one row per atom.
    total_charge : (n_structures,) e.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    arrays: dict[str, Any] = {
        "sizes": np.array([len(frame) for frame in atoms]),
        "numbers": np.concatenate([frame.numbers for frame in atoms]),
        "positions": np.concatenate([frame.positions for frame in atoms]),
        "cells": np.array([frame.cell.array for frame in atoms]),
        "pbc": np.array([frame.pbc for frame in atoms]),
        "total_charge": total_charge,
        **{key: np.concatenate(values) if key in per_atom else np.array(values) for key, values in labels.items()},
    }
    sizes = len(atoms), len(arrays["numbers"])
    write_hdf5_parts(path, sizes, [arrays], {key: units[key] for key in labels}, per_atom, total_charge is not None)


def write_hdf5_parts(
    path: str | Path,
    sizes: tuple[int, int],
    parts: Iterable[Mapping[str, Any]],
    units: Mapping[str, str],
    per_atom: Sequence[str],
    total_charge: bool,
) -> None:
    """Write structures and labels that come in parts, in the layout above; whole or not at all.

    Parameters
    ----------
    sizes : numbers of structures and of atoms of all parts.
    parts : arrays of each: sizes (n_structures,) numbers of atoms, numbers, positions, cells, pbc, the labels, and
        perhaps total_charge.
    units : unit of each label.
    per_atom : labels whose arrays have one row per atom.
    total_charge : write the total charges.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    types = {"offsets": np.int64, "numbers": np.int32, "positions": float, "cells": float, "pbc": bool}
    with streamed_hdf5(path) as (file, check):
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        first = np.zeros(2, np.int64)
        for part in parts:
            n_here = np.array([len(part["sizes"]), len(part["numbers"])])
            content = {key: part[key] for key in ("numbers", "positions", "cells", "pbc")}
            content["offsets"] = first[1] + np.concatenate([[0], np.cumsum(part["sizes"])])
            content |= {"total_charge": part["total_charge"]} if total_charge else {}
            content |= {f"labels/{key}": part[key] for key in units}
            for name, given in content.items():
                array = np.asarray(given, types.get(name))
                of_atoms = name in ("numbers", "positions") or name.removeprefix("labels/") in per_atom
                if name not in file:
                    n_rows = sizes[int(of_atoms)] + (name == "offsets")
                    file.create_dataset(name, (n_rows, *array.shape[1:]), array.dtype)
                start = int(first[int(of_atoms)])
                file[name][start : start + len(array)] = array
            first = first + n_here
            check()
        file["positions"].attrs["unit"] = file["cells"].attrs["unit"] = "A"
        if total_charge:
            file["total_charge"].attrs["unit"] = "e"
        for key, unit in units.items():
            item = file[f"labels/{key}"]
            item.attrs["unit"], item.attrs["per"] = unit, "atom" if key in per_atom else "structure"
