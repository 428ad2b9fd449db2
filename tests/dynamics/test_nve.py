"""Velocity Verlet: the reference trajectory of ASE, conservation laws, order of the error; fixed atoms."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.md.verlet import VelocityVerlet as AseVelocityVerlet

from gmcore.calculator import GMCalculator
from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.integrators import VelocityVerlet, make_integrator
from gmcore.dynamics.state import DynamicsError, initial_state
from gmcore.model import Model
from gmcore.units import ASE_TIME, MASS_UNIT
from support.analytic_forces import Springs
from support.models import random_parts
from support.systems import molecule, water_box
from support.tolerances import relative_error


def model(dtype: str = "float64", **options) -> Model:
    return Model(*random_parts(r_max=3.2, seed=4, dtype=dtype, **options))


def dynamics(dtype: str = "float64", time_step: float = 0.1, skin: float = 1.0, **options) -> VelocityVerlet:
    """Two replicas of a box of 24 atoms at 300 K."""
    state = initial_state(water_box(2), 300.0, [1, 2], options.get("fixed"))
    return VelocityVerlet(BatchForces(model(dtype), state.numbers, state.pbc, 2, skin), state, time_step, **options)


def test_trajectory_of_ase():
    """50 steps, two replicas, positions and velocities to rounding."""
    ours = dynamics(time_step=0.5, skin=0.2)
    frames = []
    for k in range(2):
        atoms = water_box(2)
        atoms.calc = GMCalculator(model())
        atoms.set_velocities(ours.state.velocities[k] * ASE_TIME)
        AseVelocityVerlet(atoms, 0.5 / ASE_TIME).run(50)
        frames.append(atoms)
    for _ in range(50):
        ours.step()
    assert ours.forces.neighbors.n_builds > 1
    assert ours.state.step == 50
    start = water_box(2).positions
    assert relative_error(ours.state.positions - start, [f.positions - start for f in frames]) < 1e-9
    assert relative_error(ours.state.velocities, [f.get_velocities() / ASE_TIME for f in frames]) < 1e-9
    assert ours.state.kinetic_energies() == pytest.approx([f.get_kinetic_energy() for f in frames], rel=1e-9)
    assert ours.conserved() == pytest.approx([f.get_total_energy() for f in frames], rel=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_energy_does_not_drift(dtype):
    """20 fs across builds of the neighbor list; what moves is the oscillation of the method, alike in both types."""
    ours = dynamics(dtype, skin=0.3)
    energies = []
    for _ in range(200):
        ours.step()
        energies.append(ours.conserved())
    energies = np.array(energies) / ours.state.n_atoms
    assert ours.forces.neighbors.n_builds > 1
    assert np.ptp(energies, axis=0).max() < 1e-6
    assert np.abs(energies[100:].mean(axis=0) - energies[:100].mean(axis=0)).max() < 2e-7


@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 1e-12), ("float32", 1e-8)])
def test_momentum_is_conserved(dtype, rounding):
    ours = dynamics(dtype, time_step=0.5)
    for _ in range(40):
        ours.step()
    momentum = np.einsum("i,kia->ka", ours.state.masses, ours.state.velocities)
    scale = np.abs(ours.state.masses[:, None] * ours.state.velocities).sum()
    assert np.abs(momentum).max() < rounding * scale
    assert ours.n_degrees == 3 * 24 - 3


def oscillators(omega_dt: float, n_steps: int) -> np.ndarray:
    """Total energies of oscillators of period 20 fs that start at rest, one unit from where they are held."""
    omega = 2 * np.pi / 20.0
    atoms = Atoms("H3", [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    springs = Springs(np.full((3, 3), MASS_UNIT * atoms.get_masses()[0] * omega**2))
    ours = VelocityVerlet(springs, initial_state(atoms, [0.0], [1], [0]), omega_dt / omega, [0])
    energies = [ours.conserved()]
    for _ in range(n_steps):
        ours.step()
        energies.append(ours.conserved())
    return np.array(energies)


def test_energy_error_of_an_oscillator():
    """v^2 + (1 - (omega dt)^2/4) omega^2 x^2 is exactly constant: the energy dips by (omega dt)^2/4 at most."""
    for omega_dt in (0.4, 0.2, 0.1):
        energies = oscillators(omega_dt, 2000)
        dip = 1.0 - energies.min() / energies[0]
        assert dip == pytest.approx(omega_dt**2 / 4, rel=0.01)
        assert energies.max() < energies[0] * (1 + 1e-12)


def test_fixed_atoms_never_move():
    fixed = [0, 7, 8]
    ours = dynamics(time_step=0.5, fixed=fixed)
    start = ours.state.positions.copy()
    for _ in range(20):
        ours.step()
    assert np.array_equal(ours.state.positions[:, fixed], start[:, fixed])
    assert np.abs(np.delete(ours.state.positions - start, fixed, axis=1)).min() > 0.0
    assert ours.n_degrees == 3 * 21


def test_refused():
    state = initial_state(molecule(), [300.0], [1])
    springs = Springs(np.ones((21, 3)))
    for time_step in (0.0, -0.5, np.nan):
        with pytest.raises(DynamicsError, match="the time step must be positive and finite"):
            VelocityVerlet(springs, state, time_step)
    with pytest.raises(DynamicsError, match="velocities of fixed atoms must be zero"):
        VelocityVerlet(springs, state, 0.5, [0])
    with pytest.raises(DynamicsError, match="at least one atom must be free to move, got all 21 atoms fixed"):
        VelocityVerlet(springs, state, 0.5, np.arange(21))
    with pytest.raises(DynamicsError, match="a single atom has no temperature under nve"):
        VelocityVerlet(Springs(np.ones((1, 3))), initial_state(Atoms("H"), [1.0], [1]))
    with pytest.raises(DynamicsError, match="unknown ensemble 'langevn'; did you mean 'langevin'"):
        make_integrator("langevn", springs, state)
    with pytest.raises(DynamicsError, match="langevin needs target temperatures, got none"):
        make_integrator("langevin", springs, state)
    with pytest.raises(DynamicsError, match=r"the options of nve are fixed, got 'friction'"):
        make_integrator("nve", springs, state, friction=1.0)
