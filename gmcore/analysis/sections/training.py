"""Facts about a model: its file, and the training folder that contains it.

The folder of a training (gmkeras.training) has `metrics.json` and possibly a learning curve. Predictions for the
reference data are not stored. They are computed again from the configuration and its data, for the test part, or for
the validation part if there is no test part. If the data are gone, the parity figure of the training is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gmcore.analysis.records import RecordError, plain, quantity, rounded, thinned
from gmcore.config.loading import load_config
from gmcore.data.splits import load_datasets
from gmcore.errors import GMError
from gmcore.evaluation.evaluation import METRICS_FILE, evaluate_model
from gmcore.evaluation.learning_curve import FOLDER
from gmcore.evaluation.metrics import compared
from gmcore.files import read_json
from gmcore.model import Model
from gmcore.model_file import read_model
from gmcore.model_summary import model_facts
from gmcore.quantities import ELEMENTS
from gmcore.units import conversion

KEY = "d_tensor"
POINTS = 500
"""Maximum number of structures in a parity plot."""


class _Errors(BaseModel):
    """Errors of one quantity in `metrics.json`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)
    mae: float
    rmse: float
    n: int
    unit: str
    mean_rmse: float | None = None
    r2: float | None = None
    wrong_sign: int | None = None
    committee_std: float | None = None


class _Metrics(BaseModel):
    """Content of `metrics.json`, as far as a report shows it."""

    model_config = ConfigDict(extra="allow")
    train: dict[str, _Errors] = {}
    validation: dict[str, _Errors] = {}
    test: dict[str, _Errors] = {}


class _Curve(BaseModel):
    """Learning curve of one quantity."""

    sizes: list[int]
    mae: list[float]
    rmse: list[float]


def describe_model(path: Path) -> dict[str, Any]:
    """Return the facts of a model for the report: file, species, cutoff, members, training data."""
    facts = model_facts(*read_model(path))
    provenance = facts["provenance"]
    keys = ("species", "descriptor", "network", "units", "members", "parameters_per_member", "dtype")
    return {
        "file": str(path),
        **{key: facts[key] for key in keys},
        "n_structures": provenance.get("n_structures"),
        "preset": provenance.get("config", {}).get("training", {}).get("preset"),
        "date": provenance.get("date"),
    }


def training_folder(model: Path) -> Path | None:
    """Return the folder of the training that wrote a model file, None if the file is elsewhere."""
    for folder in (model.parent, model.parent.parent):  # the second with one model per property
        if (folder / METRICS_FILE).is_file():
            return folder
    return None


def training_results(path: Path, model: Model, unit: str | None = None) -> dict[str, Any]:
    """Return the errors of a training and, for a D model, its learning curve and parity plot.

    Parameters
    ----------
    path : the model file.
    model : the model.
    unit : unit of the results of a D model; without it only errors are returned.

    Returns
    -------
    dict with "metrics", "learning_curve", "parity", and under "missing" a sentence for each of these that is not known.
    """
    folder = training_folder(path)
    missing: dict[str, str] = {}
    if folder is None:
        sentence = f"The model file {path.name} is not in the folder of its training"
        return {"folder": None, "missing": dict.fromkeys(("learning_curve", "parity"), sentence)}
    result: dict[str, Any] = {"folder": str(folder), "missing": missing}
    metrics = read_json(folder / METRICS_FILE, _Metrics, RecordError, "train or evaluate the model again")
    result["metrics"] = metrics.model_dump(exclude_unset=True)
    if unit is None:
        return result
    factor = 1.0 / conversion(KEY, unit)[0]
    curve_file = folder / FOLDER / "learning_curve.json"
    if curve_file.is_file():
        curves = read_json(curve_file, dict[str, _Curve], RecordError, "compute the learning curve again")
        result["learning_curve"] = _learning_curve(curves[KEY], factor, unit) if KEY in curves else None
    if not result.get("learning_curve"):
        missing["learning_curve"] = (
            f"The training folder {folder.name} has no learning curve; "
            "make one with gmtensor learning-curve, which trains with several numbers of structures"
        )
    try:
        result["parity"] = _parity(folder, model, factor, unit)
    except (GMError, OSError) as error:
        missing["parity"] = f"The data of the training cannot be read: {' '.join(str(error).split())}"
        picture = folder / f"parity_{KEY}.png"
        result["parity_picture"] = str(picture) if picture.is_file() else None
    return result


def _learning_curve(curve: _Curve, factor: float, unit: str) -> dict[str, Any]:
    return {
        "sizes": quantity(curve.sizes, "structures", "number of training structures"),
        "mae": quantity([factor * value for value in curve.mae], unit, "mean absolute error of the test part"),
        "rmse": quantity([factor * value for value in curve.rmse], unit, "root mean square error of the test part"),
    }


def _parity(folder: Path, model: Model, factor: float, unit: str) -> dict[str, Any]:
    """Return reference and prediction (n, n_components) for structures that were not used for training."""
    parts = load_datasets(load_config(folder / "config.yaml"), write=False, labels=(KEY,))
    part = "test" if "test" in parts else "validation"
    dataset = parts[part].subset([int(i) for i in thinned(len(parts[part]), POINTS)])
    evaluation = evaluate_model(model, dataset)
    expected, predicted, _ = compared(KEY, evaluation.reference[KEY], evaluation.predicted[KEY])
    return {
        "part": part,
        "n_structures": len(dataset),
        "components": list(ELEMENTS),
        "reference": quantity(plain(rounded(factor * expected)), unit, "reference elements"),
        "predicted": quantity(plain(rounded(factor * predicted)), unit, "predicted elements, mean of the committee"),
    }
