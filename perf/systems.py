"""Random systems and models of the benchmarks: seeded, never zeros, as many neighbors as are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.settings import DescriptorSettings, HeadOptions, HeadSettings, Member, ModelSettings
from gmcore.engine.structures import Batch
from gmcore.kernels.contractions_cpu import n_features

SPECIES = (1, 6, 8)
HIDDEN = (512, 512)


def bulk(n_atoms: int, n_neighbors: float = 100.0, cutoff: float = 6.5, seed: int = 0) -> Atoms:
    """Periodic cube with about `n_neighbors` neighbors per atom within `cutoff` (A), sites jittered."""
    rng = np.random.default_rng(seed)
    density = (n_neighbors + 1) / (4.0 / 3.0 * math.pi * cutoff**3)
    side = (n_atoms / density) ** (1.0 / 3.0)
    per_side = math.ceil(round(n_atoms ** (1.0 / 3.0), 6))
    sites = rng.permutation(per_side**3)[:n_atoms]
    grid = np.stack(np.unravel_index(sites, (per_side,) * 3), axis=1)
    positions = (grid + 0.5 + rng.uniform(-0.2, 0.2, grid.shape)) * side / per_side
    return Atoms(rng.choice(SPECIES, n_atoms), positions, cell=[side] * 3, pbc=True)


def molecules(n_structures: int, n_atoms: int, n_neighbors: float, cutoff: float, seed: int = 0) -> list[Atoms]:
    """Clusters with about `n_neighbors` neighbors per atom within `cutoff` (A); one shape, each with its own noise."""
    rng = np.random.default_rng(seed)
    per_side = math.ceil(n_atoms ** (1.0 / 3.0))
    sites = rng.permutation(per_side**3)[:n_atoms]
    grid = np.stack(np.unravel_index(sites, (per_side,) * 3), axis=1) + rng.uniform(-0.2, 0.2, (n_atoms, 3))

    def mean_neighbors(spacing: float) -> float:
        batch = Batch.from_arrays(spacing * grid, np.ones(n_atoms, int))
        return build_pairs(batch, cutoff).n_pairs / n_atoms

    narrow, wide = 0.1, cutoff
    for _ in range(30):
        middle = 0.5 * (narrow + wide)
        narrow, wide = (middle, wide) if mean_neighbors(middle) > n_neighbors else (narrow, middle)
    numbers = rng.choice(SPECIES, n_atoms)
    return [Atoms(numbers, wide * grid + rng.normal(scale=0.05, size=grid.shape)) for _ in range(n_structures)]


def model_parts(
    kind: str = "energy", r_max: float = 6.5, seed: int = 0, hidden: Sequence[int] = HIDDEN, **sizes_of_descriptor
) -> tuple[ModelSettings, Member]:
    """The network of the paper, 360-512-512-1, if not given another one, with random parameters; one head."""
    rng = np.random.default_rng(seed)
    descriptor = DescriptorSettings(SPECIES, r_max, **sizes_of_descriptor)
    options = HeadOptions(basis="positions" if kind == "d_tensor" else None)
    sizes = [n_features(descriptor.n_radial), *hidden, 1]
    n = len(SPECIES)
    member = Member(
        beta=rng.uniform(-1, 1, (n, n, descriptor.n_radial, descriptor.n_basis)),
        feature_mean=0.1 * rng.normal(size=sizes[0]),
        feature_std=rng.uniform(1.0, 3.0, sizes[0]),
        weights=[rng.normal(size=shape) for shape in pairwise(sizes)],
        biases=[rng.normal(size=size) for size in sizes[1:]],
        scale={kind: rng.uniform(0.5, 1.5, (n, 1))},
        shift={kind: rng.normal(size=(n, 1))},
    )
    return ModelSettings(descriptor, (HeadSettings(kind, kind, options=options),)), member
