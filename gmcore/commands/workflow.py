"""The command for a whole workflow: `gmtensor run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import MaxTime

if TYPE_CHECKING:
    from gmcore.workflow.bars import TrainingBars
    from gmcore.workflow.workflow import Ended, Progress

LAST_LINES = 100
"""Lines of the messages of a training that are shown when it ends."""

WorkflowFile = Annotated[
    Path,
    typer.Argument(
        metavar="WORKFLOW", help="YAML file with output, train (configuration files) and md (configuration file)."
    ),
]


def run(workflow: WorkflowFile, max_time: MaxTime = None) -> None:
    """Run a whole workflow.

    The steps are trainings, molecular dynamics, analysis and report. Trainings that do not depend on each other run at
    the same time and share the cores. After an interruption (exit code 75), run the same command again to continue.
    Finished steps are only repeated if their configuration or a file that they read has changed.
    """
    from gmcore.commands.ending import may_end_early
    from gmcore.config.loading import load_config
    from gmcore.config.workflow import Workflow
    from gmcore.outputs import WORKFLOW, check_outputs
    from gmcore.workflow.bars import TrainingBars
    from gmcore.workflow.workflow import Progress, run_workflow

    settings = load_config(workflow, Workflow)
    record, own = settings.output / "workflow.json", (WORKFLOW, settings.output)
    check_outputs([record], [workflow, *settings.train, settings.md], makes=own)
    with (
        may_end_early(f"gmtensor run {workflow}", "step", max_time=max_time) as interruption,
        TrainingBars() as bars,
    ):
        for event in run_workflow(settings, interruption):
            if isinstance(event, Progress):
                step = event.step
                _show_start(event, bars)
            else:
                _show_end(event, bars)
    for path in step.makes:
        typer.echo(f"written: {path}")


def _show_start(event: Progress, bars: TrainingBars) -> None:
    more = " (already done)" if event.done else f", messages in {event.log}" if event.log else ""
    _say(f"[{event.place}] gmtensor {event.step.name}{more}", bars)
    if event.log:
        bars.add(event.step)


def _show_end(event: Ended, bars: TrainingBars) -> None:
    """Say how a training has ended that ran beside others, and show what it has written."""
    bars.remove(event.step)
    failed = event.code != 0 and not event.stopped
    how = "finished" if event.code == 0 else "failed" if failed else "was stopped"
    lines = [f"[{event.place}] gmtensor {event.step.name} {how}"]
    if event.code == 0 or failed:
        messages = event.log.read_text(encoding="utf-8", errors="replace") if event.log.is_file() else ""
        lines += messages.splitlines()[-LAST_LINES:]
    _say("\n".join(lines), bars, err=failed)


def _say(text: str, bars: TrainingBars, err: bool = False) -> None:
    """Write to stdout or stderr, above the bars where these are on the same terminal."""
    import sys

    if bars.console is not None and (sys.stderr if err else sys.stdout).isatty():
        bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        typer.echo(text, err=err)
