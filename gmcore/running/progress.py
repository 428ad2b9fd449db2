"""Where long work is: a bar on a terminal, a plain line a minute anywhere else.

A log of a batch system then grows while the work runs, and says in words what a bar shows.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from typing_extensions import Self

SECONDS = 60.0
"""Between two plain lines."""


class PlainLines:
    """Lines that say how far work is, one a minute.

    Parameters
    ----------
    total : size of all of it, in `unit`.
    done : what was done by earlier calls.
    unit : "frames".
    title : what is done.
    console : where the lines are written (default: stderr).
    clock : returns seconds.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        unit: str = "steps",
        title: str = "",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console = console or Console(stderr=True)
        self.total, self.done, self.unit, self.title, self._first = total, done, unit, title, done
        self._clock = clock
        self._began = self._last = clock()

    @property
    def rate(self) -> float:
        """Units per second since the start of this call; 0 before the first of them."""
        elapsed = self._clock() - self._began
        return (self.done - self._first) / elapsed if elapsed > 0.0 else 0.0

    def due(self) -> bool:
        """Whether the minute is over."""
        return self._clock() - self._last >= SECONDS

    def write(self, status: str = "") -> None:
        """Write a line at once."""
        self._last = self._clock()
        self._console.print(self.line(status), markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()

    def line(self, status: str = "") -> str:
        """Return a line: when, how far, what the status says, time left, where."""
        left = f"{duration((self.total - self.done) / self.rate)} left" if self.rate else ""
        percent = f" ({100.0 * self.done / self.total:.1f} %)" if self.total else ""
        far = f"{self.done} of {self.total} {self.unit}{percent}"
        when = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        return ", ".join(filter(None, (f"{when} {self.title}".rstrip(), far, status, left, platform.node())))


class Reporter:
    """Context manager that shows how far work is: a bar on a terminal, a plain line a minute anywhere else.

    Parameters
    ----------
    console : where the bar is drawn (default: stderr).

    Attributes
    ----------
    lines : what is written where there is no terminal; it also measures the speed.
    """

    def __init__(self, lines: PlainLines, console: Console | None = None):
        self.lines, console = lines, console or Console(stderr=True)
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[status]}", markup=False),
                TimeRemainingColumn(compact=True),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(lines.title, total=lines.total, completed=lines.done, status="")

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def has_bar(self) -> bool:
        """Whether there is a bar, which is drawn at every update."""
        return self._bar is not None

    def update(self, done: int, status: Callable[[], str] | None = None, title: str | None = None) -> None:
        """Show that so much is done.

        Parameters
        ----------
        status : returns the state of the work in words; called only if they are shown (default: units per second).
        title : what is done now.
        """
        lines = self.lines
        lines.done, lines.title = done, lines.title if title is None else title
        if self._bar is None and not lines.due():
            return
        words = status() if status else f"{lines.rate:.3g} {lines.unit}/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=lines.title, status=words)
        else:
            lines.write(words)


def duration(seconds: float) -> str:
    """Return a duration in words, for plain lines.

    Examples
    --------
    >>> duration(59.7), duration(4000), duration(200000)
    ('1 min', '1 h 07 min', '2 d 07 h')
    """
    minutes = max(round(seconds / 60.0), 1)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24:02d} h"
