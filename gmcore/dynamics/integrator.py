"""The base class of the integrators, and velocity Verlet (NVE).

    v += dt/2 F/m;  r += dt v;  F = F(r);  v += dt/2 F/m          (Swope, Andersen, Berens, Wilson 1982)

is symplectic and reversible: the energy error oscillates with O(dt^2) and does not grow. The first axis of every array
is the replica, and no sum runs over replicas, so the other replicas of a batch influence only the order of sums inside
the network. Apart from the forces, a step is a few vectorized operations. Input is checked once, at the start.

A fixed atom has infinite mass: acceleration, noise and velocity are zero, and its position does not change by a bit.

Not supported: bond constraints, multiple time steps, forces that depend on velocities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.forces import ForceResult, Forces
from gmcore.dynamics.state import DynamicsError, State, fixed_mask, per_replica
from gmcore.units import MASS_UNIT


class Integrator:
    """Base class of the integrators; subclasses define `step`.

    Parameters
    ----------
    forces : `BatchForces` or analytic forces.
    state : state of the replicas, changed in place. Variables of a thermostat that it already has, as after a restart,
        are used.
    time_step : fs.
    fixed : atoms that do not move, as indices or (n_atoms,) bool.

    Attributes
    ----------
    result : energies and forces at the present positions.
    n_degrees : number of degrees of freedom: three per free atom, minus three if no atom is fixed and the integrator
        conserves the total momentum.

    Raises
    ------
    DynamicsError : the time step is not positive, the fixed atoms are not valid, or fixed atoms have velocities.
    """

    result: ForceResult
    _conserves_momentum = True
    _want_stress = False

    def __init__(self, forces: Forces, state: State, time_step: float = 0.5, fixed: ArrayLike | None = None):
        self.forces, self.state = forces, state
        self.time_step = float(per_replica("the time step", time_step, 1, "fs")[0])
        self.fixed = fixed_mask(fixed, state.n_atoms)
        if state.velocities[:, self.fixed].any():
            raise DynamicsError("velocities of fixed atoms must be zero, got a fixed atom that moves")
        self.n_degrees = 3 * int((~self.fixed).sum())
        if self._conserves_momentum and not self.fixed.any():
            self.n_degrees -= 3
        if self.n_degrees == 0:
            raise DynamicsError(
                "a single atom has no temperature under nve or nose_hoover, which conserve its momentum: use langevin"
            )
        # acceleration in A/fs^2 of a force in eV/A
        self._per_mass = np.where(self.fixed, 0.0, 1.0 / (MASS_UNIT * state.masses))[:, None]
        self._kick = 0.5 * self.time_step * self._per_mass
        self.restart()

    def restart(self) -> None:
        """Drop the neighbor list and compute the forces again.

        A run calls this at fixed steps, so that it does the same arithmetic whether or not it was interrupted there.
        """
        self.forces.forget()
        self._evaluate()

    def step(self) -> None:
        """Advance all replicas by one time step."""
        raise NotImplementedError

    def conserved(self) -> np.ndarray:
        """(n_replicas,) eV: the energy that exact integration conserves, including the heat exchanged with a bath."""
        return self.state.kinetic_energies() + self.result.energies

    def _evaluate(self) -> None:
        self.result = self.forces(self.state.positions, self.state.cells, self._want_stress)

    def _half_kick(self) -> None:
        self.state.velocities += self._kick * self.result.forces

    def _extended_variable(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a variable of the thermostat or barostat from the state; zeros if the state has none of this name."""
        values = self.state.extended.setdefault(name, np.zeros(shape))
        if values.shape != shape:
            raise DynamicsError(f"{name} of the state must have shape {shape}, got {values.shape}")
        return values


class VelocityVerlet(Integrator):
    """NVE by velocity Verlet, which conserves the total energy; parameters and attributes as in `Integrator`."""

    def step(self) -> None:
        """Advance all replicas by one time step."""
        self._half_kick()
        self.state.positions += self.time_step * self.state.velocities
        self._evaluate()
        self._half_kick()
        self.state.step += 1
