"""Scripts for readers, run by tests: the same code with few structures and epochs; and a small file to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from gmcore import Dataset

SMALLER = 20
"""What the sizes of a split are divided by."""
LEAST = 5
"""Structures of a part: as many as calibrated errors need."""


def shorten(monkeypatch: pytest.MonkeyPatch, epochs: int = 1) -> None:
    """Split data sets into small parts, and fit for at most so many epochs."""
    import keras

    split, fit = Dataset.split, keras.Model.fit

    def small_split(self, *sizes, seed=1):
        return split(self, *(max(LEAST, size // SMALLER) for size in sizes), seed=seed)

    def short_fit(self, *arguments, **options):
        last = options.get("initial_epoch", 0) + epochs
        return fit(self, *arguments, **options | {"epochs": min(options.get("epochs", 1), last), "verbose": 0})

    monkeypatch.setattr(Dataset, "split", small_split)
    monkeypatch.setattr(keras.Model, "fit", short_fit)


def springs_of_water(n: int) -> list[Atoms]:
    """Distorted water molecules with the energy (eV) and forces (eV/A) of two springs between O and H."""
    rng = np.random.default_rng(0)
    start, listed = molecule("H2O"), []
    for _ in range(n):
        atoms = start.copy()
        atoms.positions += rng.normal(scale=0.1, size=(3, 3))
        forces, energy = np.zeros((3, 3)), -14.0
        for k in (1, 2):
            d = atoms.get_distance(0, k, vector=True)
            r = np.linalg.norm(d)
            energy += 5.0 * (r - 0.97) ** 2
            pull = -10.0 * (r - 0.97) * d / r
            forces[k] += pull
            forces[0] -= pull
        atoms.info["energy"], atoms.arrays["forces"] = energy, forces
        listed.append(atoms)
    return listed


def write_water(path: Path, n: int) -> Path:
    """Write `springs_of_water` as extended XYZ."""
    write(path, springs_of_water(n))
    return path
