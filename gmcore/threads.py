"""Thread counts in one place. Numba, BLAS and TensorFlow each own a pool as large as the machine; they work in
turns, so all are given the same number and none waits for a core that another holds.
"""

from __future__ import annotations

import os
import sys

import numba
from threadpoolctl import threadpool_limits

from .errors import GMError


def available_cores() -> int:
    """Number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(n_threads: int) -> None:
    """Give `n_threads` threads to Numba, BLAS and, if it is imported, TensorFlow.

    TensorFlow takes its number only before its first operation; later calls leave it as it is.

    Raises
    ------
    GMError : the number is not between 1 and the number of threads Numba was started with.
    """
    limit = numba.config.NUMBA_NUM_THREADS
    if not 1 <= n_threads <= limit:
        raise GMError(f"the number of threads must be between 1 and {limit}, got {n_threads}")
    numba.set_num_threads(n_threads)
    threadpool_limits(limits=n_threads, user_api="blas")
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        try:
            tensorflow.config.threading.set_intra_op_parallelism_threads(n_threads)
            tensorflow.config.threading.set_inter_op_parallelism_threads(n_threads)
        except RuntimeError:  # TensorFlow has already started its pools
            return


def get_threads() -> int:
    """Number of threads that kernels use now."""
    return numba.get_num_threads()
