"""Rounds that improved the models: a table, and the last model against the reference method on frames of its run."""

from __future__ import annotations

from typing import Any

import numpy as np

from gmcore.evaluation.figures import labeled
from gmcore.evaluation.rounds import Check, ModelInRound, Round, RoundsResult
from gmcore.report.blocks import FigureBlock
from gmcore.report.drawing import letters, panel
from gmcore.report.numbers import MISSING, fixed, number
from gmcore.report.tables import Cell, Table

UNITS = {"d_tensor": "cm⁻¹", "forces": "eV/Å"}
WORDS = {"d_tensor": "D", "forces": "forces"}
COMMANDS = {"select": "choice", "label": "labels", "train": "training", "md": "dynamics", "analyze": "analysis"}


def table(analysis: dict[str, Any], rounds: RoundsResult) -> Table | None:
    """Return what each round did, None if there were no rounds."""
    if not rounds.rounds:
        return None
    found = rounds.rounds
    rows: list[tuple[str, list[Cell]]] = []
    for k, model in enumerate(found[0].models):
        unit, words = UNITS[model.quantity], WORDS[model.quantity]
        of = "⟨D⟩" if model.quantity == "d_tensor" else words
        error = f"calibrated error of {of} along the run / {unit}"
        if model.target is not None:
            error += f", target {number(model.target, 3)}"
        rows += [
            (f"{model.name}: structures trained on", _cells(found, k, "n_structures", str)),
            ("frames labeled, of those chosen", [_labeled(entry.models[k]) for entry in found]),
            (f"test RMSE of {words} / {unit}", _cells(found, k, "test_rmse", _three)),
            (error, _cells(found, k, "error", _three)),
            ("frames outside the training data / %", _cells(found, k, "outside", _percent)),
        ]
    commands = [name for name in COMMANDS if any(name in entry.seconds for entry in found)]
    for name in commands:
        rows.append((f"{COMMANDS[name]} / s", [_seconds(entry, name) for entry in found]))
    note = (
        "Round 0 is the workflow without added frames. Errors along the run are those of the temperature where they "
        "are largest. The test structures are the same in all rounds. There were no more rounds because "
        f"{rounds.ended}."
    )
    if any(entry.stopped for entry in found):
        stopped = ", ".join(str(entry.number) for entry in found if entry.stopped)
        note += f" A stop condition ended the dynamics of round {stopped}, which was therefore not analyzed."
    columns = ["", *(f"round {entry.number}" for entry in found)]
    return Table("rounds", "Rounds of choosing, labeling and training on", columns, rows, note)


def comparison(analysis: dict[str, Any], rounds: RoundsResult) -> FigureBlock | None:
    """Return D of the model against D of the reference method for random frames of the run, None without them."""
    checks = [check for check in rounds.checks if check.reference]
    if not checks:
        return None
    order = letters()
    panels = [
        panel(next(order), f"D of {check.name} against {check.method}", _drawn(check), "square") for check in checks
    ]
    sentences = [_sentence(check) for check in rounds.checks]
    caption = (
        "Random frames of the last run, which no model was trained on, labeled by the reference method. Bars are the "
        "calibrated errors of the model. " + " ".join(sentences)
    )
    return FigureBlock("check", "The last model against the reference method", "", caption, panels)


def _drawn(check: Check) -> Any:
    def draw(plot: Any) -> None:
        reference, predicted, error = (np.array(values) for values in (check.reference, check.predicted, check.error))
        low, high = (f(f(reference), f(predicted)) for f in (min, max)) if len(reference) else (0.0, 1.0)
        margin = 0.05 * (high - low) or 1.0
        ends = np.array([low - margin, high + margin])
        plot.axes.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
        plot.axes.errorbar(reference, predicted, error, fmt="o", markersize=3, linewidth=0.8, color="C0")
        plot.record(check.name, reference, predicted, predicted - error, predicted + error)
        plot.axes.set_xlabel(labeled(f"D, {check.method}", "cm^-1"))
        plot.axes.set_ylabel(labeled("D, model", "cm^-1"))

    return draw


def _sentence(check: Check) -> str:
    unit, words = UNITS[check.quantity], WORDS[check.quantity]
    text = f"{check.name}: the RMSE of {words} is {number(check.rmse, 3)} {unit}"
    if check.within:
        one, two = (fixed(100.0 * share, 0) for share in check.within)
        text += f"; {one} % of the values lie within one error and {two} % within two (68 and 95 % are right)"
    return f"{text}."


def _cells(rounds: list[Round], k: int, name: str, text: Any) -> list[Cell]:
    values = [getattr(entry.models[k], name) for entry in rounds]
    return [Cell(MISSING) if value is None else Cell(text(value), "", {"value": value}) for value in values]


def _labeled(model: ModelInRound) -> Cell:
    if model.n_chosen is None:
        return Cell(MISSING)
    quantity = {"labeled": model.n_labeled, "chosen": model.n_chosen}
    return Cell(f"{model.n_labeled} of {model.n_chosen}", "", quantity)


def _seconds(entry: Round, name: str) -> Cell:
    value = entry.seconds.get(name)
    return Cell(MISSING) if value is None else Cell(fixed(value, 0), "", {"value": value, "unit": "s"})


def _three(value: float) -> str:
    return number(value, 3)


def _percent(share: float) -> str:
    return fixed(100.0 * share, 1)
