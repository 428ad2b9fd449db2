"""Power laws, error = a size^b: a straight line in log-log, with the confidence band of the fit.

Ordinary least squares of y = log10(error) on x = log10(size). With s^2 the residual variance over n - 2 degrees of
freedom, the 95 % band of the *line* (not of new points) is y(x) +- t_{0.975, n-2} s sqrt(1/n + (x - xbar)^2/S_xx).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError


class PowerLawError(GMError):
    """Points that cannot be fitted with a power law."""


@dataclass(frozen=True)
class PowerLaw:
    """Result of `fit_power_law`.

    Attributes
    ----------
    slope : b.
    intercept : log10 a.
    slope_std : standard error of b, NaN for two points.
    n_points : number of points.
    mean_x, spread_x : mean of log10(size), and sum of the squared deviations from it.
    residual_std : standard deviation of the residuals of log10(error).
    """

    slope: float
    intercept: float
    slope_std: float
    n_points: int
    mean_x: float
    spread_x: float
    residual_std: float

    def __call__(self, sizes: ArrayLike) -> np.ndarray:
        """Return the fitted errors at `sizes`."""
        return 10.0 ** (self.intercept + self.slope * np.log10(np.asarray(sizes, dtype=np.float64)))

    def band(self, sizes: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bound of the line at `sizes`.

        Raises
        ------
        PowerLawError : if there are fewer than three points.
        """
        if self.n_points < 3:
            raise PowerLawError(f"a confidence band needs at least 3 points, got {self.n_points}")
        from scipy.stats import t  # a slow import that most callers do not need

        x = np.log10(np.asarray(sizes, dtype=np.float64))
        largest = float(t.ppf(0.5 + confidence / 2.0, self.n_points - 2)) * self.residual_std
        reach = largest * np.sqrt(1.0 / self.n_points + (x - self.mean_x) ** 2 / self.spread_x)
        return self(sizes) * 10.0**-reach, self(sizes) * 10.0**reach


def fit_power_law(sizes: ArrayLike, errors: ArrayLike) -> PowerLaw:
    """Fit errors (n,) against sizes (n,).

    Raises
    ------
    PowerLawError : if a value is not positive and finite, shapes differ, or there are fewer than two different sizes.

    Examples
    --------
    >>> round(fit_power_law([100, 200, 400], [8.0, 4.0, 2.0]).slope, 12)
    -1.0
    """
    counts, measured = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if counts.ndim != 1 or counts.shape != measured.shape:
        raise PowerLawError(f"sizes and errors must have one shape (n,), got {counts.shape} and {measured.shape}")
    if not all(np.isfinite(values).all() and np.all(values > 0) for values in (counts, measured)):
        raise PowerLawError("sizes and errors must be positive and finite for a log-log fit")
    if len(np.unique(counts)) < 2:
        raise PowerLawError(f"a log-log fit needs at least 2 different sizes, got {len(np.unique(counts))}")
    x, y = np.log10(counts), np.log10(measured)
    spread = float(np.sum((x - x.mean()) ** 2))
    slope = float(np.sum((x - x.mean()) * (y - y.mean())) / spread)
    intercept = float(y.mean() - slope * x.mean())
    freedom = len(x) - 2
    residual = float(np.sqrt(np.sum((y - intercept - slope * x) ** 2) / freedom)) if freedom else float("nan")
    return PowerLaw(slope, intercept, residual / np.sqrt(spread), len(x), float(x.mean()), spread, residual)
