"""Sums over the atoms of each structure on the device, in a fixed order: the same input gives the same bits.

Rows are added up in segments of 1024, one block of threads each, the sums in segments again, until one is left per
structure: one launch for structures of up to 1024 atoms, two for up to a million.
"""

from __future__ import annotations

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.kernels import segments_cuda as kernels

LENGTH = 1024
"""Rows per segment."""


class SegmentSum:
    """Sums for one layout of structures.

    Parameters
    ----------
    offsets : (n_structures + 1,); the rows of structure k are offsets[k] ... offsets[k + 1] - 1.
    n_columns : number of columns of the arrays that will be summed.
    n_stacks : such arrays lie one after another, as those of the members of a committee do.
    """

    def __init__(self, device: Device, offsets: np.ndarray, n_columns: int, n_stacks: int = 1):
        self.device, self._lanes = device, device.lanes(kernels.MAX_LANES)
        starts = offsets[-1] * np.arange(n_stacks)[:, None]
        offsets = np.append((starts + offsets[:-1]).ravel(), n_stacks * offsets[-1])
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
        """Sum values (n_stacks n_rows, n_columns) into out (n_stacks n_structures, n_columns) float64; empty: 0."""
        for (first, last), target in zip(self._levels, [*self._partial, out]):
            self.device.launch_blocks(kernels.sum_segments, len(first), self._lanes, first, last, values, target)
            values = target
