"""All members of a committee on the GPU: the twin of `gmcore.engine.evaluator`.

Neighbor list, descriptor, network, energies, forces and stress are computed on the device. Charges and tensors are
small sums over its outputs and are left to `gmcore.engine.heads` on the host.

Not supported: draws of the last layer; what asks for them is ignored. Grades only from `extrapolation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.device.memory import ModelSize, plan_evaluation
from gmcore.engine.evaluator_base import EvaluatorBase, stress
from gmcore.engine.heads import head_columns, head_outputs, output_units
from gmcore.engine.neighbors import Pairs
from gmcore.engine.neighbors_cuda import DeviceNeighborList
from gmcore.engine.network_cuda import OutputTables, check_matmul, workspace_columns
from gmcore.engine.settings import HeadSettings, Member, ModelSettings
from gmcore.engine.stages import NO_REVERSE
from gmcore.engine.stages_cuda import DeviceContractions, DeviceMoments, find_reverse
from gmcore.engine.step_cuda import DeviceStep, MemberGroup
from gmcore.engine.structures import Batch
from gmcore.engine.structures_cuda import DeviceBatch, VectorCenters
from gmcore.kernels.arguments import Geometry


class DevicePairs(NamedTuple):
    """A batch on the device with its neighbor list, as `DeviceEvaluator.find_pairs` gives it."""

    batch: DeviceBatch
    geometry: Geometry
    token: object
    n_pairs: int


class DeviceEvaluator(EvaluatorBase):
    """A committee ready to compute on the GPU; parameters and attributes as in `EvaluatorBase`.

    Parameters
    ----------
    device : from `gmcore.device.cuda.open_device`.
    matmul : "float32" or "tf32", precision of float32 matrix products.
    """

    batch_atoms = 65536
    """Atoms evaluated together where there are many structures."""

    def __init__(
        self,
        device: Device,
        settings: ModelSettings,
        members: Sequence[Member],
        dtype: str | None = None,
        matmul: str = "float32",
    ):
        super().__init__(settings, members, dtype)
        self.matmul = check_matmul(matmul)
        self.device = device
        self._moments = DeviceMoments(self.device, settings.descriptor, self.dtype.name)
        self._contractions = DeviceContractions(self.device, settings.descriptor.n_radial, self.dtype.name)
        self._groups = self._make_groups(matmul)
        self._step: DeviceStep | None = None

    def _make_groups(self, matmul: str) -> list[MemberGroup]:
        """Neighboring members whose layers have the same sizes together."""
        runs: list[list[int]] = []
        for k, member in enumerate(self._members):
            shapes = [np.shape(w) for w in member.weights]
            if runs and shapes == [np.shape(w) for w in self._members[runs[-1][0]].weights]:
                runs[-1].append(k)
            else:
                runs.append([k])
        groups = []
        for run in runs:
            members = [self._members[k] for k in run]
            scale, shift = (np.stack(tables) for tables in zip(*(self.scale_and_shift(m) for m in members)))
            tables = OutputTables(scale, shift, self.energy_scale(scale))
            groups.append(MemberGroup(self.device, self._moments, run, members, tables, self.dtype, matmul))
        return groups

    # neighbors -------------------------------------------------------------------------------------------------------

    def find_pairs(self, batch: Batch) -> DevicePairs:
        """Upload a batch and find all its pairs within the cutoff."""
        return self.neighbor_list(0.0).update(batch)

    def neighbor_list(self, skin: float) -> TrajectoryPairs:
        """Neighbor list for a trajectory, reused until atoms have moved half the skin (A)."""
        return TrajectoryPairs(self, skin)

    def upload_pairs(self, batch: Batch, pairs: Pairs) -> DevicePairs:
        """Pairs that were found on the host."""
        on_device, upload = DeviceBatch(self.device, batch, self.species), self.device.upload
        geometry = Geometry(
            on_device.species, on_device.structure, upload(pairs.row_start), upload(pairs.neighbor),
            upload(pairs.shift), upload(pairs.displacements(batch.cells)), upload(NO_REVERSE), batch.n_structures,
        )  # fmt: skip
        return DevicePairs(on_device, find_reverse(self.device, geometry), None, pairs.n_pairs)

    # evaluation ------------------------------------------------------------------------------------------------------

    def evaluate(
        self,
        batch: Batch,
        pairs: DevicePairs | Pairs,
        keys: Iterable[str] | None = None,
        total_charge: np.ndarray | None = None,
        draw_keys: Iterable[str] = (),
        want_extrapolation: bool = False,
    ) -> dict[str, np.ndarray]:
        """Outputs of every member on the host; as `gmcore.engine.evaluator.Evaluator.evaluate`.

        Raises
        ------
        UnknownElementError, GMError : as on the CPU.
        DeviceMemoryError : the device is too small.
        """
        keys = self.check_keys(keys)
        if isinstance(pairs, Pairs):
            pairs = self.upload_pairs(batch, pairs)
        step = self.step(pairs, "forces" in keys or "stress" in keys)
        step.run(pairs.geometry, pairs.token)
        download = self.device.download
        outputs = None
        result: dict[str, list[np.ndarray]] = {key: [] for key in keys}
        for head, columns in head_columns(self.settings.heads):
            if set(keys).isdisjoint(output_units([head])):
                continue
            if head.kind == "energy":
                if "energy" in keys:
                    result["energy"] = list(download(step.sums)[:, :, columns.start])
                continue
            outputs = download(step.outputs) if outputs is None else outputs
            for k in range(self.n_members):
                moments = self._moments_of(step, k) if head.options.basis == "moments" else np.empty(0)
                values = head_outputs(head, outputs[k][:, columns], batch, moments, total_charge)
                for key in set(values) & set(keys):
                    result[key].append(values[key])
        if "forces" in keys:
            result["forces"] = list(-download(step.g_positions))
        if "stress" in keys:
            result["stress"] = list(stress(download(step.g_strain), batch.volumes))
        return {key: np.stack(values) for key, values in result.items()}

    def evaluate_vectors(
        self, species: Array, row_start: Array, neighbor_species: Array, vectors: Array
    ) -> tuple[Array, Array]:
        """Energies of centers and derivatives in vectors to neighbors; see `EvaluatorBase.evaluate_vectors`.

        Everything stands at the origin, the vector of a pair is its displacement, and behind the centers there is one
        atom of each species that all neighbors of this species are.
        """
        self.check_keys(("energy",))
        device, n_centers, n_pairs = self.device, len(species), len(vectors)
        n_species = len(self.species)
        with device.active():
            xp = device.xp
            kinds = xp.concatenate([species, xp.arange(n_species, dtype=np.int32)]).astype(np.int32)
            batch = VectorCenters(device, kinds, n_centers)
            geometry = Geometry(
                kinds, xp.zeros(n_centers + n_species, np.int32), row_start.astype(np.int64),
                (n_centers + neighbor_species).astype(np.int32), xp.arange(n_pairs, dtype=np.int32),
                xp.ascontiguousarray(vectors, np.float64), device.upload(NO_REVERSE), 1,
            )  # fmt: skip
            most = max(len(group.indices) for group in self._groups)
            scratch = self._moments.scratch_bytes(n_pairs, n_centers, most)
            plan = plan_evaluation(self.model_size(), n_centers, 1, True, device.budget(), scratch)
            step = DeviceStep(device, self._groups, self._moments, self._contractions, batch, True, plan)
            gradients = xp.zeros((n_pairs, 3), np.float64)
            step.run_vectors(geometry, gradients)
            column = int(np.flatnonzero(self.energy_columns())[0])
            return step.outputs[:, :, column].mean(axis=0), gradients / self.n_members

    def evaluate_later(self, pairs: DevicePairs, head: HeadSettings) -> Callable[[np.ndarray], np.ndarray]:
        """Queue the evaluation of one tensor head; what is returned waits for it.

        Parameters
        ----------
        pairs : for the present positions of their batch, which may be moved as soon as this returns.

        Returns
        -------
        function of these positions (n_atoms, 3), on the host, that returns (n_members, n_structures, 3, 3).
        """
        step = self.step(pairs, forces=False)
        step.run(pairs.geometry, pairs.token)
        columns = {known.name: columns for known, columns in head_columns(self.settings.heads)}[head.name]
        outputs, batch = self.device.download_later(step.outputs), pairs.batch.host
        moments = [self.device.download_later(stack) for stack in step.moments if head.options.basis == "moments"]

        def values(positions: np.ndarray) -> np.ndarray:
            at = batch.with_positions(positions)
            of_members = [m for stack in moments for m in stack()] or [np.empty(0)] * self.n_members
            parts = zip(outputs(), of_members)
            return np.stack([head_outputs(head, y[:, columns], at, m)[head.name] for y, m in parts])

        return values

    def extrapolation(self, batch: Batch, pairs: DevicePairs) -> np.ndarray:
        """(n_atoms,) extrapolation grades; the features are computed on the device, the grades on the host."""
        beta = self.device.upload(self._members[0].beta, self.dtype)
        moments = self._moments.forward(pairs.geometry, pairs.batch.positions, beta)
        features = self.device.download(self._contractions.forward(moments))
        return self.environments.grades(features, batch.species(self.species))

    def features_later(self, step: DeviceStep) -> Callable[[], np.ndarray]:
        """Queue the features (n_atoms, n_features) of the first member as `step` left it; the result waits for them."""
        return self.device.download_later(self._contractions.forward(step.moments[0][0]))

    def _moments_of(self, step: DeviceStep, member: int) -> np.ndarray:
        group, moments = next(pair for pair in zip(self._groups, step.moments) if member in pair[0].indices)
        return self.device.download(moments[group.indices.index(member)])

    def step(self, pairs: DevicePairs, forces: bool) -> DeviceStep:
        """Arrays for this batch, those of the last evaluation where they fit; memory is asked for in advance."""
        step = self._step
        if step is not None and step.batch is pairs.batch and step.forces == forces:
            return step
        self._step = step = None  # frees the old arrays before the new ones are planned
        self._step = self.new_step(pairs, forces)
        return self._step

    def new_step(self, pairs: DevicePairs, forces: bool) -> DeviceStep:
        """Arrays for this batch that no other evaluation uses."""
        batch, device = pairs.batch, self.device
        most = max(len(group.indices) for group in self._groups)
        scratch = self._moments.scratch_bytes(len(pairs.geometry.neighbor), batch.n_atoms, most) if forces else 0
        sizes = self.model_size(), batch.n_atoms, batch.n_structures
        plan = plan_evaluation(*sizes, forces, device.budget(), scratch)
        return DeviceStep(device, self._groups, self._moments, self._contractions, batch, forces, plan)

    @property
    def scratch(self) -> object:
        """What evaluations of forces write partial sums to; a graph that was recorded with it must keep it."""
        return self._moments.scratch

    def model_size(self) -> ModelSize:
        """What the memory of an evaluation depends on."""
        columns = max(sum(workspace_columns(group.networks.layer_sizes)) for group in self._groups)
        n_outputs = self._groups[0].networks.layer_sizes[-1]
        n_radial = self.settings.descriptor.n_radial
        return ModelSize(self.n_members, n_radial, n_outputs, columns, self.dtype.itemsize)


class TrajectoryPairs:
    """Neighbor list that keeps its arrays from one batch to the next where the atoms are the same.

    Parameters
    ----------
    skin : A; the list is reused until atoms have moved half of it.

    Attributes
    ----------
    batch : `DeviceBatch`, the atoms of the last update; None before the first.
    list : DeviceNeighborList
    """

    def __init__(self, evaluator: DeviceEvaluator, skin: float):
        self._evaluator = evaluator
        self.list = DeviceNeighborList(evaluator.device, evaluator.cutoff, skin)
        self.batch: Any = None

    @property
    def n_builds(self) -> int:
        """How often the list was built."""
        return self.list.n_builds

    def update(self, batch: Batch) -> DevicePairs:
        """Pairs of a batch on the host, complete within the cutoff."""
        if self.batch is None or not self.batch.fits(batch):
            self.batch = DeviceBatch(self._evaluator.device, batch, self._evaluator.species)
        else:
            self.batch.move(batch)
        return self.refresh()

    def refresh(self) -> DevicePairs:
        """Pairs for the present positions on the device."""
        self.list.update(self.batch)
        return self.pairs()

    def pairs(self) -> DevicePairs:
        """The present list."""
        token = (self.list, self.list.generation)
        return DevicePairs(self.batch, self.list.geometry(self.batch), token, self.list.n_pairs)
