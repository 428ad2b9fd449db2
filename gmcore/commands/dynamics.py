"""Commands for molecular dynamics: `gmtensor md` and `gmtensor convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import ConfigFile, MaxTime

STOPPED = 3
"""Exit code if a stop condition ended the run: neither success nor an error of the user."""


def md(
    config: ConfigFile,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue an earlier run, or remove it and start over.")
    ] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of threads (default: as in the configuration).")
    ] = None,
    max_time: MaxTime = None,
) -> None:
    """Run molecular dynamics.

    D tensors can be computed during the run. After an interruption (exit code 75), run the same command again to
    continue. The exit code is 3 if a stop condition of the configuration ended the run.
    """
    from gmcore.commands.ending import may_end_early
    from gmcore.config.dynamics import MDConfig
    from gmcore.config.loading import load_config
    from gmcore.outputs import RUN, check_outputs

    settings = load_config(config, MDConfig)
    if not resume:  # the files of the earlier run are removed
        check_outputs([settings.output / "config.yaml"], [config], makes=(RUN, settings.output))
    if threads is not None:
        settings = settings.model_copy(update={"threads": threads})
    from gmcore.dynamics.runner import run_md
    from gmcore.dynamics.stops import RunStopped

    try:
        with may_end_early(f"gmtensor md {config}", "chunk", "finished chunks are saved", max_time) as interruption:
            folder = run_md(settings, resume=resume, interruption=interruption)
    except RunStopped as stopped:
        typer.echo(f"stopped: {stopped}", err=True)
        raise typer.Exit(STOPPED) from None
    typer.echo(f"written: {folder}")


def convert(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or a trajectory file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .extxyz or .csv.")],
    replica: Annotated[
        list[int] | None, typer.Option(help="Index of a replica, from 0; may be repeated (default: all).")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Write only every N-th structure or row.")] = 1,
) -> None:
    """Convert a trajectory to extended XYZ or CSV.

    Extended XYZ has one file per replica, CSV one row per sample.
    """
    from gmcore.dynamics.export import export
    from gmcore.dynamics.trajectory import Trajectory

    for path in export(Trajectory(run), output, replica or None, every):
        typer.echo(f"written: {path}")
