"""NPT against cells whose distribution is known exactly: an ideal gas and a crystal of springs in an elastic cell."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.integrators import LangevinNPT
from gmcore.dynamics.state import DynamicsError, initial_state
from gmcore.model import Model
from gmcore.units import BOLTZMANN
from support.analytic_forces import ElasticCrystal
from support.models import random_parts
from support.systems import molecule, slab, triclinic
from support.tolerances import relative_error

pytestmark = pytest.mark.slow

CELL = np.array([[4.0, 0.0, 0.0], [0.5, 5.0, 0.0], [-0.6, 0.3, 4.5]])
KT = BOLTZMANN * 300.0
ELASTICITY = 0.05  # eV/A^4: a cell that is about as stiff as a molecular crystal


def dynamics(stiffness: float, n_atoms: int, pressure: float, n_replicas: int, time_step=1.0, **options) -> LangevinNPT:
    sites = np.random.default_rng(0).uniform(size=(n_atoms, 3))
    atoms = Atoms("H" * n_atoms, sites @ CELL, cell=CELL, pbc=True, masses=np.full(n_atoms, 10.0))
    crystal = ElasticCrystal(stiffness, sites, CELL, ELASTICITY)
    state = initial_state(atoms, 300.0, range(n_replicas))
    options = {"friction": 0.02, "barostat_time": 200.0, "cell_friction": 0.03} | options
    return LangevinNPT(crystal, state, time_step, 300.0, pressure, **options)


def exact(n_gas: int, pressure: float) -> tuple[np.ndarray, float, float]:
    """<h h^T>, <V> and <(V - <V>)^2> by weighting draws of G = h h^T from its elastic energy.

    p(h) dh ~ V^(n_gas - 2) exp(-beta (P V + U)) dh, and dh ~ det(G)^(-1/2) dG times a rotation.
    """
    draws = np.random.default_rng(5).normal(size=(200_000, 3, 3))
    metric = CELL @ CELL.T + np.sqrt(KT / ELASTICITY) * 0.5 * (draws + draws.swapaxes(1, 2))
    volumes = np.sqrt(np.linalg.det(metric))
    weights = volumes ** (n_gas - 3) * np.exp(-pressure * (volumes - volumes.mean()) / KT)
    weights /= weights.sum()
    mean = weights @ volumes
    return np.einsum("n,nij->ij", weights, metric), mean, weights @ (volumes - mean) ** 2


@pytest.mark.parametrize(
    ("stiffness", "n_atoms", "n_gas", "pressure"),
    [(0.0, 6, 6, 0.006), (5.0, 3, 0, -0.004)],
    ids=["ideal gas", "crystal"],
)
def test_cells_are_distributed_as_they_should(stiffness, n_atoms, n_gas, pressure):
    """Mean of every element of h h^T, mean and fluctuation of the volume, temperature, kinetic energy of the cell.

    A gas pushes with its kinetic energy; in the crystal the virial of the springs takes that back, as it must because
    their free energy does not depend on the cell.
    """
    npt = dynamics(stiffness, n_atoms, pressure, 40)
    metrics, volumes, temperatures, cell = [], [], [], []
    for n in range(6000):
        npt.step()
        if n >= 1000 and n % 10 == 0:
            cells = npt.state.cells
            metrics.append(cells @ cells.swapaxes(1, 2))
            volumes.append(np.linalg.det(cells))
            temperatures.append(npt.state.temperatures(npt.n_degrees))
            cell.append(npt.cell_energies() / (3.0 * KT))
    metric, volume, fluctuation = exact(n_gas, pressure)

    def check(samples, expected, precision) -> None:
        error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
        assert np.all(error < precision)
        assert np.all(np.abs(samples.mean(axis=0) - expected) < 4.0 * error)

    check(np.mean(volumes, axis=0), volume, 3e-4 * volume)
    check(np.mean((np.array(volumes) - volume) ** 2, axis=0), fluctuation, 0.02 * fluctuation)
    check(np.mean(metrics, axis=0), metric, 0.03)
    check(np.mean(temperatures, axis=0), 300.0, 3.0)
    check(np.mean(cell, axis=0), 1.0, 0.02)


def test_effective_energy():
    """Kinetic energy of the cell, work of the pressure and heat are counted; the error is of second order."""
    errors = []
    for time_step in (2.0, 1.0):
        npt = dynamics(5.0, 4, 0.01, 10, time_step)
        start, moved = npt.conserved(), []
        for _ in range(round(600 / time_step)):
            npt.step()
            moved.append(npt.conserved() - start)
        errors.append(np.sqrt(np.mean(np.square(moved))))
    heat = npt.state.extended["heat"].sum(axis=1) + npt.state.extended["cell_heat"]
    assert np.abs(heat).min() > 10 * errors[1]
    assert errors[0] < 0.02
    assert 3.0 < errors[0] / errors[1] < 5.0


def test_work_of_the_pressure_on_a_model():
    """A model's own stress drives the cell: without friction to speak of the enthalpy is conserved."""
    errors = []
    for time_step in (0.2, 0.1):
        state = initial_state(triclinic(), 100.0, [1, 2])
        forces = BatchForces(Model(*random_parts(r_max=3.2, seed=4)), state.numbers, state.pbc, 2)
        npt = LangevinNPT(forces, state, time_step, 100.0, 0.02, 1e-9, 100.0, 1e-9)
        start, moved = npt.conserved(), []
        for _ in range(round(8 / time_step)):
            npt.step()
            moved.append(npt.conserved() - start)
        assert (np.linalg.det(state.cells) < 0.9 * triclinic().get_volume()).all()
        errors.append(np.abs(moved).max())
    assert errors[1] < 1e-4
    assert 3.0 < errors[0] / errors[1] < 5.0


def test_the_cell_is_strained_without_turning():
    """g stays symmetric, and positions follow the cell: fractional coordinates of a gas at rest do not change."""
    npt = dynamics(0.0, 4, 0.5, 3, friction=1e-12, cell_friction=1e-12)
    npt.state.velocities[:] = 0.0
    before = npt.state.positions @ np.linalg.inv(npt.state.cells)
    volumes = np.linalg.det(npt.state.cells)
    for _ in range(50):
        npt.step()
    rate = npt.state.extended["strain_rate"]
    assert np.array_equal(rate, rate.swapaxes(1, 2)) and rate.any()
    assert (np.linalg.det(npt.state.cells) < 0.99 * volumes).all()
    assert relative_error(npt.state.positions @ np.linalg.inv(npt.state.cells), before) < 1e-3


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        (molecule, {}, r"periodic in all three directions, got pbc \[False, False, False\]"),
        (slab, {}, r"periodic in all three directions, got pbc \[True, True, False\]"),
        (triclinic, {"fixed": [0]}, "NPT moves every atom with the cell, got 1 fixed atoms"),
        (triclinic, {"pressure": np.nan}, "the pressure must be finite, got nan"),
        (triclinic, {"barostat_time": 0.0}, "the barostat time must be positive and finite, got 0.0 fs"),
        (triclinic, {"cell_friction": -1.0}, "the cell friction must be positive and finite, got -1.0 1/fs"),
        (triclinic, {"friction": -1.0}, "the friction must be positive and finite, got -1.0 1/fs"),
        (triclinic, {"temperatures": -1.0}, "temperatures must be positive and finite, got -1.0 K"),
    ],
)
def test_refused(system, options, message):
    state = initial_state(system(), 300.0, [1], options.get("fixed"))
    forces = BatchForces(Model(*random_parts()), state.numbers, state.pbc, 1)
    with pytest.raises(DynamicsError, match=message):
        LangevinNPT(forces, state, 0.5, **options)


def test_a_cell_without_volume_is_refused():
    atoms = triclinic()
    state = initial_state(atoms, 300.0, [1])
    state.cells[0, 2] = 0.0
    with pytest.raises(DynamicsError, match="NPT needs cells with a volume above zero"):
        LangevinNPT(ElasticCrystal(0.0, np.zeros((24, 3)), atoms.cell.array, 1.0), state)
