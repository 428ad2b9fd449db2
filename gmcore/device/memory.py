"""The device memory that an evaluation needs, computed in advance.

Per atom there are positions, neighbor list, moments and their cotangents, and what comes out: linear in the number of
atoms and of pairs. Features and hidden layers exist for one chunk of atoms at a time, whose size is chosen to fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gmcore.errors import GMError

MAX_CHUNK = 32768
"""Atoms: more do not make matrix products faster."""
MIN_CHUNK = 256
"""Atoms: below this the device would idle."""
SPARE_PAIRS = 1.15
"""A list has room for this many times the pairs that it has when it is built."""
ATOM_BYTES = 24 + 24 + 4 + 4 + 8
"""Positions, the positions that the list was built at, species, structure, start of the row."""
SEARCH_BYTES = 2 * 24 + 24 + 24 + 3 * 8 + 4 * 8 + 2 * 8 + 2 * 2 * 8
"""While a list is built: wrapped positions (twice), fractions, cell offsets, keys and codes, sort, counts, bins."""
N_COMPONENTS = 16


@dataclass(frozen=True)
class ModelSize:
    """Numbers that the memory of a model depends on.

    Attributes
    ----------
    n_columns : number of columns of every array that exists for a chunk of atoms, all layers together.
    """

    n_members: int
    n_radial: int
    n_outputs: int
    n_columns: int
    itemsize: int


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that an evaluation will use.

    Attributes
    ----------
    fixed : bytes that depend only on atoms and pairs.
    per_row : bytes per atom of a chunk.
    chunk : atoms evaluated together.
    """

    fixed: int
    per_row: int
    chunk: int

    @property
    def total(self) -> int:
        """The total number of bytes."""
        return self.fixed + self.per_row * self.chunk


def list_bytes(n_atoms: int, n_pairs: int) -> int:
    """Return the bytes of positions and neighbor list, including the search."""
    return (ATOM_BYTES + SEARCH_BYTES) * n_atoms + math.ceil(8 * SPARE_PAIRS * n_pairs)


def evaluation_bytes(size: ModelSize, n_atoms: int, n_structures: int, forces: bool) -> int:
    """Return the bytes of moments and outputs of all members; with forces, also those of cotangents and derivatives."""
    moments = size.n_radial * N_COMPONENTS * size.itemsize
    per_atom = moments + 8 * size.n_outputs
    if forces:
        per_atom += moments + 8 * (3 + 9 + 1)  # forces, strain derivative and its partial sums
    return size.n_members * (per_atom * n_atoms + 8 * (size.n_outputs + 9) * n_structures)


def plan_evaluation(
    size: ModelSize, n_atoms: int, n_structures: int, forces: bool, budget: int, scratch: int = 0
) -> MemoryPlan:
    """Return the largest chunk of atoms with which an evaluation fits into `budget` bytes, including `scratch` bytes.

    Raises
    ------
    DeviceMemoryError : the evaluation does not fit even with the smallest chunk.
    """
    fixed = scratch + evaluation_bytes(size, n_atoms, n_structures, forces)
    per_row = size.n_members * size.n_columns * size.itemsize
    least = min(n_atoms, MIN_CHUNK)
    if fixed + least * per_row > budget:
        raise DeviceMemoryError(fixed + least * per_row, budget)
    return MemoryPlan(fixed, per_row, min(n_atoms, MAX_CHUNK, max((budget - fixed) // per_row, least)))


class DeviceMemoryError(GMError):
    """The device has too little memory for its input."""

    def __init__(self, wanted: int, free: int):
        super().__init__(
            f"the device must have {wanted / 2**20:.0f} MiB of free memory for this input, got {free / 2**20:.0f} MiB: "
            "use fewer atoms, a smaller skin or a larger card"
        )


def chunk_bounds(n_atoms: int, chunk: int) -> Sequence[tuple[int, int]]:
    """Return the first and one past the last atom of each chunk.

    Examples
    --------
    >>> chunk_bounds(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(first, min(first + chunk, n_atoms)) for first in range(0, n_atoms, max(chunk, 1))]
