"""Driver of the neighbor search: sizes the arrays, guards their indices, calls the kernels."""

from __future__ import annotations

import math

import numpy as np

from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.kernels import neighbors_cpu as kernels
from gmcore.kernels.arguments import Cells, Grid, Images, WrappedAtoms

COINCIDENT = 1e-6
"""Atoms closer than this, A, are taken for one atom written twice."""
SLICES = np.array([1.0, 1.0, 4.0])
"""Bins per cutoff along each axis of the cell."""
SINGLE_BIN = 400.0
"""Structures with fewer images are searched directly."""
CHUNK = 128
"""Centers per parallel task."""
SERIAL_ATOMS = 4000
"""Batches with fewer atoms are searched in one thread: waking the others costs more."""
MAX_INDEX = 2**31 - 1
MAX_SHIFTS = 10_000_000
"""Rows of the table of cell shifts, 12 bytes each; only atoms many cells apart ask for more."""
COMPACT_SHIFTS = 4096
"""Tables with more rows are reduced to the rows in use."""


class NeighborError(GMError):
    """A neighbor list that cannot be built."""


def check_cutoff(cutoff: float) -> None:
    """Refuse a cutoff (A) that is no positive length with a NeighborError."""
    if not (math.isfinite(cutoff) and cutoff > COINCIDENT):
        raise NeighborError(f"the cutoff must be a positive length, got {cutoff} A")


class Search:
    """All images of a batch, binned for one cutoff (A); arrays are named as in the kernels."""

    def __init__(self, batch: Batch, cutoff: float):
        check_cutoff(cutoff)
        self.batch, self.cutoff = batch, cutoff
        n_atoms, n_structures, offsets = batch.n_atoms, batch.n_structures, batch.offsets
        cells = Cells(batch.lattice, batch.inverse_lattice, batch.pbc)
        self._atoms = atoms = WrappedAtoms(
            batch.structure, np.empty((n_atoms, 3)), np.empty((n_atoms, 3)), np.empty((n_atoms, 3), np.int64)
        )
        bounds = np.empty((n_structures, 3, 4))
        kernels.wrap_atoms(batch.positions, offsets, cells, atoms, bounds)
        self._grid = grid = Grid(
            np.empty((n_structures, 3)), np.empty((n_structures, 3, 2)), np.empty((n_structures, 3), np.int64),
            np.zeros(n_structures + 1, np.int64),
        )  # fmt: skip
        self.shift_range, size = np.empty((n_structures, 3), np.int64), np.empty(2)
        kernels.plan_grids(cutoff, offsets, cells, bounds, SLICES, SINGLE_BIN, grid, self.shift_range, size)
        self._guard(*size)
        span = 2 * self.shift_range + 1
        stride = np.stack((span[:, 1] * span[:, 2], span[:, 2]), axis=1)
        self.first_shift = np.zeros(n_structures + 1, dtype=np.int64)
        np.cumsum(span.prod(axis=1), out=self.first_shift[1:])

        bin_start = np.empty(grid.first_bin[-1] + 1, dtype=np.int64)
        kernels.count_images(offsets, cells, atoms, grid, bin_start)
        n_images = int(bin_start[-1])
        self._images = Images(
            bin_start, np.empty((6, n_images)), np.empty(n_images, np.int32), np.empty(n_images, np.int32)
        )
        kernels.place_images(offsets, cells, atoms, grid, stride, bin_start.copy(), self._images)
        zero = self.first_shift[:-1] + (self.shift_range[:, :2] * stride).sum(axis=1) + self.shift_range[:, 2]
        self._center_code = np.empty(n_atoms, dtype=np.int32)
        kernels.number_centers(offsets, atoms.cell_offsets, stride, zero, self._center_code)
        self._chunks = np.append(np.arange(0, n_atoms, CHUNK), n_atoms)

    def _guard(self, n_images: float, n_shifts: float) -> None:
        if not n_images <= MAX_INDEX:
            raise NeighborError(
                f"a cutoff must reach fewer than 2**31 periodic images, got {self.cutoff} A and {n_images:.2g} images"
            )
        if not n_shifts <= MAX_SHIFTS:
            raise NeighborError(
                f"atoms of a periodic structure must lie within a few hundred cells of each other, got {n_shifts:.2g} "
                "cell shifts: wrap the positions or lower the cutoff"
            )

    def count(self) -> np.ndarray:
        """(n_atoms,) int64 pairs per center; coincident atoms are refused here."""
        n_atoms = self.batch.n_atoms
        count, n_close = np.empty(n_atoms, dtype=np.int64), np.empty(n_atoms, dtype=np.int64)
        limit2, close2 = self.cutoff**2, COINCIDENT**2
        search = self._atoms, self._grid, self._images
        if n_atoms < SERIAL_ATOMS:
            kernels.count_rows(0, n_atoms, limit2, close2, *search, count, n_close)
        else:
            kernels.count_rows_parallel(self._chunks, limit2, close2, *search, count, n_close)
        if n_close.max(initial=0) > 1:
            self._refuse_coincident(int(np.argmax(n_close > 1)))
        return count

    def _refuse_coincident(self, center: int) -> None:
        place, atom = self._images.place, self._images.atom
        distance2 = ((place[:3].T + place[3:].T - self._atoms.positions[center]) ** 2).sum(axis=1)
        structure = self.batch.structure[center]
        close = atom[(distance2 < COINCIDENT**2) & (self.batch.structure[atom] == structure)]
        first = self.batch.offsets[structure]
        other = next((atom for atom in close if atom != center), center)
        raise NeighborError(
            f"atoms must lie at least {COINCIDENT:g} A apart, periodic images included, "
            f"got atoms {center - first} and {other - first} of structure {structure} in one place"
        )

    def fill(self, row_start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """neighbor and shift, (n_pairs,) int32 each."""
        n_atoms, n_pairs = self.batch.n_atoms, int(row_start[-1])
        longest = int(np.diff(row_start).max(initial=0)) + 2
        neighbor, shift = np.empty(n_pairs, dtype=np.int32), np.empty(n_pairs, dtype=np.int32)
        search = self._atoms, self._grid, self._images, self._center_code, row_start
        if n_atoms < SERIAL_ATOMS:
            scratch = np.empty(longest, dtype=np.int32)
            kernels.fill_rows(0, n_atoms, self.cutoff**2, *search, scratch, neighbor, shift)
        else:
            scratch = np.empty((len(self._chunks) - 1, longest), dtype=np.int32)
            kernels.fill_rows_parallel(self._chunks, self.cutoff**2, *search, scratch, neighbor, shift)
        return neighbor, shift

    def shift_table(self, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """shifts (n_shifts, 3) and shift_structure (n_shifts,), int32; a long table is compacted, `shift` with it."""
        n_shifts = int(self.first_shift[-1])
        shifts, shift_structure = np.empty((n_shifts, 3), dtype=np.int32), np.empty(n_shifts, dtype=np.int32)
        kernels.number_shifts(self.shift_range, self.first_shift, shifts, shift_structure)
        if n_shifts <= COMPACT_SHIFTS:
            return shifts, shift_structure
        used = np.zeros(n_shifts, dtype=bool)
        used[shift] = True
        new_row = np.cumsum(used, dtype=np.int32) - np.int32(1)
        np.take(new_row, shift, out=shift, mode="clip")
        return shifts[used], shift_structure[used]
