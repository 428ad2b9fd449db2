"""The stage kernels in the CUDA simulator, against the CPU at every order; and that the twins are twins."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from gmcore.kernels import contractions_cpu, moments_cpu
from support.cuda_cases import CASES, tolerance
from support.places import TESTS, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulated() -> list[dict[str, float]]:
    """Relative errors of every case; the simulator is chosen before Numba is imported, hence the process."""
    env = environment(NUMBA_ENABLE_CUDASIM="1")
    run = subprocess.run(
        [sys.executable, str(TESTS / "support" / "cuda_comparison.py")],
        input="\n".join(map(json.dumps, CASES)), env=env, capture_output=True, text=True,
    )  # fmt: skip
    if run.returncode != 0:
        raise RuntimeError(run.stderr)
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda k: "{system}-{dtype}-{n_radial}".format(**CASES[k]))
def test_device_equals_host_at_every_order(simulated, case):
    errors = simulated[case]
    assert len(errors) == 12
    for result, error in errors.items():
        assert error < tolerance(result, CASES[case]["dtype"]), f"{result} {error:.1e}"


@pytest.mark.parametrize("order", ["forward", "backward", "double_backward"])
@pytest.mark.parametrize("stage", [moments_cpu, contractions_cpu], ids=["moments", "contractions"])
def test_twins_have_equal_signatures(stage, order):
    """But for the share and the scratch of the CPU's threads, which have no counterpart on a device."""
    from gmcore.kernels import contractions_cuda, moments_cuda

    twin = {moments_cpu: moments_cuda, contractions_cpu: contractions_cuda}[stage]
    names = [n for n in inspect.signature(getattr(stage, order).py_func).parameters if n not in ("blocks", "scratch")]
    assert list(inspect.signature(getattr(twin, order).py_func).parameters) == names


def test_twins_of_motion_have_equal_signatures():
    from gmcore.kernels import motion_cpu, motion_cuda

    kernels = {name: kernel for name, kernel in vars(motion_cuda).items() if hasattr(motion_cpu, name)}
    shared = {"kick", "kick_and_drift", "kick_and_diffuse", "kinetic", "advance_chains", "scale_velocities"}
    assert shared <= kernels.keys()
    for name in shared:
        twin = getattr(motion_cpu, name).py_func
        assert list(inspect.signature(kernels[name].py_func).parameters) == list(inspect.signature(twin).parameters)
