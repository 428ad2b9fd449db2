"""Stand-ins for a model whose thermal averages are known exactly."""

from __future__ import annotations

import numpy as np

from gmcore.dynamics.forces import ForceResult, HostForces


class Springs(HostForces):
    """Atom 0, which is to be fixed, holds every other by a spring: U = 1/2 sum k_ia (r_ia - r_0a)^2.

    stiffness : (n_atoms, 3) eV/A^2; row 0 is not used.
    """

    def __init__(self, stiffness):
        self.stiffness = np.array(stiffness, float)
        self.stiffness[0] = 0.0

    def __call__(self, positions, cells, want_stress=False) -> ForceResult:
        away = positions - positions[:, :1]
        forces = -self.stiffness * away
        forces[:, 0] = -forces.sum(axis=1)
        return ForceResult(0.5 * (self.stiffness * away**2).sum(axis=(1, 2)), forces)


class ElasticCrystal(HostForces):
    """Atoms on springs to their lattice sites s_i h, in a cell with U = K/2 |h h^T - G|^2; rotations cost nothing.

    stiffness : eV/A^2, of the springs; 0 for an ideal gas in an elastic cell.
    sites : (n_atoms, 3), in units of the cell vectors.
    elasticity : K, eV/A^4.
    """

    def __init__(self, stiffness, sites, cell, elasticity):
        self.stiffness, self.sites, self.elasticity = stiffness, sites, elasticity
        self.metric = cell @ cell.T

    def __call__(self, positions, cells, want_stress=False) -> ForceResult:
        away = positions - self.sites @ cells
        excess = cells @ cells.swapaxes(1, 2) - self.metric
        energies = 0.5 * self.stiffness * (away**2).sum(axis=(1, 2)) + 0.5 * self.elasticity * (excess**2).sum((1, 2))
        virial = self.stiffness * away.swapaxes(1, 2) @ away
        virial += 2.0 * self.elasticity * cells.swapaxes(1, 2) @ excess @ cells
        stress = virial / np.abs(np.linalg.det(cells))[:, None, None]
        return ForceResult(energies, -self.stiffness * away, stress)
