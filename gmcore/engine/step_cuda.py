"""One evaluation on the device, from positions and neighbor list to energies and forces, in arrays that stay in place.

Per group of members whose layers have the same sizes: moments -> for chunks of atoms (contractions -> network up ->
network down -> contractions back) -> moments back, each one launch for all members; only what is so large that launches
do not count is done member by member. A small system takes fourteen launches (`perf.gpu_model` lists them).

Nothing is allocated and nothing waits for the host once the arrays are there, so that a step can be recorded as a CUDA
graph. From the second run with the same arrays on it is; where recording fails, or an array has moved, the step runs
launch by launch.

    strain = dE/deps, energy in float64, sums in fixed order: the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.device.memory import MemoryPlan, chunk_bounds
from gmcore.device.segments import SegmentSum
from gmcore.engine.network_cuda import DeviceNetworks, OutputTables
from gmcore.engine.settings import Member
from gmcore.engine.stages_cuda import DeviceContractions, DeviceMoments
from gmcore.engine.structures_cuda import DeviceBatch, VectorCenters
from gmcore.kernels.arguments import Geometry


class MemberGroup:
    """Members whose layers have the same sizes, so that each layer is one product for all of them.

    Parameters
    ----------
    moments : the stage that reads their radial coefficients.
    indices : which members of the committee these are, one after another.
    tables : scales and shifts of their outputs.

    Attributes
    ----------
    own : slice of these members in arrays of the whole committee.
    beta : radial coefficients of all of them.
    """

    def __init__(
        self,
        device: Device,
        moments: DeviceMoments,
        indices: Sequence[int],
        members: Sequence[Member],
        tables: OutputTables,
        dtype: np.dtype,
        matmul: str,
    ):
        self.indices = list(indices)
        self.own = slice(self.indices[0], self.indices[-1] + 1)
        self.networks = DeviceNetworks(device, members, tables, dtype, matmul)
        self.beta = moments.pack_stack([device.upload(member.beta, dtype) for member in members])


class DeviceStep:
    """Arrays for one batch of structures, and what is launched on them.

    Parameters
    ----------
    forces : whether forces and strain derivatives are computed.
    plan : chunk of atoms, from `gmcore.device.memory`.

    Attributes
    ----------
    moments : list of (n_members of the group, n_atoms, n_radial, 16), per group.
    outputs : (n_members, n_atoms, n_outputs) float64, after scale and shift.
    sums : (n_members, n_structures, n_outputs) float64, sums of the outputs over the atoms of each structure.
    g_positions, g_strain : (n_members, n_atoms, 3) dE/dr and (n_members, n_structures, 3, 3) dE/deps, float64, or None.
    n_recorded, n_replayed : how often a graph was recorded, and replayed.
    """

    def __init__(
        self,
        device: Device,
        groups: Sequence[MemberGroup],
        moments: DeviceMoments,
        contractions: DeviceContractions,
        batch: DeviceBatch | VectorCenters,
        forces: bool,
        plan: MemoryPlan,
    ):
        self.device, self.batch, self.forces, self.plan = device, batch, forces, plan
        self._groups, self._moments, self._contractions = groups, moments, contractions
        self.n_recorded = self.n_replayed = 0
        self._graph: Callable[[], None] | None = None
        self._token: object = None
        self._kept: object = None
        self._can_record = True
        n_members = sum(len(group.indices) for group in groups)
        n_atoms, n_structures, n_outputs = batch.n_atoms, batch.n_structures, groups[0].networks.layer_sizes[-1]
        shapes = [(len(group.indices), n_atoms, *moments.row_shape) for group in groups]
        self.moments = [device.empty(shape, moments.dtype) for shape in shapes]
        self._g_moments: list[Array] = [device.empty(shape, moments.dtype) for shape in shapes] if forces else []
        self.outputs = device.empty((n_members, n_atoms, n_outputs), np.float64)
        self.sums = device.zeros((n_members, n_structures, n_outputs), np.float64)
        self._structure_sum = SegmentSum(device, batch.offsets, n_outputs, n_members)
        self.g_positions: Array = device.empty((n_members, n_atoms, 3), np.float64) if forces else None
        self.g_strain: Array = device.zeros((n_members, n_structures, 3, 3), np.float64) if forces else None
        self._work = [group.networks.workspace(max(plan.chunk, 1)) for group in groups]

    def run(self, geometry: Geometry, token: object) -> None:
        """Compute for the present positions of the batch.

        Parameters
        ----------
        geometry : with `reverse` filled if forces are computed.
        token : equal in two calls if the arrays of the geometry are the same ones, whatever they hold.
        """
        with self.device.active():
            if self._graph is not None and token == self._token:
                self._graph()
                self.n_replayed += 1
                return
            self._graph = None
            self.launch(geometry)
            if self._can_record and token is not None and token == self._token:
                self._graph = self.device.capture(lambda: self.launch(geometry))
                self._kept = self._moments.scratch  # other batches may have it replaced
                self._can_record = self._graph is not None
                self.n_recorded += self._can_record
            self._token = token

    def run_vectors(self, geometry: Geometry, gradients: Array) -> None:
        """Compute energies, and add up the members' derivatives in the vectors of pairs in `gradients` (n_pairs, 3)."""
        positions = self.batch.positions
        with self.device.active():
            for number, group in enumerate(self._groups):
                self._launch_networks(number, group, geometry)
                self._moments.pair_gradients_stack(
                    geometry, positions, group.beta, self._g_moments[number], gradients
                )  # fmt: skip

    def _launch_networks(self, number: int, group: MemberGroup, geometry: Geometry) -> None:
        self._moments.forward_stack(geometry, self.batch.positions, group.beta, self.moments[number])
        for first, last in chunk_bounds(self.batch.n_atoms, self.plan.chunk):
            self._launch_chunk(number, group, first, last)

    def launch(self, geometry: Geometry) -> None:
        """Launch what `run` does, kernel by kernel; may be part of a larger graph."""
        positions = self.batch.positions
        for number, group in enumerate(self._groups):
            self._launch_networks(number, group, geometry)
            if self.forces:
                out = self.g_positions[group.own], self.g_strain[group.own]
                self._moments.backward_stack(geometry, positions, group.beta, self._g_moments[number], out)
        n_outputs = self.outputs.shape[2]
        self._structure_sum(self.outputs.reshape(-1, n_outputs), self.sums.reshape(-1, n_outputs))

    def _launch_chunk(self, number: int, group: MemberGroup, first: int, last: int) -> None:
        """Network up and down for the atoms first <= i < last."""
        work, networks = self._work[number].take(last - first), group.networks
        moments = self.moments[number][:, first:last]
        self._contractions.forward_stack(moments, networks.mean, work.features)
        networks.forward(work, self.batch.species, first, self.outputs[group.own], self.forces)
        if self.forces:
            networks.backward(work)
            self._contractions.backward_stack(moments, work.features, self._g_moments[number][:, first:last])
