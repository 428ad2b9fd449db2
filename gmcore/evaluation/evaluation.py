"""Accuracy of a model: its predictions for a data set compared with the reference values.

A training evaluates its parts (train, validation, test) here at its end, and `gmtensor evaluate` does the same at any
later time. Both write the same `metrics.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmcore.data.datasets import Dataset
from gmcore.errors import GMError
from gmcore.evaluation.figures import parity_figures
from gmcore.evaluation.metrics import evaluate_arrays
from gmcore.files import atomic_path
from gmcore.model import Model

METRICS_FILE = "metrics.json"


class EvaluationError(GMError):
    """Labels of a data set that the model does not predict, or that have another kind of unit."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions and reference values in internal units; keys are labels such as "energy".

    Attributes
    ----------
    metrics : {quantity: {"mae", "rmse", "unit", "n", ...}} of `gmcore.evaluation.metrics.evaluate_arrays`.
    reference : label -> one array per structure.
    predicted : label -> the same, and `<label>_std` for a committee.
    units : label -> unit.
    """

    metrics: dict[str, dict[str, Any]]
    reference: dict[str, Any]
    predicted: dict[str, Any]
    units: dict[str, str]


def evaluate_model(models: Model | Sequence[Model], dataset: Dataset) -> Evaluation:
    """Predict every label of the data set and compare.

    Parameters
    ----------
    models : one model, or several that predict different quantities (one model per property).
    dataset : structures with labels.

    Raises
    ------
    EvaluationError : if a label is predicted by no model, or a tensor has another kind of unit.
    """
    models = [models] if isinstance(models, Model) else list(models)
    predicted: dict[str, Any] = {}
    left = list(dataset.labels)
    for model in models:
        units = model.units
        own = [label for label in left if label in units]
        left = [label for label in left if label not in own]
        for label in own:
            if units[label] != dataset.units[label]:
                raise EvaluationError(
                    f"the model predicts {label} in {units[label]}, but the data have another kind of unit, "
                    f"{dataset.units[label]}"
                )
        if own:
            predicted |= model.predict(dataset.atoms, properties=own)
    if left or not predicted:
        known = ", ".join(key for model in models for key in model.units)
        raise EvaluationError(f"the model predicts {known}, but the labels of the data are {', '.join(dataset.labels)}")
    n_atoms = [len(atoms) for atoms in dataset.atoms]
    metrics = evaluate_arrays(dataset.labels, predicted, n_atoms=n_atoms, units=dataset.units)
    return Evaluation(metrics, dataset.labels, predicted, dataset.units)


def write_evaluation(folder: str | Path, evaluations: Mapping[str, Evaluation], extra: Mapping[str, Any] = {}) -> Path:
    """Write `metrics.json`, one entry per part, and the parity figures of the last part; return the JSON's path.

    Parameters
    ----------
    evaluations : part ("train", "validation", "test") -> evaluation; figures show the last one.
    extra : further entries of the JSON file.
    """
    path = Path(folder) / METRICS_FILE
    content = {**extra, **{part: evaluation.metrics for part, evaluation in evaluations.items()}}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    last = list(evaluations.values())[-1]
    parity_figures(folder, last.reference, last.predicted, last.units)
    return path


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics as aligned lines of text, and a line on the signs of D where a D tensor is among them.

    "RMSE of mean" is the error of predicting the mean of the reference values; metrics of older versions lack it.
    """
    rows = [("quantity", "MAE", "RMSE", "RMSE of mean", "R^2", "unit", "values", "committee")]
    for quantity, entry in metrics.items():
        rows.append(
            (
                quantity,
                f"{entry['mae']:.4g}",
                f"{entry['rmse']:.4g}",
                _optional(entry.get("mean_rmse"), ".4g"),
                _optional(entry.get("r2"), ".3f"),
                entry["unit"],
                str(entry["n"]),
                _optional(entry.get("committee_std"), ".3g"),
            )
        )
    lengths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(length) for cell, length in zip(row, lengths)).rstrip() for row in rows]
    of_d = metrics.get("d_tensor_D", {})
    if "wrong_sign" in of_d:
        lines.append(f"wrong sign of D: {of_d['wrong_sign']} of {of_d['n']} structures")
    return lines


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
