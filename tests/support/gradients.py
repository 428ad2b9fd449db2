"""Gradients against central differences."""

from __future__ import annotations

import numpy as np

STEP = 1e-4


def differences(function, x: np.ndarray, direction: np.ndarray) -> float:
    """Directional derivative by central differences of fourth order."""
    f = [function(x + k * STEP * direction) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * STEP)


def check_gradient(function, x: np.ndarray, gradient: np.ndarray, rng, tolerance: float) -> None:
    """Fail unless `gradient` is that of the scalar `function` at x, along random directions."""
    for _ in range(2):
        direction = rng.normal(size=x.shape)
        direction /= np.linalg.norm(direction)
        expected = differences(function, x, direction)
        found = float(np.sum(np.asarray(gradient) * direction))
        if not abs(found - expected) <= tolerance * max(abs(expected), np.linalg.norm(gradient)):
            raise AssertionError(f"derivative {found} differs from differences {expected}")
