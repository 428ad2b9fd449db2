"""The tolerance table, and how an error is measured against it."""

from __future__ import annotations

import numpy as np

# Largest relative error allowed, by quantity: fast path against the slow twin, or derivative against differences.
TOLERANCE = {
    ("value", "float64"): 1e-12,
    ("value", "float32"): 2e-5,
    ("gradient", "float64"): 1e-11,
    ("gradient", "float32"): 1e-4,
    ("second", "float64"): 1e-10,
    ("second", "float32"): 1e-3,
    ("difference", "float64"): 1e-8,
    ("identity", "float64"): 1e-12,
}


def relative_error(value, expected) -> float:
    """Largest deviation over the largest magnitude of what is expected; never a ratio element by element (0/0)."""
    value, expected = np.asarray(value), np.asarray(expected)
    if value.shape != expected.shape:
        raise AssertionError(f"shapes differ: {value.shape} and {expected.shape}")
    if not (np.isfinite(value).all() and np.isfinite(expected).all()):
        raise AssertionError("a value is not finite")
    scale = np.abs(expected).max(initial=0.0)
    return float(np.abs(value - expected).max(initial=0.0) / (scale if scale > 0 else 1.0))


def same(value, expected, tolerance: float = 1e-12) -> None:
    """Raise unless two arrays agree, NaN where NaN, relative to the largest magnitude."""
    value, expected = np.asarray(value), np.asarray(expected)
    scale = max(np.nanmax(np.abs(expected), initial=0.0), 1e-3)
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * scale)
