"""The report of a run: RUN/report.html, one self-contained page, and RUN/report.json with every number on it.

The page needs no network and no script: figures and styles are embedded. report.json contains the tables with the
quantities behind their cells, the captions, and the whole analysis with the curves in the figures. Paths are relative
to the folder of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gmcore.errors import shortened
from gmcore.files import atomic_path
from gmcore.outputs import REPORT, OutputError, check_outputs
from gmcore.report import figures, figures_dynamics, figures_training, settings_tables, tables
from gmcore.report.blocks import FigureBlock
from gmcore.report.numbers import quantity_text, unit_text
from gmcore.report.tables import Table

REPORT_FILE = "report.html"
TEMPLATE = "report.html.j2"
FORMAT = "gmtensor-report"
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def write_report(run: str | Path, output: str | Path | None = None) -> tuple[Path, Path]:
    """Write the page and its numbers; return both paths.

    Parameters
    ----------
    run : folder of a run that has been analyzed.
    output : path of the page, RUN/report.html if not given; the numbers are saved beside it with the suffix .json.

    Raises
    ------
    RecordError : if the run has no analysis, or one that another program wrote.
    OutputError : a file must not be written under the name of the page or of the numbers.
    """
    from jinja2 import UndefinedError

    from gmcore.analysis.records import ANALYSIS_FILE, RecordError, read_analysis, relative_paths, write_json

    path = Path(run) / REPORT_FILE if output is None else Path(output)
    numbers = path.with_suffix(".json")
    check_outputs([path], suffixes=(".html", ".htm"), makes=(REPORT, run))
    check_outputs([path, numbers], [Path(run) / ANALYSIS_FILE], makes=(REPORT, run))
    if output is not None and numbers.exists() and FORMAT not in _head(numbers):
        raise OutputError(
            f"the numbers of the report would replace {numbers}, which no report has written: choose another name"
        )
    analysis = relative_paths(read_analysis(run), run)  # those of older versions have absolute paths
    try:
        page = sections(analysis, Path(run))
        text = render(analysis, page)
    except (
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        ValueError,
        StopIteration,
        UndefinedError,
    ) as error:
        raise RecordError(
            f"{Path(run) / ANALYSIS_FILE} does not hold what a report needs ({type(error).__name__}: "
            f"{shortened(str(error))}); write it again with: gmtensor analyze {run}"
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    write_json(numbers, _numbers(analysis, page))
    return path, numbers


def sections(analysis: dict[str, Any], run: Path) -> list[dict[str, Any]]:
    """Return the sections of the page: anchor, title, and their tables and figures in order."""
    parts: list[tuple[str, str, list[Callable[[dict[str, Any]], FigureBlock | Table | None]]]] = [
        (
            "anisotropy",
            "Anisotropy",
            [tables.anisotropy, settings_tables.comparison, figures.distributions, tables.elements],
        ),
        ("structure", "Structure", [figures.structure, tables.structure]),
        ("dynamics", "Dynamics", [figures_dynamics.dynamics]),
        ("modes", "Harmonic modes", [figures_dynamics.modes, settings_tables.modes, settings_tables.harmonic]),
        ("reliability", "Reliability", [figures.committee, tables.deviations]),
        (
            "training",
            "Models",
            [
                figures_training.learning_curve,
                partial(figures_training.parity, run=run),
                settings_tables.training,
                settings_tables.models,
            ],
        ),
        ("settings", "Settings", [settings_tables.run]),
    ]
    made, number = [], {"Figure": 0, "Table": 0}
    for name, title, makers in parts:
        blocks = []
        for maker in makers:
            block = maker(analysis)
            if block is None:
                continue
            kind = "Figure" if isinstance(block, FigureBlock) else "Table"
            if isinstance(block, Table) or block.panels:
                number[kind] += 1
                label = f"{kind} {number[kind]}"
            else:
                label = ""
            blocks.append({"kind": kind, "label": label, "block": block})
        if blocks:
            made.append({"name": name, "title": title, "blocks": blocks})
    return made


def render(analysis: dict[str, Any], page: list[dict[str, Any]]) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gmcore", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    run = analysis["run"]
    return environment.get_template(TEMPLATE).render(
        title=headline(analysis),
        formula=(run["molecule"] or run["formula"]).translate(SUBSCRIPTS),
        folder=run["folder"],
        date=analysis["date"][:10],
        version=analysis["gmtensor"],
        lead=lead(analysis),
        sections=page,
        missing=list(dict.fromkeys(analysis["missing"].values())),
        dash=_dash,
    )


def headline(analysis: dict[str, Any]) -> str:
    """Return the title of the page."""
    has_tensors = any("anisotropy" in state for state in analysis["states"])
    return "Thermally averaged magnetic anisotropy" if has_tensors else "Molecular dynamics"


def lead(analysis: dict[str, Any]) -> str:
    """Return the main results in a few sentences."""
    run, states, unit = analysis["run"], analysis["states"], unit_text(analysis["unit"])
    length = f"{run['duration']['value']:g}"
    count = f"{run['n_replicas']} replica{'s' if run['n_replicas'] != 1 else ''}"
    each = " each" if run["n_replicas"] != 1 else ""
    text = f"Molecular dynamics: {count} at {_listed([state['label'] for state in states])}, {length} ps{each}."
    known = [state for state in states if "anisotropy" in state]
    if known:
        first, last = known[0], known[-1]
        at = [(state["label"], state["anisotropy"]) for state in ([first, last] if first is not last else [first])]
        for name in "DE":
            values = _listed([f"{quantity_text(found[name])}\u00a0{unit} at {label}" for label, found in at])
            widths = _listed([quantity_text(found[f"{name}_width"]) for _, found in at])
            text += f" {name} is {values}, with a width of {widths}\u00a0{unit}."
    return text


def _head(path: Path) -> str:
    """Return the beginning of a file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(200)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _dash(dashes: Any) -> str:
    """Return the dashes of a matplotlib line as those of SVG."""
    return "none" if dashes == "-" else " ".join(f"{1.5 * length:g}" for length in dashes[1])


def _numbers(analysis: dict[str, Any], page: list[dict[str, Any]]) -> dict[str, Any]:
    """Return everything on the page as data."""
    found: dict[str, Any] = {"format": FORMAT, "schema": 1, "title": headline(analysis), "summary": lead(analysis)}
    found["tables"], found["figures"] = [], []
    for section in page:
        for entry in section["blocks"]:
            block = entry["block"]
            if isinstance(block, Table):
                found["tables"].append({"label": entry["label"], **asdict(block)})
            else:
                found["figures"].append(
                    {
                        "label": entry["label"],
                        "name": block.name,
                        "title": block.title,
                        "paper": block.paper,
                        "caption": block.caption,
                        "panels": [{"letter": panel.letter, "shows": panel.alt} for panel in block.panels],
                        "missing": block.missing,
                    }
                )
    found["analysis"] = analysis
    return found
