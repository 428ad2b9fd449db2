"""Commands of molecular dynamics: `gmtensor md` and `gmtensor convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import INTERRUPTED, ConfigFile

STOPPED = 3
"""Exit code of a run that a stop condition ended: neither success nor a mistake of the user."""


def md(
    config: ConfigFile,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue an earlier run, or remove it and start over.")
    ] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; what the configuration says otherwise.")] = None,
) -> None:
    """Run molecular dynamics with D tensors along the way; continues where an earlier run stopped.

    Exit code 3 if a stop condition of the configuration ended the run.
    """
    from gmcore.config.dynamics import MDConfig
    from gmcore.config.loading import load_config

    settings = load_config(config, MDConfig)
    if threads is not None:
        settings = settings.model_copy(update={"threads": threads})
    from gmcore.dynamics.runner import run_md
    from gmcore.dynamics.stops import RunStopped

    try:
        folder = run_md(settings, resume=resume)
    except RunStopped as stopped:
        typer.echo(f"stopped: {stopped}", err=True)
        raise typer.Exit(STOPPED) from None
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; whole chunks are saved, continue with: gmtensor md {config}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"written: {folder}")


def convert(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or a trajectory file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output: .extxyz or .csv.")],
    replica: Annotated[
        list[int] | None, typer.Option(help="Replica, from 0; repeat. All of them if not given.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Every so many structures or rows only.")] = 1,
) -> None:
    """Write a trajectory as extended XYZ (a file per replica) or CSV (a row per sample)."""
    from gmcore.dynamics.export import export
    from gmcore.dynamics.trajectory import Trajectory

    for path in export(Trajectory(run), output, replica or None, every):
        typer.echo(f"written: {path}")
