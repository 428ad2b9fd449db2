"""Figures of the accuracy of the D model: learning curve, and predicted against reference elements."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gmcore.evaluation.figures import draw_learning_curve, draw_parity
from gmcore.quantities import ELEMENTS
from gmcore.report.blocks import FigureBlock
from gmcore.report.drawing import Panel, panel


def learning_curve(analysis: dict[str, Any]) -> FigureBlock:
    """Return the errors of the D model against the number of training structures."""
    block = partial(FigureBlock, name="learning-curve", title="Learning curve of the D model", paper="2")
    training = analysis["training"].get("d_tensor")
    if training is None or not training.get("learning_curve"):
        return block(missing=_why(analysis, training, "learning_curve"))
    curve = training["learning_curve"]
    sizes, maes, rmses = (np.array(curve[name]["value"], float) for name in ("sizes", "mae", "rmse"))
    fits: dict[str, Any] = {}

    def draw(plot):
        fits.update(draw_learning_curve(plot.axes, sizes, maes, rmses, curve["mae"]["unit"], "elements of D"))
        for name, errors in (("mae", maes), ("rmse", rmses)):
            plot.record(name.upper(), sizes, errors)
            if name in fits:
                band = fits[name].band(sizes) if fits[name].n_points > 2 else ((), ())
                plot.record(f"{name.upper()}, fit", sizes, fits[name](sizes), *band)

    panels = [panel("a", "Error of the elements of D against the number of training structures", draw, "square")]
    caption = (
        "Mean absolute error and root mean square error of the elements of D for test structures, against the number "
        "of training structures, on logarithmic scales."
    )
    if any(fit.n_points > 2 for fit in fits.values()):
        caption += " Lines are linear fits with 95 % confidence bands."
    elif fits:
        caption += " Lines join two sizes; a confidence band needs three."
    return block(caption=caption, panels=panels)


def parity(analysis: dict[str, Any], run: Path) -> FigureBlock:
    """Return predicted against reference elements of structures that were not used for training.

    Parameters
    ----------
    analysis : content of analysis.json.
    run : folder of the run, from which its paths are taken.
    """
    block = partial(FigureBlock, name="parity", title="Predicted and reference elements of D", paper="3")
    training = analysis["training"].get("d_tensor")
    if training is None or not (training.get("parity") or training.get("parity_picture")):
        return block(missing=_why(analysis, training, "parity"))
    found = training.get("parity")
    if not found:
        picture = run / training["parity_picture"]
        if not picture.is_file():
            return block(missing=_why(analysis, training, "parity"))
        image = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
        caption = f"This is the figure that the training saved. {_why(analysis, training, 'parity')}."
        return block(caption=caption, panels=[Panel("a", "Predicted against reference", image, "square")])
    reference, predicted = (np.array(found[name]["value"], float) for name in ("reference", "predicted"))

    def draw(plot):
        draw_parity(plot.axes, "d_tensor", reference, predicted, found["reference"]["unit"])
        for k, name in enumerate(ELEMENTS):
            plot.record(name, reference[:, k], predicted[:, k])

    panels = [panel("a", "Predicted against reference elements of D", draw, "square")]
    caption = (
        f"Elements of the traceless D tensor of {found['n_structures']} structures from the {found['part']} part of "
        "the data, which the model was not trained on. Predictions are means over the committee."
    )
    return block(caption=caption, panels=panels)


def _why(analysis: dict[str, Any], training: dict[str, Any] | None, name: str) -> str:
    if training is not None:
        return training["missing"].get(name, "The training did not save one")
    missing = analysis["missing"]
    return missing.get("model_d_tensor") or missing.get("models") or missing.get("d_tensor") or "There is no D model"
