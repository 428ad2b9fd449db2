"""A bar on stderr: which part of a run, ns per day of each replica, and the time that is left."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SECONDS_PER_DAY = 86400.0


class RunProgress:
    """Context that shows how far a run is.

    Parameters
    ----------
    steps, total : steps done before and to be done in all.
    time_step : fs.
    n_replicas : that advance together.
    """

    def __init__(self, steps: int, total: int, time_step: float, n_replicas: int):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("", total=total, completed=steps, speed="")
        self._first, self._time_step = steps, time_step
        self._suffix = f"ns/day x {n_replicas}" if n_replicas > 1 else "ns/day"
        self._began = time.perf_counter()

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self._progress.stop()

    def update(self, steps: int, part: str) -> None:
        """Show that `steps` steps are done and the run is in its `part`."""
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        speed = (steps - self._first) * self._time_step * 1e-6 * SECONDS_PER_DAY / elapsed
        self._progress.update(self._task, completed=steps, description=part, speed=f"{speed:.3g} {self._suffix}")
