"""What a page is made of: blocks of panels with a caption.

A figure that cannot be drawn is a block without panels, whose `missing` says in a sentence why. `paper` names the
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
    name : short name, its anchor.
    caption : sentences, plain text.
    legend : looks shared by all panels.
    missing : why there are no panels.
    """

    name: str
    title: str
    paper: str
    caption: str = ""
    panels: list[Panel] = field(default_factory=list)
    legend: list[Look] = field(default_factory=list)
    missing: str = ""


def any_has(states: list[dict[str, Any]], section: str, name: str) -> bool:
    return any(state.get(section, {}).get(name) for state in states)


def labels(states: list[dict[str, Any]]) -> str:
    return ", ".join(state["label"] for state in states)
