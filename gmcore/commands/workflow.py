"""The command for a whole workflow: `gmtensor run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import INTERRUPTED

WorkflowFile = Annotated[
    Path,
    typer.Argument(
        metavar="WORKFLOW", help="YAML file with output, train (configuration files) and md (configuration file)."
    ),
]


def run(workflow: WorkflowFile) -> None:
    """Run a whole workflow.

    The steps are trainings, molecular dynamics, analysis and report. After an interruption, run the same command again
    to continue. Finished steps are only repeated if their configuration or a file that they read has changed.
    """
    from gmcore.config.loading import load_config
    from gmcore.config.workflow import Workflow
    from gmcore.outputs import WORKFLOW, check_outputs
    from gmcore.workflow.workflow import run_workflow

    settings = load_config(workflow, Workflow)
    record, own = settings.output / "workflow.json", (WORKFLOW, settings.output)
    check_outputs([record], [workflow, *settings.train, settings.md], makes=own)
    try:
        for place, step, done in run_workflow(settings):
            typer.echo(f"[{place}] gmtensor {step.name}{' (already done)' if done else ''}")
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; continue with: gmtensor run {workflow}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    for path in step.makes:
        typer.echo(f"written: {path}")
