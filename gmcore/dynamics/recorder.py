"""The samples of one chunk, kept in memory until the chunk is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.drivers import Frame


class Recorder:
    """Records quantities at multiples of their intervals; steps count from the start of the production.

    Parameters
    ----------
    config : configuration of the run.
    """

    def __init__(self, config: MDConfig):
        record = self._record = config.record
        self._every_tensor = config.d_tensor.every if config.d_tensor else 0
        intervals = record.positions, record.velocities, record.scalars, self._every_tensor
        self._intervals = [every for every in intervals if every]
        self._stress = config.ensemble.kind == "npt"
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list[np.ndarray]] = {}

    def steps_to_next(self, step: int) -> int:
        """Return how many steps after `step`, which may be negative, something is due again."""
        return -step if step < 0 else min(every - step % every for every in self._intervals)

    def is_due(self, step: int) -> bool:
        """Return whether anything is recorded at `step`."""
        return step >= 0 and any(step % every == 0 for every in self._intervals)

    def wants_scalars(self, step: int) -> bool:
        """Return whether energies, deviations and grades are recorded at `step`."""
        return step >= 0 and step % self._record.scalars == 0

    def wants_tensors(self, step: int) -> bool:
        """Return whether D is recorded at `step`."""
        return step >= 0 and self._every_tensor > 0 and step % self._every_tensor == 0

    def take(self, step: int, frame: Frame, tensors: Callable[[], dict[str, np.ndarray]] | None) -> None:
        """Record the quantities that are due at `step`, that of the frame; `tensors` gives D where it is due."""
        record, state = self._record, frame.state
        if step % record.positions == 0:
            self._add("position", step, state.positions.astype(record.precision))
            if state.pbc.any():
                self._add("box", step, state.cells)
        if record.velocities and step % record.velocities == 0:
            self._add("velocity", step, state.velocities.astype(record.precision))
        if step % record.scalars == 0:
            self._take_scalars(step, frame)
        if tensors is not None:
            for name, values in tensors().items():
                self._add(name, step, values.astype(record.precision) if name == "molecule_position" else values)

    def data(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the samples for `write_segment`: name -> steps (n,), values (n_replicas, n, ...); may be empty."""
        return {name: (np.array(self._steps[name]), np.stack(values, axis=1)) for name, values in self._values.items()}

    def _take_scalars(self, step: int, frame: Frame) -> None:
        state, result = frame.state, frame.result
        self._add("potential_energy", step, result.energies)
        self._add("kinetic_energy", step, state.kinetic_energies())
        self._add("conserved", step, frame.conserved())
        self._add("temperature", step, state.temperatures(frame.n_degrees))
        if self._stress and result.stress is not None:
            self._add("stress", step, result.stress)
        deviation = result.forces_deviation()
        if not np.isnan(deviation).all():  # a single model without draws has none
            self._add("energy_deviation", step, result.energy_deviation())
            self._add("forces_deviation", step, np.sqrt(np.mean(deviation**2, axis=1)))
        if result.extrapolation is not None:
            self._add("extrapolation", step, result.extrapolation[0])

    def _add(self, name: str, step: int, values: np.ndarray) -> None:
        self._steps.setdefault(name, []).append(step)
        self._values.setdefault(name, []).append(np.array(values))
