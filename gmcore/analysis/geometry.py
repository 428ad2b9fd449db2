"""Turning frames onto a reference, and the measures of a coordination shell.

Alignment is Kabsch's (Acta Cryst. A 32, 922 (1976)): with centered positions x_a (frame) and y_a (reference) and
weights w_a, the rotation R that minimizes sum_a w_a |R x_a - y_a|^2 is, from the singular value decomposition
sum_a w_a x_a y_a^T = U S V^T,

    R = V diag(1, 1, det(V U^T)) U^T,

never a reflection; all frames in one call of LAPACK. With masses as weights the turned frame is the Eckart frame. D
tensors follow as R D R^T.

Measures of the shell: mean metal-ligand distance; the tetrahedral order of four ligands (Errington & Debenedetti,
Nature 409, 318 (2001)),

    q = 1 - 3/8 sum_{i<j} (cos theta_ij + 1/3)^2,        1 tetrahedral, 1/2 square planar, 0 on average for random ones;

for other coordination numbers all angles. Not supported: periodic images; molecules must be whole.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError

DEGENERATE = 1e-6
"""Smallest second singular value, relative to the first, of a frame that defines a rotation."""


class GeometryError(GMError):
    """Atoms for which a measure has no meaning."""


def align(positions: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Return the proper rotations (n, 3, 3) that turn frames onto a reference: r_body = R r_lab.

    Parameters
    ----------
    positions : (n, n_atoms, 3) A, whole molecules; shifts play no part.
    reference : (n_atoms, 3) A, same order of atoms.
    weights : (n_atoms,) not negative, masses for the Eckart frame; equal if not given.

    GeometryError: shapes that do not fit, values that are not finite, fewer than three atoms or all on one line.
    """
    positions, reference = _frames(positions), _finite(reference, "a reference")
    n_atoms = positions.shape[1]
    if reference.shape != (n_atoms, 3):
        raise GeometryError(f"a reference must have shape ({n_atoms}, 3) like the frames, got {reference.shape}")
    weights = _weights(weights, n_atoms)
    x = positions - (weights @ positions)[:, None]
    y = reference - weights @ reference
    left, singular, right = np.linalg.svd(np.swapaxes(x, 1, 2) @ (weights[:, None] * y))
    if np.any(singular[:, 1] <= DEGENERATE * singular[:, 0]):
        raise GeometryError("alignment needs three atoms that do not lie on one line, in every frame and the reference")
    sign = np.linalg.det(left @ right)
    right[:, 2] *= sign[:, None]
    return np.swapaxes(left @ right, 1, 2)


def superpose(positions: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Return frames (n, n_atoms, 3) A turned by `align` and shifted so that their centers are that of the reference."""
    rotations = align(positions, reference, weights)
    positions, reference = _frames(positions), _finite(reference, "a reference")
    weights = _weights(weights, positions.shape[1])
    return (positions - (weights @ positions)[:, None]) @ np.swapaxes(rotations, 1, 2) + weights @ reference


def turn_tensors(tensors: ArrayLike, rotations: ArrayLike) -> np.ndarray:
    """Return R T R^T, tensors in the body frame, unit as given.

    Parameters
    ----------
    tensors : (n, ..., 3, 3); axes between the first and the last two (members, say) are turned alike.
    rotations : (n, 3, 3) from `align`.
    """
    tensors, rotations = np.asarray(tensors, dtype=np.float64), np.asarray(rotations, dtype=np.float64)
    if tensors.ndim < 3 or rotations.shape != (len(tensors), 3, 3) or tensors.shape[-2:] != (3, 3):
        raise GeometryError(
            f"tensors (n, ..., 3, 3) and rotations (n, 3, 3) must match, got {tensors.shape} and {rotations.shape}"
        )
    rotations = rotations.reshape(len(tensors), *[1] * (tensors.ndim - 3), 3, 3)
    return rotations @ tensors @ np.swapaxes(rotations, -1, -2)


def distances(positions: ArrayLike, pairs: ArrayLike) -> np.ndarray:
    """Return distances (n, n_pairs), A, of pairs (n_pairs, 2) of atom indices in frames (n, n_atoms, 3) A."""
    positions = _frames(positions)
    first, second = _indices(pairs, 2, positions.shape[1])
    return np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)


def angles(positions: ArrayLike, triples: ArrayLike) -> np.ndarray:
    """Return angles (n, n_triples), degrees from 0 to 180, at the middle atom of triples (n_triples, 3) of indices.

    positions: frames (n, n_atoms, 3) A. GeometryError: indices that do not fit, atoms at one place.
    """
    positions = _frames(positions)
    first, middle, last = _indices(triples, 3, positions.shape[1])
    a = positions[:, first] - positions[:, middle]
    b = positions[:, last] - positions[:, middle]
    if not (np.all(np.any(a != 0.0, axis=-1)) and np.all(np.any(b != 0.0, axis=-1))):
        raise GeometryError("an angle needs three different places, got two atoms at one")
    # arctan2 keeps its digits at 0 and 180 degrees, where arccos loses half of them
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1)))


def ligand_angles(positions: ArrayLike, metal: int, ligands: ArrayLike) -> np.ndarray:
    """Return the angles ligand-metal-ligand (n, n_pairs), degrees, of all pairs i < j of ligands in their order."""
    triples = [(i, metal, j) for i, j in combinations(np.atleast_1d(ligands).tolist(), 2)]
    if not triples:
        raise GeometryError(f"angles at the metal need at least two ligands, got {np.size(ligands)}")
    return angles(positions, triples)


def mean_bond_length(positions: ArrayLike, metal: int, ligands: ArrayLike) -> np.ndarray:
    """Return the mean metal-ligand distance (n,), A, in frames (n, n_atoms, 3) A."""
    pairs = [(metal, ligand) for ligand in np.atleast_1d(ligands).tolist()]
    if not pairs:
        raise GeometryError("a mean metal-ligand distance needs at least one ligand, got none")
    return distances(positions, pairs).mean(axis=1)


def tetrahedral_order(positions: ArrayLike, metal: int, ligands: ArrayLike) -> np.ndarray:
    """Return q (n,), no unit, of four ligands in frames (n, n_atoms, 3) A; GeometryError for any other number."""
    if np.size(ligands) != 4:
        raise GeometryError(f"the tetrahedral order q is defined for four ligands, got {np.size(ligands)}")
    cosines = np.cos(np.radians(ligand_angles(positions, metal, ligands)))
    return 1.0 - 0.375 * np.sum((cosines + 1.0 / 3.0) ** 2, axis=1)


def coordination_shell(numbers: ArrayLike, positions: ArrayLike, metal: int) -> np.ndarray:
    """Return the indices of the atoms bonded to a metal by the rule of `gmcore.molecules.bonds`, nearest first.

    Parameters
    ----------
    numbers, positions : (n_atoms,) atomic numbers and (n_atoms, 3) A of one frame.
    metal : index of the metal.

    GeometryError: shapes or indices that do not fit, or no ligand.
    """
    from ase import Atoms

    from gmcore.molecules.bonds import bonded_pairs

    positions, numbers = _finite(positions, "positions"), np.asarray(numbers)
    if positions.ndim != 2 or positions.shape != (len(numbers), 3):
        raise GeometryError(f"positions must have shape ({len(numbers)}, 3) of one frame, got {positions.shape}")
    _indices([[metal]], 1, len(numbers))
    pairs = bonded_pairs(Atoms(numbers, positions)).pairs
    bonded = pairs[(pairs == metal).any(axis=1)].sum(axis=1) - metal
    if not len(bonded):
        raise GeometryError(f"atom {metal} must be bonded to others to have a shell, got no atom near enough")
    separation = np.linalg.norm(positions[bonded] - positions[metal], axis=1)
    return bonded[np.argsort(separation, kind="stable")]


def _frames(positions: ArrayLike) -> np.ndarray:
    positions = _finite(positions, "positions")
    if positions.ndim != 3 or positions.shape[-1] != 3:
        raise GeometryError(f"positions must have shape (n, n_atoms, 3), got {positions.shape}")
    return positions


def _finite(positions: ArrayLike, name: str) -> np.ndarray:
    positions = np.asarray(positions, dtype=np.float64)
    if not np.isfinite(positions).all():
        raise GeometryError(
            f"{name} must be finite, got {np.count_nonzero(~np.isfinite(positions))} values that are not"
        )
    return positions


def _weights(weights: ArrayLike | None, n_atoms: int) -> np.ndarray:
    """Return weights whose sum is 1."""
    weights = np.ones(n_atoms) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (n_atoms,) or not np.all(weights >= 0.0) or not weights.sum() > 0.0:
        raise GeometryError(f"weights must be {n_atoms} numbers that are not negative, got shape {weights.shape}")
    return weights / weights.sum()


def _indices(rows: ArrayLike, width: int, n_atoms: int) -> np.ndarray:
    """Return columns (width, n_rows) of atom indices; negative ones are refused, they would count from the end."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != width or rows.dtype.kind not in "iu":
        raise GeometryError(f"atom indices must be integers of shape (n, {width}), got {rows.dtype} {rows.shape}")
    if rows.size and not (0 <= rows.min() and rows.max() < n_atoms):
        raise GeometryError(f"atom indices must lie between 0 and {n_atoms - 1}, got {rows.min()} to {rows.max()}")
    return rows.T
