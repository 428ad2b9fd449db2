"""How kernels are compiled: decorators with one set of flags, and an on-disk cache that notices every change.

Numba's own cache looks only at the file of the function that is compiled, not at the functions it inlines from
other files. The cache folder is therefore keyed by a hash of all kernel sources and of the compiler's version:
change a formula and every loop is compiled afresh.

The fast-math flags allow re-association and fused multiply-add, which vectorized sums need, but keep NaN and
infinity meaningful, so that bad numbers are seen rather than optimized away.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import llvmlite
import numba
from numba import config

FAST_MATH = {"reassoc", "contract", "nsz", "arcp", "afn"}
FLAGS = {"error_model": "numpy", "fastmath": FAST_MATH}

# `workqueue`, Numba's last resort, aborts the process when two Python threads enter parallel code (TensorFlow does).
config.THREADING_LAYER_PRIORITY = ["tbb", "omp", "workqueue"]

# Idle OpenMP threads spin for a millisecond by default. On a machine that does anything else that costs more than the
# kernels: energy and forces of 64 atoms took 18 us an atom alone and up to 600 beside one busy process; with a short
# spin 18.5 and 40. Read when the OpenMP library is loaded, which happens at the first parallel kernel.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def source_hash(folder: Path = Path(__file__).parent) -> str:
    """Hash of all kernel sources in `folder`, Numba, LLVM and Python versions: the name of the cache folder."""
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version_info[:2])).encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> str | None:
    """Folder of compiled kernels, None where nothing can be written (kernels are then compiled in each process)."""
    base = os.environ.get("NUMBA_CACHE_DIR")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "gmtensor")
    folder = os.path.join(base, f"kernels-{source_hash()}")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


CACHE_FOLDER = _cache_folder()


@contextlib.contextmanager
def _cache_in(folder: str | None, settings=config):
    previous, settings.CACHE_DIR = settings.CACHE_DIR, folder or settings.CACHE_DIR
    try:
        yield
    finally:
        settings.CACHE_DIR = previous


def jit(function: Callable) -> Callable:
    """Compile a scalar formula; it is always inlined into the loop that calls it."""
    return numba.njit(forceinline=True, **FLAGS)(function)


def routine_jit(function: Callable) -> Callable:
    """Compile a piece of a loop that stays a function of its own: inlining it everywhere would cost compile time."""
    return numba.njit(**FLAGS)(function)


def parallel_jit(function: Callable) -> Callable:
    """Compile a loop over `numba.prange`, with the on-disk cache."""
    with _cache_in(CACHE_FOLDER):
        return numba.njit(cache=CACHE_FOLDER is not None, parallel=True, **FLAGS)(function)


def exact_jit(function: Callable) -> Callable:
    """Compile a loop without fast-math, with the on-disk cache: for decisions that two passes must take alike."""
    with _cache_in(CACHE_FOLDER):
        return numba.njit(cache=CACHE_FOLDER is not None, error_model="numpy")(function)


def cuda_jit(function: Callable | None = None, **options) -> Callable:
    """Compile a CUDA kernel at its first launch, with the on-disk cache; `options` are those of `numba.cuda.jit`."""
    if function is None:
        return functools.partial(cuda_jit, **options)
    from numba import cuda

    settings = sys.modules.get("numba.cuda.core.config", config)  # numba-cuda has settings of its own
    with _cache_in(CACHE_FOLDER, settings):
        return cuda.jit(cache=CACHE_FOLDER is not None, **options)(function)


def cuda_device_jit(function: Callable) -> Callable:
    """Compile a piece of a CUDA kernel; it is always inlined. One that uses `cuda` must stand in its kernel's file."""
    from numba import cuda

    options = {} if config.ENABLE_CUDASIM else {"forceinline": True}  # the simulator knows no such option
    return cuda.jit(device=True, **options)(function)
