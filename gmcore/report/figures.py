"""Figures of averages: distributions, structure and committee deviations, drawn from analysis.json alone."""

from __future__ import annotations

from functools import partial
from typing import Any

from gmcore.evaluation.figures import labeled
from gmcore.quantities import ELEMENTS
from gmcore.report.blocks import FigureBlock, any_has, labels
from gmcore.report.drawing import letters, looks, panel, values
from gmcore.report.numbers import with_interval

DENSITY_UNITS = {"cm^-1": "cm", "MHz": "MHz$^{-1}$", "GHz": "GHz$^{-1}$", "meV": "meV$^{-1}$", "K": "K$^{-1}$"}


def distributions(analysis: dict[str, Any]) -> FigureBlock:
    """Return the distributions of D, E and the elements at all temperatures."""
    block = partial(
        FigureBlock, name="distributions", title="Distributions of D, E and the elements of the tensor", paper="5"
    )
    states, unit = analysis["states"], analysis["unit"]
    names = [name for name in ("D", "E", *ELEMENTS) if any_has(states, "distributions", name)]
    if not names:
        return block(missing=analysis["missing"].get("d_tensor", "D is constant in this run"))
    styles, order = looks(states), letters()

    def draw(name: str):
        def on(plot):
            axes = plot.axes
            for state, look in zip(states, styles):
                found = state["distributions"].get(name)
                if found:
                    x, y = values(found["x"]), values(found["y"])
                    visible = y > 1e-3 * y.max()
                    plot.line(look.label, x[visible], y[visible], **look.line)
            axes.set_ylim(bottom=0.0)
            symbol = name if name in ("D", "E") else rf"$D_{{{name}}}$"
            axes.set_xlabel(labeled(symbol, unit))
            axes.set_ylabel(labeled("probability density", DENSITY_UNITS[unit]))

        return on

    panels = [
        panel(
            next(order), f"Distribution of {name} at {labels(states)}", draw(name), "half" if name in "DE" else "third"
        )
        for name in names
    ]
    caption = (
        f"Probability densities of D and E ({panels[0].letter}–{panels[min(1, len(panels) - 1)].letter}) and of the "
        f"elements of the tensor, in the {analysis['frame']}. Gaussian kernel estimates from the samples of all "
        "replicas of a temperature, with a bandwidth for the number of independent samples. Each density integrates "
        "to one. E cannot be negative, so its density is mirrored at zero."
    )
    return block(caption=caption, panels=panels, legend=styles)


def structure(analysis: dict[str, Any]) -> FigureBlock:
    """Return D and E against the geometry around the metal."""
    block = partial(FigureBlock, name="structure", title="D and E against the geometry around the metal", paper="4")
    states, unit, missing = analysis["states"], analysis["unit"], analysis["missing"]
    if not any_has(states, "structure", "points") or not states[0]["structure"]["points"]:
        why = missing.get("d_tensor") or missing.get("structure") or missing.get("structure_distance")
        return block(missing=why or "The analysis measured no distances or angles")
    measures = states[0]["structure"]["measures"]
    styles, order = looks(states), letters()

    def draw(of: str, measure: dict[str, Any]):
        def on(plot):
            axes = plot.axes
            for state, look in reversed(list(zip(states, styles))):  # the widest cloud goes behind
                found = state["structure"]
                x, y = values(found["scatter"][measure["name"]]), values(found["points"][of])
                plot.cloud(look.label, x, y, s=7, color=look.color, marker=look.marker, alpha=0.45)
            axes.set_xlabel(labeled(measure["words"], measure["mean"]["unit"].replace("A", "Å")))
            axes.set_ylabel(labeled(of, unit))
            handles = [
                axes.scatter([], [], s=16, color=look.color, marker=look.marker, label=f"{look.label}:  r = {text}")
                for state, look in zip(states, styles)
                if (text := _coefficient(state, of, measure["name"]))
            ]
            if handles:
                axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False)

        return on

    panels = [
        panel(next(order), f"{of} against {measure['words']} at {labels(states)}", draw(of, measure))
        for measure in measures
        for of in "DE"
    ]
    caption = (
        "Samples of all replicas; at most 600 points are drawn for each temperature. r is Pearson’s correlation "
        "coefficient over all samples. Its 95 % interval in brackets comes from a moving-block bootstrap with blocks "
        "longer than the correlation time, so samples that are neighbors in time do not count as independent."
    )
    for name, words in (("structure_order", "tetrahedral order"), ("structure_distance", "distance")):
        if name in missing:
            caption += f" The {words} is not shown. {missing[name]}."
    return block(caption=caption, panels=panels)


def committee(analysis: dict[str, Any]) -> FigureBlock:
    """Return the deviations of the committees along the run."""
    block = partial(FigureBlock, name="committee", title="Committee deviations along the run", paper="S3")
    states = analysis["states"]
    styles, order, panels = looks(states), letters(), []
    for name, words in (("forces", "deviation of forces"), ("d_tensor", "deviation of D")):
        if not any_has(states, "committee", name):
            continue

        def on(plot, name=name, words=words):
            axes = plot.axes
            for state, look in zip(states, styles):
                for k, replica in zip(state["replicas"], state["committee"].get(name, {}).get("along", [])):
                    series = f"{look.label}, replica {k}"
                    plot.line(series, values(replica["x"]), values(replica["y"]), **look.line, linewidth=0.7)
            unit = next(s["committee"][name]["mean"]["unit"] for s in states if name in s["committee"])
            axes.set_ylim(bottom=0.0)
            axes.set_xlabel("time / ps")
            axes.set_ylabel(labeled(words, unit))

        panels.append(panel(next(order), f"Committee {words} at {labels(states)}", on))
    if not panels:
        return block(missing="No model of this run is a committee, or the deviations were not recorded")
    caption = (
        "One line for each replica, averaged over short stretches of time. Forces: standard deviation of the force on "
        "an atom over the members of the potential, root mean square over atoms. D: standard deviation of an element "
        "over the members of the D model, root mean square over the nine elements. If a deviation rises along the run, "
        "or is far above that of the test structures, the run visits structures that the models have not learned."
    )
    absent = [
        words for name, words in (("forces", "forces"), ("d_tensor", "D")) if not any_has(states, "committee", name)
    ]
    if absent:
        caption += f" There is no committee for {' and '.join(absent)}."
    return block(caption=caption, panels=panels, legend=styles)


def _coefficient(state: dict[str, Any], of: str, measure: str) -> str:
    for found in state["structure"]["correlations"]:
        if (found["of"], found["with"]) == (of, measure):
            return with_interval(found["value"], found["interval"])
    return ""
