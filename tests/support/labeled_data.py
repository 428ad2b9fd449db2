"""A small data set with every label, for tests of readers and data sets."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from gmcore.data.datasets import Dataset

UNITS = {
    "length": "A",
    "energy": "eV",
    "forces": "eV/A",
    "stress": "eV/A^3",
    "charges": "e",
    "dipole": "e*A",
    "d_tensor": "cm^-1",
    "tensor": "A^3",
}
LABELS = tuple(label for label in UNITS if label != "length")


def symmetric(rng: np.random.Generator) -> np.ndarray:
    tensor = rng.normal(size=(3, 3))
    return tensor + tensor.T


def reference(rng: np.random.Generator, sizes=(3, 2, 4)) -> Dataset:
    """A data set with every label; periodic, so that it has a stress."""
    atoms, labels = [], {label: [] for label in LABELS}
    for n in sizes:
        atoms.append(Atoms(rng.integers(1, 9, n), rng.uniform(0, 5, (n, 3)), cell=np.eye(3) * 6 + 0.1, pbc=True))
        atoms[-1].info["total_charge"] = -2.0
        labels["energy"].append(np.array(rng.normal()))
        labels["forces"].append(rng.normal(size=(n, 3)))
        labels["charges"].append(rng.normal(size=n))
        labels["dipole"].append(rng.normal(size=3))
        for label in ("stress", "tensor", "d_tensor"):
            labels[label].append(symmetric(rng))
        labels["d_tensor"][-1] -= np.trace(labels["d_tensor"][-1]) / 3 * np.eye(3)
    units = {label: UNITS[label] for label in LABELS}
    return Dataset(atoms, labels, units, np.full(len(sizes), -2.0))


def xyz(tmp_path, comment: str, n: int = 1, cell: str = "") -> str:
    """An extended XYZ file of `n` equal frames."""
    path = tmp_path / "frames.xyz"
    frame = f"2\n{cell} Properties=species:S:1:pos:R:3:my_forces:R:3 {comment}\nO 0 0 0 1 0 0\nH 0 0 1 -1 0 0\n"
    path.write_text(frame * n)
    return path
