"""Langevin dynamics in the BAOAB splitting (NVT).

    B: v += dt/2 F/m;   A: r += dt/2 v;   O: v = c v + sqrt((1 - c^2) k_B T/m) R,  c = exp(-gamma dt);   A;   B

O is the exact solution of the Ornstein-Uhlenbeck part. Among such splittings, BAOAB has the smallest error of
configurational averages. For harmonic forces this error is zero, while <v^2> at the end of a step is too small by the
factor 1 - (omega dt)^2/4. Source: Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013).

The heat absorbed in O is summed. E_kin + E_pot - heat, the effective energy of Bussi and Parrinello (Phys. Rev. E 75,
056707, 2007), is conserved to the order of the splitting. The noise acts on every free atom, and so also on the center
of mass: all 3 n_free degrees of freedom are thermal, and a free molecule diffuses and rotates.

Not supported: friction that differs between atoms, colored noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.forces import Forces
from gmcore.dynamics.integrator import Integrator
from gmcore.dynamics.state import State, per_replica
from gmcore.units import BOLTZMANN


class OrnsteinUhlenbeck:
    """The O step of the atoms, exact for any time step.

    Parameters
    ----------
    per_mass : (n_atoms, 1) acceleration per force, A/fs^2 per eV/A; zero for fixed atoms.
    temperatures : (n_replicas,) K.
    decay : exp(-gamma dt).
    """

    def __init__(self, per_mass: np.ndarray, temperatures: np.ndarray, decay: float):
        self._decay = decay
        variance = (1.0 - decay * decay) * BOLTZMANN * temperatures[:, None, None] * per_mass
        self._width = np.sqrt(variance)
        self._noise = np.empty((len(temperatures), len(per_mass), 3))

    def apply(self, state: State, heat: np.ndarray) -> None:
        """Update the velocities; add the kinetic energy that they gain to `heat` (n_replicas,) eV."""
        heat -= state.kinetic_energies()
        for generator, noise in zip(state.generators, self._noise):
            generator.standard_normal(out=noise)
        self._noise *= self._width
        state.velocities *= self._decay
        state.velocities += self._noise
        heat += state.kinetic_energies()


class Langevin(Integrator):
    """NVT by BAOAB; further parameters and the attributes as in `Integrator`.

    Parameters
    ----------
    temperatures : target temperature of all replicas, or one per replica, K.
    friction : gamma, 1/fs. About 0.01 gives fast thermalization. Spectra need less, since gamma broadens their lines.

    Raises
    ------
    DynamicsError : temperatures or friction are not positive, or as in `Integrator`.
    """

    _conserves_momentum = False

    def __init__(
        self,
        forces: Forces,
        state: State,
        time_step: float = 0.5,
        temperatures: ArrayLike = 300.0,
        friction: float = 0.002,
        fixed: ArrayLike | None = None,
    ):
        temperatures = per_replica("temperatures", temperatures, state.n_replicas, "K")
        friction = per_replica("the friction", friction, 1, "1/fs")[0]
        super().__init__(forces, state, time_step, fixed)
        self._thermostat = OrnsteinUhlenbeck(self._per_mass, temperatures, np.exp(-friction * self.time_step))
        self._heat = self._extended_variable("heat", (state.n_replicas,))

    def step(self) -> None:
        """Advance all replicas by one time step."""
        state = self.state
        self._half_kick()
        state.positions += (0.5 * self.time_step) * state.velocities
        self._thermostat.apply(state, self._heat)
        state.positions += (0.5 * self.time_step) * state.velocities
        self._evaluate()
        self._half_kick()
        state.step += 1

    def conserved(self) -> np.ndarray:
        """(n_replicas,) eV: kinetic and potential energy, minus the heat taken from the bath."""
        return super().conserved() - self._heat
