"""D and the harmonic modes: linear and quadratic coupling, and the mode coordinates of a trajectory.

Expansion in the dimensionless normal coordinates q_k of `gmcore.analysis.modes` (the terms with k != l have no thermal
mean and are left out):

    D(q) = D0 + sum_k D'_k q_k + 1/2 sum_k D''_k q_k^2
    <D> = D0 + 1/2 sum_k D''_k <q_k^2>;   var D_ab = sum_k (D'_k,ab)^2 <q_k^2>        (harmonic bath, lowest order)

D'_k = sum_i sqrt(hbar/(m_i omega_k)) Q_ki . dD/dx_i from the analytic gradient; D''_k from central differences of D
along the mode, all modes in one batch. MolForge scales its modes in the same way.

With the head basis "positions", the direction of an atom from the mean position is undefined if its zero-point motion
is larger than its distance from there. The contribution of such an atom is left out, and the atom is listed in
`left_out`.

A frame gives q_k = sqrt(omega_k/hbar) sum_i sqrt(m_i) Q_ki . (x_i - x0_i), after a molecule has been rotated and
shifted into the Eckart frame of the reference; a crystal is only shifted. Along classical dynamics <q_k^2> =
kT/(hbar omega_k) if the mode is harmonic, which `thermal_ratio` checks.

Not supported: terms that couple two modes, and crystals whose cell changes along the trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from gmcore.analysis.modes import Modes, thermal_variance
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.model import Model
from gmcore.molecules.molecules import Molecules
from gmcore.molecules.superposition import superpose
from gmcore.tensor_gradients import member_gradients, near_center, tensor_head, without_core

SECOND_STEP = 0.2
"""Step in q of the differences for D''; D is smooth on the scale of the zero-point motion."""

FRAMES = 4096
"""Number of frames projected on modes together; bounds the memory of long runs."""


class CouplingError(GMError):
    """Modes, tensors or trajectories that do not fit each other."""


@dataclass(frozen=True, eq=False)
class TensorExpansion:
    """A tensor around a stationary structure, in the unit of the model (cm^-1 for D).

    Values of modes with an imaginary frequency are NaN.

    Attributes
    ----------
    frequencies : (n_modes,) cm^-1.
    value : (3, 3).
    gradient : (n_atoms, 3, 3, 3), dD/dx per A: [atom, direction, row, column]; zero beyond the molecule.
    first : (n_modes, 3, 3), D'_k, mean over the committee.
    first_std : (n_modes, 3, 3), its deviation over the committee, or over the draws of a single model; 0 without both.
    second : (n_modes, 3, 3), D''_k.
    unit : unit of the tensor.
    left_out : indices of atoms that are too close to the mean position for the head basis "positions".
    """

    frequencies: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    first: np.ndarray
    first_std: np.ndarray
    second: np.ndarray
    unit: str
    left_out: tuple[int, ...] = ()

    @property
    def strength(self) -> np.ndarray:
        """(n_modes,): Frobenius norm of D'_k, which does not depend on the orientation."""
        return np.linalg.norm(self.first, axis=(1, 2))

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return dD/dq and dE/dq, (n_modes,) each, of D = 3/2 Z and E = |X - Y|/2, by first-order perturbation theory.

        They have no meaning where D or E has a kink: at E = 0 and at the rhombic limit E/|D| = 1/3.
        """
        values, axes = np.linalg.eigh(self.value)
        low, middle, high = np.einsum("ai,kab,bi->ik", axes, self.first, axes)
        if -values[0] > values[2]:
            return 1.5 * low, 0.5 * (high - middle)
        return 1.5 * high, 0.5 * (middle - low)

    def predict(self, q: ArrayLike) -> np.ndarray:
        """Return D(q), (n, 3, 3), for mode coordinates (n, n_modes), without modes of imaginary frequency.

        Raises
        ------
        CouplingError : if q has another shape.
        """
        coordinates = np.asarray(q, np.float64)
        if coordinates.ndim != 2 or coordinates.shape[1] != len(self.first):
            raise CouplingError(f"mode coordinates must have shape (n, {len(self.first)}), got {coordinates.shape}")
        real = self.frequencies > 0.0
        own, first, second = coordinates[:, real], self.first[real], self.second[real]
        return self.value + np.tensordot(own, first, 1) + 0.5 * np.tensordot(own * own, second, 1)

    def thermal_mean(self, temperature: float, quantum: bool = True) -> np.ndarray:
        """Return <D>, (3, 3), at a temperature (K), without modes of imaginary frequency."""
        variance = thermal_variance(self.frequencies, temperature, quantum)
        return self.value + 0.5 * np.nansum(variance[:, None, None] * self.second, axis=0)

    def thermal_width(self, temperature: float, quantum: bool = True) -> np.ndarray:
        """Return the standard deviations of the elements, (3, 3), at a temperature (K), to first order."""
        variance = thermal_variance(self.frequencies, temperature, quantum)
        return np.sqrt(np.nansum(variance[:, None, None] * self.first**2, axis=0))


def tensor_derivatives(modes: Modes, gradient: np.ndarray) -> np.ndarray:
    """Return D'_k (..., n_modes, 3, 3) from a gradient dD/dx (..., n_atoms, 3, 3, 3) per A.

    Raises
    ------
    CouplingError : if the gradient belongs to another number of atoms.
    """
    if np.shape(gradient)[-5 + 1 :] != (len(modes.atoms), 3, 3, 3):
        raise CouplingError(
            f"the gradient must have shape ({len(modes.atoms)}, 3, 3, 3) for these modes, got {np.shape(gradient)}"
        )
    return np.einsum("kia,...iabc->...kbc", modes.displacements, gradient)


def expand_tensor(
    model: Model,
    modes: Modes,
    name: str | None = None,
    step: float = SECOND_STEP,
    molecules: Molecules | None = None,
    which: int = 0,
) -> TensorExpansion:
    """Expand a predicted tensor in the modes of a structure.

    Parameters
    ----------
    model : model of the tensor. The modes may come from another model, for the same atoms in the same order.
    modes : modes of the structure.
    name : name of the tensor; not needed if the model has only one.
    step : step of the differences, in q.
    molecules : needed if the model is one of molecules and the modes are those of a crystal: the molecules in it.
    which : index of the molecule that is used.

    Raises
    ------
    CouplingError : if the step is not positive or the molecule does not exist.
    GMError : if `member_gradients` raises one.
    """
    if not step > 0.0:
        raise CouplingError(f"the step along the modes must be positive, got {step}")
    atoms, indices = _part(modes.atoms, molecules, which)
    key = tensor_head(model, name).name
    moves = modes.displacements[:, indices]
    motion = zero_point_motion(moves)
    left_out = near_center(model, atoms, motion, name)
    if len(left_out):
        away = np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1)
        model = without_core(model, float((away + motion)[left_out].max()), name)
    members = np.zeros((model.n_members, len(modes.atoms), 3, 3, 3))
    members[:, indices] = member_gradients(model, atoms, name)
    first = tensor_derivatives(modes, members)
    value = model.predict(atoms, [key])[key][0]
    real = np.isfinite(moves).all(axis=(1, 2))
    second, first_std = np.full((len(modes), 3, 3), np.nan), first.std(axis=0)
    if real.any():
        moved = atoms.positions + step * np.concatenate([moves[real], -moves[real]])
        predicted, of_draws = _evaluate(model, atoms, moved, key)
        plus, minus = np.split(predicted, 2)
        second[real] = (plus - 2.0 * value + minus) / step**2
        if len(of_draws):  # they differ from the model by little, so that central differences will do
            away = of_draws - predicted
            slopes = (away[:, : len(plus)] - away[:, len(plus) :]) / (2.0 * step)
            first_std[real] = np.sqrt(np.mean(slopes**2, axis=0))
    return TensorExpansion(
        frequencies=modes.frequencies,
        value=value,
        gradient=members.mean(axis=0),
        first=first.mean(axis=0),
        first_std=first_std,
        second=second,
        unit=model.units[key],
        left_out=tuple(indices[left_out].tolist()),
    )


def zero_point_motion(displacements: np.ndarray) -> np.ndarray:
    """Return (n_atoms,) A: root mean square motion of each atom relative to the mean position, in the ground state.

    Parameters
    ----------
    displacements : (n_modes, n_atoms, 3) A per unit of q, those of `Modes` or of some of its atoms.
    """
    moves = np.nan_to_num(displacements)
    relative = moves - moves.mean(axis=1, keepdims=True)
    return np.sqrt(0.5 * (relative**2).sum(axis=(0, 2)))


def mode_coordinates(positions: ArrayLike, modes: Modes) -> np.ndarray:
    """Return q (n, n_modes) of frames; NaN for modes of imaginary frequency.

    Parameters
    ----------
    positions : (n, n_atoms, 3) A, not wrapped into the cell, atoms in the order of the modes.
    modes : modes of the structure.

    Raises
    ------
    CouplingError : if the number of atoms is different.
    GMError : if a frame cannot be aligned with the structure of the modes.
    """
    trajectory = np.asarray(positions, np.float64)
    atoms = modes.atoms
    if trajectory.ndim != 3 or trajectory.shape[1:] != (len(atoms), 3):
        raise CouplingError(f"frames must have shape (n, {len(atoms)}, 3), got {trajectory.shape}")
    masses = atoms.get_masses()
    root = np.sqrt(masses)[:, None]
    # of unit length along q: the inverse of `displacements`, since the vectors are orthonormal
    per_q = np.linalg.norm(root * modes.displacements, axis=(1, 2))
    q = np.empty((len(trajectory), len(modes)))
    for first in range(0, len(trajectory), FRAMES):
        frames = trajectory[first : first + FRAMES]
        if atoms.pbc.any():
            away = frames - atoms.positions
            away -= (masses @ away / masses.sum())[:, None]
        else:
            away = superpose(frames, atoms.positions, masses) - atoms.positions
        q[first : first + FRAMES] = np.tensordot(root * away, modes.vectors, ([1, 2], [1, 2])) / per_q
    return q


def thermal_ratio(q: ArrayLike, frequencies: ArrayLike, temperature: float) -> np.ndarray:
    """Return <q_k^2> of classical dynamics over kT/(hbar omega_k), (n_modes,): 1 for harmonic modes in equilibrium.

    Parameters
    ----------
    q : (n, n_modes), mode coordinates. Their mean is subtracted, because an anharmonic shift of the center is not heat.
    frequencies : (n_modes,) cm^-1.
    temperature : K.

    Raises
    ------
    CouplingError : if the temperature is not positive.
    """
    if not temperature > 0.0:
        raise CouplingError(f"the temperature must be positive, got {temperature} K")
    return np.var(np.asarray(q), axis=0) / thermal_variance(np.asarray(frequencies), temperature, quantum=False)


def _part(atoms: Atoms, molecules: Molecules | None, which: int) -> tuple[Atoms, np.ndarray]:
    """Return the structure that a tensor belongs to, and the indices of its atoms."""
    if molecules is None:
        return atoms, np.arange(len(atoms))
    if not 0 <= which < len(molecules):
        raise CouplingError(f"the structure holds {len(molecules)} molecules, numbered from 0, got number {which}")
    positions = molecules.extract(atoms.positions, atoms.cell.array)[which]
    return Atoms(molecules.numbers, positions), molecules.indices[which]


def _evaluate(model: Model, atoms: Atoms, positions: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a tensor on frames (n, n_atoms, 3) A of a structure: (n, 3, 3), and of draws (n_draws, n, 3, 3)."""
    evaluator = model.evaluator
    n_together = max(1, evaluator.batch_atoms // len(atoms))
    values, draws = [], []
    for first in range(0, len(positions), n_together):
        batch = Batch.of_frames(atoms, positions[first : first + n_together])
        found = evaluator.evaluate(batch, evaluator.find_pairs(batch), [key], draw_keys=[key])
        values.append(found[key].mean(axis=0))
        draws.append(found.get(f"{key}_draws", np.empty((0, *values[-1].shape))))
    return np.concatenate(values), np.concatenate(draws, axis=1)
