"""Figures of dynamics: autocorrelation functions, spectra and harmonic modes, drawn from analysis.json alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gmcore.evaluation.figures import DARK, LIGHT, labeled
from gmcore.report.blocks import FigureBlock, any_has, labels, numbered
from gmcore.report.drawing import Look, Panel, letters, looks, panel, values
from gmcore.report.plot import Plot

SOFT = 400.0
"""Upper end of the panel of low wavenumbers, cm^-1."""


def dynamics(analysis: dict[str, Any]) -> FigureBlock:
    """Return autocorrelation functions and spectra of velocities and D, with marks at harmonic frequencies."""
    block = partial(FigureBlock, name="dynamics", title="Autocorrelation functions and power spectra", paper="6")
    states, unit = analysis["states"], analysis["unit"]
    styles, order = looks(states), letters()
    panels = []
    for name, symbol, words in (
        ("velocity", "$C_{vv}(t)$", "Autocorrelation of velocities"),
        ("d_tensor", "$C_{DD}(t)$", "Autocorrelation of D"),
        ("d_tensor_fluctuation", r"$C_{\delta D\,\delta D}(t)$", "Autocorrelation of the fluctuations of D"),
    ):
        if any_has(states, "autocorrelations", name):
            alt = f"{words} at {labels(states)}"
            panels.append(panel(next(order), alt, _draw_correlation(states, styles, name, symbol), "third"))
    shown = spectrum_state(analysis)
    sticks = _sticks(analysis)
    for name, words, label in (
        ("velocity", "Density of states from velocities", "density of states / (modes/cm$^{-1}$)"),
        ("d_tensor", "Power spectral density of D", f"spectral density of D / {_squared(unit)}"),
    ):
        if shown is not None and shown["spectra"].get(name):
            draw = _draw_spectrum(shown["spectra"][name], sticks, label)
            panels.append(panel(next(order), f"{words} at {shown['label']}", draw))
    if any_has(states, "spectra", "d_tensor"):
        label = f"spectral density of D / {_squared(unit)}"
        if len(states) > 1:
            alt = f"Power spectral density of D at {labels(states)}"
            panels.append(panel(next(order), alt, _draw_spectra(states, styles, label)))
        alt = f"Power spectral density of D below {SOFT:g} cm⁻¹, linear scale"
        panels.append(panel(next(order), alt, _draw_soft(states, styles, sticks, label)))
    if not panels:
        why = analysis["missing"].get("spectrum_velocity") or analysis["missing"].get("velocity")
        return block(missing=why or "The run recorded neither velocities nor D")
    caption = numbered(_dynamics_caption(analysis, panels, shown), panels)
    return block(caption=caption, panels=panels, legend=styles)


def spectrum_state(analysis: dict[str, Any]) -> dict[str, Any] | None:
    """Return the state whose spectra are drawn in full: the coldest one, which has the narrowest lines."""
    return next((state for state in analysis["states"] if state["spectra"]), None)


def _draw_correlation(states: list[dict[str, Any]], styles: list[Look], name: str, symbol: str):
    def on(plot):
        plot.axes.axhline(0.0, color="0.6", linewidth=0.7)
        for state, look in zip(states, styles):
            found = state["autocorrelations"].get(name)
            if found:
                plot.line(look.label, values(found["x"]), values(found["y"]), **look.line, linewidth=1.0)
        plot.axes.set_xlabel("time / ps")
        plot.axes.set_ylabel(symbol)

    return on


def _draw_spectrum(methods: dict[str, Any], sticks: np.ndarray, label: str):
    def on(plot):
        found = methods["fft"]
        plot.line(
            "Fourier transform",
            values(found["x"]),
            values(found["y"]),
            color=LIGHT,
            linewidth=0.9,
            label="Fourier transform",
        )
        found = methods["maximum_entropy"]
        x, y = values(found["x"]), values(found["y"])
        plot.band("maximum entropy", x, y, found["low"], found["high"], color=DARK, alpha=0.25)
        plot.axes.plot(x, y, color=DARK, linewidth=1.4, label="maximum entropy")
        _spectral_axes(plot.axes, methods, label)
        if len(sticks):
            _draw_sticks(plot, sticks)
        plot.axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False)

    return on


def _draw_spectra(states: list[dict[str, Any]], styles: list[Look], label: str):
    curves = {look.label: _entropy(state) for state, look in zip(states, styles)}

    def on(plot):
        for look in styles:
            found = curves[look.label]
            if found:
                plot.line(look.label, values(found["x"]), values(found["y"]), **look.line, linewidth=1.0)
        _spectral_axes(plot.axes, curves, label)

    return on


def _draw_soft(states: list[dict[str, Any]], styles: list[Look], sticks: np.ndarray, label: str):
    """Return a function that draws the low wavenumbers, which cause most of the width of D."""

    def on(plot):
        top = 0.0
        for state, look in zip(states, styles):
            found = _entropy(state)
            if found:
                x, y = values(found["x"]), values(found["y"])
                shown = x <= SOFT
                top = max(top, y[shown].max())
                plot.line(look.label, x[shown], y[shown], **look.line, linewidth=1.0)
        plot.axes.set_xlim(0.0, SOFT)
        plot.axes.set_ylim(0.0, 1.08 * top)
        plot.axes.set_xlabel("wavenumber / cm$^{-1}$")
        plot.axes.set_ylabel(label)
        _draw_sticks(plot, sticks[sticks <= SOFT])

    return on


def _entropy(state: dict[str, Any]) -> dict[str, Any] | None:
    """Return the spectrum of D by maximum entropy, None if it was not computed."""
    return state["spectra"].get("d_tensor", {}).get("maximum_entropy")


def _spectral_axes(axes, curves: dict[str, Any], label: str) -> None:
    """Set a logarithmic y axis from the weakest part of the spectrum to the strongest line."""
    drawn = [found for found in curves.values() if found]
    top = max(np.nanmax(values(found["y"])) for found in drawn)
    floor = min(np.nanquantile(values(found["y"]), 0.02) for found in drawn)
    axes.set_yscale("log")
    axes.set_ylim(max(0.3 * floor, 1e-8 * top), 4.0 * top)
    axes.set_xlim(0.0, max(values(found["x"])[-1] for found in drawn))
    axes.set_xlabel("wavenumber / cm$^{-1}$")
    axes.set_ylabel(label)


def _draw_sticks(plot: Plot, frequencies: np.ndarray) -> None:
    """Draw short lines at the bottom of the axes."""
    plot.record("harmonic frequencies", frequencies, np.full(len(frequencies), np.nan))
    transform = plot.axes.get_xaxis_transform()
    plot.axes.vlines(frequencies, 0.0, 0.06, transform=transform, color="0.2", linewidth=0.8)


def _sticks(analysis: dict[str, Any]) -> np.ndarray:
    """Return the harmonic frequencies, cm^-1, within the range of the spectra."""
    if not analysis["modes"]:
        return np.zeros(0)
    frequencies = np.array(analysis["modes"]["frequencies"]["value"], dtype=float)
    state = spectrum_state(analysis)
    if state is None:
        return frequencies[frequencies > 0.0]
    last = max(values(found["fft"]["x"])[-1] for found in state["spectra"].values())
    return frequencies[(frequencies > 0.0) & (frequencies <= last)]


def _dynamics_caption(analysis: dict[str, Any], panels: list[Panel], shown: dict[str, Any] | None) -> str:
    of = {panel.alt.split(" at ")[0]: panel.letter for panel in panels}
    parts = []
    if "Autocorrelation of velocities" in of:
        parts.append(f"({of['Autocorrelation of velocities']}) Velocities, each component normalized separately.")
    if "Autocorrelation of D" in of:
        parts.append(
            f"({of['Autocorrelation of D']}) Elements of D as in eq. 15 of the paper; elements with a mean far from "
            "zero keep the function away from zero. "
            f"({of['Autocorrelation of the fluctuations of D']}) The same for D − ⟨D⟩."
        )
    if shown is not None and shown["spectra"]:
        spectra = shown["spectra"].get("d_tensor") or shown["spectra"]["velocity"]
        low, high = spectra["maximum_entropy"]["orders"]
        orders = f"order {low}" if low == high else f"orders {low} to {high}"
        drawn = [
            panel.letter for panel in panels if panel.alt.endswith(f" at {shown['label']}") and panel.size == "half"
        ]
        parts.append(
            f"({', '.join(drawn)}) Spectra at {shown['label']} by maximum entropy (Burg, {orders}) and by Fourier "
            f"transform (lines are {spectra['fft']['resolution']['value']:.3g} cm⁻¹ wide). The band is the 95 % "
            f"interval of the mean over {spectra['fft']['n_spectra']} spectra, from blocks of all replicas. The "
            "density of states integrates to the number of degrees of freedom. The density of D is summed over the "
            "nine elements and integrates to their variance. Motion slower than a block is not included in either."
        )
        rest = [panel.letter for panel in panels if panel.size == "half" and panel.letter not in drawn]
        if len(rest) > 1:
            parts.append(f"({rest[0]}) Maximum entropy at all temperatures.")
        if rest:
            parts.append(f"({rest[-1]}) Maximum entropy below {SOFT:g} cm⁻¹ on a linear scale.")
        if analysis["modes"]:
            parts.append("Short vertical lines at the bottom mark harmonic frequencies of the relaxed structure.")
    for name in ("velocity", "spectrum_velocity", "spectrum_d_tensor", "modes", "d_tensor"):
        if name in analysis["missing"]:
            parts.append(f"{analysis['missing'][name]}.")
    return " ".join(parts)


def _squared(unit: str) -> str:
    """Return the unit of a spectral density: unit^2 per cm^-1."""
    return "cm$^{-1}$" if unit == "cm^-1" else f"({unit}$^2$/cm$^{{-1}}$)"


def modes(analysis: dict[str, Any]) -> FigureBlock:
    """Return the coupling of D to each harmonic mode, and its coherence with each mode along the run."""
    block = partial(FigureBlock, name="modes", title="D and the harmonic modes", paper="")
    found, unit = analysis["modes"], analysis["unit"]
    if not found or "coupling" not in found:
        return block(missing=analysis["missing"].get("modes", "The derivatives of D along the modes need a D model"))
    frequencies = np.array(found["frequencies"]["value"], dtype=float)
    order, panels = letters(), []

    def strength(plot):
        heights = np.array(found["coupling"]["strength"]["value"], float)
        plot.sticks("coupling", frequencies, heights, color=DARK, linewidth=1.2)
        _stick_axes(plot.axes, frequencies, labeled(r"$|\partial\,$tensor$/\partial q|$", unit))

    panels.append(panel(next(order), "Coupling of D to each mode", strength))
    caption = (
        f"({panels[0].letter}) Norm of the derivative of the tensor along each mode. q is dimensionless (⟨q²⟩ = 1/2 in "
        "the ground state)."
    )
    state = next((s for s in analysis["states"] if "coherence" in s.get("modes", {})), None)
    if state is not None:
        coherence = state["modes"]["coherence"]

        def along(plot):
            axes = plot.axes
            heights = {name: np.array(coherence[name]["value"], float) for name in "DE"}
            plot.sticks("D", frequencies, heights["D"], color=DARK, linewidth=0.9, label="D")
            plot.points("E", frequencies, heights["E"], marker="o", color=LIGHT, markersize=2.6, label="E")
            axes.axhline(
                coherence["floor"]["value"], color="0.3", linewidth=0.9, linestyle=":", label="unrelated series"
            )
            _stick_axes(axes, frequencies, "coherence with the mode")
            axes.set_ylim(0.0, 1.02)
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, frameon=False)

        panels.append(panel(next(order), f"Coherence of D and E with each mode at {state['label']}", along))
        caption += (
            f" ({panels[1].letter}) Coherence of D(t) and E(t) at {state['label']} with the coordinate of each mode "
            f"at its frequency, mean over replicas (lines are {coherence['resolution']['value']:.3g} cm⁻¹ wide). The "
            "dotted line is the value for unrelated series."
        )
    elif "coherence" in analysis["missing"]:
        caption += f" {analysis['missing']['coherence']}."
    return block(caption=numbered(caption, panels), panels=panels)


def _stick_axes(axes, frequencies: np.ndarray, label: str) -> None:
    axes.set_xlim(min(0.0, 1.05 * np.nanmin(frequencies)), 1.03 * np.nanmax(frequencies))
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("harmonic wavenumber / cm$^{-1}$")
    axes.set_ylabel(label)
