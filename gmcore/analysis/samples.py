"""Samples of one temperature: replicas pooled, equilibration left out, cut so that blocks never cross replicas.

The series of all replicas are cut to a multiple of the number of blocks and laid end to end. Averages over N replicas
of n_blocks blocks each are then block averages over N n_blocks blocks of one long series: the error bar holds the
spread along each replica and the spread between replicas, and no block mixes two. Molecules of one cell feel each other
and are no independent replicas: a block holds all of them over the same stretch of time.

Without thermostat (nve) temperatures are no setting: each replica is a state of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gmcore.config.analysis import Analysis
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import GMError

PER_BLOCK = 4
"""Samples that a block holds at least."""


class SamplesError(GMError):
    """A run too short or too empty for what is asked."""


@dataclass(frozen=True)
class State:
    """Replicas that belong together; target is NaN without thermostat."""

    label: str
    target: float
    replicas: tuple[int, ...]


def states_of(trajectory: Trajectory) -> list[State]:
    """Return the states of a run, temperatures rising."""
    targets = trajectory.temperatures
    if not np.isfinite(targets).all():
        return [State(f"replica {k}", float("nan"), (k,)) for k in range(trajectory.n_replicas)]
    groups = {float(target): tuple(np.flatnonzero(targets == target).tolist()) for target in np.unique(targets)}
    return [State(f"{target:g} K", target, replicas) for target, replicas in groups.items()]


class Samples:
    """The samples of a state.

    Parameters
    ----------
    discard : fs left out at the beginning of each replica.
    blocks : blocks of each replica.

    Raises
    ------
    SamplesError : a quantity that was not recorded, or fewer than PER_BLOCK samples for each block.
    """

    def __init__(self, trajectory: Trajectory, state: State, discard: float, blocks: int):
        self.trajectory, self.state, self.discard, self.blocks = trajectory, state, discard, blocks

    def __contains__(self, name: str) -> bool:
        return name in self.trajectory.names()

    def interval(self, name: str) -> float:
        """Time between samples, fs."""
        times = self._kept(name)[1]
        steps = np.diff(times)
        if np.ptp(steps) > 1e-6 * steps.max():
            raise SamplesError(
                f"samples of {name} must be equally spaced, got intervals {steps.min():g} to {steps.max():g} fs"
            )
        return float(steps.mean())

    def times(self, name: str) -> np.ndarray:
        """(n,) fs: times of the samples of one replica."""
        return self._kept(name)[1]

    def series(self, name: str) -> np.ndarray:
        """(n_replicas, n, ...) samples of a quantity, in its internal unit; NaN throughout where it has no meaning, as
        the deviation of a single model. SamplesError: some values that are not finite.
        """
        first, times = self._kept(name)
        values: np.ndarray | None = None
        for k, replica in enumerate(self.state.replicas):
            one = self.trajectory.values(name, replica, first, first + len(times))
            bad = ~np.isfinite(one).reshape(len(one), -1).all(axis=1)
            if bad.any() and not np.isnan(one).all():
                raise SamplesError(
                    f"{name} of replica {replica} must be finite, got {bad.sum()} samples that are not, the first at "
                    f"{times[bad.argmax()]:g} fs"
                )
            if values is None:  # one array from the start: there may be gigabytes
                values = np.empty((len(self.state.replicas), *one.shape))
            values[k] = one
        return values

    def molecules(self, name: str) -> np.ndarray:
        """(n_replicas * n_molecules, n, ...): as `series`, the molecules of a cell as further replicas."""
        values = self.series(name)
        values = np.moveaxis(values, 3 if name == "d_tensor_members" else 2, 1)
        return values.reshape(-1, *values.shape[2:])

    @property
    def n_blocks(self) -> int:
        """Blocks of all replicas, in what `pooled` returns."""
        return len(self.state.replicas) * self.blocks

    def pooled(self, series: np.ndarray) -> np.ndarray:
        """Return series (n_series, n, ...), as of `series` or `molecules`, laid end to end, (n_series * n, ...).

        Replica by replica, block by block, in a block molecule by molecule.
        """
        n_series, n, *shape = series.shape
        n_replicas = len(self.state.replicas)
        blocks = series.reshape(n_replicas, n_series // n_replicas, self.blocks, n // self.blocks, *shape)
        return blocks.swapaxes(1, 2).reshape(-1, *shape)

    def _kept(self, name: str) -> tuple[int, np.ndarray]:
        """The first sample that is kept, and the times (n,) from there on, fs."""
        if name not in self:
            raise SamplesError(f"the run must have recorded {name}, it holds {', '.join(self.trajectory.names())}")
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
    """Return what to leave out, fs: what is asked for, else the first tenth, nothing of a run that was equilibrated."""
    if settings.discard is not None:
        return 1000.0 * settings.discard
    if equilibrated:
        return 0.0
    name = next((name for name in ("d_tensor", "position", "temperature") if name in trajectory.names()), None)
    if name is None:
        raise SamplesError(f"{trajectory.path} must hold positions, temperatures or D tensors, it holds none of them")
    times = trajectory.times(name)
    return 0.1 * float(times[-1] - times[0])
