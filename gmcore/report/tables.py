"""Tables of results: every number with its error, one column for each temperature.

A cell contains the text on the page and the quantity behind it, so that report.json has every number of the page with
its unit and error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gmcore.report.numbers import MISSING, number, quantity_text, unit_text, with_error, with_interval, with_unit


@dataclass(frozen=True)
class Cell:
    """Text, a smaller second line, and the quantity behind both."""

    text: str
    small: str = ""
    quantity: dict[str, Any] | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    name : short name, used as anchor.
    title : heading.
    columns : heads of the columns, the first one above the row heads.
    rows : head and cells of each row.
    note : sentences below the table.
    extra : further data for report.json.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def cell(entry: dict[str, Any] | None, digits: int = 3) -> Cell:
    """Return the cell of a quantity: value ± error, and below it the committee deviation."""
    if not entry:
        return Cell(MISSING)
    small = f"committee {number(entry['committee'], 2)}" if isinstance(entry.get("committee"), float) else ""
    return Cell(quantity_text(entry, digits), small, entry)


def anisotropy(analysis: dict[str, Any]) -> Table | None:
    """Return the averages of the zero-field-splitting parameters at each temperature, None without D."""
    states, unit = analysis["states"], unit_text(analysis["unit"])
    if not any("anisotropy" in state for state in states):
        return None
    squared = f"({unit})²"
    rows = []
    for label, name, row_unit in (
        ("⟨D⟩, mean of D over frames", "D", unit),
        ("width of D", "D_width", unit),
        ("D of ⟨tensor⟩", "D_of_mean", unit),
        ("⟨E⟩, mean of E over frames", "E", unit),
        ("width of E", "E_width", unit),
        ("E of ⟨tensor⟩", "E_of_mean", unit),
        ("⟨E/|D|⟩", "E_over_D", ""),
        ("J₂ = tr D²/2", "J2", squared),
        ("spread of the axis", "axis_spread", "°"),
        ("error of the mean axis", "axis_error", "°"),
        ("order of the axis", "axis_order", ""),
        ("fraction of frames with D < 0", "negative_fraction", ""),
        ("correlation time of D", "correlation_time", "ps"),
    ):
        entries = [state["anisotropy"].get(name) for state in states]
        if any(entries):
            rows.append((with_unit(label, row_unit), [cell(entry) for entry in entries]))
    note = (
        "± is one standard error, from blocks of all replicas. Committee is the standard deviation over the members of "
        "the D model, which longer dynamics does not reduce. Widths are standard deviations over frames. D is 3/2 of "
        "the eigenvalue of largest magnitude of the traceless tensor, and E is half the difference of the other two. "
        "⟨D⟩ is the mean of D over frames. D of ⟨tensor⟩ is D of the averaged tensor, which a measurement slower than "
        "the motion sees. The spread is the root mean square angle between the axis and its mean direction. The order "
        "is the largest eigenvalue of ⟨nnᵀ⟩: 1 for parallel axes, 1/3 for random axes."
    )
    return Table(
        "anisotropy", "Thermal averages of the zero-field-splitting parameters", ["", *_heads(states)], rows, note
    )


def elements(analysis: dict[str, Any]) -> Table | None:
    """Return means and widths of the elements, eigenvalues and axis, None without D."""
    states, unit = analysis["states"], unit_text(analysis["unit"])
    if not any("elements" in state for state in states):
        return None
    rows = []
    for name in next(state["elements"] for state in states if "elements" in state):
        rows.append(
            (
                f"D {name}, mean and width / {unit}",
                [
                    Cell(
                        quantity_text(state["elements"][name]["mean"]),
                        f"width {quantity_text(state['elements'][name]['width'])}",
                        state["elements"][name],
                    )
                    for state in states
                ],
            )
        )
    for k, name in enumerate(("lowest", "middle", "highest")):
        rows.append(
            (f"{name} eigenvalue / {unit}", [_component(state["anisotropy"]["eigenvalues"], k) for state in states])
        )
    for k, name in enumerate("xyz"):
        rows.append((f"axis, {name}", [_component(state["anisotropy"]["axis"], k) for state in states]))
    note = f"Elements and axis refer to the {analysis['frame']}. The axis is a director: n and −n are equivalent."
    return Table("elements", "Elements, eigenvalues and axis", ["", *_heads(states)], rows, note)


def structure(analysis: dict[str, Any]) -> Table | None:
    """Return means and widths of distances, angles and order, and their correlation with D and E."""
    states = analysis["states"]
    if "structure" not in states[0] or not states[0]["structure"]["measures"]:
        return None
    rows = []
    for k, measure in enumerate(states[0]["structure"]["measures"]):
        unit = unit_text(measure["mean"]["unit"])
        cells = []
        for state in states:
            found = state["structure"]["measures"][k]
            cells.append(Cell(quantity_text(found["mean"]), f"width {number(found['width']['value'], 3)}", found))
        rows.append((with_unit(measure["words"], unit), cells))
    for k, correlation in enumerate(states[0]["structure"]["correlations"]):
        words = next(m["words"] for m in states[0]["structure"]["measures"] if m["name"] == correlation["with"])
        entries = [state["structure"]["correlations"][k] for state in states]
        rows.append(
            (
                f"r of {correlation['of']} with the {words}",
                [Cell(with_interval(e["value"], e["interval"]), "", e) for e in entries],
            )
        )
    title, note = "Geometry", "Widths are standard deviations over frames."
    if states[0]["structure"]["correlations"]:
        title = "Geometry and its correlation with D and E"
        note += " r is Pearson’s correlation coefficient with its 95 % interval from a moving-block bootstrap."
    return Table("structure", title, ["", *_heads(states)], rows, note)


def deviations(analysis: dict[str, Any]) -> Table | None:
    """Return temperatures, committee deviations and drifts, None if nothing was recorded."""
    states = analysis["states"]
    rows = []
    temperature = [state["thermodynamics"].get("temperature") for state in states]
    if any(temperature):
        rows.append(("kinetic temperature / K", [cell(entry) for entry in temperature]))
    for label, name in (("committee deviation of forces", "forces"), ("committee deviation of D", "d_tensor")):
        entries = [state["committee"].get(name, {}).get("mean") for state in states]
        if any(entries):
            unit = unit_text(next(entry["unit"] for entry in entries if entry))
            rows.append((with_unit(label, unit), [_deviation(entry) for entry in entries]))
    drifts = [state["thermodynamics"].get("drift") for state in states]
    if any(drifts):
        unit = unit_text(next(entry["unit"] for entry in drifts if entry))
        cells = [
            Cell(", ".join(number(value, 2) for value in entry["value"]), "", entry) if entry else Cell(MISSING)
            for entry in drifts
        ]
        rows.append((with_unit("drift of the conserved quantity, per replica", unit), cells))
    if not rows:
        return None
    note = "The range below a deviation contains the middle 90 % of frames."
    return Table("deviations", "Temperature and committee deviations along the run", ["", *_heads(states)], rows, note)


def _deviation(entry: dict[str, Any] | None) -> Cell:
    if not entry:
        return Cell(MISSING)
    low, high = entry["interval"]
    return Cell(with_error(entry["value"], entry["error"]), f"{number(low, 3)} to {number(high, 3)}", entry)


def _component(entry: dict[str, Any], k: int) -> Cell:
    errors = entry.get("error")
    error = errors[k] if errors is not None else None
    single = {"value": entry["value"][k], "unit": entry["unit"], "about": entry["about"]}
    if error is not None:
        single["error"] = error
    return cell(single)


def _heads(states: list[dict[str, Any]]) -> list[str]:
    return [state["label"] for state in states]
