"""Named test systems: the shapes of input that break neighbor lists and descriptors.

A bug becomes a system here. All are seeded and come out the same on every machine; no two atoms are closer than 0.7 A
unless said. `CUTOFF` is the radius at which the systems are what their names say.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from ase import Atoms

CUTOFF = 4.2


def _scattered(n: int, cell: np.ndarray, seed: int, numbers: tuple[int, ...] = (1, 6, 7, 8)) -> tuple:
    """n atoms on randomly chosen, jittered points of a grid in the cell: random, but never too close."""
    rng = np.random.default_rng(seed)
    lengths = np.linalg.norm(cell, axis=1)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    points = np.maximum(np.floor(heights / 1.3), 1).astype(int)
    while points.prod() < n:
        points[np.argmax(lengths / points)] += 1
    sites = np.array(list(product(*(range(m) for m in points))), dtype=float)
    sites = sites[rng.permutation(len(sites))[:n]]
    sites += 0.5 + 0.2 * rng.uniform(-1, 1, sites.shape)
    return rng.choice(numbers, n), sites / points @ cell


def _periodic(n: int, cell, pbc, seed: int) -> Atoms:
    cell = np.asarray(cell, dtype=float)
    cell = np.diag(cell) if cell.ndim == 1 else cell
    numbers, positions = _scattered(n, cell, seed)
    return Atoms(numbers, positions, cell=cell, pbc=pbc)


def water_molecule() -> Atoms:
    return Atoms("OHH", [[0.1, 0.0, 0.2], [0.86, 0.59, 0.2], [-0.66, 0.59, 0.2]])


def water_box(n_side: int = 4, seed: int = 1) -> Atoms:
    """n_side^3 water molecules at the density of the liquid, randomly turned, periodic."""
    rng = np.random.default_rng(seed)
    spacing = 3.105
    sites = np.array(list(product(range(n_side), repeat=3)), dtype=float)
    oxygen = (sites + 0.5 + 0.05 * rng.uniform(-1, 1, sites.shape)) * spacing
    monomer = water_molecule().positions - water_molecule().positions[0]
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in sites]
    positions = np.concatenate([o + monomer @ turn for o, turn in zip(oxygen, turns)])
    return Atoms(np.tile([8, 1, 1], len(sites)), positions, cell=[n_side * spacing] * 3, pbc=True)


def molecule() -> Atoms:
    numbers, positions = _scattered(21, np.diag([7.0, 6.0, 5.0]), seed=2)
    return Atoms(numbers, positions)


def large_cluster() -> Atoms:
    """Not periodic, and large enough for bins."""
    numbers, positions = _scattered(700, np.diag([20.0, 14.0, 30.0]), seed=3)
    return Atoms(numbers, positions - 8.0)


def unwrapped() -> Atoms:
    """Atoms several cells away from the cell they belong to, each in its own."""
    atoms = triclinic()
    turns = np.random.default_rng(4).integers(-3, 4, (len(atoms), 3))
    atoms.positions += turns @ atoms.cell.array
    return atoms


def triclinic() -> Atoms:
    return _periodic(24, [[7.0, 0.3, -0.4], [2.9, 6.4, 0.2], [-2.2, 2.6, 7.3]], True, seed=5)


def strongly_skewed() -> Atoms:
    return _periodic(6, [[4.0, 0.0, 0.0], [7.1, 3.5, 0.0], [-6.0, 5.0, 4.5]], True, seed=6)


def slab() -> Atoms:
    return _periodic(40, [[8.0, 0.0, 0.0], [1.5, 7.0, 0.0], [0.0, 0.0, 9.0]], (True, True, False), seed=7)


def slab_without_third_vector() -> Atoms:
    atoms = slab()
    atoms.cell[2] = 0.0
    return atoms


def wire() -> Atoms:
    return _periodic(14, [[9.0, 0.0, 0.0], [0.4, 5.0, 0.3], [0.0, 0.0, 9.0]], (False, True, False), seed=8)


def wire_without_other_vectors() -> Atoms:
    atoms = wire()
    atoms.cell[0], atoms.cell[2] = 0.0, 0.0
    return atoms


def small_cell() -> Atoms:
    """Every cell vector shorter than the cutoff, left-handed."""
    return _periodic(2, [[0.0, 2.4, 0.2], [2.7, 0.1, 0.4], [0.3, -0.2, 2.05]], True, seed=9)


def flat_cell() -> Atoms:
    """Long in two directions, far shorter than the cutoff in the third."""
    return _periodic(12, [11.0, 10.0, 1.43], True, seed=10)


def self_images_only() -> Atoms:
    return Atoms("Ar", [[0.3, 5.0, -7.0]], cell=[[2.13, 0.0, 0.0], [0.4, 2.3, 0.0], [-0.3, 0.2, 2.2]], pbc=True)


def single_atom() -> Atoms:
    return Atoms("C", [[1.0, 2.0, 3.0]])


def no_neighbors() -> Atoms:
    return Atoms("HHe", [[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]], cell=[100.0] * 3, pbc=True)


def two_far_clusters() -> Atoms:
    """Empty space between that must not cost bins."""
    atoms = large_cluster()
    atoms.positions[350:] += 1e6
    return atoms


def on_the_faces() -> Atoms:
    """Atoms on faces, edges and corners of the cell, where wrapping is decided by rounding."""
    scaled = np.array([[0.0, 0.0, 0.0], [1.0, 0.5, 0.0], [-1e-17, 0.25, 0.5], [0.5, 1.0 - 1e-16, 1.0]])
    cell = np.array([[5.0, 0.1, 0.0], [-0.7, 5.3, 0.2], [0.3, 0.4, 6.1]])
    return Atoms("HCNO", scaled @ cell, cell=cell, pbc=True)


def empty() -> Atoms:
    return Atoms()


def empty_periodic() -> Atoms:
    return Atoms(cell=[3.0, 4.0, 5.0], pbc=True)


SYSTEMS: dict[str, Callable[[], Atoms]] = {
    function.__name__: function
    for function in (
        water_molecule,
        water_box,
        molecule,
        large_cluster,
        unwrapped,
        triclinic,
        strongly_skewed,
        slab,
        slab_without_third_vector,
        wire,
        wire_without_other_vectors,
        small_cell,
        flat_cell,
        self_images_only,
        single_atom,
        no_neighbors,
        two_far_clusters,
        on_the_faces,
        empty,
        empty_periodic,
    )
}


def mixed_batch() -> list[Atoms]:
    """All sizes and periodicities in one batch, empty structures first, in the middle and last."""
    names = [name for name in SYSTEMS if not name.startswith("empty")]
    half = len(names) // 2
    return [empty(), *(SYSTEMS[name]() for name in names[:half]), empty_periodic(),
            *(SYSTEMS[name]() for name in names[half:]), empty()]  # fmt: skip
