"""Thread counts in one place.

Numba, BLAS and TensorFlow each have a pool as large as the machine. They work in turns, so all get the same number of
threads, and none waits for a core that another one holds.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

from gmcore.errors import GMError

# Held while kernels run: their scratch and Numba's fallback threading layer belong to one Python thread at a time. Held
# also around calls of Numba that take its own lock, because a child forked meanwhile would wait for that forever.
one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A fork waits until kernels have ended: the child would find the lock taken by a thread that it does not have.
    os.register_at_fork(
        before=one_at_a_time.acquire, after_in_parent=one_at_a_time.release, after_in_child=one_at_a_time.release
    )


VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
"""Environment variables from which the libraries take the number of their threads when they are loaded."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(n_threads: int | None) -> None:
    """Give `n_threads` threads (None: all) to Numba, BLAS and, if it is imported, TensorFlow.

    TensorFlow accepts a number only before its first operation; later calls do not change it.

    Raises
    ------
    GMError : the number is not between 1 and the number of threads that Numba was started with.
    """
    limit = numba.config.NUMBA_NUM_THREADS
    if n_threads is None:
        n_threads = min(available_cores(), limit)
    if not 1 <= n_threads <= limit:
        raise GMError(f"the number of threads must be between 1 and {limit}, got {n_threads}")
    with one_at_a_time:
        numba.set_num_threads(n_threads)
        for library in ThreadpoolController().select(user_api="blas").lib_controllers:
            library.set_num_threads(n_threads)
            # newer versions of threadpoolctl let only the first Python thread change the number, until it is released
            getattr(library, "clear_controlling_thread", lambda: None)()
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        try:
            tensorflow.config.threading.set_intra_op_parallelism_threads(n_threads)
            tensorflow.config.threading.set_inter_op_parallelism_threads(n_threads)
        except RuntimeError:  # TensorFlow has already started its pools
            return


def thread_variables(n_threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return `VARIABLES` for a program that is to use at most `n_threads` threads.

    Parameters
    ----------
    environment : variables of this process; what is set there is lowered where it is above `n_threads`, never raised.
    """
    return {name: _at_most(n_threads, environment.get(name, "")) for name in VARIABLES}


def _at_most(n_threads: int, known: str) -> str:
    first = known.partition(",")[0].strip()  # OpenMP allows a list, for nested loops
    return known if first.isdecimal() and 1 <= int(first) <= n_threads else str(n_threads)


def get_threads() -> int:
    """Return the number of threads that kernels use now."""
    with one_at_a_time:
        return numba.get_num_threads()


class _SerialBlas:
    """Holds `one_at_a_time`, entered again at will; once all have left, BLAS has the threads that it had before."""

    def __init__(self) -> None:
        self._depth = 0
        self._controller: Any = None
        self._limiter: Any = None

    def __enter__(self) -> None:
        one_at_a_time.acquire()
        if self._depth == 0:
            if self._controller is None:
                importlib.import_module("scipy.linalg.cython_blas")  # the library that `np.dot` of kernels calls
                self._controller = ThreadpoolController().select(user_api="blas")
            self._limiter = self._controller.limit(limits=1)
            self._limiter.__enter__()
        self._depth += 1

    def __exit__(self, *exception) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._limiter.__exit__(*exception)
        one_at_a_time.release()


_serial_blas = _SerialBlas()


def serial_blas() -> _SerialBlas:
    """Return a context in which BLAS runs in the calling thread, for kernels that call it from threads of their own."""
    return _serial_blas
