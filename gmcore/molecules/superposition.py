"""Superposition of frames onto a reference, for whole molecules.

Kabsch (Acta Cryst. A 32, 922 (1976)): with centered positions x_a (frame) and y_a (reference) and weights w_a, the
rotation R that minimizes sum_a w_a |R x_a - y_a|^2 is, from the singular value decomposition
sum_a w_a x_a y_a^T = U S V^T,

    R = V diag(1, 1, det(V U^T)) U^T,

never a reflection; all frames in one call of LAPACK. With masses as weights the rotated frame is the Eckart frame. D
tensors follow as R D R^T.

Not supported: periodic images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError

DEGENERATE = 1e-6
"""Smallest second singular value, relative to the first, of a frame that defines a rotation."""


class GeometryError(GMError):
    """A geometric quantity that is not defined for the given atoms."""


def align(positions: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Return the proper rotations (n, 3, 3) that rotate frames onto a reference: r_body = R r_lab.

    Parameters
    ----------
    positions : (n, n_atoms, 3) A, whole molecules; their translation has no effect.
    reference : (n_atoms, 3) A, same order of atoms.
    weights : (n_atoms,) not negative, masses for the Eckart frame; equal if not given.

    Raises
    ------
    GeometryError : shapes do not match, values are not finite, or there are no three atoms that are not on one line.
    """
    positions, reference, weights = _checked(positions, reference, weights)
    x = positions - (weights @ positions)[:, None]
    y = reference - weights @ reference
    rotations, singular = _kabsch(x, weights[:, None] * y)
    if np.any(singular[:, 1] <= DEGENERATE * singular[:, 0]):
        raise GeometryError("alignment needs three atoms that do not lie on one line, in every frame and the reference")
    return rotations


def superpose(positions: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Return frames (n, n_atoms, 3) A rotated by `align` and shifted so that their centers are that of the reference.

    Raises
    ------
    GeometryError : as `align`.
    """
    rotations = align(positions, reference, weights)
    positions, reference, weights = _checked(positions, reference, weights)
    return (positions - (weights @ positions)[:, None]) @ np.swapaxes(rotations, 1, 2) + weights @ reference


def best_rotations(positions: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotations R (..., 3, 3) of `align` and the squared errors (...), A^2, summed over the atoms.

    Unlike `align` it takes any leading axes, which are broadcast, and atoms on one line, for which R is one of many.

    Parameters
    ----------
    positions, reference : (..., n_atoms, 3) A.
    """
    x = positions - positions.mean(axis=-2, keepdims=True)
    y = reference - reference.mean(axis=-2, keepdims=True)
    rotations, _ = _kabsch(x, y)
    return rotations, np.sum((x @ np.swapaxes(rotations, -1, -2) - y) ** 2, axis=(-2, -1))


def rotate_tensors(tensors: ArrayLike, rotations: ArrayLike) -> np.ndarray:
    """Return R T R^T, tensors in the body frame, unit as given.

    Parameters
    ----------
    tensors : (n, ..., 3, 3); axes between the first and the last two (such as members) are rotated in the same way.
    rotations : (n, 3, 3) from `align`.

    Raises
    ------
    GeometryError : the shapes do not match.
    """
    tensors, rotations = np.asarray(tensors, dtype=np.float64), np.asarray(rotations, dtype=np.float64)
    if tensors.ndim < 3 or rotations.shape != (len(tensors), 3, 3) or tensors.shape[-2:] != (3, 3):
        raise GeometryError(
            f"tensors (n, ..., 3, 3) and rotations (n, 3, 3) must match, got {tensors.shape} and {rotations.shape}"
        )
    rotations = rotations.reshape(len(tensors), *[1] * (tensors.ndim - 3), 3, 3)
    return rotations @ tensors @ np.swapaxes(rotations, -1, -2)


def checked_frames(positions: ArrayLike) -> np.ndarray:
    """Return positions (n, n_atoms, 3) as float64.

    Raises
    ------
    GeometryError : another shape, or values that are not finite.
    """
    positions = finite_positions(positions, "positions")
    if positions.ndim != 3 or positions.shape[-1] != 3:
        raise GeometryError(f"positions must have shape (n, n_atoms, 3), got {positions.shape}")
    return positions


def _kabsch(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (..., 3, 3) and singular values (..., 3) for centered x and weighted y (..., n_atoms, 3)."""
    left, singular, right = np.linalg.svd(np.swapaxes(x, -1, -2) @ y)
    right[..., 2, :] *= np.linalg.det(left @ right)[..., None]  # undo a reflection along the shortest direction
    return np.swapaxes(left @ right, -1, -2), singular


def _checked(positions: ArrayLike, reference: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, ...]:
    """Return frames, reference and weights whose sum is 1."""
    positions, reference = checked_frames(positions), finite_positions(reference, "a reference")
    n_atoms = positions.shape[1]
    if reference.shape != (n_atoms, 3):
        raise GeometryError(f"a reference must have shape ({n_atoms}, 3) like the frames, got {reference.shape}")
    weights = np.ones(n_atoms) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (n_atoms,) or not np.all(weights >= 0.0) or not weights.sum() > 0.0:
        raise GeometryError(
            f"weights must be {n_atoms} numbers that are not negative and not all zero, got shape {weights.shape} "
            f"and a sum of {weights.sum():g}"
        )
    return positions, reference, weights / weights.sum()


def finite_positions(positions: ArrayLike, name: str) -> np.ndarray:
    """Return positions as float64; `name` is what an error message calls them.

    Raises
    ------
    GeometryError : values are not finite.
    """
    positions = np.asarray(positions, dtype=np.float64)
    if not np.isfinite(positions).all():
        raise GeometryError(
            f"{name} must be finite, got {np.count_nonzero(~np.isfinite(positions))} values that are NaN or infinite"
        )
    return positions
