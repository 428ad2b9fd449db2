"""The command that does everything in one go: `gmtensor run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import INTERRUPTED

WorkflowFile = Annotated[
    Path, typer.Argument(metavar="WORKFLOW", help="YAML with output, train (configurations) and md (configuration).")
]


def run(workflow: WorkflowFile) -> None:
    """Train, run dynamics, analyze and report in one go; interrupted, it goes on where it stopped.

    What is done is not repeated, unless its configuration or a file that it reads has changed.
    """
    from gmcore.config.loading import load_config
    from gmcore.config.workflow import Workflow
    from gmcore.workflow import run_workflow

    settings = load_config(workflow, Workflow)
    try:
        for number, total, step, done in run_workflow(settings):
            typer.echo(f"[{number}/{total}] gmtensor {step.name}{': done already' if done else ''}")
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; continue with: gmtensor run {workflow}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    for path in step.makes:
        typer.echo(f"made: {path}")
