"""Accuracy of a model: its predictions for a data set compared with the reference values.

A training evaluates its parts (train, validation, test) here at its end, and `gmtensor evaluate` does the same at any
later time. Both write the same `metrics.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gmcore.data.datasets import Dataset
from gmcore.errors import GMError
from gmcore.evaluation.figures import parity_figures
from gmcore.evaluation.metrics import evaluate_arrays
from gmcore.evaluation.trust import coverages
from gmcore.files import atomic_path
from gmcore.model import Model
from gmcore.quantities import GRADE

METRICS_FILE = "metrics.json"
DERIVED_METRICS = {"D": "d_tensor_D", "E": "d_tensor_E", "axis": "d_tensor_axis_angle"}
"""Names of the calibrated functions of a D tensor in the metrics."""


class EvaluationError(GMError):
    """Labels of a data set that the model does not predict, or that have another kind of unit."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions and reference values in internal units; keys are labels such as "energy".

    Attributes
    ----------
    metrics : {quantity: {"mae", "rmse", "unit", "n", ...}} of `gmcore.evaluation.metrics.evaluate_arrays`, with
        "error_coverage" and "error_mean" (`gmcore.evaluation.trust.coverages`) where the errors are calibrated.
    reference : label -> one array per structure.
    predicted : label -> the same, and `<label>_std` for a committee.
    units : label -> unit.
    outside : {"share", "largest", "n"} of each model that knows its training data, under the labels that it predicts:
        share of the structures with an extrapolation grade above 1, largest grade, number of structures.
    """

    metrics: dict[str, dict[str, Any]]
    reference: dict[str, Any]
    predicted: dict[str, Any]
    units: dict[str, str]
    outside: dict[str, dict[str, Any]] = field(default_factory=dict)

    def outside_lines(self) -> list[str]:
        """Return a line of text for each model: how many structures lie outside its training data."""
        return [
            f"outside the training data of {labels}: {round(entry['share'] * entry['n'])} of {entry['n']} structures, "
            f"largest extrapolation {entry['largest']:.2f}"
            for labels, entry in self.outside.items()
        ]


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
    outside: dict[str, dict[str, Any]] = {}
    coverage: dict[str, dict[str, Any]] = {}
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
            found = model.predict(dataset.atoms, properties=own, errors=True)
            for label in own:
                for name, entry in coverages(label, dataset.labels[label], found, model.uncertainty).items():
                    coverage[label if name == label else DERIVED_METRICS[name]] = entry
            grades = found.pop(GRADE, None)
            if grades is not None and len(grades):
                share, largest = float(np.mean(np.asarray(grades) > 1.0)), float(np.max(grades))
                outside[", ".join(own)] = {"share": share, "largest": largest, "n": len(grades)}
            predicted |= found
    if left or not predicted:
        known = ", ".join(key for model in models for key in model.units)
        raise EvaluationError(f"the model predicts {known}, but the labels of the data are {', '.join(dataset.labels)}")
    n_atoms = [len(atoms) for atoms in dataset.atoms]
    metrics = evaluate_arrays(dataset.labels, predicted, n_atoms=n_atoms, units=dataset.units)
    for name, entry in coverage.items():
        metrics[name] |= entry
    return Evaluation(metrics, dataset.labels, predicted, dataset.units, outside)


def write_evaluation(folder: str | Path, evaluations: Mapping[str, Evaluation], extra: Mapping[str, Any] = {}) -> Path:
    """Write `metrics.json`, one entry per part, and the parity figures of the last part; return the JSON's path.

    An entry "extrapolation" has `Evaluation.outside` of each part.

    Parameters
    ----------
    evaluations : part ("train", "validation", "test") -> evaluation; figures show the last one.
    extra : further entries of the JSON file.
    """
    path = Path(folder) / METRICS_FILE
    content = {**extra, **{part: evaluation.metrics for part, evaluation in evaluations.items()}}
    outside = {part: evaluation.outside for part, evaluation in evaluations.items() if evaluation.outside}
    if outside:
        content[GRADE] = outside
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    last = list(evaluations.values())[-1]
    parity_figures(folder, last.reference, last.predicted, last.units)
    return path


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics as aligned lines of text, and a line on the signs of D where a D tensor is among them.

    "RMSE of mean" is the error of predicting the mean of the reference values; metrics of older versions lack it. Where
    errors are calibrated also their mean is given, and the shares of the true errors within one and two of them.
    """
    heading = ("quantity", "MAE", "RMSE", "RMSE of mean", "R^2", "unit", "values", "committee")
    rows = [(*heading, "error", "within 1, 2 errors")]
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
                _optional(entry.get("error_mean"), ".3g"),
                ", ".join(f"{100.0 * share:.0f} %" for share in entry.get("error_coverage", ())),
            )
        )
    n_columns = len(rows[0]) if any(row[-1] for row in rows[1:]) else len(heading)
    lengths = [max(len(row[k]) for row in rows) for k in range(n_columns)]
    lines = ["  ".join(cell.ljust(length) for cell, length in zip(row, lengths)).rstrip() for row in rows]
    of_d = metrics.get("d_tensor_D", {})
    if "wrong_sign" in of_d:
        lines.append(f"wrong sign of D: {of_d['wrong_sign']} of {of_d['n']} structures")
    return lines


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
