"""Numbers of a round, from the files that its steps have left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from gmcore.analysis.records import RecordError, read_analysis
from gmcore.anisotropy import zfs_parameters
from gmcore.evaluation.evaluation import METRICS_FILE
from gmcore.evaluation.rounds import Check, ModelInRound
from gmcore.units import conversion

OF_DYNAMICS = {"forces": "potential", "d_tensor": "d_tensor"}
METRICS = {"forces": "forces", "d_tensor": "d_tensor_D"}


def n_frames(path: Path) -> int:
    """Return the number of structures in an extended XYZ file."""
    from ase.io import read

    return len(read(path, ":"))


def model_in_round(name: str, quantity: str, training: Path, run: Path | None, **known: Any) -> ModelInRound:
    """Return what is known of a model after a round.

    Parameters
    ----------
    name : of the training.
    quantity : "d_tensor" or "forces".
    training : folder of the training.
    run : folder of the analyzed run, None if it was stopped.
    known : further attributes of `ModelInRound`.

    Raises
    ------
    RecordError : a file of the training or the analysis is missing or damaged.
    """
    metrics = _json(training / METRICS_FILE)
    test = metrics.get("test", {}).get(METRICS[quantity])
    error, outside = (None, None) if run is None else _along(read_analysis(run), quantity)
    return ModelInRound(
        name=name,
        quantity=cast(Literal["d_tensor", "forces"], quantity),
        n_structures=int(metrics["n_structures"]["train"]),
        test_rmse=None if test is None else float(test["rmse"]),
        error=error,
        outside=outside,
        **known,
    )


def check(name: str, quantity: str, method: str, labeled: Path, predicted: Path, evaluation: Path) -> Check:
    """Return the comparison of a model with labels.

    Parameters
    ----------
    labeled : extended XYZ with the labels.
    predicted : CSV file of `gmtensor predict` for the same frames.
    evaluation : folder of `gmtensor evaluate`.

    Raises
    ------
    RecordError : the metrics are missing or damaged.
    """
    metrics = _json(evaluation / METRICS_FILE)[labeled.name][METRICS[quantity]]
    reference, values, errors = _pairs(labeled, predicted) if quantity == "d_tensor" else ([], [], [])
    return Check(
        name=name,
        quantity=cast(Literal["d_tensor", "forces"], quantity),
        method=method,
        reference=reference,
        predicted=values,
        error=errors,
        rmse=float(metrics["rmse"]),
        within=[float(share) for share in metrics.get("error_coverage", ())],
    )


def _along(analysis: dict[str, Any], quantity: str) -> tuple[float | None, float | None]:
    """Return the largest calibrated error along a run, and the largest share of frames outside the training data."""
    errors, shares, name = [], [], OF_DYNAMICS[quantity]
    for state in analysis["states"]:
        if quantity == "d_tensor":
            factor = conversion("d_tensor", analysis["unit"])[0]
            errors.append(factor * (state.get("anisotropy", {}).get("D", {}).get("model") or np.nan))
        else:
            deviation = state.get("committee", {}).get("forces", {}).get("mean", {}).get("value", np.nan)
            calibration = analysis.get("calibration", {}).get(name, {}).get("forces", {})
            errors.append(deviation * calibration.get("factor", np.nan))
        share = state.get("extrapolation", {}).get(name, {}).get("share", {}).get("value")
        shares += [] if share is None else [float(share)]
    error = float(np.max(errors)) if errors else np.nan
    return error if np.isfinite(error) else None, max(shares, default=None)


def _pairs(labeled: Path, predicted: Path) -> tuple[list[float], list[float], list[float]]:
    """Return reference, predicted and error of D, cm^-1."""
    from ase.io import read

    tensors = np.array([np.asarray(frame.info["d_tensor"], float).reshape(3, 3) for frame in read(labeled, ":")])
    with open(predicted, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    values, errors = ([float(row[f"{name} [cm^-1]"]) for row in rows] for name in ("D", "D_error"))
    return [float(d) for d in np.atleast_1d(zfs_parameters(tensors).d)], values, errors


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}; run the step that writes it again") from error
