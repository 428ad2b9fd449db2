"""Molecules in a crystal: chosen once, then extracted whole from every frame, in the atom order of another model.

The potential is evaluated on the periodic crystal, and D on molecules cut out of it. `Molecules` is built from the
first frame: bonds, a spanning tree of them, and the mapping of atoms to the order of a reference. Then, for any number
of frames at once,

    d = r_child - r_parent + n @ cell,    n the integers that make |d| least,

for every bond of the tree; adding up n along the way from the first atom gives integer cell shifts, and positions are
r + shifts @ cell: no rounding is added up along the chain.

The shortest image of a bond is found in the Minkowski-reduced cell: the reduction of the first frame, or another one
in frames whose cell vectors were chosen anew. If |d| there is at most half of the least distance between opposite
faces of the cell, no other image can be shorter; for longer ones all images that could be are searched. So the cell
may be as skewed as it likes and may differ from frame to frame. What must hold is that a bond is shorter than its own
images, |d| < half of the shortest lattice translation; bonds of up to 2.6 A in lattices without translations below
5.2 A always are. The image nearest to the bond vector of the first frame would be no safer: it fails where a group
rotates in a small cell.

Not supported: molecules whose bonds change during a run; the bonds of the first frame are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcore.errors import GMError, excerpt
from gmcore.molecules.bonds import BondError, Bonds, bonded_pairs, connected_components, image_shifts
from gmcore.molecules.mapping import MappingError, Skeleton, map_atoms

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["BondError", "Bonds", "MappingError", "MoleculeError", "Molecules", "bonded_pairs", "connected_components"]

SKEWED = 0.5
"""Height of a cell over its shortest edge below which it is reduced again; reduced ones have 0.7 or more."""


class MoleculeError(GMError):
    """The declared molecules do not exist in the structure."""


class Molecules:
    """Molecules of one kind in a structure, all in one order of atoms.

    Build with `from_indices` or `from_metal`.

    Attributes
    ----------
    numbers : (n_molecule_atoms,) int32, atomic numbers in the order of the reference.
    indices : (n_molecules, n_molecule_atoms) int64, their atoms in the structure.
    bonds : (n_bonds, 2) int64, bonds of a molecule, numbered in its own order.
    reference : (n_molecule_atoms, 3) A, positions of the reference, or of the first molecule made whole.
    rmsd : (n_molecules,) A, after superposition of the first frame onto the reference by proper rotations; large for
        mirror images.
    """

    def __init__(self, atoms: Atoms, members: Sequence[np.ndarray], reference: Atoms | None, bonds: Bonds):
        skeletons = [_skeleton(atoms, indices, bonds) for indices in members]
        target = skeletons[0] if reference is None else _reference_skeleton(reference)
        orders, self.rmsd = [], np.zeros(len(members))
        for k, skeleton in enumerate(skeletons):
            if skeleton is target:
                orders.append(np.arange(len(target.numbers)))
                continue
            try:
                order, self.rmsd[k] = map_atoms(target, skeleton)
            except MappingError as error:
                raise MappingError(f"molecule {k} (that of atom {members[k][0]}): {error}") from error
            orders.append(order)
        self.numbers = target.numbers.astype(np.int32)
        self.reference = target.positions
        self.bonds = target.bonds.pairs
        self.indices = np.array([np.asarray(indices)[order] for indices, order in zip(members, orders)])
        self._pbc = np.array(atoms.pbc, dtype=bool)
        self._reduction = _reduction(atoms)
        self._edges, self._paths = _tree(target.bonds)

    @classmethod
    def from_indices(
        cls, atoms: Atoms, indices: Sequence[int] | Sequence[Sequence[int]], reference: Atoms | None = None
    ) -> Molecules:
        """Return molecules from the indices of their atoms, for one molecule or a list of them.

        Without a `reference` the first molecule keeps its order, and the others are mapped to it.

        Raises
        ------
        MoleculeError : there are no indices, or they are not integers, out of range or repeated.
        BondError : a molecule is not connected, or is bonded to its own periodic image.
        MappingError : a molecule does not have the formula and bonds of the reference.
        """
        single = len(indices) > 0 and all(np.ndim(index) == 0 for index in indices)
        members = [_checked(part, len(atoms)) for part in ([indices] if single else indices)]
        if not members:
            raise MoleculeError("molecules must be declared by the indices of their atoms, got none")
        everything = np.concatenate(members)
        if len(np.unique(everything)) < len(everything):
            atom = int(np.flatnonzero(np.bincount(everything) > 1)[0])
            raise MoleculeError(f"every atom may be listed once, got atom {atom} more than once")
        return cls(atoms, members, reference, bonded_pairs(atoms))

    @classmethod
    def from_metal(cls, atoms: Atoms, metal: str, reference: Atoms | None = None) -> Molecules:
        """Return every molecule with an atom of the element `metal`: all atoms that bonds connect to it.

        Without a `reference` the first such molecule gives the order: its atoms ascending.

        Raises
        ------
        MoleculeError : the element does not exist, or does not occur in the structure.
        BondError, MappingError : as for `from_indices`.
        """
        from ase.data import atomic_numbers

        if metal not in atomic_numbers or metal == "X":
            raise MoleculeError(f"the metal must be a chemical symbol such as Co, got {excerpt(metal)}")
        found = atoms.numbers == atomic_numbers[metal]
        if not found.any():
            raise MoleculeError(f"the structure {atoms.get_chemical_formula()} contains no {metal}")
        bonds = bonded_pairs(atoms)
        members = [indices for indices in connected_components(bonds) if found[indices].any()]
        return cls(atoms, members, reference, bonds)

    def __len__(self) -> int:
        return len(self.indices)

    def extract(self, positions: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Return whole molecules (..., n_molecules, n_molecule_atoms, 3), A; the first atom stays where it is.

        Parameters
        ----------
        positions : (..., n_atoms, 3) A of the structure, wrapped or not.
        cells : (..., 3, 3) A, or one (3, 3) for all; only rows of periodic directions are used.
        """
        parts = np.asarray(positions, dtype=np.float64)[..., self.indices, :]
        if not (self._pbc.any() and len(self._edges)):
            return parts
        lattice = self.reduced_lattice(cells)
        parents, children = self._edges.T
        shifts = _nearest_images(parts[..., children, :] - parts[..., parents, :], lattice)
        return parts + (self._paths @ shifts) @ lattice[..., None, :, :]

    def reduced_lattice(self, cells: np.ndarray) -> np.ndarray:
        """Return reduced cell vectors (..., n_periodic, 3), A, of cells (..., 3, 3), in which images are searched."""
        return _reduced(self._reduction @ np.asarray(cells, dtype=np.float64)[..., self._pbc, :])

    @property
    def walk(self) -> np.ndarray:
        """(n_molecule_atoms - 1, 2) int64: bonds from parent to child that reach every atom, parents first."""
        depth = self._paths.sum(axis=1)[self._edges[:, 1]]
        return self._edges[np.argsort(depth, kind="stable")]


def _checked(indices: Any, n_atoms: int) -> np.ndarray:
    array = np.asarray(indices)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise MoleculeError(
            f"a molecule must be a list of whole numbers, the indices of its atoms, got {excerpt(indices)}"
        )
    if array.min() < 0 or array.max() >= n_atoms:
        wrong = int(array[(array < 0) | (array >= n_atoms)][0])
        raise MoleculeError(f"indices of atoms must lie between 0 and {n_atoms - 1}, got {wrong}")
    return array.astype(np.int64)


def _skeleton(atoms: Atoms, indices: np.ndarray, bonds: Bonds) -> Skeleton:
    """Return the whole molecule, whose bonds no longer cross a boundary."""
    inside = bonds.among(indices)
    try:
        _, shifts = image_shifts(inside)
    except BondError as error:
        raise BondError(f"{error} (the molecule of atom {int(indices[0])})") from None
    whole = atoms.positions[indices] + shifts @ atoms.cell.array
    return Skeleton(atoms.numbers[indices], whole, Bonds(inside.n_atoms, inside.pairs, np.zeros_like(inside.shifts)))


def _reference_skeleton(reference: Atoms) -> Skeleton:
    try:
        return _skeleton(reference, np.arange(len(reference)), bonded_pairs(reference))
    except BondError as error:
        raise BondError(f"the reference is not a molecule: {error}") from error


def _reduction(atoms: Atoms) -> np.ndarray:
    """Whole numbers (n_periodic, n_periodic) that turn the periodic cell vectors into a reduced basis."""
    from ase.geometry import minkowski_reduce

    pbc = np.array(atoms.pbc, dtype=bool)
    if pbc.sum() < 2:
        return np.eye(pbc.sum())
    return minkowski_reduce(atoms.cell.complete(), pbc)[1][np.ix_(pbc, pbc)].astype(np.float64)


def _reduced(lattice: np.ndarray) -> np.ndarray:
    """Lattices (..., n_periodic, 3) A, those reduced again whose cell has been chosen anew since the first frame."""
    from ase.cell import Cell
    from ase.geometry import minkowski_reduce

    if lattice.shape[-2] < 2:
        return lattice
    height = 1.0 / np.linalg.norm(np.linalg.pinv(lattice), axis=-2).max(axis=-1)
    skewed = height < SKEWED * np.linalg.norm(lattice, axis=-1).min(axis=-1)
    for frame in zip(*np.nonzero(np.atleast_1d(skewed))):
        cell = np.zeros((3, 3))
        place = frame if skewed.ndim else ()
        cell[: lattice.shape[-2]] = lattice[place]
        pbc = np.arange(3) < lattice.shape[-2]
        lattice[place] = minkowski_reduce(Cell(cell).complete(), pbc)[0][pbc]
    return lattice


def _tree(bonds: Bonds) -> tuple[np.ndarray, np.ndarray]:
    """Return edges (n_atoms - 1, 2), parent and child, and paths (n_atoms, n_atoms - 1): 1 where an edge leads to."""
    parents, _ = image_shifts(bonds)
    children = np.flatnonzero(parents >= 0)
    edge_of = {child: edge for edge, child in enumerate(children.tolist())}
    paths = np.zeros((bonds.n_atoms, len(children)))
    for atom in range(bonds.n_atoms):
        on_way = atom
        while on_way in edge_of:
            paths[atom, edge_of[on_way]] = 1.0
            on_way = int(parents[on_way])
    return np.column_stack((parents[children], children)), paths


def _nearest_images(vectors: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Return whole numbers n (..., n_molecules, n_edges, n_periodic) for which |vectors + n @ lattice| is least.

    vectors : (..., n_molecules, n_edges, 3) A; lattice : (..., n_periodic, 3) A, or one for all frames.
    """
    inverse = np.linalg.pinv(lattice)  # (..., 3, n_periodic); its columns have the lengths 1/height
    shifts = -np.rint(vectors @ inverse[..., None, :, :])
    nearest = vectors + shifts @ lattice[..., None, :, :]
    height = 1.0 / np.linalg.norm(inverse, axis=-2).max(axis=-1)
    length = np.linalg.norm(nearest, axis=-1)
    doubtful = np.nonzero(length > 0.5 * height[..., None, None])
    if doubtful[0].size:
        frames, frame = vectors.shape[:-3], doubtful[:-2]
        bases, inverses = (np.broadcast_to(m, (*frames, *m.shape[-2:]))[frame] for m in (lattice, inverse))
        shifts[doubtful] += _searched(nearest[doubtful], bases, inverses)
    return shifts


def _searched(vectors: np.ndarray, lattice: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return n (n_vectors, n_periodic) as `_nearest_images`, from all images that may be shorter than |vectors|.

    |vectors + n @ lattice| <= |vectors| needs |n @ lattice| <= 2 |vectors|, and |n @ lattice| >= |n_k| height_k.
    """
    length = np.linalg.norm(vectors, axis=-1)
    reach = np.floor(2.0 * length[:, None] * np.linalg.norm(inverse, axis=-2)).max(axis=0).astype(int)
    best, least = np.zeros((len(vectors), lattice.shape[-2])), length.copy()
    for n in np.ndindex(*(2 * reach + 1)):
        shift = np.array(n) - reach
        candidate = np.linalg.norm(vectors + shift @ lattice, axis=-1)
        closer = candidate < least
        best[closer], least[closer] = shift, candidate[closer]
    return best
