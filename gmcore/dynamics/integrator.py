"""What all integrators share, and velocity Verlet (NVE).

    v += dt/2 F/m;  r += dt v;  F = F(r);  v += dt/2 F/m          (Swope, Andersen, Berens, Wilson 1982)

is symplectic and reversible: the energy error oscillates with O(dt^2) and does not grow. Every array carries the
replica as its first axis, and no sum runs over replicas: who else is in a batch changes nothing but the order of sums
inside the network. What a step does around the force call is a few vectorized operations; input is checked once.

A fixed atom has an infinite mass: zero acceleration, noise and velocity, so that its position never changes by a bit.

Not supported: constraints on bonds, several time steps, forces that depend on velocities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.forces import ForceResult, Forces
from gmcore.dynamics.state import DynamicsError, State, fixed_mask, per_replica
from gmcore.units import MASS_UNIT


class Integrator:
    """Base of the integrators; a subclass says what a step is.

    Parameters
    ----------
    forces : `BatchForces` or an analytic stand-in.
    state : changed in place. Variables of a thermostat that it already carries, as after a restart, are taken over.
    time_step : fs.
    fixed : atoms that do not move, as indices or (n_atoms,) bool.

    Attributes
    ----------
    result : ForceResult at the present positions.
    n_degrees : degrees of freedom that share the kinetic energy: three per free atom, less three where no atom is fixed
        and the integrator keeps the total momentum, as it is when forces do not depend on where the system stands.

    Raises
    ------
    DynamicsError : a time step that is not positive, bad fixed atoms, or velocities of fixed atoms that are not zero.
    """

    result: ForceResult
    _conserves_momentum = True
    _want_stress = False

    def __init__(self, forces: Forces, state: State, time_step: float = 0.5, fixed: ArrayLike | None = None):
        self.forces, self.state = forces, state
        self.time_step = float(per_replica("the time step", time_step, 1, "fs")[0])
        self.fixed = fixed_mask(fixed, state.n_atoms)
        if state.velocities[:, self.fixed].any():
            raise DynamicsError("velocities of fixed atoms must be zero, got some that are not")
        self.n_degrees = 3 * int((~self.fixed).sum())
        if self._conserves_momentum and not self.fixed.any():
            self.n_degrees -= 3
        if self.n_degrees == 0:
            raise DynamicsError(
                "a single atom whose momentum is conserved cannot be at a temperature, got one atom, none fixed"
            )
        # acceleration in A/fs^2 of a force in eV/A
        self._per_mass = np.where(self.fixed, 0.0, 1.0 / (MASS_UNIT * state.masses))[:, None]
        self._kick = 0.5 * self.time_step * self._per_mass
        self.restart()

    def restart(self) -> None:
        """Forget the neighbor list and compute the forces afresh.

        Called at fixed steps, it makes an uninterrupted run do the same arithmetic as one that resumes there.
        """
        self.forces.forget()
        self._evaluate()

    def step(self) -> None:
        """Advance all replicas by one time step."""
        raise NotImplementedError

    def conserved(self) -> np.ndarray:
        """(n_replicas,) eV: what an exact integration would keep constant, exchanged heat taken into account."""
        return self.state.kinetic_energies() + self.result.energies

    def _evaluate(self) -> None:
        self.result = self.forces(self.state.positions, self.state.cells, self._want_stress)

    def _half_kick(self) -> None:
        self.state.velocities += self._kick * self.result.forces

    def _carry(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The carried variable of this name; zeros where the state has none."""
        values = self.state.carried.setdefault(name, np.zeros(shape))
        if values.shape != shape:
            raise DynamicsError(f"{name} of the state must have shape {shape}, got {values.shape}")
        return values


class VelocityVerlet(Integrator):
    """NVE; parameters and attributes as in `Integrator`. The total energy is conserved."""

    def step(self) -> None:
        """Advance all replicas by one time step."""
        self._half_kick()
        self.state.positions += self.time_step * self.state.velocities
        self._evaluate()
        self._half_kick()
        self.state.step += 1
