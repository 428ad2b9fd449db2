"""Samples of one temperature: replicas pooled, equilibration left out, cut so that blocks never cross replicas.

The series of all replicas are cut to a multiple of the number of blocks and concatenated. Averages over N replicas of
n_blocks blocks each are then block averages over N n_blocks blocks of one long series. The error bar includes the
variation along each replica and between replicas, and no block mixes two replicas. Molecules of one cell interact and
are not independent replicas: a block contains all of them over the same stretch of time.

Without a thermostat (nve) the temperature is not prescribed: each replica is a state of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gmcore.config.analysis import Analysis
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import GMError

PER_BLOCK = 4
"""Minimum number of samples in a block."""


class SamplesError(GMError):
    """A run that is too short for the analysis, or did not record what it needs."""


@dataclass(frozen=True)
class State:
    """Replicas that are analyzed together.

    Attributes
    ----------
    label : name in tables and figures.
    target : K, temperature of the thermostat; NaN without one.
    replicas : their indices.
    """

    label: str
    target: float
    replicas: tuple[int, ...]


def states_of(trajectory: Trajectory) -> list[State]:
    """Return the states of a run in ascending order of temperature."""
    targets = trajectory.temperatures
    if not np.isfinite(targets).all():
        return [State(f"replica {k}", float("nan"), (k,)) for k in range(trajectory.n_replicas)]
    groups = {float(target): tuple(np.flatnonzero(targets == target).tolist()) for target in np.unique(targets)}
    return [State(f"{target:g} K", target, replicas) for target, replicas in groups.items()]


class Samples:
    """The samples of a state.

    Parameters
    ----------
    trajectory : the run.
    state : the replicas.
    discard : fs left out at the beginning of each replica.
    blocks : number of blocks of each replica.

    Raises
    ------
    SamplesError : by every method, if a quantity was not recorded or has fewer than PER_BLOCK samples for each block.
    """

    def __init__(self, trajectory: Trajectory, state: State, discard: float, blocks: int):
        self.trajectory, self.state, self.discard, self.blocks = trajectory, state, discard, blocks

    def __contains__(self, name: str) -> bool:
        """Return whether a quantity was recorded."""
        return name in self.trajectory.names()

    def together(self, name: str, other: str) -> bool:
        """Return whether two quantities were recorded, and always at the same times."""
        steps = self.trajectory.steps
        return name in self and other in self and np.array_equal(steps(name), steps(other))

    def interval(self, name: str) -> float:
        """Return the time between samples, fs.

        Raises
        ------
        SamplesError : if the samples are not equally spaced.
        """
        times = self._kept(name)[1]
        steps = np.diff(times)
        if np.ptp(steps) > 1e-6 * steps.max():
            raise SamplesError(
                f"samples of {name} must be equally spaced, got intervals {steps.min():g} to {steps.max():g} fs"
            )
        return float(steps.mean())

    def times(self, name: str) -> np.ndarray:
        """Return the times (n,) of the samples of one replica, fs."""
        return self._kept(name)[1]

    def series(self, name: str) -> np.ndarray:
        """Return samples (n_replicas, n, ...) of a quantity, in its internal unit.

        All samples are NaN if the quantity has no meaning, such as the deviation of a single model.

        Raises
        ------
        SamplesError : if some values are not finite.
        """
        first, times = self._kept(name)
        for k, replica in enumerate(self.state.replicas):
            one = self.trajectory.values(name, replica, first, first + len(times))
            bad = ~np.isfinite(one).reshape(len(one), -1).all(axis=1)
            if bad.any() and not np.isnan(one).all():
                raise SamplesError(
                    f"{name} of replica {replica} must be finite, got {bad.sum()} samples that are not, the first at "
                    f"{times[bad.argmax()]:g} fs"
                )
            if k == 0:  # one array from the start, because the samples may take gigabytes
                values = np.empty((len(self.state.replicas), *one.shape))
            values[k] = one
        return values

    def molecules(self, name: str) -> np.ndarray:
        """Return the result of `series` as (n_replicas * n_molecules, n, ...), one series for each molecule."""
        values = self.series(name)
        values = np.moveaxis(values, 3 if name == "d_tensor_members" else 2, 1)
        return values.reshape(-1, *values.shape[2:])

    @property
    def n_blocks(self) -> int:
        """Number of blocks of all replicas in the result of `pooled`."""
        return len(self.state.replicas) * self.blocks

    def pooled(self, series: np.ndarray) -> np.ndarray:
        """Return series (n_series, n, ...) from `series` or `molecules` concatenated to (n_series * n, ...).

        The order is replica by replica, block by block, and within a block molecule by molecule.
        """
        n_series, n, *shape = series.shape
        n_replicas = len(self.state.replicas)
        blocks = series.reshape(n_replicas, n_series // n_replicas, self.blocks, n // self.blocks, *shape)
        return blocks.swapaxes(1, 2).reshape(-1, *shape)

    def _kept(self, name: str) -> tuple[int, np.ndarray]:
        """Return the index of the first sample that is kept, and the times (n,) from there on, fs."""
        if name not in self:
            raise SamplesError(
                f"the run must have recorded {name}, it recorded only {', '.join(self.trajectory.names())}"
            )
        times = self.trajectory.times(name)
        first = int(np.searchsorted(times, times[0] + self.discard - 1e-6))
        n = len(times) - first
        if n < PER_BLOCK * self.blocks:
            raise SamplesError(
                f"{self.blocks} blocks need at least {PER_BLOCK * self.blocks} samples of {name} in each replica, got "
                f"{n} after {self.discard / 1000.0:g} ps of equilibration; run longer, or lower blocks or discard"
            )
        first += n % self.blocks
        return first, times[first:]


def discarded(trajectory: Trajectory, settings: Analysis, equilibrated: bool = False) -> float:
    """Return the time to leave out at the beginning of each replica, fs.

    This is the setting `discard` if given, else zero if the run was equilibrated, else a tenth of the run.

    Raises
    ------
    SamplesError : if the run recorded nothing that can be analyzed.
    """
    if settings.discard is not None:
        return 1000.0 * settings.discard
    if equilibrated:
        return 0.0
    name = next((name for name in ("d_tensor", "position", "temperature") if name in trajectory.names()), None)
    if name is None:
        raise SamplesError(
            f"{trajectory.path} holds neither positions nor temperatures nor D tensors: there is nothing to analyze"
        )
    times = trajectory.times(name)
    return 0.1 * float(times[-1] - times[0])
