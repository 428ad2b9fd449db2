"""D tensors from ORCA's property file in text form: `job_property.txt` of ORCA 4 and 5, `job.property.txt` of 6.

ORCA 4, 5: sections `$ EPRNMR_DTensor` with "geom. index:", tables headed by their column numbers (the first is the raw
matrix in cm^-1, then the eigenvalues), and the geometries in A at the end. Some 5.0 versions write zero eigenvalues
next to a correct matrix.

ORCA 6: sections `$SCF_D_Tensor` ... `$End` with `&GeometryIndex`, `&d_raw`, `&D`, `&E`, and `$Geometry` with
coordinates whose unit is stated. That the matrix is in cm^-1 and in the frame of these coordinates was checked against
output of version 6.1.

Not supported: D tensors of other methods (`$..._D_Tensor` that is not SCF), whose layout is not known; read the output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gmcore.anisotropy import zfs_parameters
from gmcore.errors import DataError
from gmcore.exchange.tensors import (
    ComputedTensor,
    atoms_from,
    checked_tensor,
    numbers_in,
    require_wavenumbers,
    whole_number_in,
)
from gmcore.units import conversion

if TYPE_CHECKING:
    from ase import Atoms

_COLUMNS = re.compile(r"^\s*0(?:\s+1\s+2)?\s*$")


def read_orca_property(text: str, name: str, unit: str | None = None) -> list[ComputedTensor]:
    """Return the SCF D tensor of every geometry of a property file, cm^-1.

    Raises
    ------
    DataError : the layout is not known, or a tensor contradicts what the program printed.
    """
    require_wavenumbers(unit, name)
    lines = text.splitlines()
    return _read_6(lines, name) if any(line.startswith("$End") for line in lines) else _read_5(lines, name)


def _read_5(lines: Sequence[str], name: str) -> list[ComputedTensor]:
    starts = [k for k, line in enumerate(lines) if line.strip() == "$ EPRNMR_DTensor"]
    geometries = _geometries_5(lines, name)
    found = []
    for start in starts:
        origin = f"{name}, line {start + 1}"
        end = next((k for k in range(start + 1, len(lines)) if lines[k].startswith(("#", "$", "---"))), len(lines))
        section = lines[start:end]
        tables = [k for k, line in enumerate(section) if _COLUMNS.match(line)]
        if len(tables) < 2:
            raise DataError(f"{origin} must contain a matrix and its eigenvalues; this layout is not known")
        rows = _table(section, tables[0], 3, origin)
        eigenvalues = _table(section, tables[1], None, origin).ravel()
        digits = 6
        tensor, notes = checked_tensor(rows, "cm^-1", origin, digits, None)
        notes += _compare_eigenvalues(tensor, eigenvalues, digits, origin)
        step = _integer(section, r"geom\. index:\s*(\d+)", origin)
        found.append(ComputedTensor(tensor, "cm^-1", geometries.get(step), "scf", "total", step - 1, origin, notes))
    return found


def _compare_eigenvalues(tensor: np.ndarray, printed: np.ndarray, digits: int, origin: str) -> tuple[str, ...]:
    """Eigenvalues, with or without the trace, must be those of the matrix; zeros are a known fault."""
    found = zfs_parameters(tensor).eigenvalues
    tolerance = 8.0 * 10.0**-digits
    if not printed.any() and np.abs(found).max() > tolerance:
        return ("the program printed zero eigenvalues; they were computed from its matrix instead",)
    traceless = np.sort(printed) - printed.mean()
    if printed.shape != (3,) or np.abs(traceless - found).max() > tolerance:
        raise DataError(
            f"eigenvalues {printed.tolist()} printed in {origin} must be those of its matrix, which has "
            f"{np.round(np.linalg.eigvalsh(tensor), digits).tolist()}"
        )
    return ()


def _geometries_5(lines: Sequence[str], name: str) -> dict[int, Atoms]:
    """Geometries by their index: "Geometry Index: n", then "Coordinates:" and rows "0 O x y z" in A."""
    geometries, index = {}, None
    for k, line in enumerate(lines):
        if match := re.match(r"\s*Geometry Index:\s*(\d+)", line):
            index = whole_number_in(match[1], f"{name}, line {k + 1}")
        if line.strip() == "Coordinates:" and index is not None:
            origin = f"{name}, line {k + 1}"
            rows = _rows_while(lines[k + 1 :], 5)
            symbols, positions = [row[1] for row in rows], [numbers_in(" ".join(row[2:]), 3, origin) for row in rows]
            geometries[index] = atoms_from(symbols, positions, origin)
    return geometries


def _read_6(lines: Sequence[str], name: str) -> list[ComputedTensor]:
    geometries, found = {}, []
    for title, start, section in _sections_6(lines):
        origin = f"{name}, line {start + 1}"
        if title == "Geometry":
            geometries[_integer(section, r"&GeometryIndex\s+(\d+)", origin)] = _geometry_6(section, origin)
        elif title.endswith("_D_Tensor"):
            if title != "SCF_D_Tensor":
                raise DataError(f"{origin}: the layout of ${title} is not known; read the output file instead")
            found.append(_tensor_6(section, geometries, origin))
    return found


def _sections_6(lines: Sequence[str]):
    """Yield the title, first line and lines of each section."""
    start = None
    for k, line in enumerate(lines):
        if line.startswith("$End"):
            if start is not None:
                yield lines[start][1:].strip(), start, lines[start:k]
            start = None
        elif line.startswith("$"):
            start = k


def _geometry_6(section: Sequence[str], origin: str) -> Atoms:
    at = next((k for k, line in enumerate(section) if "&CartesianCoordinates" in line), None)
    unit = None if at is None else re.search(r'&Units\s+"(\w+)"', section[at])
    if at is None or unit is None:
        raise DataError(f"{origin} must contain coordinates with their unit; this layout is not known")
    rows = _rows_while(section[at + 1 :], 4)
    positions = np.array([numbers_in(" ".join(row[1:]), 3, origin) for row in rows])
    return atoms_from([row[0] for row in rows], positions * conversion("length", unit[1])[0], origin)


def _tensor_6(section: Sequence[str], geometries: dict[int, Atoms], origin: str) -> ComputedTensor:
    at = next((k for k, line in enumerate(section) if line.strip().startswith("&d_raw")), None)
    if at is None:
        raise DataError(f"{origin} must contain &d_raw; this layout is not known")
    rows = _table(section, at + 1, 3, origin)
    printed = _value(section, "&D", origin), _value(section, "&E", origin)
    tensor, notes = checked_tensor(rows, "cm^-1", origin, 8, printed)
    step = _integer(section, r"&GeometryIndex\s+(\d+)", origin)
    return ComputedTensor(tensor, "cm^-1", geometries.get(step), "scf", "total", step - 1, origin, notes)


def _table(lines: Sequence[str], header: int, n_rows: int | None, origin: str) -> np.ndarray:
    """Rows "i a b c" (or "i a") below a line of column numbers; a blank line may follow the header.

    With `n_rows` None the table ends where rows of another kind begin, and row numbers start again at 0.
    """
    rows: list[list[float]] = []
    n_columns = len(lines[header].split()) if header < len(lines) else 0
    for line in lines[header + 1 :]:
        parts = line.split()
        if not parts and not rows:
            continue
        if len(parts) != n_columns + 1 or parts[0] != str(len(rows)):
            break
        rows.append(numbers_in(line, n_columns + 1, origin)[1:])
    if not rows or (n_rows is not None and (len(rows), n_columns) != (n_rows, 3)):
        raise DataError(f"{origin} must contain a table of {n_rows or 'some'} rows; this layout is not known")
    return np.array(rows)


def _rows_while(lines: Sequence[str], n_words: int) -> list[list[str]]:
    """Leading lines of `n_words` words."""
    rows = []
    for line in lines:
        parts = line.split()
        if len(parts) != n_words:
            break
        rows.append(parts)
    return rows


def _integer(section: Sequence[str], pattern: str, origin: str) -> int:
    match = next((found for line in section if (found := re.search(pattern, line))), None)
    if match is None:
        raise DataError(f"{origin} must state the index of its geometry; this layout is not known")
    return whole_number_in(match[1], origin)


def _value(section: Sequence[str], key: str, origin: str) -> float:
    line = next((line for line in section if line.split()[:1] == [key]), None)
    if line is None:
        raise DataError(f"{origin} must contain {key}; this layout is not known")
    return numbers_in(line.partition("]")[2].partition('"')[0], 1, origin)[0]
