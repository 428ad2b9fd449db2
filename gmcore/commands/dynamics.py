"""Commands for molecular dynamics: `gmtensor md` and `gmtensor convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import ConfigFile, MaxTime
from gmcore.errors import GMError, excerpt
from gmcore.suggest import did_you_mean

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
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="NAME", help="Run of a configuration with several; may be repeated (default: all)."
        ),
    ] = None,
    max_time: MaxTime = None,
) -> None:
    """Run molecular dynamics.

    D tensors can be computed during the run. After an interruption (exit code 75), run the same command again to
    continue. The exit code is 3 if a stop condition of the configuration ended the run.
    """
    from gmcore.commands.ending import may_end_early
    from gmcore.config.dynamics import MDConfig
    from gmcore.config.loading import load_runs
    from gmcore.outputs import RUN, check_outputs

    runs = load_runs(config, MDConfig)
    for name in run or ():
        if name not in runs:
            raise GMError(f"{config} has no run {excerpt(name)}{did_you_mean(name, filter(None, runs))}")
    chosen = [runs[name] for name in run or runs]
    if not resume:  # the files of earlier runs are removed
        for settings in chosen:
            check_outputs([settings.output / "config.yaml"], [config], makes=(RUN, settings.output))
    from gmcore.dynamics.runner import run_md
    from gmcore.dynamics.stops import RunStopped

    again = " ".join([f"gmtensor md {config}", *(f"--run {name}" for name in run or ())])
    was_stopped = False
    with may_end_early(again, "chunk", "finished chunks are saved", max_time) as interruption:
        for number, settings in enumerate(chosen):
            if threads is not None:
                settings = settings.model_copy(update={"threads": threads})
            try:
                folder = run_md(settings, resume=resume, interruption=interruption)
            except RunStopped as stopped:
                typer.echo(f"stopped: {stopped}", err=True)
                was_stopped = True
            else:
                typer.echo(f"written: {folder}")
            if interruption.requested and number + 1 < len(chosen):
                interruption.check()
    if was_stopped:
        raise typer.Exit(STOPPED)


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
