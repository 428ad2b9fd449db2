"""Energies and forces of moving structures on the GPU, where positions and results stay.

    forces = DeviceForces(load_model("model.h5", device="cuda"), atoms, skin=1.0)
    for step in range(n_steps):
        forces.positions += ...          # CuPy, in place
        result = forces.evaluate()       # arrays of CuPy
        acceleration = result.forces / masses

Only one number per step is copied to the host: whether an atom has moved so far that the neighbor list must be built
again. The rest of a step replays one CUDA graph (`gmcore.engine.step_cuda`), which remains valid after most builds of
the list. `DeviceForces` fulfills `gmcore.dynamics.forces.Forces`: an integrator that is given it keeps its state on the
GPU. Blocks of steps without any copy are `gmcore.dynamics.blocks_cuda`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from gmcore.device.cuda import Array
from gmcore.device.segments import SegmentSum
from gmcore.dynamics.forces import ForceResult
from gmcore.dynamics.state import DynamicsError, State
from gmcore.engine.evaluator_base import stress
from gmcore.engine.evaluator_cuda import DeviceEvaluator
from gmcore.engine.step_cuda import DeviceStep
from gmcore.engine.structures import Batch
from gmcore.kernels import motion_cuda
from gmcore.model import Model


class DeviceResult(NamedTuple):
    """Arrays on the device; the next call may overwrite them.

    Attributes
    ----------
    energy : (n_structures,) eV, mean over the members.
    forces : (n_atoms, 3) eV/A, mean over the members.
    strain : (n_structures, 3, 3) eV, mean of dE/deps; its symmetric part divided by the volume is the stress.
    member_energies : (n_members, n_structures) eV.
    member_forces : (n_members, n_atoms, 3) eV/A.
    """

    energy: Array
    forces: Array
    strain: Array
    member_energies: Array
    member_forces: Array


class DeviceForces:
    """Energies, forces and strain derivatives on the device.

    Parameters
    ----------
    model : a model that predicts an energy, loaded with device="cuda".
    atoms : one structure, several, or a Batch; their elements and periodicity cannot change later. Several copies of
        one structure are the replicas of a run.
    skin : margin of the neighbor list, A; the list is built again when an atom has moved about half of it.

    Attributes
    ----------
    positions : device, (n_atoms, 3) float64, A, all structures one after another; may be changed in place.
    n_builds : how often the neighbor list was built.
    step : what an evaluation computes, on the device.
    machine : moves atoms on this device; for an integrator whose replicas are the structures.

    Raises
    ------
    DynamicsError : the model is on the CPU, or predicts no energy.
    """

    def __init__(self, model: Model, atoms: Atoms | Sequence[Atoms] | Batch, skin: float = 1.0):
        if not isinstance(model.evaluator, DeviceEvaluator):
            raise DynamicsError("DeviceForces needs a model loaded with device='cuda', got a model on the CPU")
        if "energy" not in model.units:
            raise DynamicsError(f"DeviceForces needs a model with an energy, got a model of {', '.join(model.units)}")
        self.evaluator = model.evaluator
        self.column = int(np.flatnonzero(self.evaluator.energy_columns())[0])
        self._pairs = self.evaluator.neighbor_list(skin)
        self._batch = self._pairs.update(atoms if isinstance(atoms, Batch) else Batch.from_atoms(atoms)).batch
        self._host = self._batch.host
        self.step: DeviceStep = self.evaluator.new_step(self._pairs.pairs(), forces=True)
        self._forgotten = False
        self.machine = Card(self)

    @property
    def positions(self) -> Array:
        """(n_atoms, 3) float64, A, on the device."""
        return self._batch.positions

    @property
    def n_builds(self) -> int:
        """How often the neighbor list was built."""
        return self._pairs.n_builds

    @property
    def species(self) -> np.ndarray:
        """(n_atoms,) on the host: index of each element in the list of the model."""
        return self._host.species(self.evaluator.species)

    def set_positions(self, positions: Array | np.ndarray) -> None:
        """Copy positions (n_atoms, 3) or (n_replicas, n_atoms, 3), A, from the host or the device."""
        self._batch.set_positions(positions.reshape(-1, 3))

    def set_cells(self, cells: np.ndarray) -> None:
        """Set the cells (n_structures, 3, 3), A, from an array on the host."""
        self._batch.set_cells(cells)

    def forget(self) -> None:
        """Drop the neighbor list; the next call builds a new one."""
        self._forgotten = True

    def __call__(self, positions: Array, cells: np.ndarray, want_stress: bool = False) -> ForceResult:
        """Compute energies and forces of replicas; the arrays of the result are on the device.

        Parameters
        ----------
        positions : device, (n_replicas, n_atoms, 3) A; those that the integrator shares with `machine` are not copied.
        cells : host, (n_replicas, 3, 3) A, rows are the cell vectors.
        want_stress : also compute the stress.

        Raises
        ------
        DynamicsError : positions of another shape than at the start.
        StructureError : positions are not finite, or a cell has no volume.
        NeighborError : two atoms coincide.
        """
        shape = self.replica_shape()
        if positions.shape != shape:
            raise DynamicsError(f"positions must have shape {shape}, one row per structure, got {positions.shape}")
        if positions is not self.machine.positions:
            self.set_positions(positions)
        if not np.array_equal(cells, self._batch.host.cells):
            self.set_cells(cells)
        result, device = self.evaluate(), self.evaluator.device
        with device.active():
            found = stress(result.strain, device.upload(self._host.volumes)) if want_stress else None
            energies, forces = result.energy, result.forces.reshape(shape)
            if self.evaluator.n_members == 1:
                return ForceResult(energies, forces, found)
            return ForceResult(
                energies, forces, found, result.member_energies, result.member_forces.reshape(-1, *shape)
            )

    def replica_shape(self) -> tuple[int, int, int]:
        """(n_replicas, n_atoms, 3).

        Raises
        ------
        DynamicsError : the structures differ in size.
        """
        sizes = np.diff(self._host.offsets)
        if not len(sizes) or np.ptp(sizes):
            raise DynamicsError(f"the replicas of a run must have the same number of atoms, got {sizes.tolist()[:10]}")
        return len(sizes), int(sizes[0]), 3

    def terms(self, result: ForceResult | None = None) -> Array:
        """Return dE/dr of the members at the last evaluation, (n_members, n_replicas, n_atoms, 3) eV/A."""
        return self.step.g_positions.reshape(-1, *self.replica_shape())

    def evaluate(self) -> DeviceResult:
        """Compute energies and forces at the present positions and cells; everything stays on the device.

        Raises
        ------
        StructureError : positions are not finite.
        NeighborError : two atoms coincide.
        """
        pairs, batch = self._pairs, self._batch
        valid = not self._forgotten
        if batch.host is not self._host:  # the cells have changed
            self._host = batch.host
            valid = valid and pairs.list.prepare(batch)
        if valid:  # the step runs with the old list while the device checks whether the list is still valid
            self.check_list()
            self._run()
        if not valid or self.list_outrun():
            self.build_list()
            self._run()
        step = self.step
        with self.evaluator.device.active():
            energies, forces = step.sums[:, :, self.column], -step.g_positions
            strain = step.g_strain.mean(axis=0)
            return DeviceResult(energies.mean(axis=0), forces.mean(axis=0), strain, energies, forces)

    def _run(self) -> None:
        """Compute energies and forces with the present list."""
        pairs = self._pairs.pairs()
        self.step.run(pairs.geometry, pairs.token)

    # parts of an evaluation, for blocks of steps -------------------------------------------------------------------

    def check_list(self) -> None:
        """Queue the test whether the list still serves; `list_outrun` waits for the answer."""
        self._pairs.list.check_movers(self._batch)

    def mark_infinite(self, velocities: Array) -> None:
        """Queue a test that all velocities are finite, whose answer is part of that of `list_outrun`."""
        n_threads = int(np.prod(velocities.shape[:2]))
        self.evaluator.device.launch(motion_cuda.mark_infinite, n_threads, velocities, self._pairs.list.moved)

    def launch(self) -> None:
        """Queue an evaluation of energies and forces with the present list, kernel by kernel."""
        self.step.launch(self._pairs.pairs().geometry)

    def list_outrun(self) -> bool:
        """Return whether an atom had moved too far in any `check_list` since the last call."""
        return self._pairs.list.has_moved()

    def build_list(self) -> None:
        """Build the list for the present positions.

        Raises
        ------
        StructureError, NeighborError : as `evaluate`.
        """
        self._forgotten = True  # until a new list is complete: building it may fail
        self._pairs.list.build(self._batch)
        self._forgotten = False

    def token(self) -> object:
        """Return what changes when an array that `check_list` or `launch` uses has got another address."""
        return self._pairs.pairs().token


class Card:
    """The GPU as the machine of an integrator (`gmcore.dynamics.machine.Machine`), with a saved copy of the state.

    Attributes
    ----------
    positions : device, (n_replicas, n_atoms, 3): those of the forces, once an integrator shares them.
    """

    on_host = False

    def __init__(self, forces: DeviceForces):
        self.may_wait = True
        self.positions: Array = None
        self._forces, self._device = forces, forces.evaluator.device
        self.force_factor = -1.0 / forces.evaluator.n_members
        self._shared: dict[str, Array] = {}
        self._saved: dict[str, Array] = {}
        self._sum: SegmentSum | None = None

    @property
    def shared(self) -> dict[str, Array]:
        """Variables of the state by name, on the device."""
        return self._shared

    def share(self, name: str, values: np.ndarray) -> Array:
        """Return an array on the device with these values, moved in place of those of the state."""
        if name == "positions":
            if values.shape != self._forces.replica_shape():
                raise DynamicsError(f"positions must have shape {self._forces.replica_shape()}, got {values.shape}")
            self._forces.set_positions(values)
            self._shared[name] = self.positions = self._forces.positions.reshape(values.shape)
        else:
            self._shared[name] = self._device.upload(values)
        self._saved[name] = self._device.upload(values)
        return self._shared[name]

    def constant(self, values: np.ndarray) -> Array:
        """Return an array on the device with these values."""
        return self._device.upload(values)

    def launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:
        """Launch a kernel of `motion_cuda`."""
        self._device.launch(getattr(motion_cuda, kernel), n_threads, *arguments)

    def sum_atoms(self, values: Array, out: Array) -> None:
        """Sum values (n_replicas, n_atoms) over the atoms into out (n_replicas,)."""
        if self._sum is None:
            n_replicas, n_atoms = values.shape
            self._sum = SegmentSum(self._device, n_atoms * np.arange(n_replicas + 1), 1)
        self._sum(values.reshape(-1, 1), out.reshape(-1, 1))

    def set_counter(self, counter: Array, step: int) -> None:
        """Write the number of the step into counter (1,)."""
        with self._device.active():
            counter.fill(step)

    def download(self, array: Array) -> np.ndarray:
        """Return a copy on the host, after all work on the array is done."""
        return self._device.download(array)

    def fetch(self, state: State) -> None:
        """Bring positions, velocities and variables of the thermostat into the state."""
        for name, array in self._shared.items():
            place(state, name)[...] = self._device.download(array)

    def fetch_later(self) -> Callable[[State], None]:
        """Queue copies of the variables of the state; what is returned waits and puts them into a state."""
        copies = {name: self._device.download_later(array) for name, array in self._shared.items()}

        def put(state: State) -> None:
            for name, copy in copies.items():
                place(state, name)[...] = copy()

        return put

    def save(self) -> None:
        """Queue a copy of all variables, on the device."""
        with self._device.active():
            for name, array in self._shared.items():
                self._saved[name][...] = array

    def restore(self) -> None:
        """Queue the way back to the copy."""
        with self._device.active():
            for name, array in self._shared.items():
                array[...] = self._saved[name]


def place(state: State, name: str) -> np.ndarray:
    """Return the array of a state that a variable is kept in."""
    return getattr(state, name) if name in ("positions", "velocities") else state.extended[name]
