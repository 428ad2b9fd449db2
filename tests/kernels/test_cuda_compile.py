"""All CUDA kernels compiled for two generations of cards, without one: their budget, and no stray double precision."""

from __future__ import annotations

import json

import numba
import numpy as np
import pytest

from perf import cuda_compile

pytestmark = pytest.mark.slow

REASON = cuda_compile.missing()
CASES = [(name, dtype) for name in cuda_compile.SIGNATURES for dtype in cuda_compile.dtypes_of(name)]


def test_arguments_have_the_types_of_a_launch():
    """What is compiled in advance is found by later launches, whose types Numba reads off the arguments."""
    dtypes = {"r": np.float32, "d": np.float64, "i": np.int32, "u": np.uint32, "l": np.int64, "b": np.bool_}

    def value(code):
        if code in cuda_compile.TUPLES:
            kind, fields = cuda_compile.TUPLES[code]
            return kind(*map(value, fields.split()))
        if code == "wanted":
            return True, False
        return (
            np.zeros((2,) * int(code[1]), dtypes[code[0]]) if code[1] != "0" else {"l": 3, "d": 2.0, "b": True}[code[0]]
        )

    for name, codes in cuda_compile.SIGNATURES.items():
        launched = tuple(numba.typeof(value(code)) for code in codes.split())
        assert cuda_compile.argument_types(name, "float32") == launched, name


def test_every_kernel_is_compiled_here():
    assert cuda_compile.kernel_names() == set(cuda_compile.SIGNATURES)


def test_the_budget_has_every_kernel_and_no_other():
    budget = json.loads(cuda_compile.BUDGET.read_text())
    assert {(name, dtype) for name, dtypes in budget.items() for dtype in dtypes} == set(CASES)
    for name, dtypes in budget.items():
        for dtype, capabilities in dtypes.items():
            assert len(capabilities) == len(cuda_compile.CAPABILITIES)
            for taken in capabilities.values():
                if dtype == "float32" and not name.endswith("double_backward"):
                    assert taken["spill_stores"] == taken["spill_loads"] == 0, name


@pytest.mark.skipif(REASON is not None, reason=f"cannot compile CUDA kernels: {REASON}")
@pytest.mark.parametrize(("name", "dtype"), CASES, ids=map("-".join, CASES))
def test_kernel_stays_within_its_budget(name, dtype):
    budget = json.loads(cuda_compile.BUDGET.read_text())[name][dtype]
    for capability in cuda_compile.CAPABILITIES:
        ptx = cuda_compile.compile_ptx(name, dtype, capability)
        assert f".target sm_{capability[0]}{capability[1]}" in ptx
        allowed = cuda_compile.DOUBLE.get(name, frozenset())
        if dtype == "float32" and allowed is not None:
            assert cuda_compile.double_instructions(ptx) <= allowed
        taken = cuda_compile.assemble(ptx, capability)
        limits = budget["{}.{}".format(*capability)]
        assert taken["registers"] <= limits["registers"] + cuda_compile.SLACK
        for key in ("spill_stores", "spill_loads", "stack", "shared"):
            assert taken[key] <= limits[key], (
                f"{key} {taken[key]}, not {limits[key]}: python -m perf.cuda_compile --write"
            )


@pytest.mark.skipif(REASON is not None, reason=f"cannot compile CUDA kernels: {REASON}")
def test_the_checker_sees_double_precision():
    ptx = cuda_compile.compile_ptx("network_cuda.multiply", "float64", cuda_compile.CAPABILITIES[0])
    assert "mul.f64" in cuda_compile.double_instructions(ptx)
    assert not cuda_compile.double_instructions(".reg .f64 %fd<3>; ld.global.f32 %f1, [%rd1]; add.f32 %f2, %f1, %f1;")
