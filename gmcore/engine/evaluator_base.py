"""What the evaluators of both machines share: the model, what it predicts, where its heads stand, stress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gmcore.engine.consistency import check_model
from gmcore.engine.heads import head_columns, output_units
from gmcore.engine.neighbors import Pairs
from gmcore.engine.settings import Member, ModelSettings
from gmcore.engine.stages import check_dtype
from gmcore.engine.structures import Batch, SpeciesTable
from gmcore.errors import GMError


class AtomicEnergies(NamedTuple):
    """Energies of the centers of a batch, and what their sum does to all its atoms.

    Attributes
    ----------
    energies : (n_members, n_centers) float64, eV.
    forces : (n_members, n_atoms, 3) eV/A, minus the gradient of the sum of these energies.
    strain : (n_members, n_structures, 3, 3) eV, symmetric derivative of the sum in strain: minus the virial.
    drawn_forces : (n_force_draws, n_atoms, 3) eV/A, changes of the forces of a single model by the draws of its last
        layer; None where not wanted or without draws.
    grades : (n_centers,) extrapolation grades; None where not wanted or not known.
    """

    energies: np.ndarray
    forces: np.ndarray
    strain: np.ndarray
    drawn_forces: np.ndarray | None
    grades: np.ndarray | None


class EvaluatorBase(ABC):
    """Settings and members of a model, checked for consistency, and tables that are made of them once.

    Parameters
    ----------
    dtype : "float32" or "float64"; that of the settings if not given. Energies and positions are always float64.

    Attributes
    ----------
    units : dict, what is predicted and in which unit.
    species : SpeciesTable
    cutoff : float, A
    batch_atoms : int, atoms evaluated together; bounds the memory, whatever the number of structures.
    matmul : "float32" or "tf32", precision of float32 matrix products.
    environments : what tells how far an atom is from the training data (`gmcore.uncertainty.environments`), or None.
    n_draws : draws of the last layer that stand in for members; 0 for a committee.
    """

    batch_atoms: int
    matmul = "float32"
    environments: Any = None
    n_draws = 0

    def __init__(self, settings: ModelSettings, members: Sequence[Member], dtype: str | None = None):
        check_model(settings, members)
        self.settings, self.dtype = settings, check_dtype(dtype or settings.dtype)
        self.units = output_units(settings.heads)
        self.species = SpeciesTable(settings.descriptor.species)
        self.cutoff = float(settings.descriptor.r_max)
        self._members = list(members)

    @property
    def n_members(self) -> int:
        """Number of models in the committee."""
        return len(self._members)

    @property
    def members(self) -> list[Member]:
        """Parameters of each member."""
        return list(self._members)

    @abstractmethod
    def find_pairs(self, batch: Batch) -> Any:
        """Return all pairs of a batch within the cutoff, for `evaluate`."""

    @abstractmethod
    def neighbor_list(self, skin: float) -> Any:
        """Return a neighbor list for a trajectory, reused until atoms have moved half the skin (A)."""

    @abstractmethod
    def evaluate(
        self,
        batch: Batch,
        pairs: Any,
        keys: Iterable[str] | None = None,
        total_charge: np.ndarray | None = None,
        draw_keys: Iterable[str] = (),
        want_extrapolation: bool = False,
    ) -> dict[str, np.ndarray]:
        """Return the outputs of every member, on the host; see `gmcore.engine.evaluator.Evaluator.evaluate`."""

    def evaluate_centers(
        self, batch: Batch, pairs: Pairs, want_deviations: bool = False, want_extrapolation: bool = False
    ) -> AtomicEnergies:
        """Evaluate the atoms that this process owns; the others of the batch are neighbors only.

        This is what a domain of a parallel engine needs: its own atoms first, then its ghosts, in a batch without
        periodicity. The forces on ghosts belong to their owners, who add them to their own.

        Parameters
        ----------
        batch : own atoms first.
        pairs : all pairs within the cutoff of the own atoms, as `Pairs.of_first` gives them.
        want_deviations : also the forces of the draws of a single model.
        want_extrapolation : also the grades of the own atoms.

        Raises
        ------
        UnknownElementError : an element the model does not know.
        GMError : the model predicts no energy.
        NotImplementedError : on a device that cannot do this.
        """
        raise NotImplementedError

    def evaluate_vectors(self, species: Any, row_start: Any, neighbor_species: Any, vectors: Any) -> tuple[Any, Any]:
        """Evaluate atoms whose surroundings are given as vectors to their neighbors, which need not be known as atoms.

        Arrays are on the device of the evaluator; the pairs of center i are row_start[i] <= p < row_start[i + 1].

        Parameters
        ----------
        species : (n_centers,) int32, species index of each center.
        row_start : (n_centers + 1,) int64.
        neighbor_species : (n_pairs,) int32.
        vectors : (n_pairs, 3) float64 A, d_p from a center to a neighbor. Longer ones than the cutoff do no harm.

        Returns
        -------
        energies (n_centers,) eV, and the derivative of their sum in each d_p, (n_pairs, 3) eV/A; float64, the mean over
        the members.

        Raises
        ------
        GMError : the model predicts no energy.
        """
        raise NotImplementedError

    def extrapolation(self, batch: Batch, pairs: Any) -> np.ndarray:
        """Return the extrapolation grades (n_atoms,), where `environments` are known."""
        raise NotImplementedError

    def check_keys(self, keys: Iterable[str] | None) -> tuple[str, ...]:
        """The outputs asked for, all of them for None; one that the model lacks raises GMError."""
        if keys is None:
            return tuple(self.units)
        keys = (keys,) if isinstance(keys, str) else tuple(keys)
        for key in keys:
            if key not in self.units:
                raise GMError(f"this model predicts {', '.join(self.units)}, it cannot predict {key!r}")
        return keys

    def scale_and_shift(self, member: Member) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift of every species and network output, (n_species, n_outputs) float64 each."""
        tables = (member.scale, member.shift)
        scale, shift = (np.concatenate([table[head.name] for head in self.settings.heads], axis=1) for table in tables)
        return scale.astype(np.float64), shift.astype(np.float64)

    def energy_scale(self, scale: np.ndarray) -> np.ndarray:
        """dE/dy (..., n_outputs): the scale where an output adds up to the energy, 0 elsewhere."""
        return np.where(self.energy_columns(), scale, 0.0)

    def energy_columns(self) -> np.ndarray:
        """(n_outputs,) bool: which outputs of the network add up to the energy."""
        chosen = np.zeros(sum(head.n_outputs for head in self.settings.heads), bool)
        for head, columns in head_columns(self.settings.heads):
            chosen[columns] = head.kind == "energy"
        return chosen


def stress(g_strain: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Stress 0.5 (g + g^T)/V, eV/A^3, of g = dE/dstrain (..., n_structures, 3, 3), eV; NaN where V (A^3) is NaN."""
    return 0.5 * (g_strain + g_strain.swapaxes(-2, -1)) / volumes[:, None, None]
