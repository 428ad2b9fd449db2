"""The frame in which elements of D are given.

A molecule that floats or shares its cell with others turns, or stands in another way: its tensors are turned with it
onto a reference, R D R^T with R the mass-weighted alignment (the Eckart frame). The one molecule of a crystal keeps
the axes of the crystal. A mirror image in the cell is aligned after inversion, under which D does not change.

The reference is the structure whose order of atoms the D model has (d_tensor.reference of the run), else the structure
that a molecule in the gas phase started from, else the first sample; elements therefore have the axes of that file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.trajectory import Trajectory
from gmcore.molecules.superposition import GeometryError, align, rotate_tensors


@dataclass(frozen=True)
class BodyFrame:
    """reference (n_molecule_atoms, 3) A, None for the axes of the trajectory; words that say what the axes are."""

    reference: np.ndarray | None
    masses: np.ndarray
    words: str

    def rotate(self, positions: np.ndarray, *tensors: np.ndarray | None) -> tuple[np.ndarray | None, ...]:
        """Turn tensors (n_series, n, ..., 3, 3) with their molecules (n_series, n, n_atoms, 3), A."""
        if self.reference is None:
            return tensors
        rotations = [self._rotations(frames) for frames in positions]
        return tuple(
            None if series is None else np.stack([rotate_tensors(s, r) for s, r in zip(series, rotations)])
            for series in tensors
        )

    def _rotations(self, frames: np.ndarray) -> np.ndarray:
        """Rotations (n, 3, 3) of a series; of a mirror image those of its inversion."""
        upright, inverted = (self._misfit(sign * frames[:1]) for sign in (1.0, -1.0))
        return align(frames if upright <= inverted else -frames, self.reference, self.masses)

    def _misfit(self, frame: np.ndarray) -> float:
        rotated = (frame - _center(frame, self.masses)) @ align(frame, self.reference, self.masses)[0].T
        return float(
            np.sum(self.masses[:, None] * (rotated - self.reference + _center(self.reference, self.masses)) ** 2)
        )


def body_frame(trajectory: Trajectory, config: MDConfig | None) -> BodyFrame:
    """Return the frame of the molecules of a run that recorded D."""
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
    from ase.io import read

    if config is not None and config.d_tensor is not None and config.d_tensor.reference is not None:
        path, index, order = config.d_tensor.reference, 0, None
    elif config is not None and not trajectory.pbc.any():
        path, index, order = config.structure.file, config.structure.index, trajectory.molecules[0]
    else:
        path = None
    if path is not None and Path(path).is_file():
        atoms = read(path, index=index)
        atoms = atoms if order is None else atoms[order]
        if np.array_equal(atoms.numbers, trajectory.molecule_numbers):
            return atoms.positions, f"axes of {Path(path).name}, onto which the molecule is aligned in every frame"
    first = trajectory.values("molecule_position", 0, stop=1)[0, 0]
    return first, "axes of the first sample, onto which the molecule is aligned in every frame"


def _center(frames: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Center of mass of frames (..., n_atoms, 3), (..., 1, 3)."""
    return (masses @ frames / masses.sum())[..., None, :]
