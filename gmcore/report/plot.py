"""Axes that remember the numbers drawn in them, so that a figure and its data file cannot differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SYMBOLS = {r"\,": "", r"\partial": "∂", r"\delta": "δ", r"\langle": "⟨", r"\rangle": "⟩"}


class Series(NamedTuple):
    """Numbers drawn under one name; low and high are the ends of a band or of error bars, empty without them."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Plot:
    """The axes of a panel.

    Attributes
    ----------
    axes : for everything that is not data, such as limits and labels.
    series : what was drawn.
    """

    def __init__(self, axes: Axes):
        self.axes = axes
        self.series: list[Series] = []

    def record(self, name: str, x: ArrayLike, y: ArrayLike, low: ArrayLike = (), high: ArrayLike = ()) -> None:
        """Remember numbers (n,) that somebody else draws."""
        self.series.append(Series(name, *(np.asarray(part, dtype=np.float64) for part in (x, y, low, high))))

    def line(self, name: str, x: ArrayLike, y: ArrayLike, **style: Any) -> None:
        """Draw a line."""
        self.record(name, x, y)
        self.axes.plot(x, y, **style)

    def band(self, name: str, x: ArrayLike, y: ArrayLike, low: ArrayLike, high: ArrayLike, **style: Any) -> None:
        """Fill the band around a line that is drawn separately."""
        self.record(name, x, y, low, high)
        self.axes.fill_between(self.series[-1].x, self.series[-1].low, self.series[-1].high, linewidth=0, **style)

    def points(
        self, name: str, x: ArrayLike, y: ArrayLike, errors: Sequence[float] | None = None, **style: Any
    ) -> None:
        """Draw markers, with error bars if errors (n,) are given."""
        if errors is None:
            self.record(name, x, y)
            self.axes.plot(x, y, linestyle="none", **style)
        else:
            middle, half = np.asarray(y, dtype=np.float64), np.asarray(errors, dtype=np.float64)
            self.record(name, x, middle, middle - half, middle + half)
            self.axes.errorbar(x, middle, half, linestyle="none", **style)

    def cloud(self, name: str, x: ArrayLike, y: ArrayLike, **style: Any) -> None:
        """Draw a cloud of points, as a bitmap: as vectors, clouds would take megabytes."""
        self.record(name, x, y)
        self.axes.scatter(x, y, linewidths=0, rasterized=True, **style)

    def sticks(self, name: str, x: ArrayLike, y: ArrayLike, **style: Any) -> None:
        """Draw vertical lines from zero."""
        self.record(name, x, y)
        self.axes.vlines(x, 0.0, y, **style)

    def labels(self) -> tuple[str, str]:
        """Return the labels of both axes without markup."""
        return plain_label(self.axes.get_xlabel()), plain_label(self.axes.get_ylabel())


def plain_label(label: str) -> str:
    r"""Return the label of an axis without markup.

    Examples
    --------
    >>> plain_label(r"$|\partial\,$tensor$/\partial q|$ / cm$^{-1}$")
    '|∂tensor/∂q| / cm^-1'
    """
    for markup, symbol in _SYMBOLS.items():
        label = label.replace(markup, symbol)
    return re.sub(r"∂ +", "∂", re.sub(r"[${}]", "", label))
