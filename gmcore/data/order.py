"""The order in which structures are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def epoch_order(n_structures: int, seed: int | Sequence[int], epoch: int) -> np.ndarray:
    """Permutation of the structures in one epoch, a function of seed and epoch alone.

    >>> epoch_order(5, seed=1, epoch=0).tolist() == epoch_order(5, seed=1, epoch=0).tolist()
    True
    """
    return np.random.default_rng([*np.atleast_1d(seed), epoch]).permutation(n_structures)
