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
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import llvmlite
import numba
from numba import config

from gmcore.kernels.after_fork import serve_forked_children

FAST_MATH = {"reassoc", "contract", "nsz", "arcp", "afn"}
FLAGS = {"error_model": "numpy", "fastmath": FAST_MATH}

# `workqueue`, Numba's last resort, aborts the process when two Python threads enter parallel code (TensorFlow does).
config.THREADING_LAYER_PRIORITY = ["tbb", "omp", "workqueue"]

# Idle OpenMP threads spin for a millisecond by default. On a machine that does anything else that costs more than the
# kernels: energy and forces of 64 atoms took 18 us an atom alone and up to 600 beside one busy process; with a short
# spin 18.5 and 40. Read when the OpenMP library is loaded, which happens just below.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if hasattr(os, "register_at_fork"):
    serve_forked_children()


def source_hash(folder: Path = Path(__file__).parent) -> str:
    """Hash of all kernel sources in `folder`, Numba, LLVM and Python versions: the name of the cache folder."""
    digest = hashlib.sha256(repr((numba.__version__, llvmlite.__version__, sys.version_info[:2])).encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> str | None:
    """Folder of compiled kernels; None, with a warning, where there cannot be one that is safe to read.

    Numba's cache files are pickles: who can write one can run code in the process that reads it.
    """
    base = os.environ.get("NUMBA_CACHE_DIR")
    if not base:
        base = os.path.join(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "gmtensor")
    base = os.path.realpath(base)
    folder = os.path.join(base, f"kernels-{source_hash()}")
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        objection = _objection(base, shared=True) or _objection(folder, shared=False)
    except OSError as error:
        objection = f"{folder} cannot be used: {error.strerror}"
    if objection is None and not os.access(folder, os.W_OK):
        objection = f"{folder} cannot be written to"
    if objection is None:
        return folder
    warnings.warn(
        f"kernels are compiled anew in every process, which takes a minute or more, because {objection}; set "
        "NUMBA_CACHE_DIR to a folder of your own that nobody else can write to",
        stacklevel=2,
    )
    return None


def _objection(folder: str, *, shared: bool) -> str | None:
    """Why a folder, or a `shared` one that holds it, may contain files of others; None if it cannot.

    A shared folder may belong to root, and everybody may write to it if only the owner of an entry may replace it, as
    in /tmp.
    """
    if os.name != "posix":
        return None
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is not a folder"
    if status.st_uid != os.geteuid() and not (shared and status.st_uid == 0):
        return f"{folder} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (shared and status.st_mode & stat.S_ISVTX):
        return f"others may write to {folder} (chmod go-w takes that from them)"
    return None


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
    compiled = numba.njit(forceinline=True, **FLAGS)(function)
    if compiled is function:  # with NUMBA_DISABLE_JIT, as in quick runs of the simulator
        compiled.py_func = function
    return compiled


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
