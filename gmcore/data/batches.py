"""The order in which structures are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gmcore.data.datasets import Dataset


def epoch_order(n_structures: int, seed: int | Sequence[int], epoch: int) -> np.ndarray:
    """Permutation of the structures in one epoch, a function of seed and epoch alone.

    >>> epoch_order(5, seed=1, epoch=0).tolist() == epoch_order(5, seed=1, epoch=0).tolist()
    True
    """
    return np.random.default_rng([*np.atleast_1d(seed), epoch]).permutation(n_structures)


@dataclass(frozen=True)
class Batches:
    """A data set that is to be used batch by batch: what `GMModel.fit` takes.

    Attributes
    ----------
    dataset : the structures and their labels.
    batch_size : structures of a batch; the last one of an epoch may be smaller.
    seed : of the order, which differs from epoch to epoch and depends on seed and epoch alone; None: that of the data.
    """

    dataset: Dataset
    batch_size: int
    seed: int | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Indices of the structures of each batch of an epoch."""
        n = len(self.dataset)
        order = np.arange(n) if self.seed is None else epoch_order(n, self.seed, epoch)
        for start in range(0, n, self.batch_size):
            yield order[start : start + self.batch_size]
