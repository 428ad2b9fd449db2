"""Geometry along a run: the mean metal-ligand distance, the tetrahedral order, bonds and angles that were asked for.

The molecule is the one that D was computed for, in the order of its model; in a run without D the whole structure,
where it is not periodic. The central atom is the one that the settings name, else the only d- or f-block metal; its
ligands are found in the first frame. What cannot be found is said in a sentence, it does not end the analysis; what was
named by the user and is not there does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from gmcore.analysis.geometry import angles, coordination_shell, distances, mean_bond_length, tetrahedral_order
from gmcore.analysis.samples import Samples
from gmcore.config.analysis import Analysis
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import GMError
from gmcore.molecules.superposition import GeometryError

METALS = frozenset((*range(21, 31), *range(39, 49), *range(57, 81), *range(89, 113)))


class SelectionError(GMError):
    """Atoms that were named and do not exist, or a molecule that cannot be had."""


@dataclass(frozen=True)
class Measure:
    """A number of every frame: name in the results, words, unit."""

    name: str
    words: str
    unit: str
    pairs: tuple[tuple[int, ...], ...] = field(default=())


@dataclass(frozen=True)
class Coordination:
    """The central atom and its ligands, indices in the molecule; both None where there is no such atom."""

    metal: int | None
    ligands: tuple[int, ...]
    measures: tuple[Measure, ...]
    missing: dict[str, str]

    def values(self, measure: Measure, positions: np.ndarray) -> np.ndarray:
        """(n,) values of a measure in frames (n, n_atoms, 3) A."""
        if measure.name == "distance":
            return mean_bond_length(positions, self.metal, self.ligands)
        if measure.name == "order":
            return tetrahedral_order(positions, self.metal, self.ligands)
        of = distances if len(measure.pairs[0]) == 2 else angles
        return of(positions, measure.pairs)[:, 0]


def first_molecule(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray] | None:
    """Return numbers and positions (n_atoms, 3), A, of the (first) molecule at the beginning of a run, None where there
    is none to look at.
    """
    if "molecule_position" in trajectory.names():
        return trajectory.molecule_numbers, trajectory.values("molecule_position", 0, stop=1)[0, 0]
    if trajectory.pbc.any() or "position" not in trajectory.names():
        return None
    return trajectory.numbers, trajectory.values("position", 0, stop=1)[0]


def molecule_positions(samples: Samples) -> np.ndarray:
    """Return positions (n_series, n, n_atoms, 3), A, of whole molecules, n_series as for D."""
    if "molecule_position" in samples:
        return samples.molecules("molecule_position")
    return samples.series("position")


def coordination(numbers: np.ndarray, frame: np.ndarray, settings: Analysis) -> Coordination:
    """Find the central atom and its ligands in the first frame (n_atoms, 3), A.

    Raises
    ------
    SelectionError : a metal, ligand, bond or angle that was named and is not there.
    """
    symbols = [chemical_symbols[z] for z in numbers]
    for atoms in (*settings.bonds, *settings.angles):
        _check_indices(atoms, len(numbers))
    measures = [
        Measure(name := "-".join(f"{symbols[i]}{i}" for i in atoms), f"{kind} {name}", unit, (atoms,))
        for kind, unit, lists in (("distance", "A", settings.bonds), ("angle", "deg", settings.angles))
        for atoms in lists
    ]
    metal, missing = _metal(numbers, settings.metal), {}
    if metal is None:
        missing["distance"] = missing["order"] = (
            "The molecule has no single d- or f-block atom; name the central atom (analysis.metal)"
        )
        return Coordination(None, (), tuple(measures), missing)
    try:
        ligands = _ligands(numbers, frame, metal, settings.ligands)
    except GeometryError as error:
        missing["distance"] = missing["order"] = f"The first shell cannot be found: {error}"
        return Coordination(metal, (), tuple(measures), missing)
    shell = f"{symbols[metal]}-{'/'.join(sorted({symbols[i] for i in ligands}))}"
    found = [Measure("distance", f"mean {shell} distance", "A")]
    if len(ligands) == 4:
        found.append(Measure("order", "tetrahedral order q", ""))
    else:
        missing["order"] = f"The tetrahedral order needs four ligands, {symbols[metal]} has {len(ligands)}"
    return Coordination(metal, ligands, (*found, *measures), missing)


def _metal(numbers: np.ndarray, asked: str | int | None) -> int | None:
    if isinstance(asked, int):
        _check_indices((asked,), len(numbers))
        return asked
    if asked is None:
        candidates = np.flatnonzero(np.isin(numbers, list(METALS)))
        return int(candidates[0]) if len(candidates) == 1 else None
    candidates = np.flatnonzero(numbers == atomic_numbers[asked])
    if len(candidates) != 1:
        raise SelectionError(f"analysis.metal must name one atom, the molecule has {len(candidates)} of {asked}")
    return int(candidates[0])


def _ligands(numbers: np.ndarray, frame: np.ndarray, metal: int, asked: list[str | int] | None) -> tuple[int, ...]:
    if asked is None:
        return tuple(int(i) for i in coordination_shell(numbers, frame, metal))
    ligands: list[int] = []
    for entry in asked:
        if isinstance(entry, int):
            _check_indices((entry,), len(numbers))
            ligands.append(entry)
        else:
            shell = coordination_shell(numbers, frame, metal)
            of_element = [int(i) for i in shell if numbers[i] == atomic_numbers[entry]]
            if not of_element:
                raise SelectionError(f"analysis.ligands names {entry}, the first shell of the metal has none")
            ligands += of_element
    ligands = list(dict.fromkeys(ligands))
    if metal in ligands:
        raise SelectionError(f"analysis.ligands must not name the central atom itself, got {metal}")
    return tuple(ligands)


def _check_indices(atoms: tuple[int, ...], n_atoms: int) -> None:
    if max(atoms) >= n_atoms:
        raise SelectionError(f"indices must lie between 0 and {n_atoms - 1} in this molecule, got {max(atoms)}")
