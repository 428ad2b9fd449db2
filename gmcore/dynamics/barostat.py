"""NPT with a fully flexible, triclinic cell: Langevin dynamics of atoms and cell.

    dr/dt = v + g r,    dh/dt = h g,    dv/dt = F/m - g v - tr(g)/n_f v + bath
    W dg/dt = V (P_int - P) + 2 E_kin/n_f + bath,    V P_int = sum m v v^T - V stress,    W = (n_f + 3) k_B T tau^2/3

The rows of h are the cell vectors. The strain rate g is a symmetric matrix, so the barostat never rotates the cell.
These are the equations of Martyna, Tobias and Klein (J. Chem. Phys. 101, 4177, 1994) with Langevin baths instead of
Nose-Hoover chains, after Quigley and Probert (J. Chem. Phys. 120, 11432, 2004). They sample

    p(h) dh ~ V^(-2) exp(-P V / k_B T) Q(h) dh,    whose volumes are distributed as exp(-P V / k_B T) Q(V) dV

with Q the canonical partition function. The cell has inertia, unlike in stochastic cell rescaling (Del Tatto, Raiteri,
Bernetti, Bussi 2022), whose equation is of first order. This has two advantages: the energy E_kin + E_pot + P V +
W tr(g^2)/2 - heat is conserved, so every run can be checked, and errors are of second order in the time step.

A step is symmetric in time. Each factor solves one part of the equations exactly: kick g; strain, kick, strain the
velocities; strain, move, strain the positions, and the cell with them; Ornstein-Uhlenbeck step of v and g; then the
same factors in reverse order. For an infinitely heavy cell this is BAOAB.

Atoms and cells are moved on the host.

Not supported: anisotropic external stress, cells of fixed shape, fixed atoms, and systems that are periodic in fewer
than three directions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.forces import Forces
from gmcore.dynamics.integrator import Integrator
from gmcore.dynamics.state import DynamicsError, State, per_replica
from gmcore.kernels import motion_cpu
from gmcore.units import BOLTZMANN, MASS_UNIT


class LangevinNPT(Integrator):
    """NPT for crystals; further parameters and the attributes as in `Integrator`.

    Parameters
    ----------
    temperatures : target temperature of all replicas, or one per replica, K.
    pressure : external pressure, eV/A^3; `gmcore.units.conversion("stress", "GPa")` converts.
    friction : friction of the atoms, 1/fs.
    barostat_time : tau, fs. The cell of a gas oscillates with a period of this order, that of a crystal about ten times
        faster.
    cell_friction : friction of the cell, 1/fs. Damping is fastest near the angular frequency of the cell.
    fixed : must be empty.

    Raises
    ------
    DynamicsError : a value is out of range, atoms are fixed, the system is not periodic in three directions, or as in
        `Integrator`.
    """

    _conserves_momentum = False
    _want_stress = True

    def __init__(
        self,
        forces: Forces,
        state: State,
        time_step: float = 0.5,
        temperatures: ArrayLike = 300.0,
        pressure: float = 0.0,
        friction: float = 0.002,
        barostat_time: float = 1000.0,
        cell_friction: float = 0.01,
        fixed: ArrayLike | None = None,
    ):
        n_replicas = state.n_replicas
        temperatures = per_replica("temperatures", temperatures, n_replicas, "K")
        friction = per_replica("the friction", friction, 1, "1/fs")[0]
        barostat_time = per_replica("the barostat time", barostat_time, 1, "fs")[0]
        cell_friction = per_replica("the cell friction", cell_friction, 1, "1/fs")[0]
        self._pressure = float(pressure)
        if not np.isfinite(self._pressure):
            raise DynamicsError(f"the pressure must be finite, got {pressure} eV/A^3")
        if not forces.machine.on_host:
            raise DynamicsError("NPT moves atoms and cells on the host and needs BatchForces, got DeviceForces")
        if not state.pbc.all():
            raise DynamicsError(
                f"NPT needs a system that is periodic in all three directions, got pbc {state.pbc.tolist()}"
            )
        if not np.abs(np.linalg.det(state.cells)).min() > 0.0:
            raise DynamicsError("NPT needs cells with a volume above zero, got a cell with volume 0")
        super().__init__(forces, state, time_step, fixed)
        if self.fixed.any():
            raise DynamicsError(
                f"NPT moves every atom with the cell, got {int(self.fixed.sum())} fixed atoms: leave out fixed, or use "
                "langevin"
            )
        self._mass = (self.n_degrees + 3) * BOLTZMANN * temperatures * barostat_time**2 / 3.0
        self._decay = np.exp(-cell_friction * self.time_step)
        self._width = np.sqrt((1.0 - self._decay**2) * BOLTZMANN * temperatures / self._mass)
        self._bath = self._make_bath(temperatures, friction)
        self._cell_heat = self._extended_variable("cell_heat", (n_replicas,))
        self._rate = self._extended_variable("strain_rate", (n_replicas, 3, 3))

    def start_step(self, n_kicks: int, offset: int) -> None:
        """Advance to the new positions and cells."""
        if n_kicks == 2:
            self.finish_step()
        self._push_cell()
        strain = self._strain()
        self._push_atoms(strain)
        self._drift(strain)
        self._launch("thermalize", self._motion(), self._bath, self._counter, offset)
        self._thermalize_cell(self.state.step + offset)
        self._end_strain = self._strain()
        self._drift(self._end_strain)

    def finish_step(self) -> None:
        """Advance the velocities and the strain rate to the end of the step."""
        self._push_atoms(self._end_strain)
        self._push_cell()

    def conserved_at(self, state: State, energies: np.ndarray) -> np.ndarray:
        """(n_replicas,) eV: energies of atoms and cell, plus P V, minus the heat taken from the baths."""
        taken = state.extended["heat"].sum(axis=1) + state.extended["cell_heat"]
        return super().conserved_at(state, energies) + self._pressure * self._volumes() + self.cell_energies() - taken

    def cell_energies(self) -> np.ndarray:
        """(n_replicas,) eV: kinetic energy of the cell; its average is 3 k_B T."""
        return 0.5 * self._mass * (self._rate * self._rate).sum(axis=(1, 2))

    def _volumes(self) -> np.ndarray:
        """(n_replicas,) A^3."""
        return np.abs(np.linalg.det(self.state.cells))

    def _push_cell(self) -> None:
        """Advance g by half a step under the difference of internal and external pressure."""
        state, volumes = self.state, self._volumes()[:, None, None]
        twice = MASS_UNIT * (state.velocities * state.masses[:, None]).swapaxes(1, 2) @ state.velocities
        isotropic = np.trace(twice, axis1=1, axis2=2)[:, None, None] / self.n_degrees - self._pressure * volumes
        drive = twice - volumes * self.result.stress + isotropic * np.eye(3)
        self._rate += (0.25 * self.time_step / self._mass[:, None, None]) * (drive + drive.swapaxes(1, 2))

    def _strain(self) -> tuple[np.ndarray, np.ndarray]:
        """Deformations of positions, exp(g dt/4), and of velocities in a quarter of a step, each (n_replicas, 3, 3)."""
        rates, axes = np.linalg.eigh(self._rate)
        rates *= 0.25 * self.time_step
        stretch = np.exp(rates)
        shrink = np.exp(-rates - rates.sum(axis=1, keepdims=True) / self.n_degrees)
        back = axes.swapaxes(1, 2)
        return axes * stretch[:, None] @ back, axes * shrink[:, None] @ back

    def _push_atoms(self, strain: tuple[np.ndarray, np.ndarray]) -> None:
        """Advance the velocities by half a step under forces and strain."""
        state, shrink = self.state, strain[1]
        np.matmul(state.velocities, shrink, out=state.velocities)
        super().finish_step()  # the half kick
        np.matmul(state.velocities, shrink, out=state.velocities)

    def _drift(self, strain: tuple[np.ndarray, np.ndarray]) -> None:
        """Advance positions and cells by half a step."""
        state, stretch = self.state, strain[0]
        np.matmul(state.positions, stretch, out=state.positions)
        state.positions += (0.5 * self.time_step) * state.velocities
        np.matmul(state.positions, stretch, out=state.positions)
        np.matmul(state.cells, stretch @ stretch, out=state.cells)

    def _thermalize_cell(self, step: int) -> None:
        """Apply the Ornstein-Uhlenbeck step to g: k_B T/2 for each of its six degrees of freedom."""
        noise = np.empty(self.state.cells.shape)
        motion_cpu.cell_noise(self.state.keys, step, noise)
        noise = 0.5 * (noise + noise.swapaxes(1, 2))
        self._cell_heat -= self.cell_energies()
        self._rate *= self._decay
        self._rate += self._width[:, None, None] * noise
        self._cell_heat += self.cell_energies()
