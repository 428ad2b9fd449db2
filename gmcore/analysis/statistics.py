"""Error bars of time series whose samples are correlated.

Neighboring frames of a trajectory are nearly equal. n samples are worth n/g independent ones, with the statistical
inefficiency

    g = 1 + 2 sum_t (1 - t/n) rho(t),        tau = (g - 1)/2 samples the integrated correlation time,

rho the normalized autocorrelation. The sum ends before rho first falls to zero (Chodera et al., J. Chem. Theory Comput.
3, 26 (2007)): beyond that point there is only noise, and g of an oscillating series is too large rather than too small.

Errors of means come from block averages (Flyvbjerg & Petersen, J. Chem. Phys. 91, 461 (1989)), intervals of functions
of means, such as correlation coefficients, from the moving-block bootstrap (Kuensch, Ann. Stat. 17, 1217 (1989)):
blocks of consecutive samples are drawn, the same for all series, so that correlations in time and between series
are kept. The mean of a block is the difference of two partial sums, so that the cost of a resample grows with its
number of blocks, not of samples. The default block length,

    l = (3/2)^{1/3} (2 phi/(1 - phi^2))^{2/3} n^{1/3},        phi = (g - 1)/(g + 1),

is optimal for an AR(1) process of inefficiency g (Politis & White, Econom. Rev. 23, 53 (2004)). Intervals are
percentiles. Not supported: nonstationary series; equilibration must be removed before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gmcore.analysis.correlation import autocorrelation
from gmcore.analysis.series import finite_series
from gmcore.errors import GMError

CHUNK = 2**21
"""Number of blocks drawn together, 16 MB for each series."""


class StatisticsError(GMError):
    """A series that is not sufficient for a statistic, or a setting that does not fit it."""


class Mean(NamedTuple):
    """Mean of a series and its standard error, both in the unit and with the trailing shape of the series."""

    mean: np.ndarray
    error: np.ndarray


class Interval(NamedTuple):
    """Value of a statistic of the whole series, and the bounds of its confidence interval, same unit."""

    value: float
    low: float
    high: float


class Distribution(NamedTuple):
    """Probability density (n_points,), 1/unit, on a grid (n_points,), unit of the series; its integral is 1."""

    grid: np.ndarray
    density: np.ndarray


def block_average(series: ArrayLike, n_blocks: int = 10) -> Mean:
    """Return the mean of a series (n, ...) and its standard error from the spread of n_blocks equal blocks.

    The mean is that of all samples. For the error the first n mod n_blocks samples are left out, and blocks must be
    several correlation times long (see `statistical_inefficiency`). The relative error of the error itself is
    1/sqrt(2 n_blocks - 2).

    Raises
    ------
    StatisticsError : if a value is not finite, or n_blocks is below 2 or above n.
    """
    samples = finite_series(series, "a series", StatisticsError)
    n = len(samples)
    if not 2 <= n_blocks <= n:
        raise StatisticsError(f"the number of blocks must lie between 2 and the {n} samples, got {n_blocks}")
    length = n // n_blocks
    blocks = samples[n - n_blocks * length :].reshape(n_blocks, length, *samples.shape[1:]).mean(axis=1)
    return Mean(samples.mean(axis=0), blocks.std(axis=0, ddof=1) / math.sqrt(n_blocks))


def statistical_inefficiency(series: ArrayLike) -> float:
    """Return g >= 1 of a series (n,): samples per independent sample; 1 for a constant series.

    The integrated correlation time is (g - 1)/2 intervals.

    Raises
    ------
    StatisticsError : if the series has another shape, is empty, or a value is not finite.
    """
    samples = _one_dimensional(series)
    n = len(samples)
    if _is_constant(samples):
        return 1.0
    correlation = autocorrelation(samples, n_lags=max(n // 2, 1), fluctuation=True)
    rho = correlation / correlation[0]
    end = int(np.argmax(rho <= 0.0)) if np.any(rho <= 0.0) else len(rho)
    lags = np.arange(1, end)
    return float(max(1.0, 1.0 + 2.0 * np.sum((1.0 - lags / n) * rho[1:end])))


def bootstrap_interval(
    function: Callable[..., np.ndarray],
    *series: ArrayLike,
    block_length: int | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a function of the means of series (n,) that were sampled together, with its confidence interval.

    Parameters
    ----------
    function : takes one array of means (n_leading,) for each series and returns (n_leading,).
    *series : (n,) each; samples of the same index are drawn together.
    block_length : samples in a block; if not given, the length in the module docstring for the slowest series, at most
        a third of n.
    n_resamples : number of resampled series.
    level : confidence, 0 to 1.
    seed : seed of the random numbers.

    Raises
    ------
    StatisticsError : if series have different lengths or fewer than 3 samples, a value is not finite, a block is longer
        than the series, the level lies outside 0 to 1, there are fewer than 2 resamples, or the function is never
        finite.

    Notes
    -----
    Resamples for which the function is NaN are left out.
    """
    arrays = _together(series)
    n = len(arrays[0])
    if not 0.0 < level < 1.0:
        raise StatisticsError(f"the level of an interval must lie between 0 and 1, got {level}")
    if n_resamples < 2:
        raise StatisticsError(f"an interval needs at least 2 resamples, got {n_resamples}")
    if block_length is None:
        block_length = _block_length(arrays)
    if not 1 <= block_length <= n:
        raise StatisticsError(f"the block length must lie between 1 and the {n} samples, got {block_length}")
    means = [values.mean() for values in arrays]
    sums = [np.concatenate([[0.0], np.cumsum(values - mean)]) for values, mean in zip(arrays, means)]
    rng, step = np.random.default_rng(seed), max(1, CHUNK * block_length // n)
    parts = []
    for start in range(0, n_resamples, step):
        first, last = _resampled(rng, min(step, n_resamples - start), n, block_length)
        moved = [mean + (total[last] - total[first]).sum(axis=1) / n for mean, total in zip(means, sums)]
        parts.append(np.asarray(function(*moved), dtype=np.float64))
    drawn = np.concatenate(parts)
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        raise StatisticsError("the statistic must be finite for some resampled series, it is finite for none")
    low, high = np.quantile(drawn, [0.5 - level / 2.0, 0.5 + level / 2.0])
    value = np.asarray(function(*(np.array([mean]) for mean in means)), dtype=np.float64)
    return Interval(float(value[0]), float(low), float(high))


def correlation_coefficient(
    x: ArrayLike,
    y: ArrayLike,
    block_length: int | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return Pearson's correlation coefficient of two series (n,) with its moving-block bootstrap interval.

    Other arguments are those of `bootstrap_interval`.

    Raises
    ------
    StatisticsError : if a series is constant, and as for `bootstrap_interval`.
    """
    first, second = _together((x, y))
    for name, values in (("first", first), ("second", second)):
        if _is_constant(values):
            raise StatisticsError(f"a correlation coefficient needs series that vary, but the {name} is constant")
    if block_length is None:
        block_length = _block_length([first, second])
    first, second = ((values - values.mean()) / values.std() for values in (first, second))
    moments = (first, second, first * first, second * second, first * second)
    return bootstrap_interval(
        _pearson, *moments, block_length=block_length, n_resamples=n_resamples, level=level, seed=seed
    )


def distribution(series: ArrayLike, n_points: int = 200, lower: float | None = None) -> Distribution:
    """Return the distribution of a series (n,) on a grid of n_points, density in 1/unit.

    A Gaussian kernel estimate (scipy.stats.gaussian_kde). Its bandwidth follows Scott's rule for n/g independent
    samples, and the grid extends 3 bandwidths beyond the extremes.

    Parameters
    ----------
    series : (n,) samples.
    n_points : points of the grid.
    lower : lower bound of all values (0 for E): the density is mirrored there, and the grid starts there.

    Raises
    ------
    StatisticsError : if the series is constant, a value is below `lower` or not finite, or n_points is below 2.
    """
    samples = _one_dimensional(series)
    if _is_constant(samples):
        raise StatisticsError(f"a distribution needs a series that varies, got {len(samples)} times {samples[0]:g}")
    if n_points < 2:
        raise StatisticsError(f"the grid of a distribution must have at least 2 points, got {n_points}")
    if lower is not None and samples.min() < lower:
        raise StatisticsError(f"no value may lie below the lower bound {lower:g}, got {samples.min():g}")
    from scipy.stats import gaussian_kde  # a slow import

    n_independent = max(len(samples) / statistical_inefficiency(samples), 2.0)
    estimate = gaussian_kde(samples, bw_method=n_independent**-0.2)
    reach = 3.0 * math.sqrt(float(estimate.covariance[0, 0]))
    start = samples.min() - reach if lower is None else max(lower, samples.min() - reach)
    grid = np.linspace(start, samples.max() + reach, n_points)
    density = estimate(grid)
    if lower is not None:
        density = density + estimate(2.0 * lower - grid)
    return Distribution(grid, density)


def _together(series: Sequence[ArrayLike]) -> list[np.ndarray]:
    """Return series (n,) of one length, long enough for a bootstrap."""
    arrays = [_one_dimensional(values) for values in series]
    lengths = {len(values) for values in arrays}
    if len(lengths) != 1 or min(lengths) < 3:
        raise StatisticsError(
            f"a bootstrap needs series of one length of at least 3 samples, got lengths {sorted(lengths)}"
        )
    return arrays


def _resampled(rng: np.random.Generator, n_resamples: int, n: int, block_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return begin and end of random blocks of consecutive samples, (n_resamples, n_blocks); the last is cut."""
    n_blocks = -(-n // block_length)
    first = rng.integers(0, n - block_length + 1, size=(n_resamples, n_blocks))
    last = first + block_length
    last[:, -1] = first[:, -1] + n - (n_blocks - 1) * block_length
    return first, last


def _block_length(series: list[np.ndarray]) -> int:
    """Return the optimal length for the slowest of some series (n,), at most a third of n."""
    n = len(series[0])
    inefficiency = max(statistical_inefficiency(values) for values in series)
    ratio = (inefficiency**2 - 1.0) / (2.0 * inefficiency)  # 2 phi / (1 - phi^2)
    return min(max(1, math.ceil((1.5 * ratio**2 * n) ** (1.0 / 3.0))), n // 3)


def _pearson(x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the coefficient from the means of two series of variance 1, of their squares and their product."""
    product = (xx - x * x) * (yy - y * y)
    varies = product > 1e-24  # a resample may be constant except for rounding: NaN, left out
    return np.where(varies, np.clip((xy - x * y) / np.sqrt(np.where(varies, product, 1.0)), -1.0, 1.0), np.nan)


def _one_dimensional(series: ArrayLike) -> np.ndarray:
    samples = finite_series(series, "a series", StatisticsError)
    if samples.ndim != 1:
        raise StatisticsError(f"a series must have shape (n,), got {samples.shape}")
    return samples


def _is_constant(series: np.ndarray) -> bool:
    """Return whether the series is constant except for rounding."""
    return bool(np.ptp(series) <= 1e-12 * np.abs(series).max())
