"""The check that every series of samples must pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError


def finite_series(series: ArrayLike, name: str, error: type[GMError]) -> np.ndarray:
    """Return the series (n, ...) as float64.

    Parameters
    ----------
    series : (n, ...) samples.
    name : what the series is called in messages.
    error : class of the error.

    Raises
    ------
    error : if the series is empty or a value is not finite.
    """
    samples = np.asarray(series, dtype=np.float64)
    if samples.ndim == 0 or not len(samples):
        raise error(f"{name} must hold samples, got shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise error(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(samples))} values that are not")
    return samples
