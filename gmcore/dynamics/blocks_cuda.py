"""Blocks of steps on the GPU: several steps are one CUDA graph, and the host looks once per block.

    graph of n steps:   save the state;  n times (integrator -> test of the neighbor list -> forces);  last half kick

The graph is recorded when a block of its length runs the second time with the same arrays, and replayed from then on.
When it has run, the host reads one number: whether in any step an atom had moved so far that the neighbor list was not
certain to be complete, or a velocity is not finite. Then nothing of the block counts: the state goes back to where it
was saved, the list is built there, and the block runs again. A block that fails even with a new list is done step by
step, with a look at every step, which finds the step that went wrong.

What is recorded is copied to the host while the next block runs (`CardFrame`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import numpy as np

from gmcore.dynamics.forces import ForceResult
from gmcore.dynamics.forces_cuda import DeviceForces
from gmcore.dynamics.integrator import Integrator
from gmcore.dynamics.state import DynamicsError, State
from gmcore.kernels import committee_cuda
from gmcore.uncertainty.environments import TrainingEnvironments

BLOCK = 8
"""Most steps of a block."""


class Blocks:
    """Advances an integrator on the GPU in blocks of steps.

    Parameters
    ----------
    integrator : any integrator with `DeviceForces`.

    Attributes
    ----------
    n_redone : blocks that outran their neighbor list and were done again.
    n_single : blocks that were done step by step.
    n_recorded, n_replayed : how often a graph was recorded, and replayed.

    Raises
    ------
    DynamicsError : the integrator runs on the host.
    """

    def __init__(self, integrator: Integrator):
        if not isinstance(integrator.forces, DeviceForces):
            raise DynamicsError("blocks of steps need an integrator with DeviceForces, got one that runs on the host")
        self.integrator, self._forces = integrator, integrator.forces
        self._card, self._device = integrator.forces.machine, integrator.forces.evaluator.device
        self._graphs: dict[int, tuple[object, Callable[[], None] | None]] = {}
        self._kept: dict[int, object] = {}  # arrays that only the graphs use
        self._can_record = True
        self.n_redone = self.n_single = self.n_recorded = self.n_replayed = 0

    def advance(self, n_steps: int, meanwhile: Callable[[], None] | None = None) -> None:
        """Do up to `n_steps` steps; fewer only if energies or forces are not finite after the last one done.

        Parameters
        ----------
        meanwhile : called while the GPU works.

        Raises
        ------
        DynamicsError : a thermostat has overflowed.
        StructureError, NeighborError : forces cannot be computed at the new positions.
        """
        self._run(n_steps)
        if meanwhile is not None:
            meanwhile()
        if self._forces.list_outrun():
            self.n_redone += 1
            self._go_back()
            self._run(n_steps)
            if self._forces.list_outrun():
                self._go_back()
                self._step_by_step(n_steps)
                return
        self.integrator.state.step += n_steps

    def frame(self, want_grade: bool = False) -> CardFrame:
        """Queue copies of the present state, energies and forces for the host."""
        return CardFrame(self.integrator, want_grade)

    def _go_back(self) -> None:
        """Return to the start of the block, with a new list and its forces."""
        self._card.restore()
        self._forces.build_list()
        with self._device.active():
            self._forces.launch()

    def _run(self, n_steps: int) -> None:
        """Queue a block, as a graph where there is one."""
        self.integrator.begin_steps()
        self._card.may_wait = False
        try:
            with self._device.active():
                token = self._forces.token()
                known, graph = self._graphs.get(n_steps, (None, None))
                if graph is None and self._can_record and token == known:
                    graph = self._device.capture(lambda: self._launch(n_steps))
                    self._kept[n_steps] = self._forces.evaluator.scratch
                    self._can_record = graph is not None
                    self.n_recorded += self._can_record
                elif token != known:
                    graph = None
                if graph is None:
                    self._launch(n_steps)
                else:
                    graph()
                    self.n_replayed += 1
                self._graphs[n_steps] = (token, graph)
        finally:
            self._card.may_wait = True

    def _launch(self, n_steps: int) -> None:
        integrator, forces = self.integrator, self._forces
        self._card.save()
        for offset in range(n_steps):
            integrator.start_step(2 if offset else 1, offset)
            forces.check_list()
            forces.launch()
        integrator.finish_step()
        forces.mark_infinite(self._card.shared["velocities"])

    def _step_by_step(self, n_steps: int) -> None:
        self.n_single += 1
        for _ in range(n_steps):
            self.integrator.step()
            result, finite = self.integrator.result, self._device.xp.isfinite
            with self._device.active():
                bad = not (bool(finite(result.energies).all()) and bool(finite(result.forces).all()))
            if bad:
                return


class CardFrame:
    """A step of a run on the GPU, as `Recorder` and `StopConditions` see an integrator; copied in the background.

    Parameters
    ----------
    integrator : with `DeviceForces`.
    want_grade : whether extrapolation grades will be asked for.

    Attributes
    ----------
    state : State of the host, which may hold numbers that are not finite.
    result : ForceResult of the host, without the forces of the members; their deviation is known.
    n_degrees : as of the integrator.
    """

    def __init__(self, integrator: Integrator, want_grade: bool):
        forces = integrator.forces
        if not isinstance(forces, DeviceForces):
            raise DynamicsError("a frame of the GPU needs an integrator with DeviceForces, got one on the host")
        self._integrator, self._column, self.n_degrees = integrator, forces.column, integrator.n_degrees
        self._step = integrator.state.step
        self._is_committee = forces.evaluator.n_members > 1
        device, terms = forces.evaluator.device, forces.terms()
        shape = terms.shape[1:]
        mean = device.empty((shape[0] * shape[1], 3), np.float64)
        deviation = device.empty(len(mean), np.float64)
        g_positions = terms.reshape(len(terms), -1, 3)
        device.launch(committee_cuda.mean_and_deviation, len(mean), g_positions, mean, deviation)
        later = device.download_later
        self._put = forces.machine.fetch_later()
        self._sums, self._forces, self._deviation = later(forces.step.sums), later(mean), later(deviation)
        self._grade: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None
        environments = forces.evaluator.environments
        if want_grade and environments is not None:
            self._grade = _grades(environments, forces.evaluator.features_later(forces.step), forces.species, shape)

    @cached_property
    def state(self) -> State:
        """The state at this step, on the host."""
        state = copy.copy(self._integrator.state)  # not a new State, which refuses numbers that are not finite
        state.positions, state.velocities = np.empty_like(state.positions), np.empty_like(state.velocities)
        state.extended = {name: np.empty_like(values) for name, values in state.extended.items()}
        state.step = self._step
        self._put(state)
        return state

    @cached_property
    def result(self) -> ForceResult:
        """Energies and forces at this step, on the host."""
        energies, shape = self._sums()[:, :, self._column], self.state.positions.shape
        forces, grade = self._forces().reshape(shape), self._grade
        if not self._is_committee:
            return ForceResult(energies[0], forces, grade=grade)
        deviation = self._deviation().reshape(shape[:2])
        return ForceResult(energies.mean(axis=0), forces, None, energies, grade=grade, deviation=deviation)

    def conserved(self) -> np.ndarray:
        """(n_replicas,) eV, as of the integrator."""
        return self._integrator.conserved_at(self.state, self.result.energies)


def _grades(
    environments: TrainingEnvironments, features: Callable[[], np.ndarray], species: np.ndarray, shape: tuple[int, ...]
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Return what gives the grades of replicas and atoms, `shape` (n_replicas, n_atoms, 3), when it is called."""

    def grades() -> tuple[np.ndarray, np.ndarray]:
        of_atoms = environments.grades(features(), species)
        offsets = shape[1] * np.arange(shape[0] + 1)
        return environments.structure_grades(of_atoms, offsets), of_atoms.reshape(shape[:2])

    return grades
