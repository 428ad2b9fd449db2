"""The samples of one chunk, kept in memory until the chunk is written."""

from __future__ import annotations

import numpy as np

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.integrators import Integrator
from gmcore.dynamics.tensor_observer import TensorObserver


class Recorder:
    """Records quantities at multiples of their intervals; steps count from the start of the production.

    Parameters
    ----------
    config : configuration of the run.
    observer : evaluates the D tensors; None for a run without D.
    """

    def __init__(self, config: MDConfig, observer: TensorObserver | None):
        self._record, self._observer = config.record, observer
        self._every_tensor = config.d_tensor.every if config.d_tensor else 0
        self._stress = config.ensemble.kind == "npt"
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list[np.ndarray]] = {}

    def take(self, step: int, integrator: Integrator) -> None:
        """Record the quantities that are due at `step`, the present step of the integrator."""
        record, state = self._record, integrator.state
        if step % record.positions == 0:
            self._add("position", step, state.positions.astype(record.precision))
            if state.pbc.any():
                self._add("box", step, state.cells)
        if record.velocities and step % record.velocities == 0:
            self._add("velocity", step, state.velocities.astype(record.precision))
        if step % record.scalars == 0:
            self._take_scalars(step, integrator)
        if self._observer is not None and step % self._every_tensor == 0:
            for name, values in self._observer(state.positions, state.cells).items():
                self._add(name, step, values.astype(record.precision) if name == "molecule_position" else values)

    def data(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the samples for `write_segment`: name -> steps (n,), values (n_replicas, n, ...); may be empty."""
        return {name: (np.array(self._steps[name]), np.stack(values, axis=1)) for name, values in self._values.items()}

    def _take_scalars(self, step: int, integrator: Integrator) -> None:
        state, result = integrator.state, integrator.result
        self._add("potential_energy", step, result.energies)
        self._add("kinetic_energy", step, state.kinetic_energies())
        self._add("conserved", step, integrator.conserved())
        self._add("temperature", step, state.temperatures(integrator.n_degrees))
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
