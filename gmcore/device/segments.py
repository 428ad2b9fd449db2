"""Sums over the atoms of each structure on the device, in a fixed order: the same input gives the same bits.

Rows are added up in segments of 64, one thread each, the sums in segments of 64 again, until one is left per structure.
The error grows with the logarithm of the number of atoms.
"""

from __future__ import annotations

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.kernels import segments_cuda as kernels

LENGTH = 64
"""Rows per segment."""


class SegmentSum:
    """Sums for one layout of structures.

    Parameters
    ----------
    offsets : (n_structures + 1,); the rows of structure k are offsets[k] ... offsets[k + 1] - 1.
    n_columns : number of columns of the arrays that will be summed.
    """

    def __init__(self, device: Device, offsets: np.ndarray, n_columns: int):
        self.device, self.n_columns = device, n_columns
        self._levels: list[tuple[Array, Array]] = []
        self._partial: list[Array] = []
        while True:
            counts = np.diff(offsets)
            last_level = counts.max(initial=0) <= LENGTH
            n_segments = np.ones_like(counts) if last_level else -(-counts // LENGTH)
            starts = np.concatenate(([0], np.cumsum(n_segments)))
            owner = np.repeat(np.arange(len(counts)), n_segments)
            first = offsets[owner] + LENGTH * (np.arange(starts[-1]) - starts[owner])
            last = np.minimum(first + LENGTH, offsets[owner + 1])
            self._levels.append((device.upload(first, np.int64), device.upload(last, np.int64)))
            if last_level:
                return
            self._partial.append(device.empty((len(first), n_columns), np.float64))
            offsets = starts

    def __call__(self, values: Array, out: Array) -> None:
        """Sum values (n_rows, n_columns) per structure into out (n_structures, n_columns) float64; 0 where empty."""
        for (first, last), target in zip(self._levels, [*self._partial, out]):
            self.device.launch(kernels.sum_segments, len(first) * self.n_columns, first, last, values, target)
            values = target
