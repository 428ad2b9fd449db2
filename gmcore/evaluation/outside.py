"""What lies outside the training data, in words: structures, atoms, total charges and multiplicities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

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


def outside_sentences(atoms: Sequence[Atoms], predictions: Mapping[str, Any], model: Model) -> list[str]:
    """Return a sentence for each way in which structures lie outside the training data of a model.

    Parameters
    ----------
    atoms : the structures.
    predictions : result of `Model.predict` for them.
    """
    sentences = []
    if GRADE in predictions:
        outside = np.flatnonzero(np.asarray(predictions[GRADE]) > 1.0).tolist()
        if outside:
            leading = Counter(_leading(atoms[k], predictions[PER_ATOM_GRADE][k]) for k in outside)
            names = ", ".join(name for name, _ in leading.most_common(ATOMS))
            how_many = _count(len(outside), len(atoms))
            what = f"{how_many} outside the training data (extrapolation above 1), most often by {names}"
            started = model.settings.provenance.get("start_from")
            if isinstance(started, dict) and started.get("replayed") is False:
                what += "; these data are those of the last training only, not those of the model that it started from"
            sentences.append(what)
    for key, name in STATED.items():
        known = model.settings.provenance.get(name)
        if not isinstance(known, list):
            continue
        foreign = [float(frame.info[key]) for frame in atoms if key in frame.info and frame.info[key] not in known]
        if foreign:
            own, theirs = (", ".join(f"{value:g}" for value in sorted(set(values))) for values in (foreign, known))
            what = f"{_count(len(foreign), len(atoms))} outside the training data by {key.replace('_', ' ')}"
            sentences.append(f"{what}: {own}, where the data had {theirs}")
    return sentences


def _leading(frame: Atoms, grades: np.ndarray) -> str:
    """Name the atom that is farthest from the training data: "Co 0"."""
    place = int(np.argmax(grades))
    return f"{chemical_symbols[frame.numbers[place]]} {place}"


def _count(n: int, total: int) -> str:
    return f"{n} of {total} structures {'lies' if n == 1 else 'lie'}"
