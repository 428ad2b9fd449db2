"""The order of the steps: train -> md -> analyze -> report, and the rounds that improve the models.

Each step is the command that a user would type, in its own process. TensorFlow's memory and threads are therefore
released before the dynamics starts. A step that is killed can be resumed like the command itself: a training at its
last checkpoint, a run at its last chunk, labels at the last frame. `workflow.json` lists the finished steps. The same
command later skips the finished steps and repeats only those affected by a change.

Trainings that do not depend on each other run at the same time (`gmcore.workflow.side_by_side`). If one of them fails,
the others are stopped.

Not supported: running steps on other machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from gmcore.config.workflow import Workflow
from gmcore.files import lock_folder
from gmcore.workflow import processes
from gmcore.workflow.record import Record, WorkflowError
from gmcore.workflow.rounds import Rounds
from gmcore.workflow.side_by_side import Shares, groups, log_of, shares
from gmcore.workflow.steps import Step, steps_of

LOCK = ".gmtensor-run.lock"
"""Not the lock of trainings and dynamics: the output of a workflow may be that of one of its steps."""


class Progress(NamedTuple):
    """A step that is about to start.

    Attributes
    ----------
    place : of the step in the workflow, in words.
    step : the step.
    done : whether it was finished earlier.
    log : file that takes its messages, because it runs beside others; None: they appear on the screen.
    """

    place: str
    step: Step
    done: bool
    log: Path | None = None


class Ended(NamedTuple):
    """A step that ran beside others has ended.

    Attributes
    ----------
    place, step, log : as of its `Progress`.
    code : exit code; 0: it has finished.
    stopped : whether it had been told to end.
    """

    place: str
    step: Step
    log: Path
    code: int
    stopped: bool


def run_workflow(workflow: Workflow) -> Iterator[Progress | Ended]:
    """Run the steps that are not done yet; yield each before it starts, and those that run beside others at their end.

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
            yield from _run(record, steps, "", workflow.trainings_at_once)
            return
        for stage in rounds.stages(record):
            yield from _run(record, stage.steps, f"{stage.name}, ", workflow.trainings_at_once)


class _Task(NamedTuple):
    """A step, its place for the screen and for sentences, and the number of its threads."""

    step: Step
    place: str
    in_words: str
    threads: int | None


def _run(record: Record, steps: list[Step], stage: str, at_most: int | None) -> Iterator[Progress | Ended]:
    """Run steps in the locked folder of the workflow."""
    numbers = count(1)
    for group in groups(steps):
        share = shares(group, at_most)
        tasks = [
            _Task(step, f"{stage}{number}/{len(steps)}", f"{stage}{number} of {len(steps)}", threads)
            for step, threads, number in zip(group, share.threads, numbers)
        ]
        done = [record.is_finished(step) for step in group]
        if share.at_once > 1 and done.count(False) > 1:
            yield from (Progress(task.place, task.step, True) for task, known in zip(tasks, done) if known)
            yield from _run_at_once(record, [task for task, known in zip(tasks, done) if not known], share)
            continue
        for task, known in zip(tasks, done):
            yield Progress(task.place, task.step, known)
            if not known:
                record.execute(task.step, partial(processes.run_step, threads=task.threads), task.in_words)


def _run_at_once(record: Record, tasks: Sequence[_Task], share: Shares) -> Iterator[Progress | Ended]:
    """Run trainings at the same time. Those that finish are recorded, also if another one fails."""
    logs = [log_of(task.step) for task in tasks]
    calls = [processes.Call(task.step.arguments, task.threads, log) for task, log in zip(tasks, logs)]
    failed, stopped, n_finished = [], [], 0
    with closing(processes.run_calls(calls, share.at_once, share.cores)) as changes:
        for change in changes:
            task, log = tasks[change.number], logs[change.number]
            if change.code is None:
                yield Progress(task.place, task.step, False, log)
                continue
            if change.code == 0:
                record.add(task.step, change.seconds)
                n_finished += 1
            elif change.stopped:
                stopped.append(f"gmtensor {task.step.name}")
            else:
                failed.append(
                    f"step {task.in_words}, gmtensor {task.step.name}, failed with exit code {change.code}, see {log}"
                )
            yield Ended(task.place, task.step, log, change.code, change.stopped)
    if failed:
        also = f"; stopped because of that: {', '.join(stopped)}" if stopped else ""
        raise WorkflowError(
            f"{'; '.join(failed)}{also}: fix the problem and run the same command again, which resumes all of them"
        )
    if n_finished < len(tasks):  # a signal has ended the steps, but not this process
        raise WorkflowError("the trainings were stopped by a signal: run the same command again, which resumes them")
