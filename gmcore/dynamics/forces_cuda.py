"""Energies and forces of moving structures on the GPU; positions can stay there between the steps.

    forces = DeviceForces(load_model("model.h5", device="cuda"), atoms, skin=1.0)
    for step in range(n_steps):
        forces.positions += ...          # CuPy, in place
        result = forces.evaluate()       # arrays of CuPy
        acceleration = result.forces / masses

Only one number per step is copied to the host: whether an atom has moved so far that the neighbor list must be built
again. The rest of a step replays one CUDA graph (`gmcore.engine.step_cuda`), which remains valid after most builds of
the list. `DeviceForces` also satisfies the protocol `gmcore.dynamics.forces.Forces`, so that the integrators, whose
state is on the host, can use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms

from gmcore.device.cuda import Array
from gmcore.dynamics.forces import ForceResult
from gmcore.dynamics.state import DynamicsError
from gmcore.engine.evaluator_base import stress
from gmcore.engine.evaluator_cuda import DeviceEvaluator
from gmcore.engine.step_cuda import DeviceStep
from gmcore.engine.structures import Batch
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

    Raises
    ------
    DynamicsError : the model is on the CPU, or predicts no energy.
    """

    def __init__(self, model: Model, atoms: Atoms | Sequence[Atoms] | Batch, skin: float = 1.0):
        if not isinstance(model.evaluator, DeviceEvaluator):
            raise DynamicsError("DeviceForces needs a model loaded with device='cuda', got a model on the CPU")
        if "energy" not in model.units:
            raise DynamicsError(f"DeviceForces needs a model with an energy, got a model of {', '.join(model.units)}")
        self._evaluator = model.evaluator
        self._column = int(np.flatnonzero(self._evaluator.energy_columns())[0])
        self._pairs = self._evaluator.neighbor_list(skin)
        self._batch = self._pairs.update(atoms if isinstance(atoms, Batch) else Batch.from_atoms(atoms)).batch
        self._host = self._batch.host
        self._forgotten = False

    @property
    def positions(self) -> Array:
        """(n_atoms, 3) float64, A, on the device."""
        return self._batch.positions

    @property
    def n_builds(self) -> int:
        """How often the neighbor list was built."""
        return self._pairs.n_builds

    def set_cells(self, cells: np.ndarray) -> None:
        """Set the cells (n_structures, 3, 3), A, from an array on the host."""
        self._batch.set_cells(cells)

    def forget(self) -> None:
        """Drop the neighbor list; the next call builds a new one."""
        self._forgotten = True

    def __call__(self, positions: np.ndarray, cells: np.ndarray, want_stress: bool = False) -> ForceResult:
        """Compute energies and forces of replicas, from arrays on the host to arrays on the host.

        Parameters
        ----------
        positions : (n_replicas, n_atoms, 3) A; all structures must have the same number of atoms.
        cells : (n_replicas, 3, 3) A, rows are the cell vectors.
        want_stress : also compute the stress.

        Raises
        ------
        DynamicsError : positions of another shape than at the start.
        StructureError : positions are not finite, or a cell has no volume.
        NeighborError : two atoms coincide.
        """
        shape = (self._host.n_structures, self._host.n_atoms // self._host.n_structures, 3)
        if positions.shape != shape or np.ptp(np.diff(self._host.offsets)):
            raise DynamicsError(f"positions must have shape {shape}, one row per structure, got {positions.shape}")
        self._batch.set_positions(positions.reshape(-1, 3))
        if not np.array_equal(cells, self._batch.host.cells):
            self.set_cells(cells)
        result, download = self.evaluate(), self._evaluator.device.download
        found = stress(download(result.strain), self._host.volumes) if want_stress else None
        energies, forces = download(result.energy), download(result.forces).reshape(shape)
        if self._evaluator.n_members == 1:
            return ForceResult(energies, forces, found)
        members = download(result.member_energies), download(result.member_forces).reshape(-1, *shape)
        return ForceResult(energies, forces, found, *members)

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
        step = None
        if valid:  # the step runs with the old list while the device checks whether the list is still valid
            pairs.list.check_movers(batch)
            step = self._run()
        if step is None or pairs.list.has_moved():
            self._forgotten = True  # until a new list is complete: building it may fail
            pairs.list.build(batch)
            self._forgotten = False
            step = self._run()
        if step.g_positions is None or step.g_strain is None:
            raise DynamicsError("a step of the dynamics must compute forces, got one that computes energies only")
        with self._evaluator.device.active():
            energies, forces = step.sums[:, :, self._column], -step.g_positions
            strain = step.g_strain.mean(axis=0)
            return DeviceResult(energies.mean(axis=0), forces.mean(axis=0), strain, energies, forces)

    def _run(self) -> DeviceStep:
        """Compute energies and forces with the present list."""
        pairs = self._pairs.pairs()
        step = self._evaluator.step(pairs, forces=True)
        step.run(pairs.geometry, pairs.token)
        return step
