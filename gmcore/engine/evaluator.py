"""All members of a committee on a batch with a given neighbor list: arrays in, arrays out.

Per member: moments -> for chunks of atoms (contractions -> network up -> network down -> contractions back) -> moments
back. Features and hidden layers exist for one chunk at a time, so memory is linear in the number of atoms with a small
factor: pairs, moments and their cotangents.

    forces = -dE/dr;  stress = sym(dE/deps)/V, eV/A^3, NaN where no cell is defined    (docs/method.md, section 5)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gmcore.engine.evaluator_base import EvaluatorBase, stress
from gmcore.engine.heads import basis_cotangents, head_outputs, output_cotangents, output_units
from gmcore.engine.neighbors import NeighborList, Pairs, build_pairs
from gmcore.engine.network import Network
from gmcore.engine.settings import HeadSettings, Member, ModelSettings
from gmcore.engine.stages import Contractions, Moments, make_geometry
from gmcore.engine.structures import Batch
from gmcore.threads import get_threads, serial_blas

CHUNK = 1024  # atoms; with many threads more, so that each has enough rows for its matrix products
ROWS_PER_THREAD = 128


class Evaluator(EvaluatorBase):
    """A committee ready to compute on the CPU; parameters and attributes as in `EvaluatorBase`."""

    batch_atoms = 8192
    """Atoms evaluated together; bounds the memory of neighbor lists, whatever the number of structures."""

    def __init__(self, settings: ModelSettings, members: Sequence[Member], dtype: str | None = None):
        super().__init__(settings, members, dtype)
        self._moments = Moments(settings.descriptor, self.dtype.name)
        self._contractions = Contractions(settings.descriptor.n_radial, self.dtype.name)
        self._betas = [self._moments.pack(member.beta) for member in members]
        self._tables = [self.scale_and_shift(member) for member in members]
        self._networks = [Network(member, self.dtype.name) for member in members]

    def find_pairs(self, batch: Batch) -> Pairs:
        """All pairs of a batch within the cutoff."""
        return build_pairs(batch, self.cutoff)

    def neighbor_list(self, skin: float) -> NeighborList:
        """Neighbor list for a trajectory, reused until atoms have moved half the skin (A)."""
        return NeighborList(self.cutoff, skin)

    def evaluate(
        self,
        batch: Batch,
        pairs: Pairs,
        keys: Iterable[str] | None = None,
        total_charge: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs of every member.

        Parameters
        ----------
        pairs : all pairs within the cutoff; pairs farther apart, as in a list with a skin, do no harm.
        keys : outputs wanted; what is not asked for is not computed.
        total_charge : (n_structures,), e; needed only where charges sum up to it.

        Returns
        -------
        dict of float64 arrays whose first axis is the member: energy (n_members, n_structures); forces (n_members,
        n_atoms, 3); charges (n_members, n_atoms); stress and tensors (n_members, n_structures, 3, 3); dipole
        (n_members, n_structures, 3).

        Raises
        ------
        UnknownElementError : an element the model does not know.
        GMError : unknown key, or a total charge that is needed and missing.
        """
        keys = self.check_keys(keys)
        geometry = make_geometry(batch, batch.species(self.species), pairs)
        with serial_blas():  # also keeps other Python threads out of the networks' work arrays
            results = [self._member(k, batch, geometry, keys, total_charge) for k in range(self.n_members)]
        return {key: np.stack([result[key] for result in results]) for key in keys}

    def tensor_gradients(self, batch: Batch, pairs: Pairs, head: HeadSettings, cotangents: np.ndarray) -> np.ndarray:
        """Gradient of sum <W, tensor> over the structures, in the positions, of every member.

        Parameters
        ----------
        head : a head of this model, of kind d_tensor or tensor.
        cotangents : W (n_structures, 3, 3).

        Returns
        -------
        (n_members, n_atoms, 3) float64, unit of the tensor per A.
        """
        geometry = make_geometry(batch, batch.species(self.species), pairs)
        with serial_blas():
            return np.stack(
                [self._tensor_gradient(k, batch, geometry, head, cotangents) for k in range(self.n_members)]
            )

    def _tensor_gradient(self, k, batch, geometry, head, cotangents) -> np.ndarray:
        network, beta = self._networks[k], self._betas[k]
        columns = {known.name: columns for known, columns in self._columns()}[head.name]
        scale, shift = (table[geometry.species, columns] for table in self._tables[k])
        moments = self._moments.forward(geometry, batch.positions, beta)
        m = np.empty((batch.n_atoms, head.n_outputs))
        g_outputs = np.zeros((batch.n_atoms, network.n_outputs))
        g_outputs[:, columns] = scale * output_cotangents(head, batch, moments, cotangents)
        g_moments = np.empty_like(moments)
        for rows in self._chunks(batch.n_atoms):
            outputs = network.forward(self._contractions.forward(moments[rows]))
            m[rows] = scale[rows] * outputs[:, columns] + shift[rows]
            g_moments[rows] = self._contractions.backward(moments[rows], network.backward(g_outputs[rows]))
        on_positions, on_moments = basis_cotangents(head, m, batch, moments, cotangents)
        if on_moments is not None:
            g_moments += on_moments
        gradient, _, _ = self._moments.backward(geometry, batch.positions, beta, g_moments, want_beta=False)
        return gradient if on_positions is None else gradient + on_positions

    @staticmethod
    def _chunks(n_atoms: int) -> Iterator[slice]:
        size = max(CHUNK, ROWS_PER_THREAD * get_threads())
        return (slice(start, start + size) for start in range(0, n_atoms, size))

    def _member(self, k, batch, geometry, keys, total_charge) -> dict[str, np.ndarray]:
        network, beta = self._networks[k], self._betas[k]
        want_forces = "forces" in keys or "stress" in keys
        moments = self._moments.forward(geometry, batch.positions, beta)
        outputs = np.empty((batch.n_atoms, network.n_outputs))
        g_moments = np.empty_like(moments if want_forces else moments[:0])
        scale, shift = (table[geometry.species] for table in self._tables[k])
        g_outputs = self.energy_scale(scale if want_forces else scale[:0]).astype(self.dtype)
        for rows in self._chunks(batch.n_atoms):
            outputs[rows] = network.forward(self._contractions.forward(moments[rows]))
            if want_forces:
                g_features = network.backward(g_outputs[rows])
                g_moments[rows] = self._contractions.backward(moments[rows], g_features)
        outputs = scale * outputs + shift
        result: dict[str, np.ndarray] = {}
        for head, columns in self._columns():
            if not set(keys).isdisjoint(output_units([head])):
                result |= head_outputs(head, outputs[:, columns], batch, moments, total_charge)
        if want_forces:
            g_positions, g_strain, _ = self._moments.backward(
                geometry, batch.positions, beta, g_moments, want_beta=False
            )
            result["forces"] = -g_positions
            result["stress"] = stress(g_strain, batch.volumes)
        return result
