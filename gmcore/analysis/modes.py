"""Relaxation and harmonic modes of a molecule, or of a crystal at Gamma, from the forces of a model.

    H_(ia)(jb) = -(F_jb(x + h e_ia) - F_jb(x - h e_ia))/(2 h),  symmetrized;   K = H_(ia)(jb)/sqrt(m_i m_j)

All 6 n_atoms displaced structures go through the model in batches of thousands of atoms; the error of the differences
is of order h^2. Rigid motions of a molecule (three translations, three rotations, or two for a linear one) and
translations of a crystal span the space Z, which is known exactly. K is diagonalized in its orthogonal complement, so
that no rigid motion mixes with a soft mode: K = Q diag(omega^2) Q^T. The frequencies of K inside Z, which are zero at a
stationary point except for errors of the differences, are reported as `rigid_frequencies`. Frequencies are
wavenumbers, cm^-1; a direction of negative curvature has an imaginary frequency, given as a negative number.

The dimensionless normal coordinate q_k moves the atoms by sqrt(hbar/(m_i omega_k)) Q_ki; thermal averages are
<q^2> = kT/(hbar omega) in classical and coth(hbar omega/2kT)/2 in quantum mechanics, 1/2 in the ground state.

Source: Wilson, Decius, Cross, Molecular Vibrations (1955), chapter 2. Not supported: phonons away from Gamma (take a
supercell), fixed atoms, and anharmonic corrections; a wire keeps the rotation about its axis as a mode near zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.files import atomic_hdf5
from gmcore.model import Model
from gmcore.units import BOLTZMANN, HBAR, MASS_UNIT, WAVENUMBER

STEP = 0.01
"""A; large enough for forces in single precision, small enough for C-H bonds."""

FORCE_TOLERANCE = 1e-3
"""eV/A: largest force at which a structure counts as stationary; only then do rotations have no curvature."""

LINEAR = 1e-3
"""A molecule is linear if its atoms lie this close to a line, relative to its length."""

LAYOUT = "gmtensor modes 1"

_OMEGA = MASS_UNIT**-0.5  # rad/fs per sqrt(eV/(A^2 amu))


class ModesError(GMError):
    """Modes that cannot be computed, or a file that does not hold any."""


@dataclass(frozen=True, eq=False)
class Modes:
    """Harmonic modes in ascending order of frequency, without rigid motions.

    Attributes
    ----------
    atoms : the structure that they belong to.
    frequencies : (n_modes,) cm^-1; imaginary ones negative.
    vectors : (n_modes, n_atoms, 3), orthonormal in mass-weighted coordinates.
    rigid_frequencies : (n_rigid,) cm^-1, of the rigid motions that were left out; their distance from zero shows how
        well the structure is relaxed and how accurate the differences are.
    max_force : eV/A, largest force on an atom of the structure.
    """

    atoms: Atoms
    frequencies: np.ndarray
    vectors: np.ndarray
    rigid_frequencies: np.ndarray
    max_force: float

    def __len__(self) -> int:
        """Return the number of modes."""
        return len(self.frequencies)

    @property
    def n_imaginary(self) -> int:
        """Number of imaginary frequencies."""
        return int(np.count_nonzero(self.frequencies < 0.0))

    @property
    def displacements(self) -> np.ndarray:
        """(n_modes, n_atoms, 3) A: displacement of the atoms per unit of q; NaN for modes of imaginary frequency."""
        omega = frequency_to_omega(np.where(self.frequencies > 0.0, self.frequencies, np.nan))
        amplitude = np.sqrt(HBAR * _OMEGA**2 / omega)  # sqrt(amu) A
        return amplitude[:, None, None] * self.vectors / np.sqrt(self.atoms.get_masses())[:, None]

    @property
    def reduced_masses(self) -> np.ndarray:
        """(n_modes,) amu: mass of the Cartesian displacement of unit length."""
        return 1.0 / (self.vectors**2 / self.atoms.get_masses()[:, None]).sum(axis=(1, 2))

    def summary(self) -> str:
        """Return in one sentence what the frequencies say about the structure."""
        kind = "minimum" if self.n_imaginary == 0 else f"saddle point of order {self.n_imaginary}"
        if not self.max_force < FORCE_TOLERANCE:
            kind = f"structure that is not relaxed (largest force {self.max_force:.2g} eV/A)"
        n, m = len(self), self.n_imaginary
        imaginary = "1 imaginary frequency" if m == 1 else f"{m or 'no'} imaginary frequencies"
        return f"{n} mode{'s' if n != 1 else ''} and {len(self.rigid_frequencies)} rigid motions, {imaginary}: a {kind}"

    def save(self, path: str | os.PathLike) -> None:
        """Write an HDF5 file, completely or not at all."""
        with atomic_hdf5(path) as file:
            write_modes(file, self)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Modes:
        """Read a file written by `save`.

        Raises
        ------
        ModesError : if the file does not exist or holds no modes.
        """
        import h5py

        if not Path(path).is_file():
            raise ModesError(f"no file of modes at {path}; write one with: gmtensor modes")
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("layout") != LAYOUT:
                    raise ModesError(f"{path} must hold modes ({LAYOUT}), got layout {file.attrs.get('layout')!r}")
                data = {name: dataset[()] for name, dataset in file.items() if isinstance(dataset, h5py.Dataset)}
        except OSError as error:
            raise ModesError(f"{path} must be a file of modes in HDF5: {error}") from None
        atoms = Atoms(data["numbers"], data["positions"], masses=data["masses"], cell=data["cell"], pbc=data["pbc"])
        return cls(atoms, data["frequencies"], data["vectors"], data["rigid_frequencies"], float(data["max_force"]))


def write_modes(file, modes: Modes) -> None:
    """Write modes into an open HDF5 file; every dataset has its unit as an attribute."""
    file.attrs["layout"] = LAYOUT
    atoms = modes.atoms
    for name, values, unit in (
        ("numbers", atoms.numbers, "1"),
        ("masses", atoms.get_masses(), "amu"),
        ("positions", atoms.positions, "A"),
        ("cell", atoms.cell.array, "A"),
        ("pbc", atoms.pbc, "1"),
        ("frequencies", modes.frequencies, "cm^-1"),
        ("vectors", modes.vectors, "1"),
        ("rigid_frequencies", modes.rigid_frequencies, "cm^-1"),
        ("max_force", modes.max_force, "eV/A"),
    ):
        file.create_dataset(name, data=values).attrs["unit"] = unit


def harmonic_modes(atoms: Atoms, model: Model, step: float = STEP) -> Modes:
    """Return the modes of a structure.

    Parameters
    ----------
    atoms : the structure, which should be relaxed.
    model : a model with forces.
    step : displacement, A.

    Raises
    ------
    ModesError : if there are no atoms, atoms are constrained, the model has no forces, or the step is not positive.
    """
    _check(atoms, model)
    if not step > 0.0:
        raise ModesError(f"the displacement must be positive, got {step}")
    hessian = force_constants(atoms, model, step)
    weights = 1.0 / np.sqrt(np.repeat(atoms.get_masses(), 3))
    weighted = weights[:, None] * hessian * weights
    rigid, internal = rigid_motions(atoms)
    values, vectors = np.linalg.eigh(internal.T @ weighted @ internal)
    forces = model.predict(atoms, ["forces"])["forces"][0]
    return Modes(
        atoms=Atoms(atoms.numbers, atoms.positions, masses=atoms.get_masses(), cell=atoms.cell, pbc=atoms.pbc),
        frequencies=_wavenumbers(values),
        vectors=np.ascontiguousarray((internal @ vectors).T).reshape(-1, len(atoms), 3),
        rigid_frequencies=_wavenumbers(np.linalg.eigvalsh(rigid.T @ weighted @ rigid)),
        max_force=float(np.linalg.norm(forces, axis=1).max()),
    )


def force_constants(atoms: Atoms, model: Model, step: float = STEP) -> np.ndarray:
    """Return the symmetrized second derivatives of the energy, (3 n_atoms, 3 n_atoms) eV/A^2; `step` in A."""
    n_atoms = len(atoms)
    signs = np.array([step, -step])
    forces = np.empty((2 * 3 * n_atoms, n_atoms, 3))
    for rows, batch in _displaced(atoms, signs, max(1, model.evaluator.batch_atoms // n_atoms)):
        result = model.evaluate(batch, model.evaluator.find_pairs(batch), ["forces"])
        forces[rows] = result["forces"].reshape(-1, n_atoms, 3)
    plus, minus = forces.reshape(3 * n_atoms, 2, 3 * n_atoms).swapaxes(0, 1)
    hessian = (minus - plus) / (2.0 * step)
    return 0.5 * (hessian + hessian.T)


def rigid_motions(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Return orthonormal bases, in mass-weighted coordinates, of the motions that cost no energy and of all others.

    Returns
    -------
    rigid (3 n_atoms, n_rigid): 3 for a crystal and a single atom, 5 for a linear molecule, else 6; internal
    (3 n_atoms, 3 n_atoms - n_rigid).
    """
    masses = atoms.get_masses()
    root = np.sqrt(masses)[:, None]
    motions = [root * np.eye(3)[a] for a in range(3)]
    if not atoms.pbc.any():
        away = atoms.positions - atoms.get_center_of_mass()
        extents, axes = np.linalg.eigh((root * away).T @ (root * away))  # ascending
        n_axes = 0 if len(atoms) == 1 else 2 if extents[1] <= LINEAR**2 * extents[2] else 3
        # largest moment of inertia first: about the last axis a linear molecule does not rotate
        motions += [root * np.cross(axis, away) for axis in axes.T[:n_axes]]
    basis, lengths, _ = np.linalg.svd(np.stack([m.ravel() for m in motions], axis=1))
    n_rigid = len(lengths)
    return basis[:, :n_rigid], basis[:, n_rigid:]


def frequency_to_omega(frequencies: np.ndarray) -> np.ndarray:
    """Return angular frequencies, rad/fs, of wavenumbers, cm^-1."""
    return np.asarray(frequencies) * (WAVENUMBER / HBAR)


def thermal_variance(frequencies: np.ndarray, temperature: float, quantum: bool = True) -> np.ndarray:
    """Return <q^2> (n_modes,) of the dimensionless normal coordinates; NaN for modes of imaginary frequency.

    Parameters
    ----------
    frequencies : (n_modes,) cm^-1.
    temperature : K.
    quantum : include zero-point motion.

    Raises
    ------
    ModesError : if the temperature is negative.
    """
    if not temperature >= 0.0:
        raise ModesError(f"the temperature must not be negative, got {temperature} K")
    energies = np.where(np.asarray(frequencies) > 0.0, frequencies, np.nan) * WAVENUMBER
    thermal = BOLTZMANN * temperature
    if not quantum:
        return thermal / energies
    return 0.5 / np.tanh(energies / (2.0 * thermal)) if thermal > 0.0 else np.where(np.isnan(energies), np.nan, 0.5)


def _wavenumbers(curvatures: np.ndarray) -> np.ndarray:
    """Return wavenumbers, cm^-1, of eigenvalues in eV/(A^2 amu); negative for negative eigenvalues."""
    return np.sign(curvatures) * np.sqrt(np.abs(curvatures)) * (_OMEGA * HBAR / WAVENUMBER)


def _displaced(atoms: Atoms, shifts: np.ndarray, n_together: int) -> Iterator[tuple[slice, Batch]]:
    """Yield batches of copies with one coordinate shifted (the shift runs fastest), and the rows that they fill."""
    n_atoms = len(atoms)
    n_copies = 3 * n_atoms * len(shifts)
    for first in range(0, n_copies, n_together):
        rows = np.arange(first, min(first + n_together, n_copies))
        coordinate, shift = np.divmod(rows, len(shifts))
        positions = np.repeat(atoms.positions[None], len(rows), axis=0)
        positions.reshape(len(rows), -1)[np.arange(len(rows)), coordinate] += shifts[shift]
        yield slice(rows[0], rows[-1] + 1), Batch.of_frames(atoms, positions)


def _check(atoms: Atoms, model: Model) -> None:
    if not len(atoms):
        raise ModesError("modes need at least one atom, got none")
    if atoms.constraints:
        raise ModesError(f"the atoms must be free to move, got {len(atoms.constraints)} constraints")
    if "forces" not in model.units:
        raise ModesError(f"modes need a model with forces, this one predicts {', '.join(model.units)}")
