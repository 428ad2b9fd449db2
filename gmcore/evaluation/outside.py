"""What lies outside the training data, in words: structures, atoms, total charges and multiplicities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from gmcore.engine.structures import Batch
from gmcore.model import Model
from gmcore.quantities import GRADE, PER_ATOM_GRADE

STATED = {"total_charge": "total_charges", "multiplicity": "multiplicities"}
"""Keys of `Atoms.info` that a model cannot see, and the entries of the provenance with those of the training data."""
ATOMS = 3
"""Maximum number of atoms that are named."""


def stated_values(atoms: Iterable[Atoms]) -> dict[str, list[float]]:
    """Return the total charges and multiplicities that structures state: {"total_charges": [-2.0], ...}."""
    frames = list(atoms)
    found = {}
    for key, name in STATED.items():
        values = {float(frame.info[key]) for frame in frames if key in frame.info}
        if values:
            found[name] = sorted(values)
    return found


@dataclass
class Outside:
    """How many structures lie outside the training data, and in which way; may be counted in parts and added up.

    Attributes
    ----------
    total : structures that were looked at.
    outside : those with an extrapolation above 1.
    leading : of these, by the atom that is farthest from the training data: "Co 0".
    stated : how many structures state a total charge or a multiplicity, by its value.
    """

    total: int = 0
    outside: int = 0
    leading: Counter[str] = field(default_factory=Counter)
    stated: dict[str, Counter[float]] = field(default_factory=dict)

    @classmethod
    def count(cls, batch: Batch, info: Sequence[Mapping[str, Any]], values: Mapping[str, np.ndarray]) -> Outside:
        """Look at structures.

        Parameters
        ----------
        info : of each structure, with the keys of `STATED` where they are known.
        values : result of `Model.predict_arrays`.
        """
        found = cls(batch.n_structures)
        if GRADE in values:
            outside = np.flatnonzero(values[GRADE] > 1.0).tolist()
            found.outside = len(outside)
            for k in outside:
                own = slice(batch.offsets[k], batch.offsets[k + 1])
                place = int(np.argmax(values[PER_ATOM_GRADE][own]))
                found.leading[f"{chemical_symbols[batch.numbers[own][place]]} {place}"] += 1
        for key in STATED:
            found.stated[key] = Counter(float(entries[key]) for entries in info if entries.get(key) is not None)
        return found

    def __add__(self, other: Outside) -> Outside:
        """Return the counts of both."""
        stated = {key: self.stated.get(key, Counter()) + other.stated.get(key, Counter()) for key in STATED}
        return Outside(self.total + other.total, self.outside + other.outside, self.leading + other.leading, stated)

    def plain(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        stated = {key: [[value, n] for value, n in counts.items()] for key, counts in self.stated.items()}
        return {"total": self.total, "outside": self.outside, "leading": dict(self.leading), "stated": stated}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Outside:
        """Return counts of what `plain` has returned."""
        stated = {key: Counter({value: n for value, n in counts}) for key, counts in content["stated"].items()}
        return cls(content["total"], content["outside"], Counter(content["leading"]), stated)

    def sentences(self, model: Model) -> list[str]:
        """Return a sentence for each way in which structures lie outside the training data of the model."""
        sentences = []
        if self.outside:
            names = ", ".join(name for name, _ in self.leading.most_common(ATOMS))
            how_many = _count(self.outside, self.total)
            what = f"{how_many} outside the training data (extrapolation above 1), most often by {names}"
            started = model.settings.provenance.get("start_from")
            if isinstance(started, dict) and started.get("replayed") is False:
                what += "; these data are those of the last training only, not those of the model that it started from"
            sentences.append(what)
        for key, name in STATED.items():
            known = model.settings.provenance.get(name)
            if not isinstance(known, list):
                continue
            foreign = {value: n for value, n in self.stated.get(key, {}).items() if value not in known}
            if foreign:
                own, theirs = (", ".join(f"{value:g}" for value in sorted(values)) for values in (foreign, known))
                what, how_many = key.replace("_", " "), _count(sum(foreign.values()), self.total)
                sentences.append(f"{how_many} outside the training data by {what}: {own}, where the data had {theirs}")
        return sentences


def _count(n: int, total: int) -> str:
    return f"{n} of {total} structures {'lies' if n == 1 else 'lie'}"
