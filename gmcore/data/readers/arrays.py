"""npz files, and HDF5 files of the same layout: one array per quantity, first axis structures.

===================  =====================================  ====================================
quantity             original Gaussian-moment code          rMD17
===================  =====================================  ====================================
positions            R (n_structures, n_max, 3)             coords (n_structures, n_atoms, 3)
atomic numbers       Z (n_structures, n_max) or (n_max,)    nuclear_charges (n_atoms,)
numbers of atoms     N (n_structures,), may be missing      none: all structures are alike
===================  =====================================  ====================================

Optional: cell (3, 3) or (n_structures, 3, 3), and pbc (3,) or (n_structures, 3). Every other array whose first axis
counts structures is available as a label under its own name; a text `units` states units as JSON. Rows beyond N are
padding and are cut off. Integers are checked in their own width: a narrower type would turn a number that is no element
into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gmcore.data.frames import Columns, Fields, Frame, units_in_file
from gmcore.engine.structures import MAX_ATOMIC_NUMBER
from gmcore.errors import DamagedFileError, DataError, shortened
from gmcore.inputs.npz import NpzArrays

LAYOUTS = (("R", "Z"), ("coords", "nuclear_charges"))


def read_npz(path: Path) -> Iterator[Frame]:
    """Yield the structures of an npz file.

    Raises
    ------
    DataError : the file cannot be read, or its arrays do not fit together.
    """
    try:
        arrays = NpzArrays(path)
    except DamagedFileError as error:
        raise DataError(str(error)) from error

    def read(key: str) -> np.ndarray:
        if arrays.headers[key].dtype.kind not in "biuf":
            raise DataError(f"{key} of {path.name} must be numbers, got data of type {arrays.headers[key].dtype}")
        try:
            return arrays[key]
        except DamagedFileError as error:
            raise DataError(str(error)) from error

    units: dict[str, str] = {}
    header = arrays.headers.get("units")
    if header is not None and header.shape == () and header.dtype.kind == "U":
        try:
            units = units_in_file(str(arrays["units"]))
        except DamagedFileError as error:
            raise DataError(str(error)) from error
    return frames_from_arrays(Columns(path.name, {key: h.shape for key, h in arrays.headers.items()}, read), units)


def frames_from_arrays(arrays: Columns, units: Mapping[str, str] = {}) -> Iterator[Frame]:
    """Yield the structures in the arrays; labels are read when they are asked for.

    Parameters
    ----------
    units : units that the file states, by name of the array and "length".

    Raises
    ------
    DataError : arrays are missing or have the wrong shape or type.
    """
    name, shapes = arrays.name, arrays.shapes
    for key_positions, key_numbers in LAYOUTS:
        if key_positions in arrays and key_numbers in arrays:
            break
    else:
        raise DataError(
            f"{name} must contain R and Z, or coords and nuclear_charges; "
            f"its keys are: {shortened(', '.join(sorted(arrays)))}"
        )
    shape = shapes[key_positions]
    if len(shape) != 3 or shape[2] != 3 or shape[1] == 0:
        raise DataError(f"{key_positions} of {name} must have shape (n_structures, n_atoms, 3), got {shape}")
    n_structures, n_max = shape[:2]
    numbers = _integers(arrays, key_numbers, [(n_max,), (n_structures, n_max)])
    wrong = (numbers < 0) | (numbers > MAX_ATOMIC_NUMBER)
    if wrong.any():
        raise DataError(
            f"{key_numbers} of {name} must contain atomic numbers from 1 to {MAX_ATOMIC_NUMBER}, or 0 for padding, "
            f"got {numbers[wrong].flat[0]}"
        )
    positions = arrays[key_positions]
    if positions.dtype.kind not in "iuf":
        raise DataError(f"{key_positions} of {name} must be numbers, got {positions.dtype}")
    given = _integers(arrays, "N", [(n_structures,)]) if "N" in arrays else None
    counts = _counts(given, numbers, n_structures, name)
    numbers = np.broadcast_to(numbers, (n_structures, n_max))
    cells = _per_structure(arrays, "cell", (3, 3), np.zeros((3, 3)), n_structures)
    pbc = _per_structure(arrays, "pbc", (3,), np.any(cells != 0.0, axis=2), n_structures)
    used = (key_positions, key_numbers, "N", "cell", "pbc")
    labels = {key for key, shape in shapes.items() if key not in used and shape[:1] == (n_structures,)}
    for k, n in enumerate(counts):
        fields = Fields(arrays, labels, k, n_max)
        own = numbers[k, :n], positions[k, :n], cells[k], pbc[k].astype(bool)
        yield Frame(*own, fields, f"structure {k} of {name}", dict(units), n_max - int(n))


def _integers(arrays: Columns, key: str, allowed: list[tuple[int, ...]]) -> np.ndarray:
    """Read an array of integers after its shape was checked."""
    shape = arrays.shapes[key]
    array = arrays[key] if shape in allowed else None
    if array is None or array.dtype.kind not in "iu":
        got = shape if array is None else f"{array.dtype} {shape}"
        raise DataError(f"{key} of {arrays.name} must be integers of shape {' or '.join(map(str, allowed))}, got {got}")
    return array


def _counts(given: np.ndarray | None, numbers: np.ndarray, n_structures: int, name: str) -> np.ndarray:
    """Return the number of atoms of each structure; padding must follow the atoms and have number 0."""
    n_max = numbers.shape[-1]
    real = np.broadcast_to(numbers > 0, (n_structures, n_max))
    counts = real.sum(axis=1)
    if given is None:
        given = counts
    given = np.asarray(given)
    if given.shape != counts.shape or given.dtype.kind not in "iu":
        raise DataError(f"N of {name} must be integers of shape {counts.shape}, got {given.dtype} {given.shape}")
    wrong = (given < 0) | (given > n_max)
    inside = np.arange(n_max) < np.where(wrong, 0, given).astype(np.int64)[:, None]
    # numbers shared by all structures cannot show the padding: N alone says where it starts
    wrong |= (~real & inside if numbers.ndim == 1 else real ^ inside).any(axis=1)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise DataError(
            f"N of {name} gives {given[k]} atoms for structure {k}, but its atomic numbers give {counts[k]}: "
            "they must agree"
        )
    return given


def _per_structure(arrays: Columns, key: str, shape: tuple[int, ...], default: np.ndarray, n: int) -> np.ndarray:
    given = arrays.shapes.get(key, default.shape)
    if given not in (shape, (n, *shape)):
        raise DataError(f"{key} of {arrays.name} must have shape {shape} or {(n, *shape)}, got {given}")
    value = arrays[key] if key in arrays else default
    if value.dtype.kind not in "biuf":
        raise DataError(f"{key} of {arrays.name} must be numbers, got {value.dtype}")
    return np.broadcast_to(value, (n, *shape))
