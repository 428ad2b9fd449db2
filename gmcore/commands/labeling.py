"""The command `gmtensor label`, which lets a reference method label frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import USER_ERROR, ConfigFile, MaxTime
from gmcore.errors import GMError

NOT_FINISHED = 3
"""Exit code if results that are computed elsewhere are missing: neither success nor an error of the user."""


def label(
    frames: Annotated[Path, typer.Argument(metavar="FRAMES", help="File of structures, in any format that is read.")],
    config: ConfigFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Data set to write: .extxyz.")],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Frames at the same time (default: as in the configuration).")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try frames again that were refused before.")] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Write the data set although outputs of ORCA are missing.")
    ] = False,
    max_time: MaxTime = None,
) -> None:
    """Label frames with a reference method: OpenMolcas, ORCA, an ASE calculator or your own Python function.

    Frames that are finished are kept in the folder OUTPUT.work. After an interruption, run the same command again to
    continue (exit code 75). Frames that cannot be labeled are left out and listed with the reason. The exit code is 3
    if outputs of ORCA are missing. The methods ase and python run the code that the configuration names.
    """
    from gmcore.commands.ending import may_end_early
    from gmcore.config.labeling import LabelConfig
    from gmcore.config.loading import load_config
    from gmcore.labeling.labeling import label_frames
    from gmcore.outputs import check_outputs

    if frames.is_dir():
        raise GMError(
            f"{frames} is a folder: choose frames of a run with gmtensor select, and label the file it writes"
        )
    settings = load_config(config, LabelConfig)
    check_outputs([output], [frames, config, *settings.files], suffixes=(".extxyz", ".xyz"))
    if jobs is not None:
        settings = settings.model_copy(update={"jobs": jobs})
    again = f"gmtensor label {frames} {config} -o {output}"
    with may_end_early(again, "", "finished frames are saved", max_time) as interruption:
        found = label_frames(
            frames,
            settings,
            output,
            retry=retry,
            skip_missing=skip_missing,
            report=typer.echo,
            interruption=interruption,
        )
    typer.echo(f"labeled: {found.labeled} of {found.total} frames ({found.computed} now, {found.seconds:.3g} s in all)")
    if found.refused:
        typer.echo(f"refused: {len(found.refused)} of {found.total} frames")
    for origin, reason in found.refused:
        typer.echo(f"  {origin}: {reason}")
    if found.missing:
        typer.echo(f"missing: {len(found.missing)} of {found.total} frames")
        for origin, reason in found.missing:
            typer.echo(f"  {origin}: {reason}")
    if found.missing and not (skip_missing and found.labeled):
        typer.echo(f"{output} is not written: when the outputs are there, run the same command again", err=True)
        raise typer.Exit(NOT_FINISHED)
    if not found.labeled:
        typer.echo(f"error: none of the {found.total} frames was labeled", err=True)
        raise typer.Exit(USER_ERROR)
    typer.echo(f"written: {output}")
