"""Figures in files: each as PDF and SVG in the width of a journal column, and its numbers as CSV.

A figure with one panel has the width of one column (3.25 in), others that of two (7 in). Letters are stored as text
(TrueType in PDF), so that they can be searched and edited. A CSV file has one row for each point that is drawn: panel,
labels of its axes, name of the series, x, y, and the ends of its band or error bar.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmcore.evaluation.figures import draw_grid, new_figure
from gmcore.files import atomic_path
from gmcore.outputs import OutputError, check_outputs
from gmcore.report.blocks import FigureBlock
from gmcore.report.drawing import SIZES, STYLE
from gmcore.report.plot import Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.25, 7.0
"""Width of one and of two columns, inches."""

SPANS = {"half": 3, "square": 3, "third": 2, "wide": 6}
"""Columns of a grid of six that a panel takes."""

PRINT = STYLE | {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.size": 7.0,
    "axes.labelsize": 7.0,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4.0,
}
HEAD = ("panel", "x_label", "y_label", "series", "x", "y", "low", "high")


def export(blocks: list[FigureBlock], folder: Path, others: list[Path]) -> list[Path]:
    """Write the figures that have panels into a folder, and return the paths.

    Parameters
    ----------
    blocks : the figures; pictures from files are left out.
    folder : created if it does not exist.
    others : files that must not be replaced by a figure.

    Raises
    ------
    OutputError : a file must not be written under one of the names; nothing is written then.
    """
    from matplotlib import rc_context

    drawn = [block for block in blocks if block.panels and all(panel.draw for panel in block.panels)]
    paths = [folder / f"{block.name}{suffix}" for block in drawn for suffix in (".pdf", ".svg", ".csv")]
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"figures need a folder, but {folder} is a file: choose another name")
    check_outputs(paths, others)
    folder.mkdir(parents=True, exist_ok=True)
    for block in drawn:
        with rc_context(PRINT):
            figure, plots = _figure(block)
            for suffix, dates in ((".pdf", {"CreationDate": None}), (".svg", {"Date": None})):
                with atomic_path(folder / f"{block.name}{suffix}") as temporary:
                    figure.savefig(temporary, format=suffix[1:], metadata={"Creator": "gmtensor", **dates})
        with (
            atomic_path(folder / f"{block.name}.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([HEAD, *_rows(block, plots)])
    return paths


def _figure(block: FigureBlock) -> tuple[Figure, list[Plot]]:
    """Return a figure with all panels of a block, in rows, and their plots."""
    places, heights, column = [], [], 6
    single = len(block.panels) == 1
    for panel in block.panels:
        width, height = SIZES[panel.size]
        span = 6 if single else SPANS[panel.size]
        if column + span > 6:
            heights.append(0.0)
            column = 0
        places.append((len(heights) - 1, slice(column, column + span)))
        heights[-1] = max(heights[-1], (COLUMN if single else PAGE * span / 6.0) * height / width)
        column += span
    legend = 0.25 if block.legend else 0.0
    figure = new_figure(COLUMN if single else PAGE, sum(heights) + legend)
    grid = figure.add_gridspec(len(heights), 6, height_ratios=heights)
    plots = []
    for panel, place in zip(block.panels, places):
        plot = Plot(figure.add_subplot(grid[place]))
        if panel.draw is not None:
            panel.draw(plot)
        plots.append(plot)
        if not single:
            plot.axes.annotate(
                f"({panel.letter})",
                (0.0, 1.0),
                xytext=(-30.0, 4.0),
                xycoords="axes fraction",
                textcoords="offset points",
                fontweight="bold",
                ha="left",
                va="bottom",
            )
    draw_grid(figure)
    if block.legend:
        handles = [_handle(look) for look in block.legend]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    return figure, plots


def _handle(look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=look.label, **look.line)


def _rows(block: FigureBlock, plots: list[Plot]) -> list[tuple[Any, ...]]:
    """Return the rows of the CSV file."""
    rows: list[tuple[Any, ...]] = []
    for panel, plot in zip(block.panels, plots):
        head = (panel.letter, *plot.labels())
        for series in plot.series:
            low, high = (end if len(end) else [""] * len(series.x) for end in (series.low, series.high))
            rows += [(*head, series.name, *_numbers(*point)) for point in zip(series.x, series.y, low, high)]
    return rows


def _numbers(*values: Any) -> list[str]:
    """Return numbers as text; those that are unknown are empty."""
    return ["" if value == "" or value != value else f"{value:.7g}" for value in values]
