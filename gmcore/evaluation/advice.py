"""What the numbers of a training say about the next one: whether more epochs or more data would help.

Epochs: the validation error in the last tenth of the epochs is compared with that in the tenth before. An error that
falls there falls although the learning rates are almost zero, and more epochs are likely to lower it. One that does not
fall proves nothing, because rates that decay to zero flatten every curve, and the words say so.

Data: a validation error well above the training error is what the model could not learn from too few structures. It
falls as a power of their number, so halving it takes 2^(1/b) times as many. The power b is that of the learning curve
of the training where there is one. Otherwise it is `TYPICAL_POWER`, which lies close to the powers in docs/results.md.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from gmcore.errors import GMError
from gmcore.evaluation.learning_curve import FOLDER, TABLE
from gmcore.evaluation.power_law import PowerLawError, fit_power_law
from gmcore.files import read_json

TYPICAL_POWER = 0.5
"""The error falls as this power of the number of structures, unless a learning curve says otherwise."""
CHANGE = 0.02
"""Relative change of the validation error that counts as falling or rising."""
APART = 1.5
"""Ratio of validation and training error from which they count as apart."""
FLAT = 0.1
"""Power of a learning curve below which more data do not pay: halving the error would take a thousand times as many."""


class _Curve(BaseModel):
    """Learning curve of one quantity, as far as it is needed here."""

    sizes: list[float]
    mae: list[float]


def training_advice(
    folder: Path,
    n_members: int,
    labels: Sequence[str],
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
    n_train: int,
    curves: Path,
) -> list[dict[str, Any]]:
    """Return advice on epochs and data for one model file.

    Parameters
    ----------
    folder : folder of the model, with `member_<k>/history.csv`.
    labels : quantities that were learned.
    metrics : part -> quantity -> errors, as in metrics.json; the parts train and validation are compared.
    n_train : number of structures that were trained on.
    curves : folder of the training, which may have a learning curve.

    Returns
    -------
    list of {"about": "epochs" | "data", "words": one or two sentences, "value": number or None}; the value is the
    relative change of the validation error between the last two tenths of the epochs, or the ratio of validation and
    training error. What is not known is left out.
    """
    histories = [_validation_errors(folder / f"member_{k}" / "history.csv") for k in range(n_members)]
    found = [of_epochs([errors for errors in histories if errors]), of_data(labels, metrics, n_train, _powers(curves))]
    return [advice for advice in found if advice]


def of_epochs(histories: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """Return whether the validation errors of the members, one per epoch, were still falling; None without any."""
    if not histories:
        return None
    n_epochs = min(len(errors) for errors in histories)
    if n_epochs < 2:
        return _advice("epochs", "One epoch shows no trend of the validation error: train for more epochs.", None)
    tenth = max(1, n_epochs // 10)
    changes = [np.mean(errors[-tenth:]) / np.mean(errors[-2 * tenth : -tenth]) - 1.0 for errors in histories]
    change = float(np.mean(changes))
    where = "between the last two epochs" if tenth == 1 else f"between the last two tenths of the {n_epochs} epochs"
    if change < -CHANGE:
        words = (
            f"The validation error was still falling, by {-100 * change:.1f} % {where}: "
            f"train for more epochs, for example {2 * n_epochs}."
        )
    elif change > CHANGE:
        best = ", ".join(str(int(np.argmin(errors)) + 1) for errors in histories)
        words = (
            f"The validation error rose by {100 * change:.1f} % {where}, and the weights of an earlier epoch were kept "
            f"({best}): more epochs would not help."
        )
    else:
        words = (
            f"The validation error hardly changed {where} ({100 * change:+.1f} %). The learning rates decay to zero, "
            "so only a longer training can show whether more epochs would help."
        )
    return _advice("epochs", words, change)


def of_data(
    labels: Sequence[str],
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
    n_train: int,
    powers: Mapping[str, float] = {},
) -> dict[str, Any] | None:
    """Return whether more data would lower the errors, for the label whose errors are furthest apart.

    Parameters
    ----------
    powers : label -> b of its learning curve, error ~ size^-b.
    """
    ratios = {}
    for label in labels:
        train, validation = (metrics.get(part, {}).get(label, {}).get("mae") for part in ("train", "validation"))
        if train and validation and math.isfinite(validation / train):
            ratios[label] = validation / train
    if not ratios:
        return None
    label = max(ratios, key=lambda name: ratios[name])
    ratio, unit = ratios[label], metrics["validation"][label]["unit"]
    train, validation = (f"{metrics[part][label]['mae']:.3g}" for part in ("train", "validation"))
    if ratio < APART:
        words = (
            f"Training and validation errors are alike ({label}: MAE {train} and {validation} {unit}), "
            "so more data alone would hardly lower them."
        )
        return _advice("data", words, ratio)
    words = (
        f"The validation error of {label} (MAE {validation} {unit}) is {ratio:.1f} times the training error ({train})"
    )
    power = powers.get(label)
    if power is not None and power < FLAT:
        words += f", but the learning curve is flat (power {-power:.2f}), so more data would hardly lower it."
        return _advice("data", words, ratio)
    source = "typical power of a learning curve" if power is None else "power of the learning curve"
    power = TYPICAL_POWER if power is None else power
    more = 2.0 ** (1.0 / power)
    words += (
        f": more data would lower it. With the {source}, {-power:.2f}, halving it takes {more:.2g} times as many "
        f"structures, about {float(f'{more * n_train:.2g}'):.0f} instead of {n_train}."
    )
    return _advice("data", words, ratio)


def _advice(about: str, words: str, value: float | None) -> dict[str, Any]:
    return {"about": about, "words": words, "value": value}


def _validation_errors(path: Path) -> list[float]:
    """Return the validation error of each epoch; none if there is no such history."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [float(row["val_error"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []  # logs may be removed; advice is worth no error after a training


def _powers(folder: Path) -> dict[str, float]:
    """Return the power of each quantity's learning curve; none where there is no curve, or not one that can be used."""
    try:
        curves = read_json(folder / FOLDER / TABLE, dict[str, _Curve], GMError, "")
    except (OSError, GMError):
        return {}
    powers = {}
    for label, curve in curves.items():
        try:
            powers[label] = -fit_power_law(curve.sizes, curve.mae).slope
        except PowerLawError:
            continue
    return powers
