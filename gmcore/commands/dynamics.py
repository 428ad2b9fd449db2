"""Commands for molecular dynamics: `gmtensor md` and `gmtensor convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import ConfigFile, Elements, Format, MaxTime, Topology, UnitOptions
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
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run, a trajectory file, or a trajectory of another program."),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="File to write: .extxyz or .csv; of another program: folder of the run."),
    ],
    replica: Annotated[
        list[int] | None, typer.Option(help="Index of a replica, from 0; may be repeated (default: all).")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Write only every N-th structure or row.")] = 1,
    format: Format = "auto",
    element: Elements = None,
    topology: Topology = None,
    unit: UnitOptions = None,
    time_step: Annotated[
        float | None, typer.Option(min=1e-6, help="fs, of one step of a trajectory of another program.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=1e-6, help="K, of the thermostat of a trajectory of another program.")
    ] = None,
    d_tensor: Annotated[
        Path | None, typer.Option(help="Model file with a D tensor, evaluated in a trajectory of another program.")
    ] = None,
    metal: Annotated[str | None, typer.Option(help="Element of the molecules whose D is evaluated.")] = None,
) -> None:
    """Convert a trajectory to extended XYZ or CSV, or one of another program to a run that can be analyzed.

    Extended XYZ has one file per replica, CSV one row per sample. From a dump of LAMMPS or what MDAnalysis reads,
    OUTPUT/trajectory.h5 is written, for analyze, report and select.
    """
    from gmcore.formats import FOREIGN, SUFFIXES

    suffix = run.suffix.lower()
    kind = SUFFIXES.get(suffix, "a run") if format == "auto" else format  # trajectories of runs may have any name
    if run.is_dir() or kind == "a run" or (format == "auto" and suffix == ".h5"):
        from gmcore.dynamics.export import export
        from gmcore.dynamics.trajectory import Trajectory

        for path in export(Trajectory(run), output, replica or None, every):
            typer.echo(f"written: {path}")
        return
    if kind not in FOREIGN:
        raise GMError(f"{run} must be a run, or a trajectory of one of the formats {', '.join(FOREIGN)}")
    if time_step is None:
        raise GMError("a trajectory of another program needs --time-step, the length of one of its steps in fs")
    if (d_tensor is None) != (metal is None):
        raise GMError("D along a trajectory needs both --d-tensor and --metal")
    from gmcore.commands.data import source_of, stated_units
    from gmcore.data.reading import read_frames
    from gmcore.dynamics.foreign import Imported, write_run
    from gmcore.dynamics.tensor_observer import TensorObserver, declared_molecules
    from gmcore.model import load_model
    from gmcore.outputs import RUN, check_outputs
    from gmcore.units import conversion

    source = source_of(run, format, element, topology)
    check_outputs([output / "trajectory.h5"], [run, topology, d_tensor], makes=(RUN, output))
    factor = conversion("length", stated_units(source, format, unit).get("length", "A"))[0]
    observer = None
    if d_tensor is not None:
        start = next(read_frames(source)).atoms(factor)
        observer = TensorObserver(load_model(d_tensor), declared_molecules(start, metal, None, None))
    frames = (
        (int(frame.fields.get("step", number)), frame.atoms(factor))
        for number, frame in enumerate(read_frames(source))
        if number % every == 0
    )
    n_frames = write_run(output, frames, Imported(time_step, temperature, observer))
    typer.echo(f"written: {output / 'trajectory.h5'} ({n_frames} frames)")
