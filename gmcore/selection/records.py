"""The chosen frames as a table for the screen, and as an extended XYZ file for the reference method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from gmcore.files import atomic_path
from gmcore.model import Model
from gmcore.selection.choose import Selection
from gmcore.selection.scores import FORCES, Scores

SHOWN = 20
"""Broken structures that are named."""


def summary(selection: Selection, n_candidates: int) -> list[str]:
    """Return lines that say what became of the candidates, broken ones by name."""
    lines = [f"candidates: {n_candidates}"]
    if selection.broken:
        lines.append(f"broken, left out: {len(selection.broken)}")
        lines += [f"  {entry.name}: {entry.fault}" for entry in selection.broken[:SHOWN]]
        if len(selection.broken) > SHOWN:
            lines.append(f"  and {len(selection.broken) - SHOWN} more")
    counts = selection.counts
    if counts["correlated"]:
        typical = float(np.median(selection.inefficiencies))
        words = f"one frame in {typical:.3g} is independent"
        lines.append(f"close in time to a frame that counts, left out: {counts['correlated']} ({words})")
    if counts["certain"]:
        lines.append(f"neither an error nor a grade that is large enough, left out: {counts['certain']}")
    known = " and ".join(str(n) for n in selection.n_known)
    if not any(selection.n_known):
        lines.append("no labeled structures are known: near-duplicates of the training data cannot be left out")
    elif counts["known"]:
        lines.append(f"near-duplicates of the {known} labeled structures, left out: {counts['known']}")
    return lines


def table(selection: Selection) -> list[str]:
    """Return a line for each chosen frame, in the order in which they were chosen, under a header."""
    columns: dict[str, list[str]] = {"": [str(k + 1) for k in range(len(selection.chosen))]}
    entries = selection.chosen
    columns["source"] = [entry.source for entry in entries]
    columns["frame"] = [str(entry.index) for entry in entries]
    for head, values in (
        ("replica", [entry.replica for entry in entries]),
        ("molecule", [entry.molecule for entry in entries]),
        ("time [ps]", [None if entry.time is None else entry.time / 1000.0 for entry in entries]),
        ("T [K]", [entry.temperature for entry in entries]),
    ):
        if any(value is not None for value in values):
            columns[head] = ["-" if value is None else f"{value:.6g}" for value in values]
    for one in selection.scores:
        of_what = f" of {one.quantity}" if len(selection.scores) > 1 else ""
        if one.errors is not None:
            kind = "error" if one.calibrated else "deviation"
            columns[f"{kind}{of_what} [{one.unit}]"] = [f"{value:.3g}" for value in one.errors]
        if one.grades is not None:
            columns[f"grade{of_what}"] = [f"{value:.2f}" for value in one.grades]
    if any(selection.n_known):
        columns["distance"] = ["-" if np.isnan(value) else f"{value:.2f}" for value in selection.distances]
    columns["why"] = selection.reasons
    widths = {head: max(len(head), *(len(text) for text in texts)) for head, texts in columns.items()}
    left = ("source", "why")
    rows = [list(columns), *zip(*columns.values())]
    return [
        "  ".join(
            text.ljust(widths[head]) if head in left else text.rjust(widths[head])
            for head, text in zip(columns, row, strict=True)
        ).rstrip()
        for row in rows
    ]


def write_chosen(path: Path, selection: Selection, models: Sequence[Model], known: Sequence[Sequence[Atoms]]) -> None:
    """Write the chosen frames as extended XYZ, without any prediction that could be mistaken for a label.

    Parameters
    ----------
    models : whose training data say the total charge and multiplicity of frames that state none, if all agree there.
    known : for each model its labeled structures: it says this only of frames that consist of the same atoms.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    frames = []
    formulas = [{_formula(labeled) for labeled in part} for part in known]
    for k, entry in enumerate(selection.chosen):
        facts = {
            "source": entry.source,
            "frame": entry.index,
            "replica": entry.replica,
            "molecule": entry.molecule,
            "time": entry.time,
            "temperature": entry.temperature,
        }
        units = {"positions": "A", "time": "fs", "temperature": "K"}
        for one in selection.scores:
            name = error_name(one)
            if one.errors is not None:
                facts[name], units[name] = float(one.errors[k]), one.unit
            if one.grades is not None:
                facts[f"{one.quantity}_extrapolation"] = float(one.grades[k])
        if np.isfinite(selection.distances[k]):
            facts["distance"] = float(selection.distances[k])
        facts["reason"] = selection.reasons[k]
        info = {key: value for key, value in facts.items() if value is not None}
        info["units"] = " ".join(f"{key}={unit}" for key, unit in units.items() if key == "positions" or key in info)
        atoms = entry.atoms
        alike = [model for model, own in zip(models, formulas) if _formula(atoms) in own]
        frames.append(
            Atoms(
                atoms.numbers,
                atoms.positions,
                cell=atoms.cell,
                pbc=atoms.pbc,
                info={**_stated(alike), **atoms.info, **info},
            )
        )
    with atomic_path(path) as temporary:
        write(temporary, frames, format="extxyz")


def error_name(scores: Scores) -> str:
    """Name of the errors in the file: of forces they are those of the atom where they are largest."""
    kind = "error" if scores.calibrated else "deviation"
    return f"{scores.quantity}_{kind}" + ("_largest" if scores.quantity == FORCES else "")


def _formula(atoms: Atoms) -> tuple[int, ...]:
    return tuple(sorted(atoms.numbers.tolist()))


def _stated(models: Sequence[Model]) -> dict[str, Any]:
    """Return total charge and multiplicity of the training data, where these have a single one."""
    found: dict[str, Any] = {}
    for model in models:
        for key, name in (("total_charge", "total_charges"), ("multiplicity", "multiplicities")):
            values = model.settings.provenance.get(name)
            if isinstance(values, list) and len(values) == 1:
                found.setdefault(key, round(values[0]) if key == "multiplicity" else values[0])
    return found
