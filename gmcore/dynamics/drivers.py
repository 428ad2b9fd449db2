"""What advances a run: the CPU step by step, or a GPU in blocks of steps. The runner sees no difference.

    advance -> frame (and D) -> advance, which looks at the frame meanwhile -> ...

On the CPU a frame is the integrator itself, so it is looked at before the next step; on a GPU it is a copy that comes
to the host while the next block runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.forces import BatchForces, ForceResult
from gmcore.dynamics.integrators import Integrator, make_integrator
from gmcore.dynamics.state import State
from gmcore.dynamics.tensor_observer import TensorObserver
from gmcore.engine.structures import Batch
from gmcore.model import Model

Samples = Callable[[], dict[str, np.ndarray]]


class Frame(Protocol):
    """One step of a run, on the host: what is recorded, checked and dumped of it."""

    @property
    def state(self) -> State:
        """Positions, velocities, cells and the number of the step."""

    @property
    def result(self) -> ForceResult:
        """Energies and forces."""

    @property
    def n_degrees(self) -> int:
        """Number of degrees of freedom of each replica."""

    def conserved(self) -> np.ndarray:
        """(n_replicas,) eV: the energy that exact integration conserves."""


class Driver(Protocol):
    """Advances the replicas of a run; see `HostDriver`."""

    integrator: Integrator
    looks_at_every_step: bool

    def block_length(self, to_next: int) -> int:
        """Return how many steps to do next if something is due in `to_next` steps."""

    def advance(self, n_steps: int, meanwhile: Callable[[], None]) -> None:
        """Do `n_steps` steps, and call `meanwhile` while or before that happens."""

    def frame(self, want_grade: bool) -> Frame:
        """Return the present step."""

    def tensors(self) -> Samples:
        """Return what gives D at the present step; called before the next step is looked at."""


class HostDriver:
    """Steps on the CPU, one by one; the forces may come from a GPU.

    Parameters
    ----------
    integrator : with forces on the host.
    observer : of D; None for a run without.
    """

    looks_at_every_step = True

    def __init__(self, integrator: Integrator, observer: TensorObserver | None):
        self.integrator, self._observer = integrator, observer

    def block_length(self, to_next: int) -> int:
        """Return 1."""
        return 1

    def advance(self, n_steps: int, meanwhile: Callable[[], None]) -> None:
        """Call `meanwhile`, then do the steps."""
        meanwhile()
        for _ in range(n_steps):
            self.integrator.step()

    def frame(self, want_grade: bool) -> Frame:
        """Return the integrator, which is good until the next step."""
        return self.integrator

    def tensors(self) -> Samples:
        """Return what computes D at the present positions."""
        observer, state = self._observer, self.integrator.state
        return lambda: {} if observer is None else observer(state.positions, state.cells)


class CardDriver:
    """Blocks of steps on a GPU; parameters as of `HostDriver`, with `DeviceForces`."""

    looks_at_every_step = False

    def __init__(self, integrator: Integrator, observer: TensorObserver | None):
        from gmcore.dynamics.blocks_cuda import BLOCK, Blocks
        from gmcore.dynamics.tensor_observer_cuda import CardTensorObserver

        state = integrator.state
        self.integrator, self._blocks, self._longest = integrator, Blocks(integrator), BLOCK
        self._observer = None if observer is None else CardTensorObserver(observer, state.positions, state.cells)

    def block_length(self, to_next: int) -> int:
        """Divide the steps to the next sample into blocks of about the same length."""
        return -(-to_next // -(-to_next // self._longest))

    def advance(self, n_steps: int, meanwhile: Callable[[], None]) -> None:
        """Do the steps, and call `meanwhile` while the GPU works; fewer steps if numbers become infinite."""
        self._blocks.advance(n_steps, meanwhile)

    def frame(self, want_grade: bool) -> Frame:
        """Queue copies of the present step."""
        return self._blocks.frame(want_grade)

    def tensors(self) -> Samples:
        """Queue D at the present positions."""
        return dict if self._observer is None else self._observer(self.integrator.positions)


def make_driver(config: MDConfig, model: Model, state: State, observer: TensorObserver | None) -> Driver:
    """Return the driver of a run, with its forces evaluated at the start.

    Raises
    ------
    GMError : the potential, the ensemble and the structure do not fit together.
    """
    on_card = config.device == "cuda" and config.ensemble.kind != "npt"  # whose cells are on the host
    if on_card:
        from gmcore.dynamics.forces_cuda import DeviceForces

        n_replicas, n_atoms = state.n_replicas, state.n_atoms
        batch = Batch(
            state.positions.reshape(-1, 3),
            np.tile(state.numbers, n_replicas),
            state.cells,
            np.tile(state.pbc, (n_replicas, 1)),
            n_atoms * np.arange(n_replicas + 1),
        )
        forces: BatchForces | DeviceForces = DeviceForces(model, batch, config.skin)
    else:
        forces = BatchForces(model, state.numbers, state.pbc, state.n_replicas, config.skin)
    integrator = make_integrator(
        config.ensemble.kind,
        forces,
        state,
        config.time_step,
        [temperature for temperature, _ in config.replicas.pairs()],
        fixed=config.fixed or None,
        **config.ensemble.options(),
    )
    return CardDriver(integrator, observer) if on_card else HostDriver(integrator, observer)
