"""The whole device path in the CUDA simulator, on every machine, and on a real device where there is one.

The simulator must be chosen before Numba is imported, so its checks (`cuda_driver_checks.py`) run in one process of
their own, each a test here. What only a device can show is at the end, marked `gpu`.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numba
import numpy as np
import pytest
from ase import Atoms

from gmcore.device.cuda import CudaError, open_device
from gmcore.dynamics.forces_cuda import DeviceForces
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.structures import Batch
from gmcore.model import Model
from support import cuda_driver_checks
from support.cuda_driver_checks import CHECKS
from support.models import random_parts
from support.places import environment
from support.tolerances import relative_error

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulated() -> dict[str, str]:
    """Trouble of each check in the simulator, empty where there was none."""
    env = environment(NUMBA_ENABLE_CUDASIM="1")
    command = [sys.executable, "-W", "error", cuda_driver_checks.__file__]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if run.returncode:
        raise AssertionError(run.stderr)
    return {found["name"]: found["trouble"] for found in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("name", CHECKS)
def test_in_the_simulator(simulated, name):
    assert not simulated[name], simulated[name]


@pytest.fixture(scope="module")
def device():
    if numba.config.ENABLE_CUDASIM:
        pytest.skip("a real device is wanted, this process has the CUDA simulator")
    try:
        return open_device()
    except CudaError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("name", CHECKS)
def test_on_the_device(device, name):
    CHECKS[name]()


def lattice_gas(n_per_side: int, seed: int = 0) -> Atoms:
    """n^3 atoms on a jittered cubic grid, 1.6 A apart, periodic."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(n_per_side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = 1.6 * (sites + rng.uniform(-0.2, 0.2, sites.shape))
    return Atoms(rng.choice([1, 6, 8], len(sites)), positions, cell=[1.6 * n_per_side] * 3, pbc=True)


@pytest.fixture(scope="module")
def parts():
    return random_parts(("energy",), r_max=4.0, n_radial=5, n_basis=7, hidden=(64, 64), dtype="float32")


@pytest.mark.gpu
def test_a_few_thousand_atoms_equal_the_cpu(device, parts):
    batch = Batch.from_atoms([lattice_gas(14), lattice_gas(9, seed=1)])
    model = Model(*parts, dtype="float64", device="cuda")
    expected = Model(*parts, dtype="float64").evaluate(batch, build_pairs(batch, model.cutoff))
    found = model.evaluate(batch, model.evaluator.find_pairs(batch))
    for key, values in expected.items():
        assert relative_error(found[key], values) < 1e-10, key


@pytest.mark.gpu
def test_a_recorded_step_equals_the_same_step_launched(device, parts):
    forces = DeviceForces(Model(*parts, device="cuda"), lattice_gas(8), skin=0.5)
    results = [[device.download(array) for array in forces.evaluate()] for _ in range(4)]
    step = forces.step
    assert (step.n_recorded, step.n_replayed) == (1, 2)
    for result in results[1:]:
        for one, other in zip(results[0], result):
            np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
def test_tf32_is_close_and_only_when_asked_for(device, parts):
    batch = Batch.from_atoms(lattice_gas(8))
    found = {}
    for matmul in ("float32", "tf32"):
        model = Model(*parts, device="cuda", matmul=matmul)
        found[matmul] = model.evaluate(batch, model.evaluator.find_pairs(batch))["forces"]
    twice = Model(*parts, dtype="float64", device="cuda")
    exact = twice.evaluate(batch, twice.evaluator.find_pairs(batch))["forces"]
    assert relative_error(found["float32"], exact) < 1e-4
    assert 1e-6 < relative_error(found["tf32"], found["float32"]) < 3e-2


@pytest.mark.gpu
def test_a_million_atoms(device, parts):
    model = Model(*parts, device="cuda")
    batch = Batch.from_atoms(lattice_gas(100))
    pairs = model.evaluator.find_pairs(batch)
    first, second = (model.evaluate(batch, pairs) for _ in range(2))
    assert model.evaluator._step.plan.chunk < batch.n_atoms
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])
    assert np.abs(first["forces"].sum(axis=0)).max() < 1e-6 * np.abs(first["forces"]).sum()
