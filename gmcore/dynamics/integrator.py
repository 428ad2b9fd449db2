"""The base class of the integrators, and velocity Verlet (NVE).

    v += dt/2 F/m;  r += dt v;  F = F(r);  v += dt/2 F/m          (Swope, Andersen, Berens, Wilson 1982)

is symplectic and reversible: the energy error oscillates with O(dt^2) and does not grow. The first axis of every array
is the replica, and no sum runs over replicas, so the other replicas of a batch influence only the order of sums inside
the network. What moves the atoms are kernels (`gmcore.kernels.motion_cpu`, `motion_cuda`), so that one class serves
both machines; it runs on that of its forces. Input is checked once, at the start.

A fixed atom has infinite mass: acceleration, noise and velocity are zero, and its position does not change by a bit.

Not supported: bond constraints, multiple time steps, forces that depend on velocities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.forces import ForceResult, Forces
from gmcore.dynamics.machine import Array
from gmcore.dynamics.state import DynamicsError, State, fixed_mask, per_replica
from gmcore.kernels.arguments import Bath, Motion
from gmcore.units import BOLTZMANN, MASS_UNIT


class Integrator:
    """Base class of the integrators; subclasses define `start_step` and `finish_step`.

    Parameters
    ----------
    forces : `BatchForces`, `DeviceForces` or analytic forces.
    state : state of the replicas, changed in place; on a GPU it is up to date after `fetch`. Variables of a thermostat
        that it already has, as after a restart, are used.
    time_step : fs.
    fixed : atoms that do not move, as indices or (n_atoms,) bool.

    Attributes
    ----------
    result : energies and forces at the present positions, on the machine of the forces.
    positions : (n_replicas, n_atoms, 3) A, on that machine.
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
        self.forces, self.state, self.machine = forces, state, forces.machine
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
        self._per_mass = np.where(self.fixed, 0.0, 1.0 / (MASS_UNIT * state.masses))
        half_kick = (0.5 * self.time_step * self.machine.force_factor) * self._per_mass
        self._half_kick = self.machine.constant(half_kick)
        self._half_mass = self.machine.constant(0.5 * MASS_UNIT * state.masses)
        self.positions = self.machine.share("positions", state.positions)
        self._velocities = self.machine.share("velocities", state.velocities)
        self._counter = self.machine.constant(np.zeros(1, np.int64))
        self.restart()

    def restart(self) -> None:
        """Drop the neighbor list and compute the forces again.

        A run calls this at fixed steps, so that it does the same arithmetic whether or not it was interrupted there.
        """
        self.forces.forget()
        self._evaluate()

    def step(self) -> None:
        """Advance all replicas by one time step.

        Raises
        ------
        DynamicsError : a thermostat has overflowed.
        GMError : the forces cannot be computed at the new positions.
        """
        self.begin_steps()
        self.start_step(1, 0)
        self._evaluate()
        self.finish_step()
        self.state.step += 1

    def begin_steps(self) -> None:
        """Tell the kernels the number of the present step; `offset` in `start_step` counts from it."""
        self.machine.set_counter(self._counter, self.state.step)

    def start_step(self, n_kicks: int, offset: int) -> None:
        """Advance to the new positions, from the forces at the old ones.

        Parameters
        ----------
        n_kicks : 1; 2 to do the work of `finish_step` of the step before, too.
        offset : steps since `begin_steps`.
        """
        raise NotImplementedError

    def finish_step(self) -> None:
        """Advance the velocities to the end of the step, from the forces at the new positions."""
        self._launch("kick", self._motion(), 1)

    def fetch(self) -> None:
        """Bring `state` up to date, where it is not on the machine that moves the atoms."""
        self.machine.fetch(self.state)

    def conserved(self) -> np.ndarray:
        """(n_replicas,) eV: the energy that exact integration conserves, including the heat exchanged with a bath."""
        self.fetch()
        return self.conserved_at(self.state, self.machine.download(self.result.energies))

    def conserved_at(self, state: State, energies: np.ndarray) -> np.ndarray:
        """`conserved` of a state of this run with these potential energies (n_replicas,), both on the host."""
        return state.kinetic_energies() + energies

    def _evaluate(self) -> None:
        self.result = self.forces(self.positions, self.state.cells, self._want_stress)

    def _motion(self) -> Motion:
        terms = self.forces.terms(self.result)
        return Motion(self.positions, self._velocities, terms, self._half_kick, self._half_mass)

    def _launch(self, kernel: str, *arguments: object) -> None:
        """Run a kernel with a thread per atom."""
        self.machine.launch(kernel, self.state.n_replicas * self.state.n_atoms, *arguments)

    def _make_bath(self, temperatures: np.ndarray, friction: float) -> Bath:
        """Return what an Ornstein-Uhlenbeck step of the atoms needs; exact for any time step.

        Parameters
        ----------
        temperatures : (n_replicas,) K.
        friction : 1/fs.
        """
        decay, constant = float(np.exp(-friction * self.time_step)), self.machine.constant
        variance = (1.0 - decay * decay) * BOLTZMANN * temperatures[:, None] * self._per_mass
        heat = self._extended_variable("heat", (self.state.n_replicas, self.state.n_atoms))
        return Bath(decay, constant(np.sqrt(variance)), constant(self.state.keys), heat)

    def _extended_variable(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return a variable of the thermostat or barostat from the state; zeros if the state has none of this name."""
        values = self.state.extended.setdefault(name, np.zeros(shape))
        if values.shape != shape:
            raise DynamicsError(f"{name} of the state must have shape {shape}, got {values.shape}")
        return self.machine.share(name, values)


class VelocityVerlet(Integrator):
    """NVE by velocity Verlet, which conserves the total energy; parameters and attributes as in `Integrator`."""

    def start_step(self, n_kicks: int, offset: int) -> None:
        """Advance to the new positions."""
        self._launch("kick_and_drift", self._motion(), n_kicks, self.time_step)
