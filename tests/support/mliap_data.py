"""Arrays as LAMMPS' ML-IAP package hands them over, for tests without such a LAMMPS."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list


class MLIAPData:
    """`MLIAPDataPy` of one process: n own atoms, then a ghost for every image that is a neighbor.

    Parameters
    ----------
    potential : a `UnifiedPotential`, for its elements and its cutoff.
    shuffled : pairs in a random order, not center by center.
    """

    def __init__(self, atoms: Atoms, potential: Any, shuffled: bool = False):
        n = self.nlistatoms = len(atoms)
        i, j, shift, vector = neighbor_list("ijSD", atoms, 2.0 * potential.rcutfac)
        images = {(a, *s): k for k, (a, *s) in enumerate(sorted({(a, *s) for a, s in zip(j, map(tuple, shift))}))}
        outside = [image for image in images if any(image[1:])]
        index = {image: n + k for k, image in enumerate(outside)} | {(a, 0, 0, 0): a for a in range(n)}
        self._owner = np.array([*range(n), *(image[0] for image in outside)])
        self.ntotal = len(self._owner)
        order = np.argsort(i, kind="stable") if not shuffled else np.random.default_rng(0).permutation(len(i))
        self.pair_i = i[order].astype(np.int32)
        self.jatoms = np.array([index[(a, *s)] for a, s in zip(j, map(tuple, shift))], np.int32)[order]
        self.rij = vector[order]
        element = {symbol: k for k, symbol in enumerate(potential.element_types)}
        self.elems = np.array([element[symbol] for symbol in atoms.symbols], np.int32)[self._owner]
        self.iatoms = np.arange(n, dtype=np.int32)
        self.ielems, self.jelems = self.elems[:n].copy(), self.elems[self.jatoms]
        self.npairs = len(i)
        self.energy, self.written, self._f = np.nan, np.full(n, np.nan), np.zeros((self.ntotal, 3))
        self.virial = np.zeros((3, 3))

    def _write(self, values: np.ndarray) -> None:
        self.written[...] = values

    eatoms = property(None, _write)

    def update_pair_forces(self, fij: np.ndarray) -> None:
        """What LAMMPS does with the derivatives of pairs."""
        assert fij.shape == (self.npairs, 3) and fij.dtype == np.float64 and fij.flags.c_contiguous
        np.add.at(self._f, self.pair_i, fij)
        np.add.at(self._f, self.jatoms, -fij)
        self.virial -= self.rij.T @ fij

    def forces(self) -> np.ndarray:
        """(n, 3): forces after ghosts have been brought home, as `newton on` does."""
        home = np.zeros((self.nlistatoms, 3))
        np.add.at(home, self._owner, self._f)
        return home
