"""Geometry along a run: mean metal-ligand distance, tetrahedral order, and the bonds and angles of the settings.

The molecule is the one that D was computed for, in the order of its model. In a run without D it is the whole
structure, if that is not periodic. The central atom is the one named in the settings, else the only d- or f-block
metal; its ligands are found in the first frame. If they cannot be found, a sentence says so and the analysis goes on.
An atom that is named in the settings and does not exist is an error.
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
    """Atoms in the settings that the molecule does not have."""


@dataclass(frozen=True)
class Measure:
    """A number computed for every frame.

    Attributes
    ----------
    name : name in the results.
    words : description.
    unit : A, deg or none.
    pairs : atom indices of a bond or an angle; empty for the shell of the metal.
    """

    name: str
    words: str
    unit: str
    pairs: tuple[tuple[int, ...], ...] = field(default=())


@dataclass(frozen=True)
class Coordination:
    """The central atom, its ligands, and what is measured.

    Attributes
    ----------
    metal : index in the molecule; None if there is no such atom.
    ligands : indices in the molecule.
    measures : what is computed for every frame.
    missing : name of a measure -> sentence that says why it is not computed.
    """

    metal: int | None
    ligands: tuple[int, ...]
    measures: tuple[Measure, ...]
    missing: dict[str, str]

    def values(self, measure: Measure, positions: np.ndarray) -> np.ndarray:
        """Return the values (n,) of a measure in frames (n, n_atoms, 3) A."""
        if self.metal is not None and measure.name == "distance":
            return mean_bond_length(positions, self.metal, self.ligands)
        if self.metal is not None and measure.name == "order":
            return tetrahedral_order(positions, self.metal, self.ligands)
        of = distances if len(measure.pairs[0]) == 2 else angles
        return of(positions, measure.pairs)[:, 0]


def first_molecule(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray] | None:
    """Return numbers (n_atoms,) and positions (n_atoms, 3), A, of the first molecule at the beginning of a run.

    The result is None if no molecule is known.
    """
    if "molecule_position" in trajectory.names():
        return trajectory.molecule_numbers, trajectory.values("molecule_position", 0, stop=1)[0, 0]
    if trajectory.pbc.any() or "position" not in trajectory.names():
        return None
    return trajectory.numbers, trajectory.values("position", 0, stop=1)[0]


def molecule_positions(samples: Samples) -> np.ndarray:
    """Return positions (n_series, n, n_atoms, 3), A, of whole molecules, in the same series as D."""
    if "molecule_position" in samples:
        return samples.molecules("molecule_position")
    return samples.series("position")


def coordination(numbers: np.ndarray, frame: np.ndarray, settings: Analysis) -> Coordination:
    """Find the central atom and its ligands in the first frame.

    Parameters
    ----------
    numbers : (n_atoms,) atomic numbers.
    frame : (n_atoms, 3) A.
    settings : atoms named by the user.

    Raises
    ------
    SelectionError : if the molecule does not have a metal, ligand, bond or angle that the settings name.
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
            "The molecule has no single d- or f-block atom; name the central atom with analysis.metal"
        )
        return Coordination(None, (), tuple(measures), missing)
    try:
        ligands = _ligands(numbers, frame, metal, settings.ligands)
    except GeometryError as error:
        missing["distance"] = missing["order"] = f"The first shell of the metal cannot be found: {error}"
        return Coordination(metal, (), tuple(measures), missing)
    shell = f"{symbols[metal]}-{'/'.join(sorted({symbols[i] for i in ligands}))}"
    found = [Measure("distance", f"mean {shell} distance", "A")]
    if len(ligands) == 4:
        found.append(Measure("order", "tetrahedral order q", ""))
    else:
        missing["order"] = f"The tetrahedral order needs four ligands, but {symbols[metal]} has {len(ligands)}"
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
        raise SelectionError(
            f"analysis.metal must name one atom, but the molecule has {len(candidates)} of {asked}; give an index"
        )
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
                raise SelectionError(
                    f"analysis.ligands names {entry}, but the first shell of the metal has none; give indices"
                )
            ligands += of_element
    ligands = list(dict.fromkeys(ligands))
    if metal in ligands:
        raise SelectionError(f"analysis.ligands must not name the central atom itself, got {metal}")
    return tuple(ligands)


def _check_indices(atoms: tuple[int, ...], n_atoms: int) -> None:
    if max(atoms) >= n_atoms:
        raise SelectionError(
            f"indices of atoms must lie between 0 and {n_atoms - 1} in this molecule, got {max(atoms)}"
        )
