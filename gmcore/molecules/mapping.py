"""Mapping of the atoms of one molecule to those of another: same bonds, same elements, most similar geometry.

A mapping is an isomorphism of the bond graphs. Molecules have many: every methyl group alone multiplies their number
by 6. So the search is divided:

1. Terminal atoms are removed repeatedly, as long as the rest, the core, still defines an orientation (three or more
   atoms that are not on a line). An atom keeps the branch that was removed from it as part of its label.
2. Every isomorphism of the two cores is searched (VF2 of networkx) and superposed by the best proper rotation
   (Kabsch). A core's squared error is a lower bound of the whole molecule's, so the cores are tried in
   ascending order until that bound exceeds the best molecule found.
3. Under a superposed core, equal branches of one atom are assigned by the least sum of squared distances, from the
   core outwards; superposition of all atoms and assignment are repeated until nothing changes.

Step 2 is exhaustive, step 3 a local optimum: a branch far from the core that swings widely may be assigned to
an equivalent one that is not the nearest. It is still an isomorphism; a model of energies or tensors gives the same.

Only proper rotations count: of two mirror images one is mapped with a large RMSD, or onto its own mirror image atoms.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import islice

import numpy as np

from gmcore.errors import GMError
from gmcore.molecules.bonds import Bonds
from gmcore.molecules.superposition import best_rotations

MAX_ISOMORPHISMS = 20_000
"""Largest number of core isomorphisms that are tried; more take minutes."""
MAX_SWEEPS = 10
LINE = 0.3
"""Width, A, below which a set of atoms counts as lying on a line."""


class MappingError(GMError):
    """Molecules whose atoms cannot be mapped onto each other."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A whole molecule: numbers (n_atoms,), positions (n_atoms, 3) A, bonds between its atoms."""

    numbers: np.ndarray
    positions: np.ndarray
    bonds: Bonds

    def neighbors(self) -> list[list[int]]:
        """Return the bonded atoms of each atom."""
        neighbors: list[list[int]] = [[] for _ in range(len(self.numbers))]
        for i, j in self.bonds.pairs.tolist():
            neighbors[i].append(j)
            neighbors[j].append(i)
        return neighbors


def map_atoms(reference: Skeleton, molecule: Skeleton) -> tuple[np.ndarray, float]:
    """Return the atom of `molecule` for each atom of `reference` (n_atoms,) int64, and the RMSD, A.

    Raises
    ------
    MappingError : the formulas or bonds differ, or there are more than MAX_ISOMORPHISMS ways to map the cores.
    """
    _check_formula(reference.numbers, molecule.numbers)
    n_layers, core, branches = _strip(reference, None)
    _, other_core, other_branches = _strip(molecule, n_layers)
    cores = _core_maps(reference, core, branches, molecule, other_core, other_branches)
    targets = np.array(core)
    errors = best_rotations(molecule.positions[cores], reference.positions[targets])[1]
    best, least = np.zeros(0, np.int64), np.inf
    for k in np.argsort(errors, kind="stable"):
        if errors[k] >= least:
            break
        order, error = _grown(reference, branches, molecule, other_branches, targets, cores[k])
        if error < least:
            best, least = order, error
    return best, float(np.sqrt(least / len(best)))


@dataclass(frozen=True, eq=False)
class _Branches:
    """What hangs on each atom: children further out, and a text that is equal for equal branches."""

    children: list[list[int]]
    signatures: list[str]


def _strip(skeleton: Skeleton, n_layers: int | None) -> tuple[int, list[int], _Branches]:
    """Take off layers of terminal atoms, `n_layers` or as many as leave a core that fixes an orientation."""
    neighbors = skeleton.neighbors()
    core = set(range(len(skeleton.numbers)))
    children: list[list[int]] = [[] for _ in core]
    signatures = [str(number) for number in skeleton.numbers.tolist()]
    layer = 0
    while n_layers is None or layer < n_layers:
        leaves = [i for i in sorted(core) if len(core.intersection(neighbors[i])) == 1]
        rest = core.difference(leaves)
        if not leaves or (n_layers is None and not _fixes_orientation(skeleton.positions[sorted(rest)])):
            break
        for leaf in leaves:
            (parent,) = core.intersection(neighbors[leaf])
            children[parent].append(leaf)
        for parent in {parent for leaf in leaves for parent in core.intersection(neighbors[leaf])}:
            inside = ",".join(sorted(signatures[child] for child in children[parent]))
            signatures[parent] = f"{skeleton.numbers[parent]}({inside})"
        core, layer = rest, layer + 1
    return layer, sorted(core), _Branches(children, signatures)


def _fixes_orientation(positions: np.ndarray) -> bool:
    if len(positions) < 3:
        return False
    return bool(np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)[1] > LINE)


def _core_maps(
    reference: Skeleton,
    core: list[int],
    branches: _Branches,
    molecule: Skeleton,
    other_core: list[int],
    other_branches: _Branches,
) -> np.ndarray:
    """Return all core isomorphisms (n_maps, n_core): the atoms of `molecule` for `core`."""
    from networkx.algorithms.isomorphism import GraphMatcher, categorical_node_match

    target = _graph(reference, core, branches)
    matcher = GraphMatcher(target, _graph(molecule, other_core, other_branches), categorical_node_match("label", None))
    maps = [[found[i] for i in core] for found in islice(matcher.isomorphisms_iter(), MAX_ISOMORPHISMS + 1)]
    if len(maps) > MAX_ISOMORPHISMS:
        raise MappingError(
            f"a molecule must have at most {MAX_ISOMORPHISMS} ways to map its {len(core)} core atoms onto the "
            "reference, got more: the molecule is too symmetric for this search"
        )
    if not maps:
        raise MappingError(f"the molecule must have the bonds of the reference, got {_difference(reference, molecule)}")
    return np.array(maps, dtype=np.int64)


def _graph(skeleton: Skeleton, core: list[int], branches: _Branches):
    from networkx import Graph

    graph = Graph()
    graph.add_nodes_from((i, {"label": branches.signatures[i]}) for i in core)
    inside = set(core)
    graph.add_edges_from((i, j) for i, j in skeleton.bonds.pairs.tolist() if i in inside and j in inside)
    return graph


def _grown(
    reference: Skeleton,
    branches: _Branches,
    molecule: Skeleton,
    other_branches: _Branches,
    core: np.ndarray,
    mapped: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return the mapping (n_atoms,) of all atoms that continues one of the core, and its squared error, A^2."""
    order = np.full(len(reference.numbers), -1, dtype=np.int64)
    order[core] = mapped
    placed = core
    for _ in range(MAX_SWEEPS):
        before = order.copy()
        rotation, _ = best_rotations(molecule.positions[order[placed]], reference.positions[placed])
        rotated = (molecule.positions - molecule.positions[order[placed]].mean(axis=0)) @ rotation.T
        rotated += reference.positions[placed].mean(axis=0)
        stack = core.tolist()
        while stack:
            parent = stack.pop()
            _assign_children(parent, order, reference.positions, rotated, branches, other_branches)
            stack += branches.children[parent]
        placed = np.arange(len(order))
        if np.array_equal(order, before):
            break
    return order, float(best_rotations(molecule.positions[order], reference.positions)[1])


def _assign_children(
    parent: int,
    order: np.ndarray,
    targets: np.ndarray,
    rotated: np.ndarray,
    branches: _Branches,
    other_branches: _Branches,
) -> None:
    """Fill `order` for the atoms that hang on `parent`: among equal branches the least squared distances."""
    from scipy.optimize import linear_sum_assignment

    alike: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for child in branches.children[parent]:
        alike[branches.signatures[child]][0].append(child)
    for child in other_branches.children[order[parent]]:
        alike[other_branches.signatures[child]][1].append(child)
    for ours, theirs in alike.values():
        distances2 = np.sum((targets[ours][:, None] - rotated[theirs][None]) ** 2, axis=-1)
        _, chosen = linear_sum_assignment(distances2)
        order[ours] = np.array(theirs)[chosen]


def _check_formula(expected: np.ndarray, numbers: np.ndarray) -> None:
    if not np.array_equal(np.sort(expected), np.sort(numbers)):
        from ase.formula import Formula
        from ase.symbols import Symbols

        wanted, got = (Formula(str(Symbols(np.sort(z)))).format("hill") for z in (expected, numbers))
        raise MappingError(f"the molecule must have the formula of the reference, {wanted}, got {got}")


def _difference(reference: Skeleton, molecule: Skeleton) -> str:
    counts, found = (_bond_counts(skeleton) for skeleton in (reference, molecule))
    different = [
        f"{found[kind]} instead of {counts[kind]} {kind}"
        for kind in sorted(counts | found)
        if counts[kind] != found[kind]
    ]
    return ", ".join(different) or "the same kinds of bonds, connected differently"


def _bond_counts(skeleton: Skeleton) -> Counter[str]:
    from ase.data import chemical_symbols

    numbers = skeleton.numbers[skeleton.bonds.pairs].tolist()
    return Counter("-".join(sorted((chemical_symbols[a], chemical_symbols[b]))) for a, b in numbers)
