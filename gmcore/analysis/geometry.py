"""Geometry of a coordination shell.

Mean metal-ligand distance; tetrahedral order of four ligands (Errington & Debenedetti, Nature 409, 318 (2001)),

    q = 1 - 3/8 sum_{i<j} (cos theta_ij + 1/3)^2,        1 tetrahedral, 1/2 square planar, 0 on average for random ones;

and for other coordination numbers all angles. Not supported: periodic images; molecules must be whole.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.molecules.superposition import GeometryError, checked_frames, finite_positions


def distances(positions: ArrayLike, pairs: ArrayLike) -> np.ndarray:
    """Return distances (n, n_pairs), A, of pairs (n_pairs, 2) of atom indices in frames (n, n_atoms, 3) A.

    Raises
    ------
    GeometryError : if frames or indices have the wrong shape, or an index does not exist.
    """
    frames = checked_frames(positions)
    first, second = _indices(pairs, 2, frames.shape[1])
    return np.linalg.norm(frames[:, first] - frames[:, second], axis=-1)


def angles(positions: ArrayLike, triples: ArrayLike) -> np.ndarray:
    """Return angles (n, n_triples), degrees from 0 to 180, at the middle atom of triples (n_triples, 3) of indices.

    Parameters
    ----------
    positions : frames (n, n_atoms, 3) A.
    triples : (n_triples, 3) atom indices, the vertex in the middle.

    Raises
    ------
    GeometryError : if an index does not exist, or two atoms lie at the same place.
    """
    frames = checked_frames(positions)
    first, middle, last = _indices(triples, 3, frames.shape[1])
    a = frames[:, first] - frames[:, middle]
    b = frames[:, last] - frames[:, middle]
    if not (np.all(np.any(a != 0.0, axis=-1)) and np.all(np.any(b != 0.0, axis=-1))):
        raise GeometryError("the three atoms of an angle must lie at different places, got two atoms at one")
    # arctan2 is accurate near 0 and 180 degrees, where arccos loses half of its digits
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1)))


def ligand_angles(positions: ArrayLike, metal: int, ligands: ArrayLike) -> np.ndarray:
    """Return the angles ligand-metal-ligand (n, n_pairs), degrees, of all pairs i < j of ligands in their order.

    Raises
    ------
    GeometryError : if there are fewer than two ligands, and as for `angles`.
    """
    triples = [(i, metal, j) for i, j in combinations(np.atleast_1d(ligands).tolist(), 2)]
    if not triples:
        raise GeometryError(f"angles at the metal need at least two ligands, got {np.size(ligands)}")
    return angles(positions, triples)


def mean_bond_length(positions: ArrayLike, metal: int, ligands: ArrayLike) -> np.ndarray:
    """Return the mean metal-ligand distance (n,), A, in frames (n, n_atoms, 3) A.

    Raises
    ------
    GeometryError : if there is no ligand, and as for `distances`.
    """
    pairs = [(metal, ligand) for ligand in np.atleast_1d(ligands).tolist()]
    if not pairs:
        raise GeometryError("a mean metal-ligand distance needs at least one ligand, got none")
    return distances(positions, pairs).mean(axis=1)


def tetrahedral_order(positions: ArrayLike, metal: int, ligands: ArrayLike) -> np.ndarray:
    """Return the tetrahedral order q (n,), no unit, of four ligands in frames (n, n_atoms, 3) A.

    Raises
    ------
    GeometryError : if the number of ligands is not four, and as for `angles`.
    """
    if np.size(ligands) != 4:
        raise GeometryError(f"the tetrahedral order q is defined for four ligands, got {np.size(ligands)}")
    cosines = np.cos(np.radians(ligand_angles(positions, metal, ligands)))
    return 1.0 - 0.375 * np.sum((cosines + 1.0 / 3.0) ** 2, axis=1)


def coordination_shell(numbers: ArrayLike, positions: ArrayLike, metal: int) -> np.ndarray:
    """Return the indices of the atoms bonded to a metal by the rule of `gmcore.molecules.bonds`, nearest first.

    Parameters
    ----------
    numbers : (n_atoms,) atomic numbers.
    positions : (n_atoms, 3) A of one frame.
    metal : index of the metal.

    Raises
    ------
    GeometryError : if shapes or indices do not fit, or the metal has no ligand.
    """
    from ase import Atoms

    from gmcore.molecules.bonds import bonded_pairs

    places, elements = finite_positions(positions, "positions"), np.asarray(numbers)
    if places.ndim != 2 or places.shape != (len(elements), 3):
        raise GeometryError(f"positions must have shape ({len(elements)}, 3) of one frame, got {places.shape}")
    _indices([[metal]], 1, len(elements))
    pairs = bonded_pairs(Atoms(elements, places)).pairs
    bonded = pairs[(pairs == metal).any(axis=1)].sum(axis=1) - metal
    if not len(bonded):
        raise GeometryError(f"atom {metal} must be bonded to others to have a shell, but no atom is close enough")
    separation = np.linalg.norm(places[bonded] - places[metal], axis=1)
    return bonded[np.argsort(separation, kind="stable")]


def _indices(rows: ArrayLike, n_columns: int, n_atoms: int) -> np.ndarray:
    """Return columns (n_columns, n_rows) of atom indices; negative ones are refused, they would count from the end."""
    indices = np.asarray(rows)
    if indices.ndim != 2 or indices.shape[1] != n_columns or indices.dtype.kind not in "iu":
        raise GeometryError(
            f"atom indices must be integers of shape (n, {n_columns}), got {indices.dtype} {indices.shape}"
        )
    if indices.size and not (0 <= indices.min() and indices.max() < n_atoms):
        raise GeometryError(
            f"atom indices must lie between 0 and {n_atoms - 1}, got {indices.min()} to {indices.max()}"
        )
    return indices.T
