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
    """Points that no power law can be fitted to."""


@dataclass(frozen=True)
class PowerLaw:
    """Result of `fit_power_law`; slope is b, intercept log10 a, slope_std the error of b (NaN for two points)."""

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
        """Return lower and upper bound of the line at `sizes`; PowerLawError with fewer than three points."""
        if self.n_points < 3:
            raise PowerLawError(f"a confidence band needs at least 3 points, got {self.n_points}")
        from scipy.stats import t  # a slow import that most callers do without

        x = np.log10(np.asarray(sizes, dtype=np.float64))
        width = float(t.ppf(0.5 + confidence / 2.0, self.n_points - 2)) * self.residual_std
        width = width * np.sqrt(1.0 / self.n_points + (x - self.mean_x) ** 2 / self.spread_x)
        return self(sizes) * 10.0**-width, self(sizes) * 10.0**width


def fit_power_law(sizes: ArrayLike, errors: ArrayLike) -> PowerLaw:
    """Fit errors (n,) against sizes (n,); PowerLawError unless positive, finite and of two sizes at least.

    >>> round(fit_power_law([100, 200, 400], [8.0, 4.0, 2.0]).slope, 12)
    -1.0
    """
    sizes, errors = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if sizes.ndim != 1 or sizes.shape != errors.shape:
        raise PowerLawError(f"sizes and errors must have one shape (n,), got {sizes.shape} and {errors.shape}")
    if not all(np.isfinite(values).all() and np.all(values > 0) for values in (sizes, errors)):
        raise PowerLawError("sizes and errors must be positive and finite for a log-log fit")
    if len(np.unique(sizes)) < 2:
        raise PowerLawError(f"a log-log fit needs at least 2 different sizes, got {len(np.unique(sizes))}")
    x, y = np.log10(sizes), np.log10(errors)
    spread = float(np.sum((x - x.mean()) ** 2))
    slope = float(np.sum((x - x.mean()) * (y - y.mean())) / spread)
    intercept = float(y.mean() - slope * x.mean())
    freedom = len(x) - 2
    residual = float(np.sqrt(np.sum((y - intercept - slope * x) ** 2) / freedom)) if freedom else float("nan")
    return PowerLaw(slope, intercept, residual / np.sqrt(spread), len(x), float(x.mean()), spread, residual)
