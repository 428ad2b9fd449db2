"""Active orbitals of OpenMolcas: those that the first frame starts from, and how much of a d shell they are at the end.

The first frame starts from the five Loewdin-orthogonalized 3d functions of the metal. All other orbitals diagonalize,
among themselves, the Fock matrix of a calculation of closed shells.

    AO_OVERLAP_MATRIX, MO_VECTORS    (n * n,): MO_VECTORS has an orbital in each row
    MO_ENERGIES, MO_OCCUPATIONS      (n,)
    MO_TYPEINDICES                   (n,): I inactive, 2 active, S secondary
    BASIS_FUNCTION_IDS               (n, 4): center, from 1; number within its shell, from 1; l; m
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from gmcore.errors import DamagedFileError
from gmcore.files import atomic_path
from gmcore.inputs.hdf5 import open_hdf5, read_array
from gmcore.labeling.methods import Refused
from gmcore.labeling.openmolcas_input import N_D, ActiveSpace

DEPENDENT = 1e-12
"""Smallest eigenvalue of an overlap matrix."""


def write_start(scf: Path, target: Path, space: ActiveSpace) -> None:
    """Write the orbitals that the first frame starts from.

    Parameters
    ----------
    scf : `scf.h5` of the closed shells.
    target : file to write: a copy with other orbitals.

    Raises
    ------
    DamagedFileError : `scf` cannot be used.
    Refused : the basis has no five 3d functions, or too few of the others.
    WriteError : the disk is full.
    """
    import h5py

    overlap, vectors, energies, functions, _ = _read(scf)
    projected = vectors @ overlap
    fock = projected.T @ (energies[:, None] * projected)
    n, last = len(overlap), space.inactive + N_D
    first_d = (functions[:, 0] == space.metal + 1) & (functions[:, 1] == 1) & (functions[:, 2] == 2)
    if first_d.sum() != N_D or last > n:
        raise Refused(
            f"the basis must have five 3d functions at the metal and {space.inactive} others, got {first_d.sum()} and "
            f"{n - first_d.sum()}"
        )
    inverse_root = _power(overlap, -0.5, scf)
    shell, others = np.flatnonzero(first_d), np.flatnonzero(~first_d)
    found, rotation = np.linalg.eigh((inverse_root @ fock @ inverse_root)[np.ix_(others, others)])
    rows = np.r_[: space.inactive, last:n]
    orbitals, levels = np.zeros((n, n)), np.zeros(n)
    orbitals[np.ix_(rows, others)], levels[rows] = rotation.T, found
    orbitals[np.arange(space.inactive, last), shell] = 1.0
    kinds = np.repeat(np.array([b"I", b"2", b"S"]), [space.inactive, N_D, n - last])
    occupations = np.select([kinds == b"I", kinds == b"2"], [2.0, space.d_electrons / N_D], 0.0)
    with atomic_path(target) as temporary:
        shutil.copyfile(scf, temporary)
        with h5py.File(temporary, "r+") as file:
            file["MO_VECTORS"][...] = (orbitals @ inverse_root).ravel()
            file["MO_ENERGIES"][...] = levels
            file["MO_TYPEINDICES"][...] = kinds
            file["MO_OCCUPATIONS"][...] = occupations


def smallest_d_weight(path: Path, metal: int) -> float:
    """Return the smallest weight, 0 to 1, of the d functions of the metal in the active orbitals of a `rasscf.h5`.

    Weights are those of Loewdin: squares of coefficients in symmetrically orthogonalized functions.

    Raises
    ------
    DamagedFileError : the file cannot be used.
    """
    overlap, vectors, _, functions, kinds = _read(path)
    active = vectors[kinds == b"2"] @ _power(overlap, 0.5, path)
    if len(active) != N_D:
        raise DamagedFileError(f"{path} must have {N_D} active orbitals, got {len(active)}")
    shell = (functions[:, 0] == metal + 1) & (functions[:, 2] == 2)
    return float((active[:, shell] ** 2).sum(1).min())


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Overlap (n, n), orbitals (n, n) as rows, their energies (n,), functions (n, 4) and kinds of orbitals (n,)."""
    import h5py

    with open_hdf5(path) as file:
        names = ("AO_OVERLAP_MATRIX", "MO_VECTORS", "MO_ENERGIES", "BASIS_FUNCTION_IDS")
        overlap, vectors, energies, functions = (read_array(file.get(name), path, name) for name in names)
        item = file.get("MO_TYPEINDICES")
        kinds = np.asarray(item[()] if isinstance(item, h5py.Dataset) and item.shape == energies.shape else [])
    n = energies.size
    if not n or {overlap.size, vectors.size} != {n * n} or functions.shape != (n, 4) or kinds.shape != (n,):
        raise DamagedFileError(f"the arrays of {path} must fit together: {n} orbitals, functions {functions.shape}")
    if not all(np.isfinite(array).all() for array in (overlap, vectors, energies)):
        raise DamagedFileError(f"the orbitals of {path} must be finite numbers")
    return overlap.reshape(n, n), vectors.reshape(n, n), energies, functions, kinds


def _power(overlap: np.ndarray, exponent: float, path: Path) -> np.ndarray:
    values, vectors = np.linalg.eigh(overlap)
    if not values[0] > DEPENDENT:
        raise DamagedFileError(f"the basis functions of {path} must be linearly independent")
    return (vectors * values**exponent) @ vectors.T
