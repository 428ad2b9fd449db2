"""The order in which structures are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def epoch_order(n_structures: int, seed: int | Sequence[int], epoch: int) -> np.ndarray:
    """Permutation of the structures in one epoch, a function of seed and epoch alone.

    >>> epoch_order(5, seed=1, epoch=0).tolist() == epoch_order(5, seed=1, epoch=0).tolist()
    True
    """
    return np.random.default_rng([*np.atleast_1d(seed), epoch]).permutation(n_structures)


def epoch_batches(
    n_structures: int, batch_size: int, seed: int | Sequence[int] | None, epoch: int
) -> Iterator[np.ndarray]:
    """Yield the structures of each batch of an epoch, in `epoch_order`, or without seed in the order of the data."""
    order = np.arange(n_structures) if seed is None else epoch_order(n_structures, seed, epoch)
    for start in range(0, n_structures, batch_size):
        yield order[start : start + batch_size]
