"""The same frames for everyone: revised MD17, its official split, and a liquid of the same molecule for the timing.

Energies are in eV and relative to the mean of the training part, which no error depends on: half of the packages would
otherwise have to be told the energies of free atoms, 4000 eV apart from what they are to learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.units import kcal, mol

N_ATOMS = 512  # about: whole molecules
DENSITY = 0.095  # atoms per A^3, of liquid ethanol and of solid aspirin within 4 %


class NoDataError(Exception):
    """Data that are not there; the message says where they were looked for."""


@dataclass(frozen=True)
class Sizes:
    """How many frames: of the training file for training and for choosing the epoch, and of the test file."""

    train: int = 950
    validation: int = 50
    test: int = 1000


def read_frames(folder: Path, molecule: str, sizes: Sizes, seed: int = 1) -> dict[str, np.ndarray]:
    """Read one molecule of revised MD17 and build its liquid.

    Returns
    -------
    numbers (n_atoms,); for each of train, validation, test: PART_positions (n, n_atoms, 3) A, PART_energies (n,) eV,
    PART_forces (n, n_atoms, 3) eV/A; box_numbers, box_positions (A), box_cell (3, 3) of the liquid.

    Raises
    ------
    NoDataError : a file is missing.
    ValueError : there are fewer frames than asked for.
    """
    files = {}
    for part in ("train", "test"):
        path = Path(folder) / f"rmd17_{molecule}_{part}_01.npz"
        if not path.is_file():
            raise NoDataError(f"{path} is missing; give the folder of the revised MD17 files with --data")
        with np.load(path) as data:
            files[part] = {key: data[key] for key in ("nuclear_charges", "coords", "energies", "forces")}
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(files["train"]["energies"]))
    if len(order) < sizes.train + sizes.validation or len(files["test"]["energies"]) < sizes.test:
        raise ValueError(f"{molecule}: {sizes} are more frames than the files in {folder} have")
    chosen = {
        "train": ("train", order[: sizes.train]),
        "validation": ("train", order[sizes.train : sizes.train + sizes.validation]),
        "test": ("test", np.arange(sizes.test)),
    }
    unit = kcal / mol
    numbers = files["train"]["nuclear_charges"].astype(int)
    frames: dict[str, np.ndarray] = {"numbers": numbers}
    mean = files["train"]["energies"][chosen["train"][1]].mean()
    for part, (file, index) in chosen.items():
        frames[f"{part}_positions"] = files[file]["coords"][index]
        frames[f"{part}_energies"] = unit * (files[file]["energies"][index] - mean)
        frames[f"{part}_forces"] = unit * files[file]["forces"][index]
    frames |= _liquid(numbers, frames["train_positions"], rng)
    return frames


def _liquid(numbers: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Periodic cube with about N_ATOMS atoms: a point for timing, not a sample of a liquid.

    The molecules have the shapes of random frames and sit at the sites of a lattice, turned so that none comes close to
    another.
    """
    n_molecules = round(N_ATOMS / len(numbers))
    side = (n_molecules * len(numbers) / DENSITY) ** (1 / 3)
    per_side = int(np.ceil(round(n_molecules ** (1 / 3), 6)))
    sites = np.stack(np.unravel_index(rng.permutation(per_side**3)[:n_molecules], (per_side,) * 3), axis=1)
    placed = np.empty((0, 3))
    for site in (sites + 0.5) * side / per_side:
        shape = pool[rng.integers(len(pool))]
        shape = shape - shape.mean(0)
        # orthogonal matrices, reflections too: invariant models do not mind
        turned = [site + shape @ np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(60)]
        closest = [_closest(one, placed, side) for one in turned]
        placed = np.concatenate([placed, turned[int(np.argmax(closest))]])
    return {"box_numbers": np.tile(numbers, n_molecules), "box_positions": placed, "box_cell": side * np.eye(3)}


def _closest(a: np.ndarray, b: np.ndarray, side: float) -> float:
    """Shortest distance between two sets of points in a periodic cube."""
    arm = a[:, None] - b[None]
    arm -= side * np.round(arm / side)
    return float(np.linalg.norm(arm, axis=-1).min(initial=np.inf))
