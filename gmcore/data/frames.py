"""One structure as it is in its file: what every reader yields."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcore.engine.structures import MAX_ATOMIC_NUMBER
from gmcore.errors import DataError
from gmcore.formats import file_format
from gmcore.quantities import QUANTITIES
from gmcore.units import UnitError, conversion

if TYPE_CHECKING:
    from ase import Atoms

IN_ANGSTROM = ("extxyz", "ase", "lammps", "mdanalysis")
"""Formats in which lengths are in A if nothing else is stated."""
LARGEST = max(math.prod(quantity.shape) for quantity in QUANTITIES)
"""Most numbers that a label has for one structure, or for one atom."""


def units_in_file(value: Any) -> dict[str, str]:
    """Return the units that `gmtensor predict` and `convert` write under the name `units`, by field name and "length".

    Parameters
    ----------
    value : "positions=A energy=eV" of an extended XYZ file, or the same as JSON; anything else states no units.

    Examples
    --------
    >>> units_in_file("positions=A d_tensor=cm^-1")
    {'length': 'A', 'd_tensor': 'cm^-1'}
    """
    return dict(_units_in_text(value)) if isinstance(value, str) else {}


@lru_cache(maxsize=64)
def _units_in_text(value: str) -> dict[str, str]:
    """Return the units in a text, which is mostly the same for all frames of a file."""
    try:
        pairs = json.loads(value)
    except (ValueError, RecursionError):
        pairs = {name: unit for name, _, unit in (part.partition("=") for part in value.split())}
    if not isinstance(pairs, dict) or not all(isinstance(unit, str) and unit for unit in pairs.values()):
        return {}
    return {"length" if name == "positions" else name: unit for name, unit in pairs.items()}


@dataclass(eq=False)
class Frame:
    """One structure as it is in its file.

    Attributes
    ----------
    numbers : (n_atoms,) integers.
    positions : (n_atoms, 3), in the file's length unit.
    cell : (3, 3), in the same unit, rows are the cell vectors.
    pbc : (3,) bool.
    fields : every other named value of the structure.
    origin : where it is, for error messages: "frame 12 of train.extxyz".
    units : units that the file itself states, by field name and "length"; empty if it states none.
    padding : rows that follow the last atom in the fields with one row per atom.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    fields: Mapping[str, Any]
    origin: str
    units: dict[str, str] = field(default_factory=dict)
    padding: int = 0

    @classmethod
    def of(cls, atoms: Atoms, fields: Mapping[str, Any], origin: str, units: dict[str, str] | None = None) -> Frame:
        """Frame of a structure of ASE, which keeps its arrays."""
        return cls(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, fields, origin, units or {})

    @property
    def has_volume(self) -> bool:
        """Whether the structure is periodic and its cell is no plane, so that it has a stress."""
        return bool(self.pbc.any()) and abs(np.linalg.det(self.cell)) > 0.0

    def atoms(self, factor: float = 1.0) -> Atoms:
        """Return the structure with its lengths multiplied by a factor, as a new one without calculator."""
        from ase import Atoms

        return Atoms(self.numbers, self.positions * factor, cell=self.cell * factor, pbc=self.pbc)


def check_numbers(frame: Frame) -> None:
    """Refuse a frame with atoms that are no elements.

    Raises
    ------
    DataError : an atomic number is out of range.
    """
    numbers = frame.numbers
    if not numbers.size or (numbers.min() >= 1 and numbers.max() <= MAX_ATOMIC_NUMBER):
        return
    atom = int(np.argmax((numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)))
    raise DataError(
        f"atomic numbers of {frame.origin} must lie between 1 and {MAX_ATOMIC_NUMBER}, "
        f"got {numbers[atom]} for atom {atom}"
    )


def default_length(path: Path, declared: str = "auto") -> str | None:
    """Return the unit of length of a file that states none: A in formats that usually are."""
    return "A" if file_format(path, declared) in IN_ANGSTROM else None


def in_angstrom(frame: Frame, path: Path, unit: str | None) -> Atoms:
    """Return the structure of a frame in A.

    Parameters
    ----------
    path : file of the frame, for messages.
    unit : that of a file that states none; None if it is not known.

    Raises
    ------
    UnitError : the unit is not stated, or is none of length.
    """
    stated = frame.units.get("length", unit)
    if stated is None:
        raise UnitError(
            f'{path} must state its unit of length: add units="positions=A" to it, or convert it to extended XYZ in A'
        )
    return frame.atoms(conversion("length", stated)[0])


class Columns(Mapping[str, np.ndarray]):
    """Arrays of a file that hold a field of all its structures; each is read once, when it is first asked for.

    Attributes
    ----------
    name : name of the file, for messages.
    shapes : shape of each array.
    """

    def __init__(self, name: str, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray]):
        self.name, self.shapes = name, dict(shapes)
        self._read, self._known = read, dict[str, np.ndarray]()

    def __getitem__(self, key: str) -> np.ndarray:
        """Read an array, or return what was read before."""
        if key not in self._known:
            if key not in self.shapes:
                raise KeyError(key)
            self._known[key] = self._read(key)
            if self._known[key].shape != self.shapes[key]:
                raise DataError(f"{key} of {self.name} has changed while it was read: read the file again")
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.shapes)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.shapes)

    def __contains__(self, key: object) -> bool:
        """Whether there is an array of this name; reads nothing."""
        return key in self.shapes

    def check_rows(self, key: str, n_atoms: int) -> None:
        """Refuse an array with more numbers per row than a label of `n_atoms` atoms can have.

        Raises
        ------
        DataError : the array is too large.
        """
        if math.prod(self.shapes[key][1:]) > LARGEST * max(n_atoms, 1):
            raise DataError(
                f"{key} of {self.name} must have at most {LARGEST * max(n_atoms, 1)} numbers per row, "
                f"got shape {self.shapes[key]}"
            )


class Fields(Mapping[str, Any]):
    """Fields of one structure: its rows of the columns.

    Parameters
    ----------
    columns : the fields of all structures.
    names : the columns that are fields.
    structure : index of the structure.
    atoms : rows of its atoms in columns with one row per atom.
    per_atom : names of these columns.
    n_rows : atoms that the rows of the other columns may be about, for the check of their size.
    """

    __slots__ = ("atoms", "columns", "n_rows", "names", "per_atom", "structure")

    def __init__(
        self,
        columns: Columns,
        names: Collection[str],
        structure: int,
        n_rows: int,
        atoms: slice = slice(0),
        per_atom: Collection[str] = (),
    ):
        self.columns, self.names, self.structure, self.n_rows = columns, names, structure, n_rows
        self.atoms, self.per_atom = atoms, per_atom

    def __getitem__(self, key: str) -> Any:
        """Return the value of a field of the structure."""
        if key not in self.names:
            raise KeyError(key)
        self.columns.check_rows(key, 1 if key in self.per_atom else self.n_rows)
        return self.columns[key][self.atoms if key in self.per_atom else self.structure]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of fields."""
        return len(self.names)

    def __contains__(self, key: object) -> bool:
        """Whether there is a field of this name; reads nothing."""
        return key in self.names
