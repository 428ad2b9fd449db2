"""Stacks of matrix products by cuBLAS, called directly.

A handle of its own has three advantages over CuPy's. Products can be captured into a graph, because a workspace given
beforehand makes allocation unnecessary. TF32 is chosen per call, not per process. A fixed workspace on one stream makes
results bit-for-bit reproducible (cuBLAS manual, "Results reproducibility").

cuBLAS is column-major. A row-major matrix read that way is its transpose, so c = a b is computed as c^T = b^T a^T.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import Any

import numpy as np

from gmcore.errors import GMError

NO_TRANSPOSE, TRANSPOSE = 0, 1
DEFAULT_MATH, TF32_MATH = 0, 3
MAX_INT = 2**31 - 1


def load_library(version: int) -> ctypes.CDLL:
    """Return cuBLAS of the major CUDA version that CuPy uses.

    Raises
    ------
    GMError : the library cannot be loaded.
    """
    name = f"libcublas.so.{version}"
    if find_spec("cuda") is not None and find_spec("cuda.pathfinder") is not None:
        from cuda import pathfinder

        try:
            name = pathfinder.load_nvidia_dynamic_lib("cublas").abs_path or name
        except pathfinder.DynamicLibNotFoundError:
            pass  # the loader's own search path may still have it
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise GMError(f"device='cuda' needs cuBLAS, which cannot be loaded: {error}") from error


class Cublas:
    """A handle for one stream and one workspace.

    Parameters
    ----------
    version : major version of the CUDA runtime.
    stream, workspace : addresses; the workspace has `WORKSPACE` bytes and lives as long as its `owner`.
    """

    WORKSPACE = 32 << 20  # what cuBLAS asks for on the largest cards

    def __init__(self, version: int, stream: int, workspace: int, owner: Any = None):
        self._library, self._owner = load_library(version), owner
        self._handle = ctypes.c_void_p()
        self._math = DEFAULT_MATH
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        self._call("cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(workspace), ctypes.c_size_t(self.WORKSPACE))

    def matmul(
        self, a: int, b: int, out: int, shape: tuple[int, int, int, int], dtype: np.dtype,
        transpose_b: bool = False, tf32: bool = False,
    ) -> None:  # fmt: skip
        """Compute out = a b for addresses of row-major stacks and shape = (n, rows, inner, columns).

        out is (n, rows, columns); a is (n, rows, inner); b is (n, inner, columns), transposed
        (n, columns, inner).

        Raises
        ------
        GMError : a dimension is too large for 32 bits, or cuBLAS reports an error.
        """
        n, rows, inner, columns = shape
        if max(shape) > MAX_INT:
            raise GMError(f"a matrix product must have dimensions below 2**31, got {shape}")
        double = np.dtype(dtype) == np.float64
        real = ctypes.c_double if double else ctypes.c_float
        self._set_math(TF32_MATH if tf32 and not double else DEFAULT_MATH)
        one, zero = real(1.0), real(0.0)
        integer, stride, pointer = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
        self._call(
            "cublasDgemmStridedBatched" if double else "cublasSgemmStridedBatched",
            self._handle, TRANSPOSE if transpose_b else NO_TRANSPOSE, NO_TRANSPOSE,
            integer(columns), integer(rows), integer(inner), ctypes.byref(one),
            pointer(b), integer(inner if transpose_b else columns), stride(inner * columns),
            pointer(a), integer(inner), stride(rows * inner), ctypes.byref(zero),
            pointer(out), integer(columns), stride(rows * columns), integer(n),
        )  # fmt: skip

    def _set_math(self, mode: int) -> None:
        if mode != self._math:
            self._call("cublasSetMathMode", self._handle, mode)
            self._math = mode

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise GMError(f"cuBLAS failed: {name} returned status {status}")
