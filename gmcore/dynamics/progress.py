"""A progress bar on stderr: part of the run, ns per day of each replica, and the remaining time."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

SECONDS_PER_DAY = 86400.0


class RunProgress:
    """Context manager that shows the progress of a run.

    Parameters
    ----------
    steps : number of steps done earlier.
    total : number of steps of the whole run.
    time_step : fs.
    n_replicas : number of replicas that advance together.
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
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the bar as it is."""
        self._progress.stop()

    def update(self, steps: int, part: str) -> None:
        """Show that `steps` steps are done and that the run is in `part`, equilibration or production."""
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        speed = (steps - self._first) * self._time_step * 1e-6 * SECONDS_PER_DAY / elapsed
        self._progress.update(self._task, completed=steps, description=part, speed=f"{speed:.3g} {self._suffix}")
