"""Trainings that do not depend on each other run at the same time, because one alone cannot use several cores well.

Each is a process with an equal share of the cores. The shares follow from the workflow and the machine alone. A
training that is resumed has the same number of threads, whether the others are finished or not, so it gives the same
model. What it writes to the screen goes to `train.log` in its output folder, and is shown when it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gmcore.config.training import TrainConfig
from gmcore.threads import available_cores
from gmcore.workflow.record import WorkflowError
from gmcore.workflow.steps import Step

LOG = "train.log"


class Shares(NamedTuple):
    """How the steps of a group share the machine.

    Attributes
    ----------
    at_once : largest number of them that run at the same time; 1: one after another.
    cores : largest number of their threads in all.
    threads : of each; None: as many as its libraries choose.
    """

    at_once: int
    cores: int
    threads: tuple[int | None, ...]


def groups(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Divide steps, in order, into groups of trainings that may run at the same time; other steps are alone."""
    group: list[Step] = []
    for step in steps:
        if not all(independent(step, other) for other in group):
            yield group
            group = []
        group.append(step)
    if group:
        yield group


def independent(one: Step, other: Step) -> bool:
    """Whether both steps are trainings, and neither reads or writes in the output folder of the other."""
    if one.training is None or other.training is None:
        return False
    return not _enters(one, one.training, other.training) and not _enters(other, other.training, one.training)


def _enters(step: Step, training: TrainConfig, other: TrainConfig) -> bool:
    folder, split = other.output.resolve(), training.data.split.file
    used = (training.output, *step.reads, *([split] if split else []))
    return any(path.resolve().is_relative_to(folder) for path in used)


def shares(group: Sequence[Step], at_most: int | None) -> Shares:
    """Divide the cores between the steps of a group; `training.threads` of their configurations stays as it is.

    Parameters
    ----------
    at_most : largest number of trainings at the same time (None: one for each core).
    """
    cores = available_cores()
    at_once = min(at_most or cores, cores, len(group))
    threads = [(step.training and step.training.training.threads) or cores // at_once for step in group]
    if at_once == 1 or sum(sorted(threads)[:2]) > cores:  # no two fit
        return Shares(1, cores, (None,) * len(group))
    return Shares(at_once, cores, tuple(threads))


def log_of(step: Step) -> Path:
    """Return the file for the messages of a training that runs beside others; its folder is made.

    Raises
    ------
    WorkflowError : the folder cannot be made.
    """
    folder = step.makes[0].parent if step.training is None else step.training.output
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkflowError(
            f"the output folder {folder} of gmtensor {step.name} cannot be created: {error.strerror}; choose another "
            "output"
        ) from error
    return folder / LOG
