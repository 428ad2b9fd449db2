"""Autocorrelation functions of time series, D tensors and velocities.

For samples x_0 ... x_{n-1} at equal intervals

    c(t) = 1/(n - t) sum_{s=0}^{n-t-1} x_s x_{s+t},        t = 0 ... n_lags - 1,

the unbiased estimator. All lags follow from one Fourier transform of the series, padded with zeros to twice its length
(Wiener-Khinchin), in O(n log n) instead of O(n n_lags) operations. The sum itself is kept as the definition.

For the D tensor and for velocities the functions of the components are normalized and averaged (P eq. 15, P = Zaverkin
et al., J. Chem. Theory Comput. 2022, 18, 1),

    C_DD(t) = 1/6 sum_{i<=j} <D_ij(0) D_ij(t)> / <D_ij(0)^2>,

and C_vv likewise over atoms and components. The paper does not subtract the mean: elements with a mean far from zero
keep C_DD near 1 forever. The fluctuation variant uses D - <D> in place of D and decays to zero. The averages <...> run
over time and replicas, separately for numerator and denominator. Not supported: series with gaps or unequal intervals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.analysis.series import finite_series
from gmcore.anisotropy import detrace
from gmcore.errors import GMError
from gmcore.evaluation.metrics import unique_components

COLUMNS = 64
"""Number of series transformed together; bounds the memory: 64 series of 12500 samples take 34 MB."""


class CorrelationError(GMError):
    """A series that has no correlation function, or arguments that do not fit it."""


def autocorrelation(
    series: ArrayLike, n_lags: int | None = None, method: str = "fft", fluctuation: bool = False
) -> np.ndarray:
    """Return c(t) of every component of a series, (n_lags, ...), squared unit of the series.

    Parameters
    ----------
    series : (n, ...) samples at equal intervals.
    n_lags : number of lags, 0 ... n_lags - 1; half the series if not given, because late lags have few samples.
    method : "fft", or "direct" for the sum itself.
    fluctuation : subtract the mean of each component first.

    Raises
    ------
    CorrelationError : if there are no samples, a value is not finite, n_lags lies outside 1 ... n, or the method is
        unknown.

    Examples
    --------
    >>> autocorrelation([1.0, 2.0, 3.0], n_lags=2, method="direct")
    array([4.66666667, 4.        ])
    """
    samples = finite_series(series, "a series", CorrelationError)
    n = len(samples)
    n_lags = _checked_lags(n_lags, n)
    if fluctuation:
        samples = samples - samples.mean(axis=0)
    columns = samples.reshape(n, -1)
    if method == "fft":
        sums = np.empty((n_lags, columns.shape[1]))
        for start in range(0, columns.shape[1], COLUMNS):
            sums[:, start : start + COLUMNS] = _fft_sums(columns[:, start : start + COLUMNS], n_lags)
    elif method == "direct":
        sums = np.array([np.sum(columns[: n - lag] * columns[lag:], axis=0) for lag in range(n_lags)])
    else:
        raise CorrelationError(f"the method of an autocorrelation must be fft or direct, got {method!r}")
    counts = n - np.arange(n_lags)
    return (sums / counts[:, None]).reshape(n_lags, *samples.shape[1:])


def tensor_autocorrelation(tensors: ArrayLike, n_lags: int | None = None, fluctuation: bool = False) -> np.ndarray:
    """Return C_DD(t) (n_lags,) without unit, C_DD(0) = 1.

    Parameters
    ----------
    tensors : (n, 3, 3) or (n_replicas, n, 3, 3) D tensors in one frame, any unit; traces are ignored. All replicas have
        one temperature.
    n_lags : number of lags; half the series if not given.
    fluctuation : subtract the mean of each element over time and replicas; False is P eq. 15 as printed.

    Raises
    ------
    TensorError : if tensors are not symmetric or not finite.
    CorrelationError : if the shape does not fit, or nothing varies.

    Notes
    -----
    Elements that are always zero (rms below 1e-12 of the largest value) have no ratio and are left out of the mean.
    """
    traceless, _ = detrace(tensors)
    if traceless.ndim not in (3, 4):
        raise CorrelationError(f"D tensors must have shape (n, 3, 3) or (n_replicas, n, 3, 3), got {np.shape(tensors)}")
    elements = unique_components(traceless)
    return _normalized_mean(elements[None] if elements.ndim == 2 else elements, n_lags, fluctuation, None)


def velocity_autocorrelation(
    velocities: ArrayLike, n_lags: int | None = None, masses: ArrayLike | None = None
) -> np.ndarray:
    """Return C_vv(t) (n_lags,) without unit, C_vv(0) = 1.

    Parameters
    ----------
    velocities : (n, n_atoms, 3) or (n_replicas, n, n_atoms, 3), any unit.
    n_lags : number of lags; half the series if not given.
    masses : (n_atoms,) amu. Without masses each component is normalized by itself (P eq. 15: light and heavy atoms
        count alike). With masses the result is sum_a m_a <v_a(0) v_a(t)> / sum_a m_a <v_a(0)^2>, whose transform is
        the density of states.

    Raises
    ------
    CorrelationError : if shapes or masses do not fit, a value is not finite, or nothing moves.

    Notes
    -----
    Components that are always zero (fixed atoms) have no ratio and are left out of the mean.
    """
    samples = finite_series(velocities, "velocities", CorrelationError)
    if samples.ndim not in (3, 4) or samples.shape[-1] != 3:
        raise CorrelationError(
            f"velocities must have shape (n, n_atoms, 3) or (n_replicas, n, n_atoms, 3), got {samples.shape}"
        )
    n_atoms = samples.shape[-2]
    weights = None
    if masses is not None:
        weights = np.asarray(masses, dtype=np.float64)
        if weights.shape != (n_atoms,) or not np.all(weights > 0):
            raise CorrelationError(f"masses must be {n_atoms} positive numbers, got shape {weights.shape}")
        weights = np.repeat(weights, 3)
    replicas = samples.reshape(-1, samples.shape[-3], 3 * n_atoms)
    return _normalized_mean(replicas, n_lags, False, weights)


def _normalized_mean(
    replicas: np.ndarray, n_lags: int | None, fluctuation: bool, weights: np.ndarray | None
) -> np.ndarray:
    """Return the mean over components of c(t)/c(0), or sum w c(t) / sum w c(0); replicas (n_replicas, n, n_columns)."""
    if not len(replicas):
        raise CorrelationError("an autocorrelation needs at least one replica, got none")
    # zeros, and constants minus their mean, leave only rounding errors, which must not be divided by each other
    floor = 1e-24 * max(replicas.max(initial=0.0), -replicas.min(initial=0.0)) ** 2
    if fluctuation:
        replicas = replicas - replicas.mean(axis=(0, 1))
    correlation = np.mean([autocorrelation(replica, n_lags) for replica in replicas], axis=0)
    moving = correlation[0] > floor
    if not moving.any():
        raise CorrelationError("an autocorrelation needs a component that varies, got none")
    if weights is None:
        return np.mean(correlation[:, moving] / correlation[0, moving], axis=1)
    return correlation @ weights / (correlation[0] @ weights)


def _fft_sums(columns: np.ndarray, n_lags: int) -> np.ndarray:
    """Return sum_s x_s x_{s+t} for t < n_lags, (n_lags, n_columns); padding with zeros avoids wrap-around."""
    from scipy import fft  # a slow import

    size = fft.next_fast_len(len(columns) + n_lags - 1, real=True)
    transform = fft.rfft(columns, size, axis=0)
    power = transform.real**2 + transform.imag**2
    return fft.irfft(power, size, axis=0)[:n_lags]


def _checked_lags(n_lags: int | None, n: int) -> int:
    if n_lags is None:
        return max(n // 2, 1)
    if not 1 <= n_lags <= n:
        raise CorrelationError(f"the number of lags must lie between 1 and the {n} samples, got {n_lags}")
    return int(n_lags)
