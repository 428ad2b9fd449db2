"""Structures laid end to end in one batch, and the table that turns elements into species indices.

Everything that can be wrong with a structure is refused here, once, so that no later stage checks again. Positions may
lie outside the cell (unwrapped trajectories are legal), periodicity may differ between the structures of a batch and
between the axes of one structure, and a structure may be empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcore.errors import GMError
from gmcore.kernels.lattice_cpu import complete_cells

if TYPE_CHECKING:
    from ase import Atoms

MAX_ATOMIC_NUMBER = 118
MIN_VOLUME_FRACTION = 1e-8
"""Smallest volume of a unit cell in units of the product of its edges; below it the edges count as dependent."""

MAX_COORDINATE = 1e8
"""Coordinates, A, beyond which distances would be wrong in the eighth decimal."""


class StructureError(GMError):
    """A structure that no model can be evaluated on."""


class UnknownElementError(GMError):
    """An element that the model was not made for."""


class SpeciesTable:
    """The elements a model knows; an element's place in `numbers` is its species index.

    Parameters
    ----------
    numbers : atomic numbers, any order, repeats allowed.

    Attributes
    ----------
    numbers : the different atomic numbers, ascending.
    """

    def __init__(self, numbers: Iterable[int]):
        unique = np.unique(np.asarray(list(numbers)))
        if unique.size == 0:
            raise UnknownElementError("a species table must hold at least one element, got none")
        if unique.dtype.kind not in "iu" or unique[0] < 1 or unique[-1] > MAX_ATOMIC_NUMBER:
            raise UnknownElementError(f"species must be atomic numbers from 1 to 118, got {unique.tolist()}")
        self.numbers: tuple[int, ...] = tuple(int(z) for z in unique)
        self._lookup = np.full(MAX_ATOMIC_NUMBER + 1, -1, dtype=np.int32)
        self._lookup[unique] = np.arange(unique.size, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"SpeciesTable({list(self.numbers)})"

    def index(self, atomic_numbers: np.ndarray) -> np.ndarray:
        """Species index, int32, of each atomic number; an element outside the table raises UnknownElementError."""
        atomic_numbers = np.asarray(atomic_numbers)
        if atomic_numbers.size == 0:
            return np.zeros(atomic_numbers.shape, dtype=np.int32)
        if atomic_numbers.dtype.kind not in "iu" or atomic_numbers.min() < 1 or atomic_numbers.max() > 118:
            raise UnknownElementError(f"atomic numbers must be integers from 1 to 118, got {_excerpt(atomic_numbers)}")
        index = self._lookup[atomic_numbers]
        if index.min() < 0:
            self._refuse(int(atomic_numbers[index < 0][0]))
        return index

    def _refuse(self, number: int) -> None:
        from ase.data import chemical_symbols

        known = ", ".join(chemical_symbols[z] for z in self.numbers)
        raise UnknownElementError(
            f"element {chemical_symbols[number]} (Z={number}) is not among the model's species {known}"
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Structures laid end to end; atom i of structure k is row `offsets[k] + i`. Nothing is padded.

    `from_atoms` and `from_arrays` convert types; the constructor takes exactly the types below.

    Attributes
    ----------
    positions : (n_atoms, 3) float64, A.
    numbers : (n_atoms,) int32, atomic numbers.
    cells : (n_structures, 3, 3) float64, A, rows are the cell vectors; rows of non-periodic directions are ignored.
    pbc : (n_structures, 3) bool.
    offsets : (n_structures + 1,) int64.

    Raises
    ------
    StructureError for wrong shapes, values that are not finite, numbers that are no elements, periodic cells without
    volume, and batches without a structure.
    """

    positions: np.ndarray
    numbers: np.ndarray
    cells: np.ndarray
    pbc: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        if self.offsets.ndim != 1 or self.offsets.size < 2:
            raise StructureError("a batch must hold at least one structure, got none")
        if self.positions.ndim != 2 or self.positions.shape[1] != 3:
            raise StructureError(f"positions must have shape (n_atoms, 3), got {self.positions.shape}")
        n_atoms, n_structures = len(self.positions), len(self.offsets) - 1
        if self.numbers.shape != (n_atoms,):
            raise StructureError(f"numbers must have shape (n_atoms,) = ({n_atoms},), got {self.numbers.shape}")
        if self.cells.shape != (n_structures, 3, 3):
            raise StructureError(f"cells must have shape ({n_structures}, 3, 3), got {self.cells.shape}")
        if self.pbc.shape != (n_structures, 3):
            raise StructureError(f"pbc must have shape ({n_structures}, 3), got {self.pbc.shape}")
        if self.offsets[0] != 0 or self.offsets[-1] != n_atoms or (np.diff(self.offsets) < 0).any():
            raise StructureError(
                f"offsets must rise from 0 to the number of atoms {n_atoms}, got {_excerpt(self.offsets)}"
            )
        if n_atoms > np.iinfo(np.int32).max:
            raise StructureError(f"a batch must hold fewer than 2**31 atoms, got {n_atoms}")
        self._check_values()

    def _check_positions(self) -> None:
        if not np.abs(self.positions).max(initial=0.0) < MAX_COORDINATE:
            atom = int(np.argmin((np.abs(self.positions) < MAX_COORDINATE).all(axis=1)))
            raise StructureError(
                f"positions must be finite and below {MAX_COORDINATE:g} A, "
                f"got {self.positions[atom].tolist()} for {self.describe_atom(atom)}"
            )

    def _check_values(self) -> None:
        self._check_positions()
        if self.n_atoms and (self.numbers.min() < 1 or self.numbers.max() > MAX_ATOMIC_NUMBER):
            atom = int(np.flatnonzero((self.numbers < 1) | (self.numbers > MAX_ATOMIC_NUMBER))[0])
            raise StructureError(
                f"atomic numbers must lie between 1 and 118, got {self.numbers[atom]} for {self.describe_atom(atom)}"
            )
        if not self.pbc.any():
            return
        if not np.isfinite(self.cells).all():
            k = int(np.flatnonzero(~np.isfinite(self.cells).all(axis=(1, 2)))[0])
            raise StructureError(f"cells must be finite, got {self.cells[k].tolist()} for structure {k}")
        fraction = self._lattice[2]
        if fraction.min() < MIN_VOLUME_FRACTION:
            k = int(np.argmin(fraction))
            raise StructureError(
                "the cell vectors of periodic directions must be linearly independent, "
                f"got {self.cells[k].tolist()} with pbc {self.pbc[k].tolist()} for structure {k}"
            )

    @classmethod
    def from_arrays(
        cls,
        positions: Any,
        numbers: Any,
        cells: Any = None,
        pbc: Any = None,
        offsets: Any = None,
    ) -> Batch:
        """Batch from anything NumPy understands.

        Parameters
        ----------
        positions, numbers : (n_atoms, 3) A and (n_atoms,).
        cells : (3, 3), used for every structure, or (n_structures, 3, 3), A; zeros if not given.
        pbc : bool, (3,) or (n_structures, 3); not periodic if not given.
        offsets : (n_structures + 1,); one structure if not given.
        """
        positions = _converted("positions", positions, np.float64)
        numbers = _converted("numbers", numbers, np.int32)
        offsets = np.array([0, numbers.size]) if offsets is None else _converted("offsets", offsets, np.int64)
        n_structures = max(offsets.size - 1, 0)
        cells = np.zeros((3, 3)) if cells is None else _converted("cells", cells, np.float64)
        if cells.shape == (3, 3):
            cells = np.repeat(cells[None], n_structures, axis=0)
        pbc = _converted("pbc", False if pbc is None else pbc, np.bool_)
        if pbc.shape in ((), (3,)):
            pbc = np.repeat(np.broadcast_to(pbc, (1, 3)), n_structures, axis=0)
        return cls(positions, numbers, cells, pbc, offsets)

    @classmethod
    def from_atoms(cls, atoms: Atoms | Sequence[Atoms]) -> Batch:
        """Batch of one `ase.Atoms` or of a sequence of them."""
        frames: list[Atoms] = [atoms] if hasattr(atoms, "get_positions") else list(atoms)
        if not frames:
            raise StructureError("a batch must hold at least one structure, got none")
        for frame in frames:
            if not hasattr(frame, "get_positions"):
                raise StructureError(f"structures must be ase.Atoms, got {type(frame).__name__}")
        offsets = np.zeros(len(frames) + 1, dtype=np.int64)
        np.cumsum([len(frame) for frame in frames], out=offsets[1:])
        return cls(
            np.concatenate([frame.positions for frame in frames]).astype(np.float64, copy=False),
            _converted("numbers", np.concatenate([frame.numbers for frame in frames]), np.int32),
            np.array([frame.cell.array for frame in frames], dtype=np.float64),
            np.array([frame.pbc for frame in frames], dtype=bool),
            offsets,
        )

    def with_positions(self, positions: np.ndarray) -> Batch:
        """The same structures with their atoms at `positions` (n_atoms, 3) float64, A: a step of a trajectory.

        What belongs to elements and cells is neither checked nor computed again. StructureError: another shape, or
        positions that are not finite.
        """
        if positions.shape != self.positions.shape:
            raise StructureError(f"positions must have shape {self.positions.shape}, got {positions.shape}")
        moved = object.__new__(Batch)
        moved.__dict__.update(self.__dict__, positions=positions)
        moved._check_positions()
        return moved

    @classmethod
    def of_frames(cls, atoms: Atoms, positions: np.ndarray) -> Batch:
        """Batch of one structure at other positions (n_frames, n_atoms, 3), A."""
        n_frames, n_atoms = len(positions), len(atoms)
        return cls.from_arrays(
            np.reshape(positions, (-1, 3)),
            np.tile(atoms.numbers, n_frames),
            np.repeat(atoms.cell.array[None], n_frames, axis=0),
            np.repeat(atoms.pbc[None], n_frames, axis=0),
            n_atoms * np.arange(n_frames + 1),
        )

    def part(self, first: int, last: int) -> Batch:
        """Structures first <= k < last. They have been checked with the whole batch and are not checked again."""
        rows = slice(self.offsets[first], self.offsets[last])
        part = object.__new__(Batch)
        part.__dict__.update(
            positions=self.positions[rows],
            numbers=self.numbers[rows],
            cells=self.cells[first:last],
            pbc=self.pbc[first:last],
            offsets=self.offsets[first : last + 1] - self.offsets[first],
        )
        if "_lattice" in self.__dict__:
            part.__dict__["_lattice"] = tuple(values[first:last] for values in self._lattice)
        if "_species" in self.__dict__:
            table, index = self.__dict__["_species"]
            part.__dict__["_species"] = table, index[rows]
        return part

    def species(self, table: SpeciesTable) -> np.ndarray:
        """(n_atoms,) int32: species index of each atom, looked up once.

        Raises
        ------
        UnknownElementError : an element outside the table.
        """
        known = self.__dict__.get("_species")
        if known is None or known[0] != table.numbers:
            known = self.__dict__["_species"] = table.numbers, table.index(self.numbers)
        return known[1]

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all structures together."""
        return len(self.positions)

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.offsets) - 1

    @cached_property
    def structure(self) -> np.ndarray:
        """(n_atoms,) int32: structure that each atom belongs to."""
        return np.repeat(np.arange(self.n_structures, dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def volumes(self) -> np.ndarray:
        """(n_structures,) A^3: volume of the cell; NaN where no direction is periodic or the cell spans no volume.

        With partial periodicity this is the volume of the whole cell as given, vacuum included, as in ASE.
        """
        volumes = np.abs(np.linalg.det(self.cells))
        return np.where(self.pbc.any(axis=1) & (volumes > 0.0), volumes, np.nan)

    @property
    def lattice(self) -> np.ndarray:
        """(n_structures, 3, 3) A: cells whose rows of non-periodic directions are unit vectors normal to the rest."""
        return self._lattice[0]

    @property
    def inverse_lattice(self) -> np.ndarray:
        """(n_structures, 3, 3) 1/A: fractional coordinates are positions @ inverse_lattice."""
        return self._lattice[1]

    @cached_property
    def _lattice(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lattice, inverse = np.empty_like(self.cells), np.empty_like(self.cells)
        fraction = np.empty(self.n_structures)
        complete_cells(self.cells, self.pbc, lattice, inverse, fraction)
        return lattice, inverse, fraction

    def describe_atom(self, atom: int) -> str:
        """Words for error messages: atom `atom` of the batch by its place in its own structure."""
        k = int(np.searchsorted(self.offsets, atom, side="right")) - 1
        return f"atom {atom - int(self.offsets[k])} of structure {k}"


def _converted(name: str, values: Any, dtype: type) -> np.ndarray:
    """Contiguous copy-if-needed of `values`; floats are not silently cut to integers, nor integers to fewer bits."""
    try:
        array = np.asarray(values)
        if np.dtype(dtype).kind == "i" and array.size and array.dtype.kind not in "iu":
            raise StructureError(f"{name} must be integers, got {array.dtype}")
        if np.dtype(dtype).kind == "i" and array.size:
            limits = np.iinfo(dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise StructureError(f"{name} must be integers that fit {limits.bits} bits, got {_excerpt(array)}")
        return np.asarray(array, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:
        if isinstance(error, StructureError):
            raise
        raise StructureError(f"{name} must be an array of numbers, got {_excerpt(values)}") from error


def _excerpt(values: Any) -> str:
    text = str(values.tolist() if isinstance(values, np.ndarray) else values)
    return text if len(text) <= 60 else text[:57] + "..."
