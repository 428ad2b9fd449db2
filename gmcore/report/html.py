"""The report of a run: RUN/report.html, one self-contained page, and RUN/report.json with every number on it.

The page needs no network: figures and styles are embedded, and so is the viewer of the molecule, the only script. All
else can be seen without scripts. Its content policy forbids the page to load anything. report.json contains the tables
with the quantities behind their cells, the captions, and the whole analysis with the curves in the figures. Paths are
relative to the folder of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from gmcore.analysis.records import ANALYSIS_FILE, RecordError, read_analysis, relative_paths, write_json
from gmcore.errors import shortened
from gmcore.evaluation.rounds import RoundsResult, read_rounds
from gmcore.files import atomic_path
from gmcore.outputs import REPORT, OutputError, check_outputs
from gmcore.report import figures as averages
from gmcore.report import figures_dynamics, figures_temperature, figures_training, molecule, settings_tables, tables
from gmcore.report import rounds as rounds_blocks
from gmcore.report.blocks import FigureBlock
from gmcore.report.export import export
from gmcore.report.summary import answers, headline, lead
from gmcore.report.tables import Table

REPORT_FILE = "report.html"
TEMPLATE = "report.html.j2"
FORMAT = "gmtensor-report"
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def write_report(
    run: str | Path,
    output: str | Path | None = None,
    figures: str | Path | None = None,
    rounds: str | Path | None = None,
) -> tuple[Path, ...]:
    """Write the page and its numbers; return both paths, and those of the figures if they are written.

    Parameters
    ----------
    run : folder of a run that has been analyzed.
    output : path of the page, RUN/report.html if not given; the numbers are saved beside it with the suffix .json.
    figures : folder for the figures as PDF, SVG and CSV, created if it does not exist; none are written if not given.
    rounds : `rounds.json` of the workflow that made the run, for a table of its rounds.

    Raises
    ------
    RecordError : if the run has no analysis, or one that another program wrote.
    RoundsError : `rounds` is no file of rounds.
    OutputError : a file must not be written under the name of the page, of the numbers, or of a figure.
    """
    from jinja2 import UndefinedError

    path = Path(run) / REPORT_FILE if output is None else Path(output)
    numbers = path.with_suffix(".json")
    check_outputs([path], suffixes=(".html", ".htm"), makes=(REPORT, run))
    check_outputs([path, numbers], [Path(run) / ANALYSIS_FILE, rounds], makes=(REPORT, run))
    if output is not None and numbers.exists() and FORMAT not in _head(numbers):
        raise OutputError(
            f"the numbers of the report would replace {numbers}, which no report has written: choose another name"
        )
    analysis = relative_paths(read_analysis(run), run)  # those of older versions have absolute paths
    try:
        page = sections(analysis, Path(run), RoundsResult() if rounds is None else read_rounds(Path(rounds)))
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
    drawn = [] if figures is None else export(_figures(page), Path(figures), [Path(run) / ANALYSIS_FILE, path, numbers])
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="xmlcharrefreplace")
    write_json(numbers, _numbers(analysis, page))
    return path, numbers, *drawn


def _figures(page: list[dict[str, Any]]) -> list[FigureBlock]:
    return [entry["block"] for section in page for entry in section["blocks"] if entry["kind"] == "Figure"]


def sections(analysis: dict[str, Any], run: Path, rounds: RoundsResult) -> list[dict[str, Any]]:
    """Return the sections of the page: anchor, title, and their tables and figures in order."""
    parts: list[tuple[str, str, list[Callable[[dict[str, Any]], FigureBlock | Table | None]]]] = [
        (
            "anisotropy",
            "Anisotropy",
            [
                figures_temperature.temperatures,
                tables.anisotropy,
                settings_tables.comparison,
                molecule.molecule,
                averages.distributions,
                tables.elements,
            ],
        ),
        ("structure", "Structure", [averages.structure, tables.structure]),
        ("dynamics", "Dynamics", [figures_temperature.course, figures_dynamics.dynamics]),
        ("modes", "Harmonic modes", [figures_dynamics.modes, settings_tables.modes, settings_tables.harmonic]),
        ("reliability", "Reliability", [averages.committee, tables.deviations, tables.calibration]),
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
        (
            "rounds",
            "Rounds",
            [partial(rounds_blocks.table, rounds=rounds), partial(rounds_blocks.comparison, rounds=rounds)],
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
    from markupsafe import Markup

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
        answers=answers(analysis),
        sections=page,
        missing=list(dict.fromkeys(analysis["missing"].values())),
        dash=_dash,
        viewer=next((block.viewer for block in _figures(page) if block.viewer), None),
        script=lambda name: Markup((files("gmcore.report") / name).read_text(encoding="utf-8")),
    )


def _head(path: Path) -> str:
    """Return the beginning of a file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(200)


def _dash(dashes: Any) -> str:
    """Return the dashes of a matplotlib line as those of SVG."""
    return "none" if dashes == "-" else " ".join(f"{1.5 * length:g}" for length in dashes[1])


def _numbers(analysis: dict[str, Any], page: list[dict[str, Any]]) -> dict[str, Any]:
    """Return everything on the page as data."""
    found: dict[str, Any] = {"format": FORMAT, "schema": 1, "title": headline(analysis), "summary": lead(analysis)}
    found["trust"] = [answer._asdict() for answer in answers(analysis)]
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
