"""Langevin and Nose-Hoover against the canonical averages of oscillators, which are known exactly.

Errors are standard errors over independent replicas. Every test also says how small they must be, so that none passes
because it sees nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from scipy import stats

from gmcore.dynamics.integrators import Integrator, Langevin, NoseHoover
from gmcore.dynamics.state import DynamicsError, initial_state
from gmcore.units import BOLTZMANN, MASS_UNIT
from support.analytic_forces import Springs

MASSES = np.array([1.0, 2.0, 12.0])


def oscillators(n_atoms: int, periods, n_replicas: int, start: float):
    """Atoms on springs to a fixed one, with these periods (fs) along their axes; stiffness and state."""
    masses = np.resize(MASSES, n_atoms + 1)
    periods = np.concatenate([np.ones((1, 3)), np.broadcast_to(periods, (n_atoms, 3))])
    stiffness = MASS_UNIT * masses[:, None] * (2 * np.pi / periods) ** 2
    atoms = Atoms("H" * (n_atoms + 1), np.zeros((n_atoms + 1, 3)))
    state = initial_state(atoms, start, range(n_replicas), [0], masses)
    return Springs(stiffness), state


def reduced(dynamics: Integrator, temperatures) -> tuple[np.ndarray, np.ndarray]:
    """Displacements and velocities of the free atoms over their exact widths, (n_replicas, n)."""
    state, kt = dynamics.state, BOLTZMANN * np.asarray(temperatures)[:, None, None]
    away = (state.positions - state.positions[:, :1])[:, 1:] * np.sqrt(dynamics.forces.stiffness[1:] / kt)
    speed = state.velocities[:, 1:] * np.sqrt(MASS_UNIT * state.masses[1:, None] / kt)
    return away.reshape(state.n_replicas, -1), speed.reshape(state.n_replicas, -1)


def sample(dynamics: Integrator, temperatures, skip: int, n_samples: int, every: int) -> dict[str, np.ndarray]:
    """Averages over time, (n_replicas,): 1 where the canonical average is met."""
    for _ in range(skip):
        dynamics.step()
    sums, n_degrees = {}, dynamics.n_degrees
    for _ in range(n_samples):
        for _ in range(every):
            dynamics.step()
        away, speed = reduced(dynamics, temperatures)
        energy = 0.5 * (speed**2).sum(axis=1)
        for name, values in {
            "x2": (away**2).mean(axis=1),
            "v2": (speed**2).mean(axis=1),
            "x4": (away**4).mean(axis=1) / 3.0,
            "v4": (speed**4).mean(axis=1) / 3.0,
            "temperature": dynamics.state.temperatures(n_degrees) / temperatures,
            "kinetic fluctuation": (energy - 0.5 * n_degrees) ** 2 / (0.5 * n_degrees),
        }.items():
            sums[name] = sums.get(name, 0.0) + values / n_samples
    return sums


def check(values: np.ndarray, expected: float, precision: float) -> None:
    """The mean over replicas is the expected one within four standard errors, themselves below `precision`."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert 0.0 < error < precision
    assert abs(values.mean() - expected) < 4.0 * error


def test_langevin_samples_the_canonical_ensemble():
    """From rest to four temperatures; positions and velocities are normal with the exact widths."""
    temperatures = np.repeat([25.0, 50.0, 75.0, 400.0], 12)
    springs, state = oscillators(30, [30.0, 41.0, 55.0], 48, 0.0)
    dynamics = Langevin(springs, state, 0.5, temperatures, 0.05, [0])
    averages = sample(dynamics, temperatures, skip=400, n_samples=60, every=20)
    for name, precision in (("x2", 0.005), ("v2", 0.005), ("temperature", 0.005), ("x4", 0.02), ("v4", 0.02)):
        check(averages[name], 1.0, precision)
    check(averages["kinetic fluctuation"], 1.0, 0.05)
    for values in reduced(dynamics, temperatures):
        assert stats.kstest(values.ravel(), "norm").pvalue > 0.01
    assert dynamics.n_degrees == 90


def test_baoab_has_no_configurational_error_for_oscillators():
    """One radian per step: <x^2> is exact, <v^2> is 3/4 of what it should be (Leimkuhler and Matthews 2013)."""
    temperatures = np.full(40, 300.0)
    springs, state = oscillators(30, 2 * np.pi * 1.0, 40, 300.0)
    averages = sample(Langevin(springs, state, 1.0, temperatures, 0.2, [0]), temperatures, 100, 400, 3)
    check(averages["x2"], 1.0, 0.005)
    check(averages["v2"], 0.75, 0.005)


def test_effective_energy_of_langevin():
    """Heat is booked: from rest to 300 K the effective energy hardly moves, four times less at half the time step."""
    errors = []
    for time_step in (1.0, 0.5):
        springs, state = oscillators(30, [30.0, 41.0, 55.0], 20, 0.0)
        dynamics = Langevin(springs, state, time_step, 300.0, 0.02, [0])
        start, moved = dynamics.conserved(), []
        for _ in range(round(500 / time_step)):
            dynamics.step()
            moved.append(dynamics.conserved() - start)
        taken = state.extended["heat"].sum(axis=1)
        assert (taken > 0.7 * 90 * BOLTZMANN * 300.0).all()
        errors.append(np.sqrt(np.mean(np.square(moved))) / taken.mean())
    assert errors[0] < 0.01
    assert 3.0 < errors[0] / errors[1] < 5.0


def test_nose_hoover_samples_the_canonical_ensemble():
    """One atom per chain, from half the temperature: chains make even oscillators canonical (Martyna et al. 1992)."""
    temperatures = np.repeat([50.0, 300.0], 40)
    springs, state = oscillators(1, [20.0, 27.0, 37.0], 80, 100.0)
    dynamics = NoseHoover(springs, state, 0.5, temperatures, thermostat_time=5.0, fixed=[0])
    averages = sample(dynamics, temperatures, skip=1000, n_samples=800, every=6)
    for name, precision in (("x2", 0.01), ("v2", 0.01), ("temperature", 0.01), ("x4", 0.03), ("v4", 0.03)):
        check(averages[name], 1.0, precision)
    check(averages["kinetic fluctuation"], 1.0, 0.03)
    for values in reduced(dynamics, temperatures):
        assert stats.kstest(values.ravel(), "norm").pvalue > 0.01


@pytest.mark.parametrize("chain_length", [1, 4])
def test_energy_of_the_chain_is_counted(chain_length):
    errors = []
    for time_step in (1.0, 0.5):
        springs, state = oscillators(30, [30.0, 41.0, 55.0], 10, 100.0)
        dynamics = NoseHoover(springs, state, time_step, 300.0, 20.0, chain_length, [0])
        start, moved = dynamics.conserved(), []
        for _ in range(round(400 / time_step)):
            dynamics.step()
            moved.append(dynamics.conserved() - start)
        errors.append(np.sqrt(np.mean(np.square(moved))))
    assert errors[0] < 0.01 * 90 * BOLTZMANN * 300.0
    assert 3.0 < errors[0] / errors[1] < 5.0


def test_a_chain_that_overflows_says_so():
    springs, state = oscillators(30, 30.0, 3, [10.0, 1e6, 10.0])
    dynamics = NoseHoover(springs, state, 0.5, 10.0, 5.0, fixed=[0])
    with pytest.raises(DynamicsError, match=r"the Nose-Hoover chain of replica 1 overflowed at .* K: start closer"):
        for _ in range(100):
            dynamics.step()
    assert np.isfinite(state.positions).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *a: Langevin(*a, 0.5, 0.0), r"temperatures must be positive and finite, got 0.0 K"),
        (
            lambda *a: Langevin(*a, 0.5, [300.0, -1.0]),
            r"temperatures must be positive .* got \[300.0, -1.0\] K",
        ),
        (lambda *a: Langevin(*a, 0.5, [1.0, 2.0, 3.0]), r"one number or one per replica \(2\), got shape \(3,\)"),
        (lambda *a: Langevin(*a, 0.5, 1.0, -0.1), "the friction must be positive and finite, got -0.1 1/fs"),
        (lambda *a: Langevin(*a, 0.5, 1.0, np.inf), "the friction must be positive and finite, got inf 1/fs"),
        (lambda *a: NoseHoover(*a, 0.5, np.nan), "temperatures must be positive and finite, got nan K"),
        (lambda *a: NoseHoover(*a, 0.5, 1.0, 0.0), "the thermostat time must be positive and finite, got 0.0 fs"),
        (lambda *a: NoseHoover(*a, 0.5, 1.0, 5.0, 0), "the chain length must be an integer of at least 1, got 0"),
        (lambda *a: NoseHoover(*a, 0.5, 1.0, 5.0, 4), r"chain_positions of the state must have shape \(2, 4\), got"),
    ],
)
def test_refused(make, message):
    springs, state = oscillators(1, 30.0, 2, 0.0)
    state.extended["chain_positions"] = np.zeros((2, 3))
    with pytest.raises(DynamicsError, match=message):
        make(springs, state)
