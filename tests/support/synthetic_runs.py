"""Runs with a known answer: a distorted tetrahedral complex whose modes are damped oscillators, its D linear in them.

Each mode k is a Brownian oscillator in mass-weighted coordinates, d2q/dt2 = -w_k^2 q - gamma dq/dt + noise, propagated
exactly, with <q^2> = k_B T/w_k^2. Positions are x0 + sum_k q_k Q_k/sqrt(m), Q_k orthonormal and no rigid motion, and D
is D0 + sum_k q_k A_k, both turned by a slow rotation of the whole molecule: in the body frame the tensor is Gaussian
with variances that are known, its width grows as sqrt(T), and its spectrum has lines at w_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from gmcore.analysis.couplings import TensorExpansion
from gmcore.analysis.modes import Modes, rigid_motions
from gmcore.dynamics.trajectory import MERGED, Header, write_segment

WAVENUMBERS = (60.0, 130.0, 260.0, 420.0, 900.0, 1500.0)  # cm^-1
DAMPING = 0.004  # 1/fs
D_ZERO = np.diag([34.5, 33.0, -67.5])
MEMBER_SPREAD = 0.15  # cm^-1
THERMAL = units.kB * units._e / units._amu * 1e-10  # k_B in amu A^2/(fs^2 K)
PER_FS = 2.0 * np.pi * 2.99792458e-5  # angular frequency in 1/fs of one cm^-1


def complex_molecule() -> Atoms:
    """Co with four N, squeezed from a tetrahedron along z, and an H on each N."""
    corners = np.array([[1, 1, 1.25], [-1, -1, 1.25], [1, -1, -1.25], [-1, 1, -1.25]], float)
    corners *= 2.02 / np.linalg.norm(corners[0])
    return Atoms("CoN4H4", np.vstack([np.zeros(3), corners, 1.5 * corners + [0.0, 0.1, 0.2]]))


@dataclass(frozen=True)
class Answer:
    """What a run was made of: modes, and tensors (n_modes, 3, 3) cm^-1 per sqrt(amu) A."""

    modes: Modes
    tensors: np.ndarray
    angular: np.ndarray

    def tensor_deviations(self, temperature: float) -> np.ndarray:
        """(3, 3) standard deviations of the elements in the body frame, cm^-1."""
        variances = THERMAL * temperature / self.angular**2
        return np.sqrt(np.einsum("k,kij->ij", variances, self.tensors**2))

    def expansion(self) -> TensorExpansion:
        """The tensor in the dimensionless coordinates of the modes; second derivatives are zero."""
        masses = self.modes.atoms.get_masses()
        per_q = np.linalg.norm(np.sqrt(masses)[:, None] * self.modes.displacements, axis=(1, 2))
        first = self.tensors * per_q[:, None, None]
        return TensorExpansion(
            frequencies=self.modes.frequencies,
            value=D_ZERO,
            gradient=np.zeros((len(masses), 3, 3, 3)),
            first=first,
            first_std=0.1 * np.abs(first),
            second=np.zeros_like(first),
            unit="cm^-1",
        )


def oscillators(rng: np.random.Generator, angular: np.ndarray, temperature: float, n: int, dt: float):
    """Coordinates and velocities (n, n_modes) of Brownian oscillators in equilibrium, sampled each dt."""
    q, v = np.empty((n, len(angular))), np.empty((n, len(angular)))
    for k, w in enumerate(angular):
        step = expm(np.array([[0.0, 1.0], [-w * w, -DAMPING]]) * dt)
        covariance = THERMAL * temperature * np.diag([1.0 / w**2, 1.0])
        kick = np.linalg.cholesky(covariance - step @ covariance @ step.T)
        state = np.linalg.cholesky(covariance) @ rng.normal(size=2)
        noise = rng.normal(size=(n, 2)) @ kick.T
        for t in range(n):
            q[t, k], v[t, k] = state
            state = step @ state + noise[t]
    return q, v


def synthetic_run(
    folder: Path,
    temperatures: Sequence[float] = (50.0, 100.0),
    seeds_each: int = 2,
    n_samples: int = 1200,
    interval: int = 8,
    atoms: Atoms | None = None,
    with_tensors: bool = True,
    n_members: int = 3,
    tumbling: bool = True,
    ensemble: str = "langevin",
    time_step: float = 0.5,
    cell: float | None = None,
) -> Answer:
    """Write RUN/trajectory.h5, replicas of each temperature side by side, and return what it was made of.

    cell: edge of a cubic cell, A, for a periodic run with that one molecule, which then does not tumble.
    """
    atoms = complex_molecule() if atoms is None else atoms
    rng = np.random.default_rng(17)
    n_modes = len(WAVENUMBERS)
    angular = PER_FS * np.array(WAVENUMBERS)
    center = atoms.positions.mean(axis=0)
    shape = atoms.positions - center
    internal = rigid_motions(atoms)[1]
    vectors = np.linalg.qr(internal @ rng.normal(size=(internal.shape[1], n_modes)))[0].T.reshape(n_modes, -1, 3)
    displacements = vectors / np.sqrt(atoms.get_masses())[:, None]
    tensors = rng.normal(size=(n_modes, 3, 3))
    tensors += tensors.swapaxes(1, 2)
    tensors -= np.trace(tensors, axis1=1, axis2=2)[:, None, None] / 3.0 * np.eye(3)
    tensors *= (angular / np.sqrt(np.arange(1, n_modes + 1)))[:, None, None] * 110.0
    if cell is not None:
        atoms = Atoms(atoms, cell=np.full(3, cell), pbc=True)
    answer = Answer(Modes(atoms, np.array(WAVENUMBERS), vectors, np.zeros(6), 0.0), tensors, angular)

    targets = np.repeat(np.asarray(temperatures, float), seeds_each)
    header = Header(
        numbers=atoms.numbers,
        masses=atoms.get_masses(),
        pbc=np.full(3, cell is not None),
        time_step=time_step,
        ensemble=ensemble,
        temperatures=np.full(len(targets), np.nan) if ensemble == "nve" else targets,
        seeds=np.arange(1, len(targets) + 1),
        molecule_numbers=atoms.numbers if with_tensors else None,
        molecules=np.arange(len(atoms))[None] if with_tensors else None,
    )
    steps = interval * np.arange(n_samples)
    series: dict[str, list[np.ndarray]] = {}
    for temperature in targets:
        q, v = oscillators(rng, angular, temperature, n_samples, interval * time_step)
        spin = 2e-5 * rng.normal(size=3) * np.sqrt(temperature) * (tumbling and cell is None)
        turns = Rotation.from_rotvec(steps[:, None] * time_step * spin).as_matrix()
        body = shape + np.einsum("tk,kax->tax", q, displacements)
        moving = np.einsum("tk,kax->tax", v, displacements) + np.cross(spin @ turns[0], body)
        positions = np.einsum("txy,tay->tax", turns, body) + center
        velocities = np.einsum("txy,tay->tax", turns, moving)
        kinetic = 0.5 * np.sum(header.masses[:, None] * velocities**2, axis=(1, 2)) * 103.6427
        values = {
            "position": positions.astype(np.float32),
            "velocity": velocities.astype(np.float32),
            "kinetic_energy": kinetic,
            "potential_energy": -100.0 + 0.5 * np.sum((angular * q) ** 2, axis=1) * 103.6427,
            "conserved": -99.0 + 1e-6 * steps,
            "temperature": temperature * (1.0 + 0.1 * rng.normal(size=n_samples)),
            "forces_deviation": 0.005 * np.exp(0.1 * rng.normal(size=n_samples)) * np.sqrt(temperature / 50.0),
        }
        if cell is not None:
            values["box"] = np.tile(cell * np.eye(3), (n_samples, 1, 1))
        if with_tensors:
            tensor = D_ZERO + np.einsum("tk,kij->tij", q, tensors)
            shifts = rng.normal(size=(n_members, 3, 3))
            shifts = shifts + shifts.swapaxes(1, 2)
            shifts -= np.trace(shifts, axis1=1, axis2=2)[:, None, None] / 3.0 * np.eye(3)
            shifts = MEMBER_SPREAD * (shifts - shifts.mean(axis=0))
            members = tensor[:, None] + shifts * (1.0 + 0.3 * rng.normal(size=(n_samples, 1, 1, 1)))
            turned = np.einsum("tax,tmxy,tby->tmab", turns, members, turns)
            values |= {
                "d_tensor": turned.mean(axis=1)[:, None],
                "d_tensor_members": turned[:, :, None],
                "molecule_position": positions[:, None],
            }
        for name, value in values.items():
            series.setdefault(name, []).append(value)
    folder.mkdir(parents=True, exist_ok=True)
    write_segment(folder / MERGED, header, {name: (steps, np.stack(values)) for name, values in series.items()})
    return answer
