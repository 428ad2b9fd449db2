"""The frame in which elements of D are given.

A free molecule rotates, and the molecules of one cell have different orientations. Tensors are therefore rotated
together with their molecule onto a reference, R D R^T, where R is the mass-weighted alignment (the Eckart frame). If a
crystal has a single molecule, it keeps the axes of the crystal. A mirror image in the cell is inverted before it is
aligned; inversion does not change D.

The reference is the structure that gives the order of atoms of the D model (d_tensor.reference of the run), else the
structure that a molecule in the gas phase started from, else the first sample. Elements of D refer to its axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.trajectory import Trajectory
from gmcore.formats import read_structure
from gmcore.molecules.superposition import GeometryError, align, rotate_tensors


@dataclass(frozen=True)
class BodyFrame:
    """The axes in which elements of D are given.

    Attributes
    ----------
    reference : (n_molecule_atoms, 3) A, the structure onto which molecules are aligned; None keeps the axes of the run.
    masses : (n_molecule_atoms,) amu.
    words : description of the axes.
    """

    reference: np.ndarray | None
    masses: np.ndarray
    words: str

    def rotate(
        self, positions: np.ndarray | None, tensors: np.ndarray, members: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return tensors, and those of the members of a committee if given, in these axes.

        Parameters
        ----------
        positions : (n_series, n, n_atoms, 3) A of the molecules; may be None where the axes of the run are kept.
        tensors : (n_series, n, 3, 3).
        members : (n_series, n, n_members, 3, 3).

        Raises
        ------
        GeometryError : if a molecule cannot be aligned, or there are no positions to align.
        """
        if self.reference is None:
            return tensors, members
        if positions is None:
            raise GeometryError("tensors are rotated with their molecules, so the run must have recorded positions")
        rotations = [_rotations(frames, self.reference, self.masses) for frames in positions]
        rotated = np.stack([rotate_tensors(series, r) for series, r in zip(tensors, rotations)])
        if members is None:
            return rotated, None
        return rotated, np.stack([rotate_tensors(series, r) for series, r in zip(members, rotations)])


def body_frame(trajectory: Trajectory, config: MDConfig | None) -> BodyFrame:
    """Return the frame for the molecules of a run that recorded D."""
    masses = trajectory.masses[trajectory.molecules[0]]
    if trajectory.pbc.any() and len(trajectory.molecules) == 1:
        return BodyFrame(None, masses, "axes of the crystal")
    reference, words = _reference(trajectory, config)
    try:
        align(reference[None], reference, masses)
    except GeometryError:  # linear: there is no body frame
        return BodyFrame(None, masses, "axes of the trajectory, because a linear molecule has none of its own")
    return BodyFrame(reference, masses, words)


def _reference(trajectory: Trajectory, config: MDConfig | None) -> tuple[np.ndarray, str]:
    if config is not None and config.d_tensor is not None and config.d_tensor.reference is not None:
        path, index, order = config.d_tensor.reference, 0, None
    elif config is not None and not trajectory.pbc.any():
        path, index, order = config.structure.file, config.start_indices()[0], trajectory.molecules[0]
    else:
        path = None
    if path is not None and Path(path).is_file():
        atoms = read_structure(path, index)
        atoms = atoms if order is None else atoms[order]
        if np.array_equal(atoms.numbers, trajectory.molecule_numbers):
            return atoms.positions, f"axes of {Path(path).name}, onto which the molecule is aligned in every frame"
    first = trajectory.values("molecule_position", 0, stop=1)[0, 0]
    return first, "axes of the first sample, onto which the molecule is aligned in every frame"


def _rotations(frames: np.ndarray, reference: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return rotations (n, 3, 3) of frames (n, n_atoms, 3), A; for a mirror image those of its inversion."""
    upright, inverted = (_misfit(sign * frames[:1], reference, masses) for sign in (1.0, -1.0))
    return align(frames if upright <= inverted else -frames, reference, masses)


def _misfit(frame: np.ndarray, reference: np.ndarray, masses: np.ndarray) -> float:
    """Return the mass-weighted square distance, amu A^2, of an aligned frame (1, n_atoms, 3) from the reference."""
    rotated = (frame - _center(frame, masses)) @ align(frame, reference, masses)[0].T
    return float(np.sum(masses[:, None] * (rotated - reference + _center(reference, masses)) ** 2))


def _center(frames: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return the center of mass (..., 1, 3) of frames (..., n_atoms, 3), A."""
    return (masses @ frames / masses.sum())[..., None, :]
