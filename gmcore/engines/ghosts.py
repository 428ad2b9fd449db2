"""Bring what belongs to ghost atoms home to the processes that own these atoms.

A program with spatial domains gives each process its own atoms and copies of those around them, the ghosts: atoms of
other processes, and periodic images, also of own atoms. A force on a ghost is part of the force on its owner's atom.
Atoms are known by their tags, the numbers that are the same on all processes.

Who owns which tag is found once per set of ghosts, by gathering all tags on every process (8 bytes for each atom of the
system). After that, only values of ghosts travel.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class GhostOwners:
    """Where the ghosts of this process belong. Made and used by all processes of a communicator together.

    Parameters
    ----------
    comm : communicator of mpi4py.
    tags : (n_own + n_ghosts,) int64, own atoms first.
    n_own : number of own atoms.
    """

    def __init__(self, comm: Any, tags: np.ndarray, n_own: int):
        self._comm, self._n_own, self._tags = comm, n_own, tags
        own, ghosts = tags[:n_own], tags[n_own:]
        counts = np.array(comm.allgather(len(own)))
        owned = np.empty(counts.sum(), np.int64)
        comm.Allgatherv(own, [owned, counts])
        order = np.argsort(owned)
        at = order[np.searchsorted(owned, ghosts, sorter=order)]
        # ghosts of one atom stand together, atoms of one owner too: an atom's place among all tags orders both
        self._order = np.argsort(at, kind="stable")
        targets, self._first = np.unique(at[self._order], return_index=True)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        owner = np.searchsorted(bounds, targets, side="right") - 1
        self._send = np.bincount(owner, minlength=len(counts))
        self._receive = np.array(comm.alltoall(self._send.tolist()))
        self._rows = np.empty(self._receive.sum(), np.int64)
        comm.Alltoallv([targets - bounds[owner], self._send], [self._rows, self._receive])

    def fit(self, tags: np.ndarray, n_own: int) -> bool:
        """Whether these are the tags that this was made of."""
        return n_own == self._n_own and np.array_equal(tags, self._tags)

    def bring_home(self, values: np.ndarray) -> np.ndarray:
        """Add the values of ghosts to those of their owners' atoms.

        Parameters
        ----------
        values : (n_own + n_ghosts, n) float64, own atoms first.

        Returns
        -------
        (n_own, n) float64: own values with those of all their ghosts on all processes.
        """
        width = values.shape[1]
        total = np.array(values[: self._n_own], np.float64)
        ghosts = values[self._n_own :][self._order]
        sums = np.add.reduceat(ghosts, self._first, axis=0) if len(ghosts) else np.empty((0, width))
        received = np.empty((len(self._rows), width))
        self._comm.Alltoallv([np.ascontiguousarray(sums), self._send * width], [received, self._receive * width])
        np.add.at(total, self._rows, received)
        return total
