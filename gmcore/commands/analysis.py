"""The commands that analyze a run: `gmtensor analyze` and `gmtensor report`."""

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
            "-c", "--config", help="Settings of the analysis, YAML (default: the section `analysis` of the run)."
        ),
    ] = None,
    metal: Annotated[str | None, typer.Option(help="Central atom, as element or index.")] = None,
    ligands: Annotated[str | None, typer.Option(help="Ligand atoms, as elements or indices: N or 1,2,3,4.")] = None,
    discard: Annotated[float | None, typer.Option(help="Time discarded at the start of each replica, ps.")] = None,
    blocks: Annotated[int | None, typer.Option(help="Number of blocks per replica for error bars.")] = None,
    max_wavenumber: Annotated[float | None, typer.Option(help="Largest wavenumber of the spectra, cm^-1.")] = None,
    mesa_order: Annotated[int | None, typer.Option(help="Order of the maximum-entropy spectra.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of D and E: cm^-1, MHz, GHz, meV or K.")] = None,
    modes: Annotated[
        bool | None, typer.Option("--modes/--no-modes", help="Compute harmonic modes (default: only for molecules).")
    ] = None,
    threads: Threads = None,
) -> None:
    """Analyze a molecular dynamics run.

    Averages, distributions, correlations and spectra with error bars are written to RUN/analysis.json.
    """
    from rich.console import Console

    from gmcore.analysis.analyze import analyze as analyze_run
    from gmcore.outputs import RUN, check_outputs
    from gmcore.threads import set_threads

    check_outputs([run / "analysis.json"], [config], makes=(RUN, run))

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
    with console.status("reading the trajectory") as status:
        content = analyze_run(run, settings, lambda words: status.update(words))
    for line in _summary(content):
        typer.echo(line)
    typer.echo(f"written: {run / 'analysis.json'}")


def report(
    run: RunFolder,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="HTML file to write (default: RUN/report.html).")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for every figure as PDF and SVG, and its data as CSV."),
    ] = None,
    rounds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="rounds.json of a workflow with rounds, for a table of them."),
    ] = None,
) -> None:
    """Write the report of an analyzed run.

    The report is a self-contained HTML page. All its numbers are also written as JSON.
    """
    from gmcore.report.html import write_report

    for path in write_report(run, output, figures, rounds):
        typer.echo(f"written: {path}")


def _settings(run: Path, config: Path | None, given: dict[str, Any]) -> Any:
    """Return the settings from a file or from the run, overridden by those of the command line."""
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
    """Lines for the screen: D and E at each temperature, and what is not available."""
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
    """Return an index as an integer and an element as it is."""
    return int(text) if text is not None and text.isdigit() else text
