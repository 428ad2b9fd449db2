"""Whether this installation computes what the formulas say: a tiny model, made here, against the NumPy twin."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from ase import Atoms

from gmcore.engine import reference
from gmcore.engine.settings import DescriptorSettings, HeadSettings, Member, ModelSettings
from gmcore.engine.stages import Contractions
from gmcore.engine.structures import Batch
from gmcore.model import Model

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""Largest deviation over the largest magnitude; a wrong formula is off by more than a hundredth."""


class SelfTest(NamedTuple):
    """What a self-test found.

    Attributes
    ----------
    energy_error, forces_error : relative deviations from the NumPy twin.
    first_s, second_s : seconds of the first evaluation, which compiles or loads kernels, and of the second.
    passed : whether both errors are within `TOLERANCE`.
    """

    energy_error: float
    forces_error: float
    first_s: float
    second_s: float
    passed: bool


def self_test(device: str = "cpu", dtype: str = "float32") -> SelfTest:
    """Energy and forces of a small crystal with a random model, compared with `gmcore.engine.reference`.

    Parameters
    ----------
    device : "cpu" or "cuda".
    dtype : "float32" or "float64", working type of the model.

    Raises
    ------
    GMError : the device cannot be used.
    """
    settings, member = _parts()
    model, atoms = Model(settings, [member], dtype, device), _crystal()
    energy, forces = _expected(settings.descriptor, member, atoms)
    seconds, found = [], {}
    for _ in range(2):
        start = time.perf_counter()
        batch = Batch.from_atoms(atoms)
        found = model.evaluate(batch, model.evaluator.find_pairs(batch), ("energy", "forces"), errors=False)
        seconds.append(time.perf_counter() - start)
    of_energy, of_forces = _deviation(found["energy"][0], energy), _deviation(found["forces"], forces)
    return SelfTest(of_energy, of_forces, seconds[0], seconds[1], max(of_energy, of_forces) <= TOLERANCE[dtype])


def _crystal() -> Atoms:
    """Four atoms in a triclinic cell that is smaller than the cutoff."""
    cell = [[3.0, 0.1, 0.0], [0.4, 3.1, 0.2], [0.1, -0.3, 3.4]]
    scaled = [[0.05, 0.1, 0.0], [0.5, 0.45, 0.1], [0.1, 0.55, 0.5], [0.6, 0.0, 0.55]]
    return Atoms("OH2C", np.array(scaled) @ cell, cell=cell, pbc=True)


def _parts() -> tuple[ModelSettings, Member]:
    """A model with random parameters and outputs of order one."""
    rng = np.random.default_rng(7)
    descriptor = DescriptorSettings((1, 6, 8), 3.5, 0.5, 5, 3)
    sizes = [Contractions(descriptor.n_radial).n_features, 16, 16, 1]
    member = Member(
        beta=rng.uniform(-1, 1, (3, 3, descriptor.n_radial, descriptor.n_basis)),
        feature_mean=0.1 * rng.normal(size=sizes[0]),
        feature_std=rng.uniform(1.0, 3.0, sizes[0]),
        weights=[rng.normal(size=shape) for shape in pairwise(sizes)],
        biases=[rng.normal(size=size) for size in sizes[1:]],
        scale={"energy": rng.uniform(0.5, 1.5, (3, 1))},
        shift={"energy": rng.normal(size=(3, 1))},
    )
    return ModelSettings(descriptor, (HeadSettings("energy", "energy"),)), member


def _expected(settings: DescriptorSettings, member: Member, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (n_atoms, 3) (eV/A) by plain NumPy and the complex step."""
    species = np.searchsorted(settings.species, atoms.numbers)
    first, neighbor, offset = reference.find_pairs(atoms.positions, atoms.cell.array, True, settings.r_max)

    def energy(positions: np.ndarray) -> np.ndarray:
        return reference.energy(positions, species, first, neighbor, offset, member, settings)

    return float(energy(atoms.positions)), -reference.complex_step(energy, atoms.positions)


def _deviation(value: np.ndarray, expected: np.ndarray | float) -> float:
    """Largest deviation over the largest magnitude; infinite where a value is not finite."""
    value = np.asarray(value, float)
    if not np.isfinite(value).all():
        return float("inf")
    return float(np.abs(value - expected).max() / np.abs(expected).max())
