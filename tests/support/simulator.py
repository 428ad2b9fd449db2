"""What Numba's CUDA simulator needs to run blocks of many threads reliably; called first by scripts that use it."""

from __future__ import annotations

import sys
import threading

import numpy as np
from numba import config, types
from numba.np.numpy_support import as_dtype

_lock = threading.Lock()


def prepare() -> None:
    """Switch between threads often and let only one of them at a time ask for shared memory.

    Threads of a block wait for each other in busy loops. On a real device nothing is done.
    """
    if not config.ENABLE_CUDASIM:
        return
    from numba.cuda.simulator import kernelapi

    sys.setswitchinterval(1e-5)
    dynamic = kernelapi.FakeCUDAShared.array  # shape 0: the memory that the launch asked for

    def array(shared, shape, dtype):
        return dynamic(shared, 0, dtype) if shape == 0 else _static(shared, shape, dtype)

    kernelapi.FakeCUDAShared.array = array


def _static(shared, shape, dtype):
    """The array of the line that asks for it: made for the thread that comes first, given to all others.

    The simulator's own looks and makes in two steps without a lock, so that a thread may get an array for itself and
    never see what the others write.
    """
    caller = sys._getframe(2)
    place = caller.f_code.co_filename, caller.f_lineno
    with _lock:
        if place not in shared._allocations:
            shared._allocations[place] = np.empty(shape, as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)
        return shared._allocations[place]
