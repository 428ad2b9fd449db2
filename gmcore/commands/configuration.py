"""Commands for configurations: `gmtensor template`, `gmtensor validate` and `gmtensor schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gmcore.commands.options import ConfigFile
from gmcore.errors import GMError


def template(
    kind: Annotated[
        str, typer.Argument(help="Kind: d-tensor, potential, charges, tensor, md, label, workflow or analysis.")
    ] = "d-tensor",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write (default: print to the screen).")
    ] = None,
) -> None:
    """Write a template of a configuration."""
    from gmcore.config.templates import template as text_of
    from gmcore.files import atomic_path
    from gmcore.outputs import check_outputs

    if output is not None:
        check_outputs([output], suffixes=(".yaml", ".yml"))
    text = text_of(kind, str(output or "config.yaml"))
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.exists():
        raise GMError(f"{output} exists already: choose another name or remove the file")
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def validate(
    config: ConfigFile,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Also read and check the files named in it.")] = True,
) -> None:
    """Check a configuration without running it.

    It may be that of a training, a molecular dynamics run, labels, a workflow or an analysis. Nothing is written.
    """
    from gmcore.config.kinds import kind_of
    from gmcore.config.loading import load_runs

    for name, settings in load_runs(config, kind_of(config)).items():
        if name:
            typer.echo(f"run {name}:")
        for line in _description(settings) if data else ():
            typer.echo(line)
    typer.echo(f"{config} is valid")


def _description(settings: Any) -> list[str]:
    """Read the files named in a configuration and summarize it, line by line."""
    from gmcore.config.analysis import Analysis
    from gmcore.config.dynamics import MDConfig
    from gmcore.config.labeling import LabelConfig
    from gmcore.config.training import TrainConfig

    if isinstance(settings, TrainConfig):
        from gmcore.data.splits import describe_parts, load_datasets

        return describe_parts(load_datasets(settings, write=False))
    if isinstance(settings, MDConfig):
        from gmcore.dynamics.runner import check_run

        return check_run(settings)
    if isinstance(settings, LabelConfig):
        for path in settings.files:  # not read: they may be code
            if not path.is_file():
                raise GMError(f"the file {path} does not exist: correct its name")
        return []
    if isinstance(settings, Analysis):
        return []  # it names no files
    from gmcore.workflow.rounds import Rounds
    from gmcore.workflow.steps import steps_of

    lines = [f"gmtensor {step.name}" for step in steps_of(settings)]
    if settings.rounds is not None:
        Rounds(settings, settings.rounds)
        lines.append(f"then at most {settings.rounds.at_most} rounds of select, label, train, md and analyze")
    return lines


def schema(
    kind: Annotated[
        str, typer.Argument(help="Kind of configuration: train, md, label, workflow or analysis.")
    ] = "train",
) -> None:
    """Print the JSON schema of a configuration.

    It contains all keys with types, defaults, bounds and descriptions.
    """
    from gmcore.config.kinds import kind_named

    typer.echo(json.dumps(kind_named(kind).model_json_schema(), indent=2))
