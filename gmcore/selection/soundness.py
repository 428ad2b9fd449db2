"""Structures that are physically broken, and how they are: no reference calculation should be spent on them.

    overlap        two atoms closer than 0.6 times the sum of their covalent radii
    broken bond    a bond of the starting structure of a run longer than 1.6 times its length there
    atom that left an atom with no other one within twice the sum of the covalent radii (never a noble gas)

Bonds and radii are those of `gmcore.molecules.bonds`. Structures of a file have no starting structure, so that bonds
are not looked at there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from gmcore.engine.neighbors import NeighborError, build_pairs
from gmcore.engine.structures import Batch, StructureError
from gmcore.molecules.bonds import bonded_pairs

OVERLAP = 0.6
STRETCHED = 1.6
LEFT = 2.0
NOBLE_GASES = (2, 10, 18, 36, 54, 86)
BATCH_ATOMS = 8192


def bond_faults(start: Atoms, positions: np.ndarray, cells: np.ndarray) -> list[str]:
    """Return for each frame which bond of the starting structure is broken most; empty where none is.

    Parameters
    ----------
    start : the starting structure.
    positions, cells : (n, n_atoms, 3) and (n, 3, 3), A, not wrapped since the start.
    """
    bonds = bonded_pairs(start)
    if not len(bonds.pairs):
        return [""] * len(positions)
    lengths = bonds.lengths(start.positions[None], start.cell.array[None])
    stretches = bonds.lengths(positions, cells) / lengths
    worst = stretches.argmax(axis=1)
    return [
        f"the bond {' - '.join(_atom(start, i) for i in bonds.pairs[bond])} is {row[bond]:.3g} times as long as at "
        "the start"
        if row[bond] > STRETCHED
        else ""
        for bond, row in zip(worst, stretches)
    ]


def contact_faults(frames: Sequence[Atoms]) -> list[str]:
    """Return for each frame which atoms overlap, or which atom has left; empty where the frame is sound."""
    found: list[str] = []
    ends = np.cumsum([len(frame) for frame in frames])
    first = 0
    while first < len(frames):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + BATCH_ATOMS, side="right")), first + 1)
        found += _checked(frames[first:last])
        first = last
    return found


def _checked(frames: Sequence[Atoms]) -> list[str]:
    try:
        return _contacts(frames)
    except (StructureError, NeighborError) as error:  # atoms in one place, or numbers that are not finite
        if len(frames) == 1:
            return [" ".join(str(error).split())]
    return [fault for frame in frames for fault in _checked([frame])]


def _contacts(frames: Sequence[Atoms]) -> list[str]:
    """As `contact_faults` for one batch, from the nearest neighbor of every atom in units of the sum of the radii."""
    batch = Batch.from_atoms(frames)
    faults = [""] * len(frames)
    if not batch.n_atoms:
        return faults
    radii = covalent_radii[batch.numbers]
    pairs = build_pairs(batch, 2.0 * LEFT * float(radii.max()))
    first, second = pairs.center, pairs.neighbor
    vectors = batch.positions[second] - batch.positions[first] + pairs.displacements(batch.cells)[pairs.shift]
    distances = np.linalg.norm(vectors, axis=1)
    ratios = np.append(distances / (radii[first] + radii[second]), np.inf)
    nearest = np.minimum.reduceat(ratios, np.minimum(pairs.row_start[:-1], len(distances)))
    nearest[np.diff(pairs.row_start) == 0] = np.inf
    lonely = (nearest > LEFT) & ~np.isin(batch.numbers, NOBLE_GASES)
    for k, (start, end) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:])):
        if end - start > 1 and lonely[start:end].any():
            atom = int(np.argmax(lonely[start:end]))
            faults[k] = f"atom {_atom(frames[k], atom)} has left: no other atom is near it"
    close = np.flatnonzero((ratios[:-1] < OVERLAP) & (first <= second))
    for pair in close[np.argsort(-ratios[close], kind="stable")]:  # the worst comes last and stays
        k = int(np.searchsorted(batch.offsets, first[pair], side="right")) - 1
        names = [_atom(frames[k], int(atom - batch.offsets[k])) for atom in (first[pair], second[pair])]
        faults[k] = f"the atoms {' and '.join(names)} overlap: {distances[pair]:.3g} A"
    return faults


def _atom(atoms: Atoms, index: int) -> str:
    return f"{chemical_symbols[atoms.numbers[index]]} {index}"
