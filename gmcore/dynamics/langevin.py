"""Langevin dynamics in the BAOAB splitting (NVT).

    B: v += dt/2 F/m;   A: r += dt/2 v;   O: v = c v + sqrt((1 - c^2) k_B T/m) R,  c = exp(-gamma dt);   A;   B

R are normal deviates that depend on the replica, the step and the atom only (`gmcore.kernels.philox`).

O is the exact solution of the Ornstein-Uhlenbeck part. Among such splittings, BAOAB has the smallest error of
configurational averages. For harmonic forces this error is zero, while <v^2> at the end of a step is too small by the
factor 1 - (omega dt)^2/4. Source: Leimkuhler and Matthews, J. Chem. Phys. 138, 174102 (2013).

The heat that each atom absorbs in O is summed. E_kin + E_pot - heat, the effective energy of Bussi and Parrinello
(Phys. Rev. E 75, 056707, 2007), is conserved to the order of the splitting. The noise acts on every free atom, and so
also on the center of mass: all 3 n_free degrees of freedom are thermal, and a free molecule diffuses and rotates.

Not supported: friction that differs between atoms, colored noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.forces import Forces
from gmcore.dynamics.integrator import Integrator
from gmcore.dynamics.state import State, per_replica


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
        self._bath = self._make_bath(temperatures, friction)

    def start_step(self, n_kicks: int, offset: int) -> None:
        """Advance to the new positions: B A O A."""
        self._launch("kick_and_diffuse", self._motion(), n_kicks, self.time_step, self._bath, self._counter, offset)

    def conserved_at(self, state: State, energies: np.ndarray) -> np.ndarray:
        """(n_replicas,) eV: kinetic and potential energy, minus the heat taken from the bath."""
        return super().conserved_at(state, energies) - state.extended["heat"].sum(axis=1)
