"""The floor: the matrix products of the network, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from perf.systems import HIDDEN


class BareGemms:
    """The products of the two hidden layers for `n_atoms`, by NumPy's BLAS with its own threads.

    Output arrays are there already; weights are stored as each product likes them best. No bias, no activation, and
    the last layer, which has one output, is left out.

    Parameters
    ----------
    up, down, weights : how often the layers are passed upwards, downwards, and for a gradient in the weights.
        Energy and forces: 1, 1, 0. A training step on D: 1, 1, 1. A training step on forces: 2, 2, 2 (the derivative of
        the downward pass is one more pass each way, and its weights get a second gradient).
    """

    def __init__(
        self, n_atoms: int, up: int = 1, down: int = 1, weights: int = 0, n_features: int = 360, dtype: str = "float32"
    ):
        rng = np.random.default_rng(3)
        shapes = []
        for n_in, n_out in pairwise((n_features, *HIDDEN)):
            shapes += (
                up * [(n_atoms, n_in, n_out)] + down * [(n_atoms, n_out, n_in)] + weights * [(n_in, n_atoms, n_out)]
            )
        # every product has its own random factors: chained, the numbers would grow out of range
        self._products = [
            (rng.normal(size=(a, b)).astype(dtype), rng.normal(size=(b, c)).astype(dtype), np.empty((a, c), dtype))
            for a, b, c in shapes
        ]

    def __call__(self) -> None:
        for x, y, out in self._products:
            np.matmul(x, y, out=out)
