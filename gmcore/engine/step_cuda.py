"""One evaluation on the device, from positions and neighbor list to energies and forces, in arrays that stay in place.

Per group of members whose layers have the same sizes: moments of each member -> for chunks of atoms (contractions ->
network up -> network down -> contractions back), all members in one batched product -> moments back. Nothing is
allocated and nothing waits for the host once the arrays are there, so that a step can be recorded as a CUDA graph. From
the second run with the same arrays on it is; where recording fails, or an array has moved, the step runs launch by
launch.

    strain = dE/deps, energy in float64, sums in fixed order: the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.device.memory import MemoryPlan, chunk_bounds
from gmcore.device.segments import SegmentSum
from gmcore.engine.network_cuda import DeviceNetworks
from gmcore.engine.settings import Member
from gmcore.engine.stages_cuda import DeviceContractions, DeviceMoments
from gmcore.engine.structures_cuda import DeviceBatch
from gmcore.kernels import network_cuda as kernels
from gmcore.kernels.arguments import Geometry


class MemberGroup:
    """Members whose layers have the same sizes, so that each layer is one product for all of them.

    Parameters
    ----------
    moments : the stage that reads their radial coefficients.
    indices : which members of the committee these are.
    scale, shift, energy_scale : (n_members, n_species, n_outputs) float64; dE/dy, 0 for outputs of other heads.
    """

    def __init__(
        self,
        device: Device,
        moments: DeviceMoments,
        indices: Sequence[int],
        members: Sequence[Member],
        scale: np.ndarray,
        shift: np.ndarray,
        energy_scale: np.ndarray,
        dtype: np.dtype,
        matmul: str,
    ):
        self.indices = list(indices)
        self.networks = DeviceNetworks(device, members, dtype, matmul)
        self.betas = [moments.pack(device.upload(member.beta, dtype)) for member in members]
        self.scale, self.shift = device.upload(scale), device.upload(shift)
        self.energy_scale = device.upload(energy_scale, dtype)


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
        batch: DeviceBatch,
        forces: bool,
        plan: MemoryPlan,
    ):
        self.device, self.batch, self.forces, self.plan = device, batch, forces, plan
        self._groups, self._moments, self._contractions = groups, moments, contractions
        self.n_recorded = self.n_replayed = 0
        self._graph: Callable[[], None] | None = None
        self._token: object = None
        self._can_record = True
        n_members = sum(len(group.indices) for group in groups)
        n_atoms, n_structures, n_outputs = batch.n_atoms, batch.n_structures, groups[0].networks.layer_sizes[-1]
        shapes = [(len(group.indices), n_atoms, *moments.row_shape) for group in groups]
        self.moments = [device.empty(shape, moments.dtype) for shape in shapes]
        self._g_moments: list[Array] = [device.empty(shape, moments.dtype) for shape in shapes] if forces else []
        self.outputs = device.empty((n_members, n_atoms, n_outputs), np.float64)
        self.sums = device.zeros((n_members, n_structures, n_outputs), np.float64)
        self._structure_sum = SegmentSum(device, batch.host.offsets, n_outputs)
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
            self._launch(geometry)
            if self._can_record and token is not None and token == self._token:
                self._graph = self.device.capture(lambda: self._launch(geometry))
                self._can_record = self._graph is not None
                self.n_recorded += self._can_record
            self._token = token

    def _launch(self, geometry: Geometry) -> None:
        for number, group in enumerate(self._groups):
            for k, beta in enumerate(group.betas):
                self._moments.forward(geometry, self.batch.positions, beta, out=self.moments[number][k])
            for first, last in chunk_bounds(self.batch.n_atoms, self.plan.chunk):
                self._launch_chunk(number, group, first, last)
            for k, (member, beta) in enumerate(zip(group.indices, group.betas)):
                self._structure_sum(self.outputs[member], self.sums[member])
                if self.forces:
                    self._moments.backward(
                        geometry, self.batch.positions, beta, self._g_moments[number][k],
                        want_beta=False, out=(self.g_positions[member], self.g_strain[member]),
                    )  # fmt: skip

    def _launch_chunk(self, number: int, group: MemberGroup, first: int, last: int) -> None:
        """Network up and down for the atoms first <= i < last."""
        work, networks = self._work[number].take(last - first), group.networks
        species, moments = self.batch.species, self.moments[number]
        for k in range(len(group.indices)):
            self._contractions.forward(moments[k, first:last], out=work.features[k])
        y = networks.forward(work)
        own = slice(group.indices[0], group.indices[-1] + 1)
        self._launch_stack(
            kernels.scale_and_shift, y, networks.output_bias, species, group.scale, group.shift, first,
            self.outputs[own],
        )  # fmt: skip
        if self.forces:
            self._launch_stack(kernels.take_rows, work.g_outputs, group.energy_scale, species, first)
            networks.backward(work)
            g_moments = self._g_moments[number]
            for k in range(len(group.indices)):
                self._contractions.backward(moments[k, first:last], work.features[k], out=g_moments[k, first:last])

    def _launch_stack(self, kernel: object, stack: Array, *arguments: object) -> None:
        self.device.launch(kernel, kernels.n_threads(stack.shape), stack, *arguments)
