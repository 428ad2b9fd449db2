"""Nose-Hoover chains (NVT without random numbers).

    dv/dt = F/m - xi_1 v,    Q_1 dxi_1/dt = 2 E_kin - n_degrees k_B T,    Q_k dxi_k/dt = Q_(k-1) xi_(k-1)^2 - k_B T
    Q_1 = n_degrees k_B T tau^2,    Q_k = k_B T tau^2;     xi_(k+1) damps xi_k; nothing damps the last one

Each replica has one chain. The thermostat acts for half a time step before and after a step of velocity Verlet. It is
factorized after Suzuki and Yoshida (three stages, fourth order) and is reversible. Source: Martyna, Tuckerman, Tobias,
Klein, Mol. Phys. 87, 1117 (1996). Conserved: E_kin + E_pot + sum Q_k xi_k^2/2 + n_degrees k_B T eta_1 +
k_B T sum_(k>1) eta_k, with d eta/dt = xi.

All velocities are scaled by the same factor: zero momentum stays zero, and the angular momentum of an isolated molecule
keeps its direction. In nearly harmonic systems the modes exchange energy slowly; `Langevin` samples these better.

Not supported: chains per atom.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.forces import Forces
from gmcore.dynamics.integrator import Integrator
from gmcore.dynamics.state import DynamicsError, State, per_replica
from gmcore.units import BOLTZMANN

_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
SUZUKI_YOSHIDA = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)
"""Fractions of a step; their composition is of fourth order (Yoshida 1990)."""


class NoseHoover(Integrator):
    """NVT by one Nose-Hoover chain per replica; further parameters and the attributes as in `Integrator`.

    Parameters
    ----------
    temperatures : target temperature of all replicas, or one per replica, K.
    thermostat_time : tau, fs; choose about one period of the vibrations of the system.
    chain_length : number of thermostats in the chain.

    Raises
    ------
    DynamicsError : temperatures or times are not positive, the chain length is below 1, or as in `Integrator`.
    """

    def __init__(
        self,
        forces: Forces,
        state: State,
        time_step: float = 0.5,
        temperatures: ArrayLike = 300.0,
        thermostat_time: float = 50.0,
        chain_length: int = 3,
        fixed: ArrayLike | None = None,
    ):
        temperatures = per_replica("temperatures", temperatures, state.n_replicas, "K")
        thermostat_time = per_replica("the thermostat time", thermostat_time, 1, "fs")[0]
        if not (isinstance(chain_length, int) and chain_length >= 1):
            raise DynamicsError(f"the chain length must be an integer of at least 1, got {chain_length!r}")
        super().__init__(forces, state, time_step, fixed)
        # arrays of the chain are (chain_length, n_replicas), so that a row is one link of all chains
        self._target = np.repeat(BOLTZMANN * temperatures[None], chain_length, axis=0)
        self._target[0] *= self.n_degrees
        self._mass = self._target * thermostat_time**2
        shape = (state.n_replicas, chain_length)
        self._eta = self._extended_variable("chain_positions", shape).T
        self._xi = self._extended_variable("chain_velocities", shape).T

    def step(self) -> None:
        """Advance all replicas by one time step.

        Raises
        ------
        DynamicsError : a chain has overflowed.
        """
        self._thermostat()
        self._half_kick()
        self.state.positions += self.time_step * self.state.velocities
        self._evaluate()
        self._half_kick()
        self._thermostat()
        self.state.step += 1

    def conserved(self) -> np.ndarray:
        """(n_replicas,) eV: kinetic and potential energy, plus the energy of the chain."""
        return super().conserved() + (0.5 * self._mass * self._xi**2 + self._target * self._eta).sum(axis=0)

    def _thermostat(self) -> None:
        """Advance the chain by half a time step and scale the velocities."""
        xi, last = self._xi, len(self._xi) - 1
        twice = 2.0 * self.state.kinetic_energies()
        scale = np.ones_like(twice)
        with np.errstate(over="ignore", invalid="ignore"):
            for fraction in SUZUKI_YOSHIDA:
                whole = 0.5 * self.time_step * fraction
                for k in range(last, -1, -1):
                    self._push(k, twice, whole)
                shrink = np.exp(-whole * xi[0])
                scale = scale * shrink
                twice *= shrink * shrink
                self._eta += whole * xi
                for k in range(last + 1):
                    self._push(k, twice, whole)
        if not (np.isfinite(scale).all() and np.isfinite(xi).all()):
            replica = int(np.argmin(np.isfinite(scale) & np.isfinite(xi).all(axis=0)))
            raise DynamicsError(
                f"the Nose-Hoover chain of replica {replica} overflowed at "
                f"{self.state.temperatures(self.n_degrees)[replica]:.4g} K: start closer to the target temperature, "
                "raise thermostat_time, or use langevin"
            )
        self.state.velocities *= scale[:, None, None]

    def _push(self, k: int, twice: np.ndarray, whole: float) -> None:
        """Advance link k by half a sub-step: its driving force between two halves of the damping by link k + 1."""
        xi = self._xi
        drive = twice if k == 0 else self._mass[k - 1] * (xi[k - 1] * xi[k - 1])
        gain = (drive - self._target[k]) * (0.5 * whole / self._mass[k])
        if k + 1 < len(xi):
            damping = np.exp(-0.25 * whole * xi[k + 1])
            gain += xi[k] * damping
            np.multiply(gain, damping, out=xi[k])
        else:
            xi[k] += gain
