"""D tensors at full precision from `*.rassi.h5` of OpenMolcas: the effective Hamiltonian of the ground multiplet.

    CENTER_ATNUMS, CENTER_COORDINATES     (n_atoms,), (n_atoms, 3) Bohr
    SFS_ENERGIES                          (n_states,) Hartree: states without spin-orbit coupling, in order of the input
    STATE_SPINMULT                        attribute: 2S + 1 of each of them
    SOS_ENERGIES                          (n,) Hartree, from any zero: states with it, increasing; n sums all 2S + 1
    SOS_COEFFICIENTS_REAL, _IMAG          (n, n): row k is state k on the components m = -S ... S of every state

The lowest 2S + 1 states are projected on the components of the lowest state without spin-orbit coupling and made
orthonormal in the symmetric way (des Cloizeaux); H_eff has their energies. D is that of the S.D.S nearest to it.
SINGLE_ANISO defines its pseudospin by the magnetic moment instead, so its tensor differs by some percent.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcore.errors import DamagedFileError, DataError, excerpt
from gmcore.exchange.openmolcas_gradients import SAME_ENERGY
from gmcore.exchange.spin_hamiltonian import check_multiplet, spin_matrices, spin_text, tensor_of
from gmcore.exchange.tensors import LARGEST, ComputedTensor, atoms_from, require_wavenumbers
from gmcore.inputs.hdf5 import open_hdf5, read_array
from gmcore.units import conversion

if TYPE_CHECKING:
    import h5py

SUFFIX = ".rassi.h5"
PURE = 0.5
"""Smallest weight of the lowest state without spin-orbit coupling in the states of the ground multiplet."""
ROUNDING = 1e-8
"""Hartree: energies of one Kramers doublet differ in their last digits."""
ORTHOGONAL = 1e-6
"""Largest deviation of the states from orthonormality."""
SAME_TENSOR = 0.1
"""Largest difference to the tensor of SINGLE_ANISO, as a part of the largest element; 5 % were seen in 233 frames."""


def read_rassi(path: str | Path, unit: str | None = None) -> list[ComputedTensor]:
    """Return the D tensor of the ground multiplet, cm^-1, as a list of one.

    Raises
    ------
    DataError : the file is no RASSI file with spin-orbit coupling, or has a ground state that D does not describe.
    DamagedFileError : the file is damaged.
    """
    require_wavenumbers(unit, str(path))
    with open_hdf5(path) as file:
        if "SOS_ENERGIES" not in file:
            raise DataError(
                f"{path} is not a rassi.h5 file of OpenMolcas with spin-orbit states: ask RASSI for SpinOrbit"
            )
        numbers = _array(file, path, "CENTER_ATNUMS", 1)
        positions = _array(file, path, "CENTER_COORDINATES", 2)
        free, coupled = (_array(file, path, f"{kind}_ENERGIES", 1) for kind in ("SFS", "SOS"))
        real, imaginary = (_array(file, path, f"SOS_COEFFICIENTS_{part}", 2) for part in ("REAL", "IMAG"))
        multiplicities = _multiplicities(file, path)
        symmetric = np.size(file.attrs.get("IRREP_LABELS", [])) > 1
    n, n_atoms = len(coupled), len(numbers)
    if len(multiplicities) != len(free) or multiplicities.sum() != n or real.shape != (n, n):
        raise DataError(f"the states of {path} must fit together: {len(free)} without and {n} with spin-orbit coupling")
    if real.shape != imaginary.shape or positions.shape != (n_atoms, 3):
        raise DataError(f"the arrays of {path} must fit together: {n_atoms} atoms, positions {positions.shape}")
    if symmetric:
        raise DataError(f"{path} must be of a calculation without symmetry, whose file has all atoms: group = NoSym")
    tensor, spin, quality = _effective(free, coupled, real + 1j * imaginary, multiplicities, str(path))
    atoms = atoms_from(_symbols(numbers, path), positions * conversion("length", "Bohr")[0], str(path))
    energy = float(free.min()) * conversion("energy", "Hartree")[0]
    return [ComputedTensor(tensor, "cm^-1", atoms, "", "", 0, str(path), (quality,), spin=spin, energy=energy)]


def _effective(
    free: np.ndarray, coupled: np.ndarray, states: np.ndarray, multiplicities: np.ndarray, origin: str
) -> tuple[np.ndarray, float, str]:
    """D (3, 3), cm^-1, S, and how well S.D.S holds, in words."""
    if (np.diff(coupled) < -ROUNDING).any():
        raise DataError(f"the spin-orbit states of {origin} must be in order of their energies")
    if not np.abs(states @ states.conj().T - np.eye(len(states))).max() <= ORTHOGONAL:
        raise DataError(f"the spin-orbit states of {origin} must be orthonormal")
    ground = int(np.argmin(free))
    size = int(multiplicities[ground])
    if size < 3:
        raise DataError(
            f"the ground state of {origin} must have S = 1 or more for a D tensor, got a multiplicity of {size}"
        )
    spin, first = (size - 1) / 2.0, int(multiplicities[:ground].sum())
    left, weights, right = np.linalg.svd(states[:size, first : first + size].T)
    smallest = float(weights.min()) ** 2
    if not smallest >= PURE:
        raise DataError(
            f"the lowest states of {origin} must have a weight of {PURE:g} or more of the lowest state without "
            f"spin-orbit coupling, got {smallest:.2f}: it is nearly degenerate, and D means nothing"
        )
    levels = (coupled - coupled[0]) * conversion("d_tensor", "Hartree")[0]
    rotation = left @ right
    effective = rotation @ np.diag(levels[:size]) @ rotation.conj().T
    tensor = tensor_of(effective, spin)
    above = float(levels[size]) if len(levels) > size else None
    check_multiplet(tensor, spin, levels[:size], above, origin)
    s = spin_matrices(spin)
    rest = effective - np.einsum("ab,aij,bjk->ik", tensor, s, s)
    residual = float(np.linalg.norm(rest - np.trace(rest) / size * np.eye(size), 2))
    gap = "" if above is None else f"next multiplet {above - levels[size - 1]:.0f} cm^-1 above the ground one, "
    return tensor, spin, f"{gap}smallest weight of pure-spin states {smallest:.3f}, residual {residual:.2g} cm^-1"


def compare_with_text(tensor: ComputedTensor, text: ComputedTensor) -> str:
    """Return in words how far a tensor of SINGLE_ANISO, of the same calculation, is from that of RASSI.

    Raises
    ------
    DataError : they are not of one calculation.
    """
    if tensor.spin != text.spin:
        raise DataError(
            f"{tensor.origin} and {text.origin} must be of one calculation, got S = {spin_text(tensor.spin or 0)} and "
            f"{spin_text(text.spin or 0.0)}: remove one of them"
        )
    energies = np.array([part.energy for part in (tensor, text) if part.energy is not None])
    energies /= conversion("energy", "Hartree")[0]
    if np.ptp(energies) > SAME_ENERGY:
        raise DataError(
            f"{tensor.origin} and {text.origin} must be of one calculation, got energies of {energies[0]:.8f} and "
            f"{energies[1]:.8f} Hartree: remove one of them"
        )
    difference = float(np.abs(tensor.tensor - text.tensor).max())
    if not difference <= SAME_TENSOR * max(float(np.abs(text.tensor).max()), 0.1):
        raise DataError(
            f"the D tensors of {tensor.origin} and {text.origin} must agree to {SAME_TENSOR:.0%}, got elements that "
            f"differ by {difference:.3g} cm^-1: remove the wrong file"
        )
    return f"the tensor of SINGLE_ANISO in {text.origin} differs by at most {difference:.2g} cm^-1"


def _array(file: h5py.File, path: str | Path, name: str, n_dims: int) -> np.ndarray:
    found = np.asarray(read_array(file.get(name), path, name), dtype=np.float64)
    if found.ndim != n_dims or not found.size or not (np.abs(found) < LARGEST).all():
        raise DamagedFileError(f"{name} of {path} must have {n_dims} dimensions and finite numbers")
    return found


def _multiplicities(file: h5py.File, path: str | Path) -> np.ndarray:
    found = np.asarray(file.attrs.get("STATE_SPINMULT", []))
    if found.ndim != 1 or found.dtype.kind not in "iu" or not found.size or (found < 1).any() or (found > 100).any():
        raise DamagedFileError(f"STATE_SPINMULT of {path} must be the multiplicities of states, got {excerpt(found)}")
    return found.astype(np.int64)


def _symbols(numbers: np.ndarray, path: str | Path) -> list[str]:
    from ase.data import chemical_symbols

    if not np.isin(numbers, np.arange(1, len(chemical_symbols))).all():
        raise DataError(f"CENTER_ATNUMS of {path} must be atomic numbers, got {excerpt(numbers.tolist())}")
    return [chemical_symbols[int(number)] for number in numbers]
