"""The stage kernels on a real device: `pytest -m gpu`. The same comparisons as in the simulator, and larger ones."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from gmcore.device.cuda import CudaError, open_device
from support.cuda_cases import CASES, tolerance
from support.cuda_comparison import Problem, frames
from support.systems import water_box

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def device():
    """The GPU; without one these tests are skipped and the reason is said."""
    if numba.config.ENABLE_CUDASIM:
        pytest.skip("a real device is wanted, this process has the CUDA simulator")
    try:
        return open_device()
    except CudaError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("case", CASES, ids="{0[system]}-{0[dtype]}-{0[n_radial]}".format)
def test_device_equals_host_at_every_order(case):
    options = dict(case)
    for result, error in Problem(frames(options.pop("system")), **options).errors().items():
        assert error < tolerance(result, case["dtype"]), f"{result} {error:.1e}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_box_of_water_equals_the_host(dtype):
    """Rows of more than one warp, more centers than blocks of the beta gradient."""
    problem = Problem([water_box(n_side=6)], dtype, cutoff=6.0, n_radial=5, n_basis=7)
    for result, error in problem.errors().items():
        assert error < tolerance(result, dtype), f"{result} {error:.1e}"


def test_same_bits_every_time():
    problem = Problem([water_box(n_side=6), *frames("mixed")], "float32", cutoff=6.0, n_radial=5, n_basis=7)
    host_moments = problem.moments.forward(problem.geometry, problem.batch.positions, problem.beta)
    first = problem.on_the_device(host_moments)
    for _ in range(3):
        again = problem.on_the_device(host_moments)
        for name, values in first.items():
            for value, repeated in zip(values, again[name]):
                np.testing.assert_array_equal(value, repeated)
