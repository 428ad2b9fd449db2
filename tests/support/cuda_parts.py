"""A model and a crystal small enough for the CUDA simulator, and what its device is made to do."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from ase import Atoms

from gmcore.device.cuda import open_device

SMALL = {"r_max": 2.4, "n_radial": 1, "n_basis": 3, "hidden": (6, 5)}


def crystal(n_atoms: int = 3) -> Atoms:
    """A few atoms in a triclinic cell smaller than the cutoff of `SMALL`."""
    rng = np.random.default_rng(3)
    cell = [[2.2, 0.1, 0.0], [0.4, 2.0, 0.2], [0.1, -0.3, 1.1 * n_atoms]]
    scaled = (np.arange(n_atoms)[:, None] * [0.3, 0.45, 1.0 / n_atoms] + 0.02 * rng.normal(size=(n_atoms, 3))) % 1.0
    return Atoms(rng.choice([1, 6, 8], n_atoms), scaled @ cell, cell=cell, pbc=True)


@contextmanager
def limited_memory(n_bytes: int):
    device = open_device()
    device.memory_limit = n_bytes
    try:
        yield device
    finally:
        device.memory_limit = None


@contextmanager
def recording():
    """The simulator cannot capture: let a graph be what was launched, run again."""
    device = open_device()
    if device.simulated:
        device.capture = lambda function: function
    try:
        yield
    finally:
        vars(device).pop("capture", None)
