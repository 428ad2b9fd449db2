"""What every analysis asks of a series of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError


def finite_series(series: ArrayLike, name: str, error: type[GMError]) -> np.ndarray:
    """Return the series (n, ...) as float64; `error`, which calls it by `name`, if it is empty or not finite."""
    series = np.asarray(series, dtype=np.float64)
    if series.ndim == 0 or not len(series):
        raise error(f"{name} must hold samples, got shape {series.shape}")
    if not np.isfinite(series).all():
        raise error(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(series))} values that are not")
    return series
