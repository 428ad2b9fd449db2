"""The figure: error of the forces against the cost of a call, and against the time of training."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

# shades and shapes that a print without colors keeps apart
STYLES = {
    "gmtensor": {"label": "gmtensor", "marker": "o", "color": "black"},
    "apax": {"label": "apax", "marker": "s", "color": "#D55E00"},
    "nep": {"label": "NEP", "marker": "^", "color": "#56B4E9"},
    "ace": {"label": "linear ACE", "marker": "D", "color": "#999999"},
    "mtp": {"label": "MTP", "marker": "v", "color": "#CC79A7"},
}
PANELS = (
    ("cost_us", "energy and forces, us per atom (about 512 atoms, periodic)"),
    ("training_minutes", "training, minutes"),
)


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one beats in both coordinates, by rising first coordinate.

    >>> front([(1.0, 3.0), (2.0, 4.0), (3.0, 1.0)])
    [(1.0, 3.0), (3.0, 1.0)]
    """
    kept: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def measured(rows: dict[str, dict]) -> dict[str, dict]:
    """The rows that have numbers."""
    return {name: row for name, row in rows.items() if "absent" not in row}


def draw(molecules: dict[str, dict[str, dict]], path: Path) -> None:
    """Write the figure of all molecules that have numbers, one line of two panels for each, as PNG."""
    molecules = {molecule: found for molecule, rows in molecules.items() if (found := measured(rows))}
    if not molecules:
        return
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4.2 * len(molecules)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(molecules), len(PANELS), squeeze=False, sharey="row")
        names = []
        for line, (molecule, rows) in zip(panels, molecules.items()):
            for panel, (key, label) in zip(line, PANELS):
                names += [(panel, annotation) for annotation in _panel(panel, rows, key)]
                panel.set(xscale="log", yscale="log", xlabel=label)
                for axis in (panel.xaxis, panel.yaxis):
                    low, high = axis.get_view_interval()
                    wide = high > 50 * low  # fewer labels, or they overlap
                    axis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 1.5, 2, 3, 5, 7)))
                    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                    axis.set_minor_formatter(NullFormatter())
            line[0].set(ylabel="MAE of the forces, meV/A", title=molecule)
        panels[0][0].legend(frameon=False)
        _spread(figure, names)
        figure.savefig(path, dpi=150)


def _spread(figure: Figure, names: list[tuple[Axes, Annotation]]) -> None:
    """Put each name beside its point, where it covers no other name and no point."""
    figure.draw_without_rendering()  # the layout decides where the points are
    size = 7 * figure.dpi / 72
    taken = []
    for panel, name in names:
        x, y = panel.transData.transform(name.xy)
        taken.append(Bbox.from_bounds(x - size / 2, y - size / 2, size, size))
    for panel, name in sorted(names, key=lambda entry: -entry[1].xy[1]):  # the upper one of two goes up
        right = name.get_ha() == "left"  # of the point, so that it stays inside the panel
        for beside, up in ((right, 3), (right, -9), (not right, 3), (not right, -9)):
            name.set(ha="left" if beside else "right")
            name.xyann = (5 if beside else -5, up)
            box = name.get_window_extent()
            if panel.bbox.contains(box.x0, box.y0) and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _panel(panel: Axes, rows: dict[str, dict], key: str) -> list[Annotation]:
    """Draw the points and return their names."""
    names = []
    middle = np.exp(np.mean(np.log([row[key] for row in rows.values()])))
    for peer, style in STYLES.items():
        own = {name: row for name, row in rows.items() if row["peer"] == peer}
        if own:
            x, y = ([row[what] for row in own.values()] for what in (key, "forces_mae"))
            panel.plot(x, y, linestyle="none", markersize=6, markeredgecolor="black", **style)
        for name, row in own.items():
            text = name.split(" ", 1)[1] + (" (disturbed)" if row["cost_disturbed"] and key == "cost_us" else "")
            place = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 6.5}
            side = "right" if row[key] > middle else "left"
            names.append(panel.annotate(text, (row[key], row["forces_mae"]), ha=side, **place))
    if key == "cost_us":
        x, y = zip(*front([(row[key], row["forces_mae"]) for row in rows.values()]))
        panel.plot(x, y, color="0.5", linewidth=0.8, linestyle="--", zorder=0, label="best at its cost")
    return names
