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
from gmcore.kernels.arguments import Chain
from gmcore.units import BOLTZMANN


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
        target = np.repeat(BOLTZMANN * temperatures[:, None], chain_length, axis=1)
        target[:, 0] *= self.n_degrees
        self._target, self._mass = target, target * thermostat_time**2
        eta = self._extended_variable("chain_positions", target.shape)
        xi = self._extended_variable("chain_velocities", target.shape)
        constant = self.machine.constant
        self._chain = Chain(xi, eta, constant(self._target), constant(self._mass))
        self._twice_of_atoms = constant(np.zeros((state.n_replicas, state.n_atoms)))
        self._twice, self._scale = constant(np.zeros(state.n_replicas)), constant(np.ones(state.n_replicas))

    def start_step(self, n_kicks: int, offset: int) -> None:
        """Advance to the new positions."""
        if n_kicks == 2:
            super().finish_step()
        self._thermostat(n_kicks)
        self._launch("kick_and_drift", self._motion(), 1, self.time_step)

    def finish_step(self) -> None:
        """Advance the velocities and the chains to the end of the step."""
        super().finish_step()
        self._thermostat(1)

    def _check(self) -> None:
        """Raise DynamicsError if a chain has overflowed."""
        scale, xi = map(self.machine.download, (self._scale, self._chain.xi))
        finite = np.isfinite(scale) & np.isfinite(xi).all(axis=1)
        if not finite.all():
            replica = int(np.argmin(finite))
            temperature = self.machine.download(self._twice)[replica] / (self.n_degrees * BOLTZMANN)
            raise DynamicsError(
                f"the Nose-Hoover chain of replica {replica} overflowed at {temperature:.4g} K: start closer to the "
                "target temperature, raise thermostat_time, or use langevin"
            )

    def conserved_at(self, state: State, energies: np.ndarray) -> np.ndarray:
        """(n_replicas,) eV: kinetic and potential energy, plus the energy of the chain."""
        xi, eta = state.extended["chain_velocities"], state.extended["chain_positions"]
        return super().conserved_at(state, energies) + (0.5 * self._mass * xi**2 + self._target * eta).sum(axis=1)

    def _thermostat(self, n_times: int) -> None:
        """Advance the chains `n_times` by half a time step and scale the velocities."""
        motion = self._motion()
        self._launch("kinetic", motion, self._twice_of_atoms)
        self.machine.sum_atoms(self._twice_of_atoms, self._twice)
        duration = 0.5 * self.time_step
        self.machine.launch(
            "advance_chains", self.state.n_replicas, self._twice, self._chain, n_times, duration, self._scale
        )
        if self.machine.may_wait:
            self._check()
        self._launch("scale_velocities", motion, self._scale)
