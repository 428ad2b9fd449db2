"""Energies and forces of all replicas with one neighbor list and one call of the network.

All replicas form one batch. Atomic numbers, periodicity and offsets never change and cells rarely do, so a step only
sets new positions. The mean of a committee drives the dynamics. The deviation between the members, that of the draws of
a single model, and the extrapolation grade are computed only on request, because few steps are recorded.

    deviation of the forces on an atom = sqrt(sum over xyz of the population variance over the members)   (P, figure S3)

For a single model the variance is the mean square difference of its draws from the model itself.

The order of pairs in a neighbor list depends on the positions where it was built, and so does the rounding of forces.
`forget` drops the list: two runs that call it at the same step do the same arithmetic from there on.

Not supported: forces that depend on the total charge (no energy head does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from gmcore.dynamics.machine import HOST, Array, Machine
from gmcore.dynamics.state import DynamicsError
from gmcore.engine.structures import Batch
from gmcore.model import Model


@dataclass(frozen=True, eq=False)
class ForceResult:
    """Energies and forces of every replica; for a committee the mean over its members.

    Attributes
    ----------
    energies : (n_replicas,) eV.
    forces : (n_replicas, n_atoms, 3) eV/A.
    stress : (n_replicas, 3, 3) eV/A^3, sym(dE/deps)/V; None if it was not requested.
    member_energies : (n_members, n_replicas) eV; None for a single model.
    member_forces : (n_members, n_replicas, n_atoms, 3) eV/A; None for a single model.
    draw : returns energies (n_draws, n_replicas) and forces (n_force_draws, n_replicas, n_atoms, 3) of the draws of a
        single model at the same positions; None for a model without draws.
    grade : returns the extrapolation grades of the replicas (n_replicas,) and of their atoms (n_replicas, n_atoms);
        None for a model that does not know its training data.
    deviation : (n_replicas, n_atoms) eV/A, `forces_deviation` where a GPU has computed it; else None.
    """

    energies: np.ndarray
    forces: np.ndarray
    stress: np.ndarray | None = None
    member_energies: np.ndarray | None = None
    member_forces: np.ndarray | None = None
    draw: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
    grade: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
    deviation: np.ndarray | None = None

    def energy_deviation(self) -> np.ndarray:
        """(n_replicas,) eV: deviation of the energy over members or draws; NaN for a model that has neither."""
        if self.member_energies is not None:
            return self.member_energies.std(axis=0)
        if self._drawn is not None:
            return np.sqrt(np.mean((self._drawn[0] - self.energies) ** 2, axis=0))
        return np.full(self.energies.shape, np.nan)

    def forces_deviation(self) -> np.ndarray:
        """(n_replicas, n_atoms) eV/A: deviation of the force on each atom over members or draws; NaN without both."""
        if self.deviation is not None:
            return self.deviation
        if self.member_forces is not None:
            return np.sqrt(self.member_forces.var(axis=0).sum(axis=-1))
        if self._drawn is not None:
            return np.sqrt(np.mean((self._drawn[1] - self.forces) ** 2, axis=0).sum(axis=-1))
        return np.full(self.forces.shape[:2], np.nan)

    @cached_property
    def extrapolation(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Grades of the replicas (n_replicas,) and of their atoms (n_replicas, n_atoms); None where not known."""
        return None if self.grade is None else self.grade()

    @cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray] | None:
        return None if self.draw is None else self.draw()


class Forces(Protocol):
    """What integrators need: `BatchForces`, `DeviceForces` on a GPU, or analytic forces.

    Attributes
    ----------
    machine : where positions and results are, and where the integrator runs.
    """

    @property
    def machine(self) -> Machine:
        """Return the machine."""

    def __call__(self, positions: Array, cells: np.ndarray, want_stress: bool = False) -> ForceResult:
        """Compute energies and forces at positions (n_replicas, n_atoms, 3) A in cells (n_replicas, 3, 3) A."""

    def terms(self, result: ForceResult) -> Array:
        """Return (n_terms, n_replicas, n_atoms, 3): `machine.force_factor` times their sum are the forces."""

    def forget(self) -> None:
        """Drop everything kept from earlier calls, such as a neighbor list."""


class HostForces:
    """What forces on the CPU have in common; they define `__call__`."""

    machine = HOST

    def terms(self, result: ForceResult) -> np.ndarray:
        """Return the forces themselves, as the only term."""
        return result.forces[None]

    def forget(self) -> None:
        """Do nothing: nothing is kept."""


class BatchForces(HostForces):
    """Forces of a model on replicas of one system.

    Parameters
    ----------
    model : a model that predicts an energy, on any device.
    numbers : (n_atoms,) atomic numbers, the same for all replicas.
    pbc : (3,) periodicity, the same for all replicas.
    n_replicas : number of replicas.
    skin : margin of the neighbor list, A; the list is reused until an atom has moved about half of it.

    Attributes
    ----------
    neighbors : the neighbor list; `neighbors.n_builds` counts how often it was built since the last `forget`.

    Raises
    ------
    DynamicsError : the model does not predict an energy, or there is no replica.
    UnknownElementError : the model does not know an element.
    NeighborError : the skin is negative or not finite.
    """

    def __init__(self, model: Model, numbers: ArrayLike, pbc: ArrayLike, n_replicas: int, skin: float = 1.0):
        if "energy" not in model.units:
            raise DynamicsError(
                f"the model for the dynamics must predict an energy, got a model of {', '.join(model.units)}"
            )
        if n_replicas < 1:
            raise DynamicsError(f"there must be at least one replica, got {n_replicas}")
        self._evaluator, self._skin = model.evaluator, float(skin)
        numbers = np.asarray(numbers, np.int32)
        model.species.index(numbers)
        self._numbers = np.tile(numbers, n_replicas)
        self._pbc = np.tile(np.asarray(pbc, bool), (n_replicas, 1))
        self._offsets = np.arange(n_replicas + 1, dtype=np.int64) * len(numbers)
        self._shape = (n_replicas, len(numbers), 3)
        self._batch: Batch | None = None
        self.forget()

    def forget(self) -> None:
        """Drop the neighbor list; the next call builds a new one."""
        self.neighbors = self._evaluator.neighbor_list(self._skin)

    def __call__(self, positions: np.ndarray, cells: np.ndarray, want_stress: bool = False) -> ForceResult:
        """Compute energies and forces, and the stress if `want_stress`.

        Parameters
        ----------
        positions : (n_replicas, n_atoms, 3) A.
        cells : (n_replicas, 3, 3) A, rows are the cell vectors.
        want_stress : also compute the stress.

        Raises
        ------
        DynamicsError : positions of another shape than at the start.
        StructureError : positions are not finite, or a cell has no volume.
        NeighborError : two atoms coincide.
        """
        if positions.shape != self._shape:
            raise DynamicsError(f"positions must have shape {self._shape}, got {positions.shape}")
        # a copy: integrators move atoms in place, and the result may be asked for deviations and grades afterwards
        batch = self._batch_at(np.array(positions, np.float64).reshape(-1, 3), cells)
        pairs = self.neighbors.update(batch)
        keys = ("energy", "forces", "stress") if want_stress else ("energy", "forces")
        members = self._evaluator.evaluate(batch, pairs, keys)
        energies, forces = members["energy"], members["forces"].reshape(-1, *self._shape)
        stress = members["stress"].mean(axis=0) if want_stress else None
        grade = None if self._evaluator.environments is None else lambda: self._grades(batch, pairs)
        if len(energies) > 1:
            return ForceResult(energies.mean(axis=0), forces.mean(axis=0), stress, energies, forces, grade=grade)
        draw = (lambda: self._draws(batch, pairs)) if self._evaluator.n_draws else None
        return ForceResult(energies[0], forces[0], stress, draw=draw, grade=grade)

    def _draws(self, batch: Batch, pairs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Energies and forces of the draws; see `ForceResult`."""
        keys = ("energy", "forces")
        found = self._evaluator.evaluate(batch, pairs, keys, draw_keys=keys)
        return found["energy_draws"], found["forces_draws"].reshape(-1, *self._shape)

    def _grades(self, batch: Batch, pairs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Extrapolation grades of the replicas and of their atoms; see `ForceResult`."""
        grades = self._evaluator.extrapolation(batch, pairs)
        return self._evaluator.environments.structure_grades(grades, batch.offsets), grades.reshape(self._shape[:2])

    def _batch_at(self, positions: np.ndarray, cells: np.ndarray) -> Batch:
        if self._batch is None or not np.array_equal(cells, self._batch.cells):
            # a copy: the caller may change cells in place
            self._batch = Batch(positions, self._numbers, np.array(cells, np.float64), self._pbc, self._offsets)
        else:
            self._batch = self._batch.with_positions(positions)
        return self._batch
