"""Figures of D and E against temperature, and of D along the run, drawn from analysis.json alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gmcore.evaluation.figures import DARK, LIGHT, labeled
from gmcore.report.blocks import FigureBlock, any_has, labels, numbered
from gmcore.report.drawing import letters, looks, panel, values
from gmcore.report.plot import Plot
from gmcore.units import conversion

SHOWN = (
    ("D", "D_of_mean", "D"),
    ("E", "E_of_mean", "E"),
    ("D_width", "D_width", "width of D"),
    ("E_width", "E_width", "width of E"),
)
"""Quantity of the run, that of harmonic modes, and label."""


def temperatures(analysis: dict[str, Any]) -> FigureBlock | None:
    """Return D, E and their widths against temperature, with harmonic modes and reference values; None without D."""
    if not any("anisotropy" in state for state in analysis["states"]):
        return None
    block = partial(FigureBlock, name="temperature", title="D, E and their widths against temperature", paper="")
    found = [(temperature, state["anisotropy"]) for state in analysis["states"] if (temperature := _reached(state))]
    found.sort(key=lambda one: one[0])
    if not found:
        return block(missing="The temperature of this run is not known")
    at, order = np.array([temperature for temperature, _ in found]), letters()
    thermal = (analysis["modes"] or {}).get("thermal", {})
    known: set[str] = set()

    def draw(name: str, harmonic: str, label: str):
        def on(plot):
            entries = [section[name] for _, section in found]
            known.update(_draw_run(plot, at, entries, label))
            _draw_modes(plot, thermal, harmonic)
            _draw_reference(plot, analysis, name, at)
            plot.axes.set_xlim(left=0.0)
            if name != "D":
                plot.axes.set_ylim(bottom=0.0)
            plot.axes.margins(y=0.12)
            plot.axes.set_xlabel("temperature / K")
            plot.axes.set_ylabel(labeled(label, analysis["unit"]))
            plot.axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False)

        return on

    panels = [
        panel(next(order), f"{label} against temperature", draw(name, harmonic, label))
        for name, harmonic, label in SHOWN
    ]
    caption = (
        "Markers: means over frames of D and E, and their widths (standard deviations over frames), with one standard "
        "error of sampling."
    )
    if "model" in known:
        caption += " Band: plus and minus the calibrated error of the D model."
    elif "committee" in known:
        caption += " Band: deviation between the members of the D model; it is not calibrated."
    if thermal:
        caption += (
            " Lines: harmonic modes of the relaxed structure, D and E of the averaged tensor to second order and "
            "widths to first order. Quantum modes (solid) include zero-point motion; the dynamics is classical and "
            "corresponds to the dotted line."
        )
    return block(caption=caption, panels=panels)


def _reached(state: dict[str, Any]) -> float | None:
    """Return the temperature at which the averages of a state are drawn: of the thermostat, else as measured."""
    if "anisotropy" not in state:
        return None
    target = state["target"]["value"]
    return target if target is not None else (state["thermodynamics"].get("temperature") or {}).get("value")


def _draw_run(plot: Plot, at: np.ndarray, entries: list[dict[str, Any]], label: str) -> set[str]:
    """Draw values of the run, and the band of the model around them; return which kind of band is known."""
    middle = np.array([entry["value"] for entry in entries], dtype=float)
    kind = next((kind for kind in ("model", "committee") if all(entry.get(kind) for entry in entries)), None)
    if kind is not None:
        half = np.array([entry[kind] for entry in entries], dtype=float)
        around = at
        if len(at) == 1:  # a band needs some width
            around, middle_of_band, half = at * [0.95, 1.05], np.repeat(middle, 2), np.repeat(half, 2)
        else:
            middle_of_band = middle
        words = "model error" if kind == "model" else "committee"
        low, high = middle_of_band - half, middle_of_band + half
        plot.band(words, around, middle_of_band, low, high, color=DARK, alpha=0.18, label=words)
    errors = [entry.get("error") or 0.0 for entry in entries]
    style = {"marker": "o", "markersize": 5, "capsize": 3, "elinewidth": 1.2, "label": "run", "zorder": 3}
    plot.points("run", at, middle, errors, color=DARK, **style)
    return {kind} if kind else set()


def _draw_modes(plot: Plot, thermal: dict[str, Any], name: str) -> None:
    for kind, dashes in (("quantum", "-"), ("classical", ":")):
        curve = thermal.get(kind, {}).get(name)
        if curve:
            style = {"color": LIGHT, "linestyle": dashes, "label": f"{kind} modes"}
            plot.line(f"{kind} harmonic modes", values(curve["x"]), values(curve["y"]), **style)


def _draw_reference(plot: Plot, analysis: dict[str, Any], name: str, at: np.ndarray) -> None:
    reference = analysis["reference"]
    given = [entry for entry in (reference or {}).get("values", []) if entry["quantity"] == name]
    points = []
    for entry in given:
        factor = conversion("d_tensor", entry["unit"])[0] / conversion("d_tensor", analysis["unit"])[0]
        low, high = np.array(entry["value"] if isinstance(entry["value"], list) else [entry["value"]] * 2) * factor
        for temperature in at if entry["temperature"] is None else [entry["temperature"]]:
            points.append((temperature, 0.5 * (low + high), 0.5 * (high - low)))
    if points:
        x, y, half = np.array(sorted(points)).T
        style = {"marker": "D", "markersize": 5.5, "markerfacecolor": "white", "capsize": 3, "elinewidth": 1.0}
        plot.points(reference["source"], x, y, half, color="black", label=reference["source"], zorder=4, **style)


def course(analysis: dict[str, Any]) -> FigureBlock | None:
    """Return D along the run, one panel for each state; None without D."""
    if not any("anisotropy" in state for state in analysis["states"]):
        return None
    block = partial(FigureBlock, name="course", title="D along the run", paper="")
    states = analysis["states"]
    if not any_has(states, "along", "D"):
        return block(missing="This analysis has no series of D; analyze the run again")
    order, panels = letters(), []
    known = [(state, look) for state, look in zip(states, looks(states)) if state.get("along", {}).get("D")]
    bands = [
        np.array(curve[end], float) for state, _ in known for curve in state["along"]["D"] for end in ("low", "high")
    ]
    low, high = min(band.min() for band in bands), max(band.max() for band in bands)
    margin = 0.05 * (high - low) or 1.0

    for state, _ in known:

        def on(plot, state=state):
            own = looks([{"label": f"replica {k}"} for k in state["replicas"]])
            for look, curve in zip(own, state["along"]["D"]):
                x, y = values(curve["x"]), values(curve["y"])
                plot.band(look.label, x, y, curve["low"], curve["high"], color=look.color, alpha=0.2)
                plot.axes.plot(x, y, **look.line, linewidth=1.0, label=look.label)
            plot.axes.set_ylim(low - margin, high + margin)
            plot.axes.set_xlabel("time / ps")
            plot.axes.set_ylabel(labeled("D", analysis["unit"]))
            plot.axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, frameon=False)

        panels.append(panel(next(order), f"D along the run at {state['label']}", on))
    caption = (
        "One line for each replica"
        f"{', of the first molecule' if analysis['run']['n_molecules'] > 1 else ''}: the mean over short stretches of "
        "time. The band reaches from the lowest to the highest value of each stretch, so it shows the fast vibrations."
    )
    if len(panels) > 1:
        caption = f"D at {labels([state for state, _ in known])}. " + caption
    return block(caption=numbered(caption, panels), panels=panels)
