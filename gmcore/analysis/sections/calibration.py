"""What the models of a run know of their errors: calibrations, and how much of the run lies outside the training data.

A grade above 1 lies outside (`gmcore.uncertainty.environments`). Grades of structures are those that were recorded
along the run. Which atoms lead is found out anew, on a few of the recorded structures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.analysis.records import quantity, thinned
from gmcore.analysis.samples import Samples
from gmcore.analysis.statistics import block_average
from gmcore.engine.structures import Batch
from gmcore.model import Model

RECORDED = {"potential": "extrapolation", "d_tensor": "d_tensor_extrapolation"}
FRAMES = 200
"""Maximum number of structures of a state whose atoms are graded."""
ATOMS = 5
"""Maximum number of atoms that are named."""


def calibrations(models: Mapping[str, Model]) -> dict[str, Any]:
    """Return the calibrations of each model that has some, by quantity."""
    found = {}
    for name, model in models.items():
        known = {
            key: {
                "source": entry.source,
                "factor": entry.factor,
                "factor_error": entry.factor_error,
                "n_structures": entry.n_structures,
                "coverage_raw": list(entry.coverage_raw),
                "coverage": list(entry.coverage),
            }
            for key, entry in model.uncertainty.calibrations.items()
        }
        if known:
            found[name] = known
    return found


def extrapolation(samples: Samples, models: Mapping[str, Model]) -> dict[str, Any]:
    """Return how much of a state lies outside the training data of each model, as far as it was recorded.

    Returns
    -------
    {model: {"share", "largest": quantities, "atoms": [{"atom": "Co0", "share": 0.2}, ...]}}; the atoms are those that
    are outside themselves in the largest share of the structures that were graded.
    """
    result: dict[str, Any] = {}
    for name, recorded in RECORDED.items():
        if recorded not in samples:
            continue
        grades = samples.series(recorded) if name == "potential" else samples.molecules(recorded)
        if not np.isfinite(grades).all():
            continue
        share = block_average(samples.pooled(grades > 1.0).astype(float), samples.n_blocks)
        about = "share of the structures outside the training data, with a grade above 1"
        result[name] = {
            "share": quantity(share.mean, "", about, error=share.error),
            "largest": quantity(grades.max(), "", "largest extrapolation grade"),
        }
        if name in models and share.mean > 0.0:
            atoms = _leading(samples, name, models[name])
            if atoms is not None:
                result[name]["atoms"] = atoms
    return result


def _leading(samples: Samples, name: str, model: Model) -> list[dict[str, Any]] | None:
    """Return the atoms that are outside most often, None if no structures were recorded."""
    recorded = "position" if name == "potential" else "molecule_position"
    environments, trajectory = model.uncertainty.environments, samples.trajectory
    if environments is None or recorded not in samples:
        return None
    if name == "potential":
        positions = samples.series(recorded)
        numbers, cells = trajectory.numbers, samples.series("box") if "box" in samples else None
    else:
        positions, numbers, cells = samples.molecules(recorded), trajectory.molecule_numbers, None
    frames = positions.reshape(-1, *positions.shape[2:])
    rows = thinned(len(frames), FRAMES)
    boxes = [None] * len(rows) if cells is None else cells.reshape(-1, 3, 3)[rows]
    pbc = trajectory.pbc if cells is not None else False
    batch = Batch.from_atoms([Atoms(numbers, frames[k], cell=cell, pbc=pbc) for k, cell in zip(rows, boxes)])
    grades = model.evaluator.extrapolation(batch, model.evaluator.find_pairs(batch)).reshape(len(rows), -1)
    shares = np.mean(grades > environments.limit, axis=0)
    symbols = Atoms(numbers).get_chemical_symbols()
    order = np.argsort(-shares, kind="stable")[:ATOMS]
    return [{"atom": f"{symbols[i]}{i}", "share": float(shares[i])} for i in order if shares[i] > 0.0]
