"""Progress of a run on stderr: part of the run, ns per day of each replica, temperatures, deviation, remaining time."""

from __future__ import annotations

import numpy as np

from gmcore.dynamics.drivers import Frame
from gmcore.running.progress import PlainLines, Reporter

SECONDS_PER_DAY = 86400.0


class RunProgress(Reporter):
    """Context manager that shows the progress of a run.

    Parameters
    ----------
    steps : number of steps done earlier.
    total : number of steps of the whole run.
    time_step : fs.
    n_replicas : number of replicas that advance together.
    """

    def __init__(self, steps: int, total: int, time_step: float, n_replicas: int):
        super().__init__(PlainLines(total, steps, "steps"))
        self._time_step = time_step
        self._suffix = f"ns/day x {n_replicas}" if n_replicas > 1 else "ns/day"

    def show(self, step: int, part: str, frame: Frame | None) -> None:
        """Show that `step` steps are done and that the run is in `part`, equilibration or production.

        Parameters
        ----------
        frame : the last step that was looked at; None if there is none yet.
        """

        def status() -> str:
            words = [f"{self.lines.rate * self._time_step * 1e-6 * SECONDS_PER_DAY:.3g} {self._suffix}"]
            if frame is not None:
                words.append(f"{_range(frame.state.temperatures(frame.n_degrees))} K")
            if frame is not None and not self.has_bar:  # drawn often, and draws of a single model take as long as steps
                deviation = frame.result.forces_deviation()
                if not np.isnan(deviation).all():
                    words.append(f"deviation {_range(np.sqrt(np.mean(deviation**2, axis=1)))} eV/A")
            return ", ".join(words)

        self.update(step, status, part)


def _range(values: np.ndarray) -> str:
    """One number for all replicas, or the smallest and the largest."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
