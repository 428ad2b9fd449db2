"""Figures of a page: panels with a caption.

A figure that cannot be drawn has no panels; its `missing` is a sentence that says why. `paper` is the number of the
figure of P (Zaverkin et al., J. Chem. Theory Comput. 2022, 18, 1) that shows the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gmcore.report.drawing import Look, Panel


@dataclass(frozen=True)
class FigureBlock:
    """A figure of the page.

    Attributes
    ----------
    name : short name, used as anchor.
    title : heading.
    paper : number of the corresponding figure of P, empty if there is none.
    caption : sentences, plain text.
    panels : the pictures.
    legend : looks shared by all panels.
    missing : sentence without a period that says why there are no panels.
    viewer : data of the 3D viewer that replaces the panels where scripts run, None for other figures.
    """

    name: str
    title: str
    paper: str
    caption: str = ""
    panels: list[Panel] = field(default_factory=list)
    legend: list[Look] = field(default_factory=list)
    missing: str = ""
    viewer: dict[str, Any] | None = None


def numbered(sentences: str, panels: list[Panel]) -> str:
    """Return a caption; the letter of a single panel is not drawn, so it is removed from the caption as well."""
    return sentences.removeprefix(f"({panels[0].letter}) ") if len(panels) == 1 else sentences


def any_has(states: list[dict[str, Any]], section: str, name: str) -> bool:
    """Return whether a section of any state has an entry of this name that is not empty."""
    return any(state.get(section, {}).get(name) for state in states)


def labels(states: list[dict[str, Any]]) -> str:
    """Return the labels of the states, separated by commas."""
    return ", ".join(state["label"] for state in states)
