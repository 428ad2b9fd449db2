"""Progress of a run on stderr: part of the run, ns per day of each replica, temperatures, deviation, remaining time."""

from __future__ import annotations

import numpy as np

from gmcore.dynamics.integrator import Integrator
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

    def show(self, part: str, integrator: Integrator) -> None:
        """Show the present step of an integrator, which is in `part`, equilibration or production."""

        def status() -> str:
            speed = self.lines.rate * self._time_step * 1e-6 * SECONDS_PER_DAY
            words = [f"{speed:.3g} {self._suffix}", f"{_range(integrator.state.temperatures(integrator.n_degrees))} K"]
            if not self.has_bar:  # which is drawn too often for a single model, whose draws take as long as steps
                deviation = integrator.result.forces_deviation()
                if not np.isnan(deviation).all():
                    words.append(f"deviation {_range(np.sqrt(np.mean(deviation**2, axis=1)))} eV/A")
            return ", ".join(words)

        self.update(integrator.state.step, status, part)


def _range(values: np.ndarray) -> str:
    """One number for all replicas, or the smallest and the largest."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
