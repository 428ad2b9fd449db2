"""What is known about a model: its file, and the training folder it lies in.

The folder of a training (gmkeras.training) has `metrics.json` and, where one was made, a learning curve. Predictions
beside reference values are stored nowhere; they are computed again from the configuration and the data that it names,
on the test part, or the validation part where there is none. Where the data are gone the parity figure of the training
remains.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gmcore.analysis.records import plain, quantity, rounded, thinned
from gmcore.config.loading import load_config
from gmcore.data.splits import load_datasets
from gmcore.errors import GMError
from gmcore.evaluation.evaluation import METRICS_FILE, evaluate_model
from gmcore.evaluation.learning_curve import FOLDER
from gmcore.evaluation.metrics import compared
from gmcore.files import relative_path
from gmcore.model import Model
from gmcore.model_file import read_model
from gmcore.model_summary import model_facts
from gmcore.quantities import ELEMENTS
from gmcore.units import conversion

KEY = "d_tensor"
POINTS = 500
"""Structures that a parity plot shows at most."""


def describe_model(path: Path, run: Path) -> dict[str, Any]:
    """Return what the report says about a model: file, seen from the run, species, cutoff, members, training data."""
    facts = model_facts(*read_model(path))
    provenance = facts["provenance"]
    keys = ("species", "descriptor", "network", "units", "members", "parameters_per_member", "dtype")
    return {
        "file": relative_path(path, run),
        **{key: facts[key] for key in keys},
        "n_structures": provenance.get("n_structures"),
        "preset": provenance.get("config", {}).get("training", {}).get("preset"),
        "date": provenance.get("date"),
    }


def training_folder(model: Path) -> Path | None:
    """Return the folder of the training that wrote a model file, None where the file lies elsewhere."""
    for folder in (model.parent, model.parent.parent):  # the latter with one model per property
        if (folder / METRICS_FILE).is_file():
            return folder
    return None


def training_results(path: Path, model: Model, run: Path, unit: str | None = None) -> dict[str, Any]:
    """Return errors of a training, and of a D model learning curve and parity, for what of it can be found.

    Parameters
    ----------
    run : folder of the run, which paths in the result are relative to.
    unit : of the results of a D model; without it errors alone are given.

    Returns
    -------
    dict with "metrics", "learning_curve", "parity", and under "missing" a sentence for each of those that is not there.
    """
    folder, missing = training_folder(path), {}
    if folder is None:
        sentence = f"No training folder was found beside the model file {path.name}"
        return {"folder": None, "missing": dict.fromkeys(("learning_curve", "parity"), sentence)}
    result: dict[str, Any] = {"folder": relative_path(folder, run), "missing": missing}
    result["metrics"] = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    if unit is None:
        return result
    factor = 1.0 / conversion(KEY, unit)[0]
    curve_file = folder / FOLDER / "learning_curve.json"
    if curve_file.is_file():
        curves = json.loads(curve_file.read_text(encoding="utf-8"))
        result["learning_curve"] = _learning_curve(curves[KEY], factor, unit) if KEY in curves else None
    if not result.get("learning_curve"):
        missing["learning_curve"] = (
            f"The training folder {folder.name} holds no learning curve; "
            "gmtensor learning-curve trains with several numbers of structures"
        )
    try:
        result["parity"] = _parity(folder, model, factor, unit)
    except (GMError, OSError) as error:
        missing["parity"] = f"The data of the training cannot be read again: {' '.join(str(error).split())}"
        picture = folder / f"parity_{KEY}.png"
        result["parity_picture"] = relative_path(picture, run) if picture.is_file() else None
    return result


def _learning_curve(curve: dict[str, Any], factor: float, unit: str) -> dict[str, Any]:
    return {
        "sizes": quantity(curve["sizes"], "structures", "structures that were trained on"),
        "mae": quantity([factor * value for value in curve["mae"]], unit, "mean absolute error of the test part"),
        "rmse": quantity([factor * value for value in curve["rmse"]], unit, "root mean square error of the test part"),
    }


def _parity(folder: Path, model: Model, factor: float, unit: str) -> dict[str, Any]:
    """Return reference and prediction (n, n_components) of held-back structures."""
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
