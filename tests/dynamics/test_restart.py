"""Bit for bit: a run that resumes equals one that was never interrupted, and a replica does not feel the others."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.integrators import INTEGRATORS, Integrator, make_integrator
from gmcore.dynamics.state import State, initial_state
from gmcore.model import Model
from support.analytic_forces import ElasticCrystal, Springs
from support.models import random_parts
from support.systems import water_box
from support.tolerances import relative_error

OPTIONS = {
    "nve": {},
    "langevin": {"friction": 0.02},
    "nose_hoover": {"thermostat_time": 10.0, "chain_length": 4},
    "npt": {"friction": 0.02, "barostat_time": 200.0},
}
CHUNK = 40
TEMPERATURES = np.array([400.0, 800.0])


@pytest.fixture(scope="module")
def committee() -> Model:
    return Model(*random_parts(r_max=3.2, seed=4, n_members=2, dtype="float32"))


def start() -> State:
    return initial_state(water_box(2), TEMPERATURES, [1, 2])


def integrator(kind: str, model: Model, state: State) -> Integrator:
    forces = BatchForces(model, state.numbers, state.pbc, state.n_replicas, skin=0.3)
    return make_integrator(kind, forces, state, 0.4, TEMPERATURES[: state.n_replicas], **OPTIONS[kind])


def run_chunk(dynamics: Integrator) -> int:
    """As a run does; the number of builds of the neighbor list."""
    dynamics.restart()
    for _ in range(CHUNK):
        dynamics.step()
    return dynamics.forces.neighbors.n_builds


def assert_same_bits(first: State, second: State) -> None:
    mine, other = first.arrays(), second.arrays()
    assert mine.keys() == other.keys()
    for name in mine:
        assert mine[name].tobytes() == other[name].tobytes(), name


def test_every_integrator_is_tested():
    assert OPTIONS.keys() == INTEGRATORS.keys()


@pytest.mark.parametrize("kind", OPTIONS)
def test_resumed_run_equals_the_uninterrupted_one(kind, committee, tmp_path):
    whole = integrator(kind, committee, start())
    run_chunk(whole)
    np.savez(tmp_path / "state.npz", **whole.state.arrays())
    builds = run_chunk(whole)
    if kind != "npt":  # its list survives, as the atoms move with the cell
        assert builds > 1  # the order of pairs came to depend on the path, which `restart` makes forgotten
    conserved = whole.conserved()
    resumed = integrator(kind, committee, State.from_arrays(np.load(tmp_path / "state.npz")))
    assert resumed.state.step == CHUNK
    run_chunk(resumed)
    assert resumed.state.step == 2 * CHUNK
    assert_same_bits(whole.state, resumed.state)
    assert resumed.conserved().tobytes() == conserved.tobytes()
    assert resumed.result.forces.tobytes() == whole.result.forces.tobytes()
    assert resumed.result.forces_deviation().tobytes() == whole.result.forces_deviation().tobytes()


@pytest.mark.parametrize("kind", ["langevin", "npt"])
def test_the_same_run_twice_gives_the_same_bits(kind, committee):
    """With a fixed number of threads."""
    states = []
    for _ in range(2):
        dynamics = integrator(kind, committee, start())
        run_chunk(dynamics)
        states.append(dynamics.state)
    assert_same_bits(*states)


def alone(state: State, k: int) -> State:
    """Replica k of a state."""
    per_replica = ("positions", "velocities", "cells", "keys")
    return State.from_arrays({n: a[k : k + 1] if n in per_replica else a for n, a in state.arrays().items()})


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_replica_does_not_feel_the_others(kind):
    """With forces that are computed replica by replica the path is the same, bit for bit, alone and in company."""
    sites, cell, fixed = np.random.default_rng(3).uniform(size=(9, 3)), np.diag([6.0, 7.0, 8.0]), [0]
    atoms = Atoms("CH2CH2OH2", sites @ cell, cell=cell, pbc=True)
    forces = Springs(0.2 + sites)
    if kind == "npt":
        forces, fixed = ElasticCrystal(3.0, sites, cell, 0.1), []
    temperatures = np.array([100.0, 200.0, 300.0, 300.0, 300.0])
    whole = initial_state(atoms, temperatures, [5, 5, 5, 6, 7], fixed)
    singles = [alone(whole, k) for k in range(5)]
    everyone = make_integrator(kind, forces, whole, 0.5, temperatures, fixed=fixed, **OPTIONS[kind])
    for _ in range(50):
        everyone.step()
    assert np.array_equal(whole.positions[:, fixed], np.broadcast_to(atoms.positions[fixed], (5, len(fixed), 3)))
    for k, single in enumerate(singles):
        dynamics = make_integrator(kind, forces, single, 0.5, temperatures[k], fixed=fixed, **OPTIONS[kind])
        for _ in range(50):
            dynamics.step()
        assert single.positions.tobytes() == whole.positions[k : k + 1].tobytes()
        assert single.velocities.tobytes() == whole.velocities[k : k + 1].tobytes()
        assert dynamics.conserved()[0] == everyone.conserved()[k]


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_batch_equals_single_runs_of_a_model(kind):
    """To rounding, as the order of sums in the network depends on the batch."""
    model = Model(*random_parts(r_max=3.2, seed=4))
    whole = start()
    singles = [alone(whole, k) for k in range(2)]
    everyone = integrator(kind, model, whole)
    for _ in range(20):
        everyone.step()
    for k, single in enumerate(singles):
        forces = BatchForces(model, single.numbers, single.pbc, 1, skin=0.3)
        dynamics = make_integrator(kind, forces, single, 0.4, TEMPERATURES[k], **OPTIONS[kind])
        for _ in range(20):
            dynamics.step()
        moved = single.positions[0] - water_box(2).positions
        assert np.abs(moved).max() > 0.05
        assert relative_error(whole.positions[k] - water_box(2).positions, moved) < 1e-9
        assert relative_error(whole.velocities[k], single.velocities[0]) < 1e-9
