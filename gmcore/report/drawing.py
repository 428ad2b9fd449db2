"""Panels of a report: small vector figures, side by side on a wide page and below each other on a phone.

Each panel is a separate SVG, embedded as a data URI. Text has the same size on pages of any width, prints are sharp,
and identifiers of one figure cannot clash with those of another. Letters are stored as outlines, so that the page looks
the same without the fonts. A panel keeps the function that draws it, for figures in files (`gmcore.report.export`).

Series are told apart without colors: lines of different states differ in lightness and dashes, points in lightness and
markers. The colors are distinct with every kind of color vision.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from gmcore.evaluation.figures import DARK, LIGHT, draw_grid, new_figure
from gmcore.report.plot import Plot

SIZES = {"half": (5.0, 3.3), "third": (3.3, 2.4), "square": (4.6, 4.4), "wide": (10.2, 2.6)}
"""Width and height of panels, inches; a page has room for two halves or three thirds side by side."""

STYLE = {
    "svg.hashsalt": "gmtensor",  # the same numbers give the same file
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 8.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.3,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "0.85",
    "legend.handlelength": 2.4,
}
_FEW = {1: (DARK,), 2: (DARK, LIGHT), 3: (DARK, "#b5306d", "#f0a020")}
_DASHES = ("-", (0, (5, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1.5, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Panel:
    """A picture.

    Attributes
    ----------
    letter : its letter in the caption.
    alt : description for readers who cannot see it.
    image : data URI.
    size : a key of SIZES.
    draw : draws it; None for a picture from a file.
    """

    letter: str
    alt: str
    image: str
    size: str
    draw: Callable[[Plot], None] | None = None


@dataclass(frozen=True)
class Look:
    """Label, color, dashes and marker (as matplotlib takes them) of one state."""

    label: str
    color: str
    dashes: Any
    marker: str = "o"

    @property
    def line(self) -> dict[str, Any]:
        """Style of a line."""
        return {"color": self.color, "linestyle": self.dashes}


def looks(states: list[dict[str, Any]]) -> list[Look]:
    """Return a look for each state: colors from dark to light, different dashes and markers."""
    n = len(states)
    colors: Sequence[str] | None = _FEW.get(n)
    if colors is None:
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        colors = [to_hex(color) for color in colormaps["plasma"](np.linspace(0.0, 0.82, n))]
    return [
        Look(state["label"], colors[k], _DASHES[k % len(_DASHES)], _MARKERS[k % len(_MARKERS)])
        for k, state in enumerate(states)
    ]


def panel(letter: str, alt: str, draw: Callable[[Plot], None], size: str = "half") -> Panel:
    """Return a panel; `draw` draws into its axes, `size` is a key of SIZES."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = new_figure(*SIZES[size])
        draw(Plot(figure.add_subplot()))
        draw_grid(figure)
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "gmtensor"})
    image = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Panel(letter, alt, image, size, draw)


def letters() -> Iterator[str]:
    """Yield a, b, c, ..."""
    return iter("abcdefghijklmnopqrstuvwxyz")


def values(axis: dict[str, Any]) -> np.ndarray:
    """Return the values (n_points,) of an axis of a curve; null becomes NaN."""
    return np.array(axis["values"], dtype=np.float64)
