"""Neighbor lists: every pair of atoms closer than a cutoff, with every periodic image, for a batch of structures.

d_ij = r_j - r_i + S @ cell, 0 < |d_ij| < cutoff, both directions, self-images included. The list holds integers only;
distances are recomputed where they are needed. The algorithm (images, bins, two passes) is described in
`gmcore.kernels.neighbors_cpu`; time and memory are linear in the number of atoms.

Not supported: half lists, and one list for several cutoffs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gmcore.engine.neighbor_search import COINCIDENT, NeighborError, Search, check_cutoff
from gmcore.engine.structures import Batch
from gmcore.kernels.skin_cpu import closing_distance, nearest_neighbors

__all__ = ["NeighborError", "NeighborList", "Pairs", "build_pairs"]

ROUNDING = 1e-10
"""Relative allowance for rounding in the test of a skin."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs within the cutoff, as CSR rows per center atom.

    The rows are in a fixed order: the same input gives the same arrays, whatever the number of threads.

    Attributes
    ----------
    row_start : (n_atoms + 1,) int64; the pairs of center i are row_start[i] ... row_start[i + 1] - 1.
    neighbor : (n_pairs,) int32, index of the neighbor in the batch.
    shift : (n_pairs,) int32, row of `shifts`.
    shifts : (n_shifts, 3) int32, cell shifts S; rows that no pair uses may occur.
    shift_structure : (n_shifts,) int32, structure that a row of `shifts` belongs to.
    cutoff : A. A list with a skin also holds pairs that lie farther apart.
    """

    row_start: np.ndarray
    neighbor: np.ndarray
    shift: np.ndarray
    shifts: np.ndarray
    shift_structure: np.ndarray
    cutoff: float

    @property
    def n_pairs(self) -> int:
        """Number of directed pairs."""
        return len(self.neighbor)

    @property
    def center(self) -> np.ndarray:
        """(n_pairs,) int32: center atom of each pair."""
        return np.repeat(np.arange(len(self.row_start) - 1, dtype=np.int32), np.diff(self.row_start))

    def of_first(self, n_centers: int) -> Pairs:
        """Pairs of the first `n_centers` atoms; the other atoms stay as neighbors."""
        row_start = self.row_start[: n_centers + 1]
        n_pairs = int(row_start[-1])
        return replace(self, row_start=row_start, neighbor=self.neighbor[:n_pairs], shift=self.shift[:n_pairs])

    def displacements(self, cells: np.ndarray) -> np.ndarray:
        """(n_shifts, 3) float64, A: S @ cell for the cells (n_structures, 3, 3) of the batch."""
        return np.einsum("sa,sab->sb", self.shifts, cells[self.shift_structure])


def build_pairs(batch: Batch, cutoff: float) -> Pairs:
    """All pairs with 0 < |r_j - r_i + S @ cell| < cutoff (A).

    Raises
    ------
    NeighborError for a cutoff that is not positive and finite, for coincident atoms (images included), and where the
    list would not fit 32-bit indices.
    """
    search = Search(batch, float(cutoff))
    row_start = np.zeros(batch.n_atoms + 1, dtype=np.int64)
    np.cumsum(search.count(), out=row_start[1:])
    neighbor, shift = search.fill(row_start)
    shifts, shift_structure = search.shift_table(shift)
    return Pairs(row_start, neighbor, shift, shifts, shift_structure, float(cutoff))


class NeighborList:
    """Pairs for a trajectory: built out to cutoff + skin and reused while provably complete (Verlet skin).

    Let a batch move from positions r0 and cells h0, at which the list was built, to r = r0 F + u and h = h0 F. A pair
    that is not in the list had |d0| >= cutoff + skin, so now |d| >= s (cutoff + skin) - (|u_i| + |u_j|) with s the
    smallest singular value of F. The list is reused while, for every structure, this stays at or above the cutoff with
    the two largest |u|; the same bound on the nearest pair keeps coincident atoms from going unseen. Atoms that are
    wrapped back into the cell jump by a cell vector, which is a reason to build again.

    Parameters
    ----------
    cutoff, skin : A; skin 0 builds whenever anything moved.

    Attributes
    ----------
    n_builds : how often the list was built.
    """

    def __init__(self, cutoff: float, skin: float = 0.0):
        self.cutoff, self.skin = float(cutoff), float(skin)
        check_cutoff(self.cutoff)
        if not (math.isfinite(self.skin) and self.skin >= 0.0):
            raise NeighborError(f"the skin must be finite and not negative, got {skin} A")
        self.n_builds = 0
        self._batch: Batch | None = None
        self._pairs: Pairs | None = None
        self._nearest = math.inf

    def update(self, batch: Batch) -> Pairs:
        """Pairs of `batch`, complete within the cutoff; those of the last call where they still serve.

        With a skin, pairs beyond the cutoff occur. Raises as `build_pairs`.
        """
        if self._pairs is None or self._batch is None or not self._serves(batch, self._batch):
            return self._build(batch)
        return self._pairs

    def _build(self, batch: Batch) -> Pairs:
        self._pairs = None  # a refused batch must not leave the list of an older one behind
        pairs = replace(build_pairs(batch, self.cutoff + self.skin), cutoff=self.cutoff)
        self._nearest = math.inf
        if self.skin > 0.0 and pairs.n_pairs:
            nearest2 = np.empty(batch.n_atoms)
            displacements = pairs.displacements(batch.cells)
            nearest_neighbors(batch.positions, displacements, pairs.row_start, pairs.neighbor, pairs.shift, nearest2)
            self._nearest = math.sqrt(nearest2.min())
        # copies: callers may move atoms in place
        self._batch = replace(batch, positions=batch.positions.copy(), cells=batch.cells.copy())
        self._pairs = pairs
        self.n_builds += 1
        return pairs

    def _serves(self, batch: Batch, old: Batch) -> bool:
        if not (np.array_equal(batch.offsets, old.offsets) and np.array_equal(batch.pbc, old.pbc)):
            return False
        same_cells = np.array_equal(batch.lattice, old.lattice)
        if same_cells and np.array_equal(batch.positions, old.positions):
            return True
        if self.skin == 0.0:
            return False
        deformation = np.broadcast_to(np.eye(3), batch.cells.shape)
        shrink: float | np.ndarray = 1.0
        if not same_cells:
            deformation = old.inverse_lattice @ batch.lattice
            shrink = np.linalg.svd(deformation, compute_uv=False)[:, -1]
        closing = np.empty(batch.n_structures)
        closing_distance(batch.offsets, batch.positions, old.positions, np.ascontiguousarray(deformation), closing)
        closing += ROUNDING * (self.cutoff + self.skin)
        complete = shrink * (self.cutoff + self.skin) - closing >= self.cutoff
        apart = shrink * self._nearest - closing >= COINCIDENT
        return bool(np.all(complete & apart))
