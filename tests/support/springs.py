"""A model of springs between all pairs of atoms, whose modes are known, with the batch interface of `Model`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from ase import Atoms

from gmcore.engine.structures import Batch


class Springs:
    """Relaxed where it was made; `constant` in eV/A^2. `calls` counts the structures of each call."""

    def __init__(self, atoms: Atoms, constant: float):
        self.rest = atoms.get_all_distances()
        self.constant = constant
        self.units = {"energy": "eV", "forces": "eV/A"}
        self.evaluator = SimpleNamespace(batch_atoms=7 * len(atoms), find_pairs=lambda batch: None)
        self.calls: list[int] = []

    def evaluate(self, batch: Batch, pairs, keys) -> dict[str, np.ndarray]:
        self.calls.append(batch.n_structures)
        positions = batch.positions.reshape(batch.n_structures, -1, 3)
        between = positions[:, :, None] - positions[:, None]
        distance = np.linalg.norm(between, axis=-1)
        pull = self.constant * (self.rest - distance) / np.where(distance > 0.0, distance, 1.0)
        return {"forces": (pull[..., None] * between).sum(axis=2).reshape(-1, 3)}

    def predict(self, atoms: Atoms, keys) -> dict[str, np.ndarray]:
        return {"forces": self.evaluate(Batch.from_atoms(atoms), None, keys)["forces"][None]}
