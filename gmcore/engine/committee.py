"""What the evaluators of every device have in common: the model, what it predicts, and where its heads stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gmcore.engine.consistency import check_model
from gmcore.engine.heads import output_units
from gmcore.engine.settings import HeadSettings, Member, ModelSettings
from gmcore.engine.stages import check_dtype
from gmcore.engine.structures import SpeciesTable
from gmcore.errors import GMError


class Committee:
    """Settings and members of a model, checked for consistency.

    Parameters
    ----------
    dtype : "float32" or "float64"; that of the settings if not given. Energies and positions are always float64.

    Attributes
    ----------
    units : dict, what is predicted and in which unit.
    species : SpeciesTable
    cutoff : float, A
    """

    def __init__(self, settings: ModelSettings, members: Sequence[Member], dtype: str | None = None):
        check_model(settings, members)
        self.settings, self.dtype = settings, check_dtype(dtype or settings.dtype)
        self.units = output_units(settings.heads)
        self.species = SpeciesTable(settings.descriptor.species)
        self.cutoff = float(settings.descriptor.r_max)
        self._members = list(members)

    @property
    def n_members(self) -> int:
        """Size of the committee."""
        return len(self._members)

    @property
    def members(self) -> list[Member]:
        """Parameters of each member."""
        return list(self._members)

    def check_keys(self, keys: Iterable[str] | None) -> tuple[str, ...]:
        """The outputs asked for, all of them for None; one that the model lacks raises GMError."""
        if keys is None:
            return tuple(self.units)
        keys = (keys,) if isinstance(keys, str) else tuple(keys)
        for key in keys:
            if key not in self.units:
                raise GMError(f"this model predicts {', '.join(self.units)}, it cannot predict {key!r}")
        return keys

    def _columns(self) -> Iterator[tuple[HeadSettings, slice]]:
        """Heads with the columns of the network's outputs that are theirs."""
        start = 0
        for head in self.settings.heads:
            yield head, slice(start, start + head.width)
            start += head.width

    def _table(self, by_head: dict[str, np.ndarray]) -> np.ndarray:
        """Scale or shift of every species and network output, (n_species, n_outputs) float64."""
        return np.concatenate([by_head[head.name] for head in self.settings.heads], axis=1).astype(np.float64)

    def energy_columns(self) -> np.ndarray:
        """(n_outputs,) bool: which outputs of the network add up to the energy."""
        chosen = np.zeros(sum(head.width for head in self.settings.heads), bool)
        for head, columns in self._columns():
            chosen[columns] = head.kind == "energy"
        return chosen
