"""Tables of results: every number with its error, one column for each temperature.

A cell contains the text on the page and the quantity behind it, so that report.json has every number of the page with
its unit and error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gmcore.report.numbers import MISSING, fixed, number, row_texts, unit_text, with_error, with_interval, with_unit

MODELS = {"potential": "potential", "d_tensor": "D model"}
QUANTITIES = {
    "energy_per_atom": "energy per atom",
    "d_tensor": "elements of D",
    "d_tensor_D": "D",
    "d_tensor_E": "E",
    "d_tensor_eigenvalues": "eigenvalues of D",
    "d_tensor_axis_angle": "angle of the axis",
}


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
    """Return the cell of a quantity: value ± error, and below it the parts of the error."""
    return row([entry], digits)[0]


def row(entries: Sequence[dict[str, Any] | None], digits: int = 3) -> list[Cell]:
    """Return the cells of a row, with equal numbers of decimals: value ± error, and below it the parts of the error."""
    return [
        Cell(text, _parts(entry), entry) if entry else Cell(MISSING)
        for text, entry in zip(row_texts(entries, digits), entries)
    ]


def _parts(entry: dict[str, Any]) -> str:
    """Return both parts of a total error, else the deviation of the committee."""
    if isinstance(entry.get("model"), float) and isinstance(entry.get("error"), float):
        return f"sampling {number(entry['error'], 2)}, model {number(entry['model'], 2)}"
    return f"committee {number(entry['committee'], 2)}" if isinstance(entry.get("committee"), float) else ""


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
            rows.append((with_unit(label, row_unit), row(entries)))
    note = (
        "± is one standard error: in total where its two parts are named below it, else that of sampling, from blocks "
        "of all replicas. Committee is the standard deviation over the members of the D model; it is not calibrated. "
        "Longer dynamics reduces only the sampling error. Widths are standard deviations over frames. D is 3/2 of "
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
        known = [state.get("elements", {}).get(name, {}) for state in states]
        means, widths = (row_texts([entry.get(kind) for entry in known]) for kind in ("mean", "width"))
        cells = [Cell(mean, f"width {width}", entry) for mean, width, entry in zip(means, widths, known)]
        rows.append((f"D {name}, mean and width / {unit}", cells))
    for k, name in enumerate(("lowest", "middle", "highest")):
        rows.append((f"{name} eigenvalue / {unit}", _components(states, "eigenvalues", k)))
    for k, name in enumerate("xyz"):
        rows.append((f"axis, {name}", _components(states, "axis", k)))
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
        found = [state["structure"]["measures"][k] for state in states]
        means, widths = (row_texts([entry[kind] for entry in found], 3) for kind in ("mean", "width"))
        cells = [Cell(mean, f"width {width}", entry) for mean, width, entry in zip(means, widths, found)]
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
        rows.append(("kinetic temperature / K", row(temperature)))
    for label, name in (("committee deviation of forces", "forces"), ("committee deviation of D", "d_tensor")):
        entries = [state["committee"].get(name, {}).get("mean") for state in states]
        if any(entries):
            unit = unit_text(next(entry["unit"] for entry in entries if entry))
            rows.append((with_unit(label, unit), _deviations(entries)))
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


def calibration(analysis: dict[str, Any]) -> Table | None:
    """Return how the deviations of the models were calibrated, None without a calibration."""
    rows = []
    for model, quantities in analysis.get("calibration", {}).items():
        for name, found in quantities.items():
            before, after = ([fixed(100.0 * share, 0) for share in found[key]] for key in ("coverage_raw", "coverage"))
            text = with_error(found["factor"], found.get("factor_error"))
            cells = [
                Cell(text, "", found),
                Cell({"last_layer": "last layer"}.get(found["source"], found["source"])),
                Cell(f"{before[0]}, {before[1]} %"),
                Cell(f"{after[0]}, {after[1]} %"),
                Cell(str(found["n_structures"])),
            ]
            rows.append((f"{MODELS.get(model, model)}, {QUANTITIES.get(name, name)}", cells))
    if not rows:
        return None
    columns = ["", "factor", "deviation of", "coverage before", "coverage after", "structures"]
    note = (
        "Deviations of the models times the factor are standard errors. Coverage is the share of the errors within one "
        "and two deviations, for structures that were not trained on; 68 and 95 % are right."
    )
    return Table("calibration", "Calibration of the errors of the models", columns, rows, note)


def _deviations(entries: Sequence[dict[str, Any] | None]) -> list[Cell]:
    texts = row_texts([entry and {key: entry[key] for key in ("value", "error")} for entry in entries])
    ranges = [f"{number(e['interval'][0], 3)} to {number(e['interval'][1], 3)}" if e else "" for e in entries]
    return [Cell(text, small, entry) for text, small, entry in zip(texts, ranges, entries)]


def _components(states: list[dict[str, Any]], name: str, k: int) -> list[Cell]:
    """Return the cells of a component of a vector."""
    entries = [state.get("anisotropy", {}).get(name) for state in states]
    return row(
        [
            entry and {key: part[k] if isinstance(part, list) else part for key, part in entry.items()}
            for entry in entries
        ]
    )


def _heads(states: list[dict[str, Any]]) -> list[str]:
    return [state["label"] for state in states]
