"""Bonds of a structure and the molecules that they form, across periodic boundaries.

Atoms are bonded where |d| < s (r_i + r_j), with the covalent radii of Cordero (Dalton Trans. 2008, 2832; those of ASE)
and s = 1.3, or 1.2 where a metal takes part: the second shell of a metal (such as S of a sulfonamide bound through N)
lies at 1.3, while thermal motion stretches X-H bonds that far. A bond carries the cell shift S of its second atom,
d = r_j - r_i + S @ cell. Walking along bonds and adding up shifts gives every atom its image beside the first one; a
structure in which two paths to an atom disagree is bonded to its own image; it is a polymer or network, not a molecule.

Not supported: bond orders, hydrogen bonds, bonds that form or break (the bonds of one frame are kept).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.structures import Batch
from gmcore.errors import GMError

if TYPE_CHECKING:
    from ase import Atoms

BOND_SCALE = 1.3
METAL_SCALE = 1.2
_NOT_METALS = (1, 2, *range(5, 11), *range(14, 19), *range(32, 37), *range(51, 55), 85, 86)


class BondError(GMError):
    """The atoms do not form a molecule."""


@dataclass(frozen=True, eq=False)
class Bonds:
    """Bonds of one structure, each once.

    Attributes
    ----------
    n_atoms : number of atoms of the structure.
    pairs : (n_bonds, 2) int64, the atoms of each bond.
    shifts : (n_bonds, 3) int64, cell shift S of the second atom: d = r_j - r_i + S @ cell.
    """

    n_atoms: int
    pairs: np.ndarray
    shifts: np.ndarray

    def among(self, atoms: Sequence[int] | np.ndarray) -> Bonds:
        """Return the bonds between the listed atoms, numbered by their place in the list."""
        place = np.full(self.n_atoms, -1, dtype=np.int64)
        place[atoms] = np.arange(len(atoms))
        pairs = place[self.pairs]
        kept = (pairs >= 0).all(axis=1)
        return Bonds(len(atoms), pairs[kept], self.shifts[kept])

    def lengths(self, positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return the lengths (n, n_bonds), A, of the bonds in frames whose atoms were not wrapped since.

        Parameters
        ----------
        positions, cells : (n, n_atoms, 3) and (n, 3, 3), A.
        """
        first, second = self.pairs.T
        vectors = positions[:, second] - positions[:, first] + self.shifts.astype(np.float64) @ cells
        return np.linalg.norm(vectors, axis=-1)


def is_metal(numbers: np.ndarray) -> np.ndarray:
    """Return whether elements are metals, from atomic numbers; B, Si, Ge, As, Sb, Te, At count as ligand atoms.

    Examples
    --------
    >>> is_metal([27, 7]).tolist()
    [True, False]
    """
    return ~np.isin(numbers, _NOT_METALS)


def bonded_pairs(atoms: Atoms, scale: float = BOND_SCALE, metal_scale: float = METAL_SCALE) -> Bonds:
    """Return the bonds of a structure.

    Parameters
    ----------
    scale, metal_scale : longest bond over the sum of the covalent radii, without and with a metal atom.

    Raises
    ------
    BondError : there are no atoms.
    NeighborError, StructureError : no neighbor list can be made, for example because two atoms coincide.
    """
    from ase.data import covalent_radii

    if len(atoms) == 0:
        raise BondError("a search for bonds needs at least one atom, got none")
    batch = Batch.from_atoms(atoms)
    radii, metal = covalent_radii[batch.numbers], is_metal(batch.numbers)
    pairs = build_pairs(batch, 2.0 * max(scale, metal_scale) * float(radii.max()))
    first, second = pairs.center.astype(np.int64), pairs.neighbor.astype(np.int64)
    displacements = pairs.displacements(batch.cells)[pairs.shift]
    distances = np.linalg.norm(batch.positions[second] - batch.positions[first] + displacements, axis=1)
    longest = np.where(metal[first] | metal[second], metal_scale, scale) * (radii[first] + radii[second])
    # an atom bonded to its own image is found in both directions; each direction alone says all
    bonded = (distances < longest) & (first <= second)
    shifts = pairs.shifts[pairs.shift[bonded]].astype(np.int64)
    return Bonds(batch.n_atoms, np.column_stack((first[bonded], second[bonded])), shifts)


def connected_components(bonds: Bonds) -> list[np.ndarray]:
    """Return the atoms of each connected set, ascending; sets in the order of their first atoms."""
    from scipy.sparse.csgraph import connected_components as components

    n_components, label = components(_graph(bonds), directed=False)
    order = np.argsort(label, kind="stable")
    sets = np.split(order, np.cumsum(np.bincount(label, minlength=n_components))[:-1])
    return sorted(sets, key=lambda members: members[0])


def image_shifts(bonds: Bonds) -> tuple[np.ndarray, np.ndarray]:
    """Return parents (n_atoms,) of a spanning tree from atom 0 (-1 for itself) and cell shifts (n_atoms, 3).

    Positions r + shifts @ cell are those of the whole molecule around its atom 0.

    Raises
    ------
    BondError : the atoms are not connected, or are bonded to their own periodic images.
    """
    from scipy.sparse.csgraph import breadth_first_order

    order, parents = breadth_first_order(_graph(bonds), 0, directed=False)
    if len(order) < bonds.n_atoms:
        raise BondError(
            f"a molecule must be connected by bonds, got {len(order)} of {bonds.n_atoms} atoms connected to the "
            "first one"
        )
    along = {}
    for (i, j), shift in zip(bonds.pairs.tolist(), bonds.shifts):
        along[i, j], along[j, i] = shift, -shift
    shifts = np.zeros((bonds.n_atoms, 3), dtype=np.int64)
    for atom in order[1:]:
        shifts[atom] = shifts[parents[atom]] + along[parents[atom], atom]
    first, second = bonds.pairs.T
    if np.any(shifts[first] + bonds.shifts != shifts[second]):
        raise BondError(
            "a molecule must not be bonded to its own periodic image, got a polymer or network of "
            f"{bonds.n_atoms} atoms per cell"
        )
    return np.where(np.arange(bonds.n_atoms) == 0, -1, parents).astype(np.int64), shifts


def _graph(bonds: Bonds):
    from scipy.sparse import coo_array

    first, second = bonds.pairs.T
    return coo_array((np.ones(len(first)), (first, second)), shape=(bonds.n_atoms, bonds.n_atoms)).tocsr()
