"""The order of arguments of cuBLAS, against a library that does what its manual says, on the host."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from gmcore.device import cublas
from gmcore.errors import GMError


class HostLibrary:
    """cublasXgemmStridedBatched on column-major host memory, and the settings that the handle was given."""

    def __init__(self):
        self.math, self.calls = cublas.DEFAULT_MATH, []

    def _accept(self, *arguments):
        self.calls.append(arguments)
        return 0

    cublasCreate_v2 = cublasSetStream_v2 = cublasSetWorkspace_v2 = _accept

    def cublasSetMathMode(self, handle, mode):
        self.math = mode
        return 0

    def cublasSgemmStridedBatched(self, *arguments):
        return self._gemm(np.float32, *arguments)

    def cublasDgemmStridedBatched(self, *arguments):
        return self._gemm(np.float64, *arguments)

    def _gemm(
        self,
        dtype,
        handle,
        op_a,
        op_b,
        m,
        n,
        k,
        alpha,
        a,
        lda,
        stride_a,
        b,
        ldb,
        stride_b,
        beta,
        c,
        ldc,
        stride_c,
        count,
    ):
        m, n, k, count = m.value, n.value, k.value, count.value
        real = ctypes.c_float if dtype is np.float32 else ctypes.c_double
        size = np.dtype(dtype).itemsize

        def columns(address, leading, n_columns, stride, number):
            pointer = ctypes.cast(address.value + size * stride.value * number, ctypes.POINTER(real))
            return np.ctypeslib.as_array(pointer, (n_columns, leading.value)).T

        assert (alpha._obj.value, beta._obj.value) == (1.0, 0.0)
        for number in range(count):
            left = columns(a, lda, m if op_a else k, stride_a, number)
            right = columns(b, ldb, k if op_b else n, stride_b, number)
            product = (left.T[:m, :k] if op_a else left[:m, :k]) @ (right.T if op_b else right)[:k, :n]
            columns(c, ldc, n, stride_c, number)[:m, :n] = product
        return 0


@pytest.fixture
def library(monkeypatch):
    library = HostLibrary()
    monkeypatch.setattr(cublas, "load_library", lambda version: library)
    return library


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (3, 2, 6, 1), (2, 5, 1, 4)])
def test_row_major_products(library, rng, shape, transpose_b, dtype):
    n, rows, inner, columns = shape
    a = rng.normal(size=(n, rows, inner)).astype(dtype)
    b = rng.normal(size=(n, inner, columns)).astype(dtype)
    given = np.ascontiguousarray(b.swapaxes(1, 2)) if transpose_b else b
    out = np.full((n, rows, columns), np.nan, dtype)
    blas = cublas.Cublas(12, 0, 0)
    blas.matmul(*(array.ctypes.data for array in (a, given, out)), shape, out.dtype, transpose_b)
    np.testing.assert_allclose(out, a @ b, rtol=1e-5)
    assert library.math == cublas.DEFAULT_MATH


def test_tf32_is_set_for_the_call_that_asks(library):
    blas, one = cublas.Cublas(12, 0, 0), np.ones((1, 1, 1), np.float32)
    address = one.ctypes.data
    blas.matmul(address, address, address, (1, 1, 1, 1), one.dtype, tf32=True)
    assert library.math == cublas.TF32_MATH
    blas.matmul(address, address, address, (1, 1, 1, 1), one.dtype)
    assert library.math == cublas.DEFAULT_MATH


def test_errors_have_names(library):
    blas = cublas.Cublas(12, 0, 0)
    library.cublasSgemmStridedBatched = lambda *arguments: 13
    with pytest.raises(GMError, match="cuBLAS failed: cublasSgemmStridedBatched returned status 13"):
        blas.matmul(0, 0, 0, (1, 1, 1, 1), np.dtype("float32"))
    with pytest.raises(GMError, match=r"dimensions below 2\*\*31"):
        blas.matmul(0, 0, 0, (1, 2**31, 1, 1), np.dtype("float32"))
