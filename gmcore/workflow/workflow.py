"""The order of the steps: train -> md -> analyze -> report, and the rounds that improve the models.

Each step is the command that a user would type, in its own process. TensorFlow's memory and threads are therefore
released before the dynamics starts. A step that is killed can be resumed like the command itself: a training at its
last checkpoint, a run at its last chunk, labels at the last frame. `workflow.json` lists the finished steps. The same
command later skips the finished steps and repeats only those affected by a change.

Not supported: running steps in parallel or on other machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gmcore.config.workflow import Workflow
from gmcore.files import lock_folder
from gmcore.workflow import processes
from gmcore.workflow.record import Record
from gmcore.workflow.rounds import Rounds
from gmcore.workflow.steps import Step, steps_of

LOCK = ".gmtensor-run.lock"
"""Not the lock of trainings and dynamics: the output of a workflow may be that of one of its steps."""


class Progress(NamedTuple):
    """A step that is about to start: its place in words, the step, and whether it was finished earlier."""

    place: str
    step: Step
    done: bool


def run_workflow(workflow: Workflow) -> Iterator[Progress]:
    """Run the steps that are not done yet; yield each before it starts.

    Raises
    ------
    ConfigError : a configuration cannot be used.
    WorkflowError : a step has failed; its own message says why.
    LockError : another process runs a workflow with the same output.
    """
    steps = steps_of(workflow)
    rounds = None if workflow.rounds is None else Rounds(workflow, workflow.rounds)
    with lock_folder(workflow.output, LOCK):
        record = Record(workflow.output)
        if rounds is None:
            yield from _run(record, steps, "")
            return
        for stage in rounds.stages(record):
            yield from _run(record, stage.steps, f"{stage.name}, ")


def _run(record: Record, steps: list[Step], stage: str) -> Iterator[Progress]:
    """Run steps in the locked folder of the workflow."""
    for number, step in enumerate(steps, 1):
        finished = record.is_finished(step)
        yield Progress(f"{stage}{number}/{len(steps)}", step, finished)
        if not finished:
            record.execute(step, processes.run_step, f"{stage}{number} of {len(steps)}")
