"""Progress bars of trainings that run at the same time, on stderr; fed by the histories that the trainings write."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from gmcore.config.training import TrainConfig
from gmcore.workflow.steps import Step, model_files

REFRESHES = 2.0
"""Per second; each reads all histories."""


class TrainingBars:
    """Context manager with a bar for each training that runs beside others, if stderr is a terminal.

    Nothing is drawn while there is no bar: the screen then belongs to the process of the step.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: _Bars | None = None

    def __enter__(self) -> TrainingBars:
        """Return this object."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove all bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    @property
    def console(self) -> Console | None:
        """What prints above the bars; None while there are none."""
        return None if self._bars is None else self._console

    def add(self, step: Step) -> None:
        """Show the bar of a training that has started."""
        if step.training is None or not self._console.is_terminal:
            return
        if self._bars is None:
            self._bars = _Bars(self._console)
            self._bars.start()
        self._bars.follow(Path(step.arguments[-1]).name, step.training)

    def remove(self, step: Step) -> None:
        """Remove the bar of a training that has ended."""
        if self._bars is not None and step.training is not None and not self._bars.forget(step.training):
            self.__exit__()


class _Bars(Progress):
    """Bars that look for what is done whenever they are drawn."""

    def __init__(self, console: Console):
        self._followed: dict[TaskID, TrainConfig] = {}
        status = TextColumn(
            "{task.fields[status]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
        )
        columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeRemainingColumn(), status
        # what is printed meanwhile goes above the bars or, to a file, past them: see `TrainingBars.console`
        super().__init__(
            *columns,
            console=console,
            refresh_per_second=REFRESHES,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def follow(self, name: str, config: TrainConfig) -> None:
        total = len(model_files(config)) * config.training.members * config.training.epochs
        done, status = epochs_done(config)
        self._followed[self.add_task(name, total=total, completed=done, status=status)] = config

    def forget(self, config: TrainConfig) -> bool:
        """Return whether bars are left."""
        for task in [task for task, other in self._followed.items() if other is config]:
            del self._followed[task]
            self.remove_task(task)
        return bool(self._followed)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Bring all bars up to date before they are drawn, in the thread that draws them."""
        for task, config in list(self._followed.items()):
            done, status = epochs_done(config)
            if task in self.task_ids:
                self.update(task, completed=done, status=status)
        yield from super().get_renderables()


def epochs_done(config: TrainConfig) -> tuple[int, str]:
    """Return the number of epochs of all members that are done, and the last one in words."""
    done, words = 0, ""
    for model in model_files(config):
        for member in range(config.training.members):
            try:
                with open(model.parent / f"member_{member}" / "history.csv", newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
            except (OSError, ValueError, csv.Error):  # it has not begun, or is just writing
                continue
            done += len(rows)
            if rows:
                words = f"member {member}, {_in_words(rows[-1])}"
    return done, words


def _in_words(row: dict[str, str]) -> str:
    errors = [
        f"{name.removeprefix('val_')} {value[:6]}"
        for name, value in row.items()
        if name and value and name.startswith("val_") and name.endswith("_mae")
    ]
    return ", ".join([f"epoch {row.get('epoch')}", *errors])
