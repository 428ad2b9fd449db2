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
from gmcore.running.interruption import AGAIN, EndedEarly, Interruption, time_text
from gmcore.workflow import processes
from gmcore.workflow.record import Record, WorkflowError
from gmcore.workflow.rounds import Rounds
from gmcore.workflow.side_by_side import Shares, groups, log_of, shares
from gmcore.workflow.steps import Step, steps_of

LOCK = ".gmtensor-run.lock"
"""Not the lock of trainings and dynamics: the output of a workflow may be that of one of its steps."""


LIMITED = ("train", "md", "label", "predict")
"""Commands that end before a time limit."""


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


def run_workflow(workflow: Workflow, interruption: Interruption | None = None) -> Iterator[Progress | Ended]:
    """Run the steps that are not done yet; yield each before it starts, and those that run beside others at their end.

    Parameters
    ----------
    interruption : its time limit is that of all steps, and no step starts after a signal.

    Raises
    ------
    EndedEarly : a signal or the time limit has ended a step; the same call goes on.
    ConfigError : a configuration cannot be used.
    WorkflowError : a step has failed; its own message says why.
    LockError : another process runs a workflow with the same output.
    """
    steps = steps_of(workflow)
    rounds = None if workflow.rounds is None else Rounds(workflow, workflow.rounds)
    with lock_folder(workflow.output, LOCK):
        record = Record(workflow.output)
        if rounds is None:
            yield from _run(record, steps, "", workflow.trainings_at_once, interruption)
            return
        for stage in rounds.stages(record):
            yield from _run(record, stage.steps, f"{stage.name}, ", workflow.trainings_at_once, interruption)


class _Task(NamedTuple):
    """A step, its place for the screen and for sentences, and the number of its threads."""

    step: Step
    place: str
    in_words: str
    threads: int | None


def _run(
    record: Record, steps: list[Step], stage: str, at_most: int | None, interruption: Interruption | None
) -> Iterator[Progress | Ended]:
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
            left = [task for task, known in zip(tasks, done) if not known]
            yield from _run_at_once(record, left, share, interruption)
            continue
        for task, known in zip(tasks, done):
            yield Progress(task.place, task.step, known)
            if not known:
                record.execute(task.step, partial(_call, task, interruption), task.in_words)


def _call(task: _Task, interruption: Interruption | None, arguments: tuple[str, ...]) -> int:
    """Run a step and return its exit code, which says so if a signal has ended it."""
    limit = _limit(arguments, interruption)
    code = processes.run_step((*arguments, *limit), threads=task.threads)
    ended = code != 0 and interruption is not None and interruption.requested
    return AGAIN if ended else code


def _limit(arguments: tuple[str, ...], interruption: Interruption | None) -> tuple[str, ...]:
    """Return the option that gives a step the rest of the time.

    Raises
    ------
    EndedEarly : no time is left, or a signal has come between two steps.
    """
    if interruption is None:
        return ()
    if interruption.requested:
        raise EndedEarly("ended by a signal")
    left = interruption.seconds_left
    if left is not None and left < 1.0:
        raise EndedEarly("ended by the time limit")
    return () if left is None or arguments[0] not in LIMITED else ("--max-time", time_text(left))


def _run_at_once(
    record: Record, tasks: Sequence[_Task], share: Shares, interruption: Interruption | None
) -> Iterator[Progress | Ended]:
    """Run trainings at the same time. Those that finish are recorded, also if another one fails."""
    logs = [log_of(task.step) for task in tasks]
    calls = [
        processes.Call((*task.step.arguments, *_limit(task.step.arguments, interruption)), task.threads, log)
        for task, log in zip(tasks, logs)
    ]
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
            elif change.stopped or change.code == AGAIN:
                stopped.append(f"gmtensor {task.step.name}")
            else:
                failed.append(
                    f"step {task.in_words}, gmtensor {task.step.name}, failed with exit code {change.code}, see {log}"
                )
            yield Ended(task.place, task.step, log, change.code, change.stopped or change.code == AGAIN)
    if failed:
        also = f"; stopped because of that: {', '.join(stopped)}" if stopped else ""
        raise WorkflowError(
            f"{'; '.join(failed)}{also}: fix the problem and run the same command again, which resumes all of them"
        )
    if n_finished < len(tasks):  # a signal or the time limit has ended the steps, but not this process
        raise EndedEarly("the trainings have ended early")
