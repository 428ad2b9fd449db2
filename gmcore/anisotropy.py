"""Quantities derived from a D tensor: D, E, the easy axis, and invariants that are always continuous.

H = S.D.S with D symmetric. A trace t only adds the constant t S(S+1)/3, so everything here belongs to the traceless
part, whose eigenvalues X, Y, Z (|Z| the largest) give

    D = 3/2 Z,    E = |X - Y|/2 >= 0,    0 <= E/|D| <= 1/3,    J2 = tr(D^2)/2.

The axis is the eigenvector of Z and a director: n and -n are the same, so axes are averaged as <n n^T>. In the rhombic
limit E/|D| = 1/3 the eigenvalues are -Z, 0, Z; sign of D and axis are then decided by rounding, and in a time series
they jump. The ascending eigenvalues and J2 are continuous there. All functions are vectorized over leading axes.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError

SYMMETRY_TOLERANCE = 1e-4
"""Largest |D - D^T| allowed, relative to the largest element: files give tensors with few digits."""


class TensorError(GMError):
    """A tensor that is not a symmetric, finite 3x3 matrix, or an axis without direction."""


class Anisotropy(NamedTuple):
    """Zero-field splitting parameters of D tensors; n_leading is any number of leading axes.

    Attributes
    ----------
    d, e : (n_leading), in the unit of the tensor.
    e_over_d : (n_leading), E/|D| from 0 to 1/3; NaN for a zero tensor.
    axis : (n_leading, 3), unit director with its largest component positive; NaN for a zero tensor.
    eigenvalues : (n_leading, 3), ascending, of the traceless tensor.
    j2 : (n_leading), tr(D^2)/2 of the traceless tensor, squared unit.
    """

    d: np.ndarray
    e: np.ndarray
    e_over_d: np.ndarray
    axis: np.ndarray
    eigenvalues: np.ndarray
    j2: np.ndarray


def detrace(tensor: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the symmetric traceless part (n_leading, 3, 3) and the trace (n_leading) that was removed.

    Both have the unit of the tensor.

    Raises
    ------
    TensorError : wrong shape, values that are not finite, or an asymmetry beyond SYMMETRY_TOLERANCE.
    """
    matrix = np.asarray(tensor, dtype=np.float64)
    if matrix.shape[-2:] != (3, 3):
        raise TensorError(f"a D tensor must have shape (..., 3, 3), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise TensorError(
            f"a D tensor must be finite, got {np.count_nonzero(~np.isfinite(matrix))} values that are NaN or infinite"
        )
    transposed = np.swapaxes(matrix, -1, -2)
    asymmetry = np.abs(matrix - transposed).max(axis=(-1, -2))
    if np.any(asymmetry > SYMMETRY_TOLERANCE * np.abs(matrix).max(axis=(-1, -2))):
        raise TensorError(
            f"a D tensor must be symmetric, got elements that differ by {asymmetry.max():.6g} from the transpose"
        )
    trace = np.trace(matrix, axis1=-2, axis2=-1)
    return 0.5 * (matrix + transposed) - trace[..., None, None] / 3.0 * np.eye(3), trace


def zfs_parameters(tensor: ArrayLike) -> Anisotropy:
    """Return D, E, E/|D|, axis, eigenvalues and J2 of tensors (n_leading, 3, 3); the trace has no effect.

    Raises
    ------
    TensorError : wrong shape, values that are not finite, or an asymmetry beyond SYMMETRY_TOLERANCE.

    Examples
    --------
    >>> d, e, *_ = zfs_parameters([[10.0, 0.0, 0.0], [0.0, 20.0, 0.0], [0.0, 0.0, -60.0]])
    >>> print(f"D = {d:.1f}, E = {e:.1f}")
    D = -75.0, E = 5.0
    """
    traceless, _ = detrace(tensor)
    eigenvalues, vectors = np.linalg.eigh(traceless)
    low, middle, high = np.moveaxis(eigenvalues, -1, 0)
    easy = -low > high  # D < 0
    d = 1.5 * np.where(easy, low, high)
    e = 0.5 * np.where(easy, high - middle, middle - low)
    axis = np.where(easy[..., None], vectors[..., 0], vectors[..., 2])
    largest = np.take_along_axis(axis, np.abs(axis).argmax(axis=-1)[..., None], axis=-1)
    zero = d == 0.0
    return Anisotropy(
        d=d,
        e=e,
        e_over_d=np.where(zero, np.nan, e / np.where(zero, 1.0, np.abs(d))),
        axis=np.where(zero[..., None], np.nan, axis * np.sign(largest)),
        eigenvalues=eigenvalues,
        j2=0.5 * np.sum(traceless**2, axis=(-2, -1)),
    )


def __getattr__(name: str):
    """Return `zfs_parameters` under its name in version 0.1, with a warning."""
    if name == "invariants":
        warnings.warn("gmcore.invariants is now gmcore.zfs_parameters", DeprecationWarning, stacklevel=2)
        return zfs_parameters
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def axis_angle(axis: ArrayLike, other: ArrayLike) -> np.ndarray:
    """Return the angle between directors (n_leading, 3), degrees from 0 to 90; lengths and signs have no effect.

    The angle is NaN where an axis is NaN (that of a zero tensor).

    Raises
    ------
    TensorError : wrong shape, or a zero vector.
    """
    first, second = np.asarray(axis, dtype=np.float64), np.asarray(other, dtype=np.float64)
    for vector in (first, second):
        if vector.shape[-1:] != (3,):
            raise TensorError(f"an axis must have shape (..., 3), got {vector.shape}")
        if np.any(np.all(vector == 0.0, axis=-1)):
            raise TensorError("an axis must not be the zero vector, which has no direction")
    # arctan2 of sine and cosine keeps its digits at 0 and 90 degrees, where arccos and arcsin lose half of them
    sine = np.linalg.norm(np.cross(first, second), axis=-1)
    return np.degrees(np.arctan2(sine, np.abs(np.sum(first * second, axis=-1))))


def mean_axis(axes: ArrayLike) -> tuple[np.ndarray, float]:
    """Return the mean director (3,) of unit directors (n, 3) and its order, the largest eigenvalue of <n n^T>.

    The order is 1 for parallel directors and 1/3 for random ones, where the mean has no meaning. NaN axes are left
    out.

    Raises
    ------
    TensorError : wrong shape, or no axis is left.
    """
    directors = np.asarray(axes, dtype=np.float64)
    if directors.ndim != 2 or directors.shape[1] != 3:
        raise TensorError(f"axes must have shape (n_axes, 3), got {directors.shape}")
    directors = directors[np.isfinite(directors).all(axis=1)]
    if not len(directors):
        raise TensorError("a mean axis needs at least one axis that is finite, got none")
    orders, vectors = np.linalg.eigh(directors.T @ directors / len(directors))
    axis = vectors[:, 2]
    return axis * np.sign(axis[np.abs(axis).argmax()]), float(orders[2])
