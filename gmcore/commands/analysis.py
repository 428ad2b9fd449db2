"""The commands that turn a run into numbers and a page: `gmtensor analyze`, `gmtensor report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gmcore.commands.options import Threads

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a molecular dynamics run.")]


def analyze(
    run: RunFolder,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c", "--config", help="YAML with a section `analysis`; that of the run's own configuration if not given."
        ),
    ] = None,
    metal: Annotated[str | None, typer.Option(help="Central atom: an element or an index.")] = None,
    ligands: Annotated[str | None, typer.Option(help="Its ligands, elements or indices: N or 1,2,3,4.")] = None,
    discard: Annotated[float | None, typer.Option(help="Left out at the start of each replica, ps.")] = None,
    blocks: Annotated[int | None, typer.Option(help="Blocks of each replica, for error bars.")] = None,
    max_wavenumber: Annotated[float | None, typer.Option(help="End of the spectra, cm^-1.")] = None,
    mesa_order: Annotated[int | None, typer.Option(help="Order of the maximum-entropy spectra.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of D and E: cm^-1, MHz, GHz, meV or K.")] = None,
    modes: Annotated[
        bool | None, typer.Option("--modes/--no-modes", help="Harmonic modes; for molecules if not given.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Averages, distributions, correlations and spectra of a run, with error bars; writes RUN/analysis.json."""
    from rich.console import Console

    from gmcore.analysis.analyze import analyze as analyze_run
    from gmcore.threads import set_threads

    given = {
        "metal": _atom(metal),
        "ligands": ligands and [_atom(entry) for entry in ligands.replace(",", " ").split()],
        "discard": discard,
        "blocks": blocks,
        "max_wavenumber": max_wavenumber,
        "mesa_order": mesa_order,
        "unit": unit,
        "modes": modes,
    }
    settings = _settings(run, config, {key: value for key, value in given.items() if value is not None})
    set_threads(threads)
    console = Console(stderr=True)
    with console.status("reading") as status:
        content = analyze_run(run, settings, lambda words: status.update(words))
    for line in _summary(content):
        typer.echo(line)
    typer.echo(f"written: {run / 'analysis.json'}")


def report(
    run: RunFolder,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; RUN/report.html if not given.")
    ] = None,
) -> None:
    """Write the analysis of a run as one self-contained HTML page, and every number of it as JSON beside it."""
    from gmcore.report.html import write_report

    for path in write_report(run, output):
        typer.echo(f"written: {path}")


def _settings(run: Path, config: Path | None, given: dict[str, Any]) -> Any:
    """Settings of a file or of the run, with those of the command line above them."""
    from gmcore.analysis.sections.run import run_config
    from gmcore.config.analysis import Analysis
    from gmcore.config.analysis_file import read_settings, with_options

    if config is not None:
        settings = read_settings(config)
    else:
        own = run_config(run)
        settings = own.analysis if own is not None else Analysis()
    return with_options(settings, given)


def _summary(content: dict[str, Any]) -> list[str]:
    """Lines for the screen: D and E of each temperature, and what is missing."""
    from gmcore.report.numbers import quantity_text, unit_text

    lines = []
    for state in content["states"]:
        found = state.get("anisotropy")
        if found:
            values = ", ".join(
                f"{name} {quantity_text(found[name])} (width {quantity_text(found[f'{name}_width'])})" for name in "DE"
            )
            lines.append(f"{state['label']}: {values} {unit_text(content['unit'])}")
    return lines + [f"not available: {sentence}" for sentence in content["missing"].values()]


def _atom(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdigit() else text
