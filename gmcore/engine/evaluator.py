"""All members of a committee on a batch with a given neighbor list: arrays in, arrays out.

Per member: moments -> for chunks of atoms (contractions -> network up -> network down -> contractions back) -> moments
back. Features and hidden layers exist for one chunk at a time, so memory is linear in the number of atoms with a small
factor: pairs, moments and their cotangents.

    forces = -dE/dr;  stress = sym(dE/deps)/V, eV/A^3, NaN where no cell is defined    (docs/method.md, section 5)

A single model can have draws of its last layer in place of members (`gmcore.uncertainty.last_layer`). A draw changes
the outputs linearly: it costs next to nothing, but for forces and stress, whose way down the network it takes anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gmcore.engine.evaluator_base import AtomicEnergies, EvaluatorBase, stress
from gmcore.engine.heads import (
    basis_cotangents,
    head_changes,
    head_columns,
    head_outputs,
    output_cotangents,
    output_units,
)
from gmcore.engine.neighbors import NeighborList, Pairs, build_pairs
from gmcore.engine.network import Network
from gmcore.engine.settings import HeadSettings, Member, ModelSettings
from gmcore.engine.stages import Contractions, Moments, make_geometry
from gmcore.engine.structures import Batch
from gmcore.threads import get_threads, serial_blas

CHUNK = 1024  # atoms; with many threads more, so that each has enough rows for its matrix products
ROWS_PER_THREAD = 128
FORCE_DRAWS = 4
"""Draws of the last layer that forces and stress are computed for."""


class NetworkPass(NamedTuple):
    """What one member makes of the centers of a batch.

    Attributes
    ----------
    moments : (n_centers, n_radial, 16) in working type.
    outputs : (n_centers, n_outputs) float64, after scale and shift.
    changes : (n_draws, n_centers, n_outputs), changes of the outputs by the draws; no draws if not wanted.
    g_moments : dE/dM, as the moments; no rows if not wanted.
    drawn_g_moments : (n_force_draws, n_centers, n_radial, 16), changes of dE/dM by draws.
    grades : (n_centers,) extrapolation grades; None if not wanted or not known.
    """

    moments: np.ndarray
    outputs: np.ndarray
    changes: np.ndarray
    g_moments: np.ndarray
    drawn_g_moments: np.ndarray
    grades: np.ndarray | None


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
        self._energy_scales = [self.energy_scale(scale).astype(self.dtype) for scale, _ in self._tables]
        self._networks = [Network(member, self.dtype.name) for member in members]
        self.n_draws = len(self._networks[0].draws) if len(members) == 1 else 0

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
        draw_keys: Iterable[str] = (),
        want_extrapolation: bool = False,
    ) -> dict[str, np.ndarray]:
        """Outputs of every member.

        Parameters
        ----------
        pairs : all pairs within the cutoff; pairs farther apart, as in a list with a skin, do no harm.
        keys : outputs wanted; what is not asked for is not computed.
        total_charge : (n_structures,), e; needed only where charges sum up to it.
        draw_keys : outputs of `keys` that a single model also gives for every draw of its last layer.
        want_extrapolation : also the grade of every atom, where the model knows its training data.

        Returns
        -------
        dict of float64 arrays whose first axis is the member: energy (n_members, n_structures); forces (n_members,
        n_atoms, 3); charges (n_members, n_atoms); stress and tensors (n_members, n_structures, 3, 3); dipole
        (n_members, n_structures, 3). Under "X_draws" the same for each draw; "extrapolation_atoms" (1, n_atoms).

        Raises
        ------
        UnknownElementError : an element the model does not know.
        GMError : unknown key, or a total charge that is needed and missing.
        """
        keys = self.check_keys(keys)
        draw_keys = tuple(draw_keys) if self.n_draws else ()
        geometry = make_geometry(batch, batch.species(self.species), pairs)
        with serial_blas():  # also keeps other Python threads out of the networks' work arrays
            results = [
                self._member(k, batch, geometry, keys, total_charge, draw_keys, want_extrapolation and k == 0)
                for k in range(self.n_members)
            ]
        found = {key: np.stack([result[key] for result in results]) for key in keys}
        return found | {key: values for key, values in results[0].items() if key not in self.units}

    def evaluate_centers(
        self, batch: Batch, pairs: Pairs, want_deviations: bool = False, want_extrapolation: bool = False
    ) -> AtomicEnergies:
        """Energies of some atoms and the forces of their sum on all; see `EvaluatorBase.evaluate_centers`."""
        self.check_keys(("energy",))
        geometry = make_geometry(batch, batch.species(self.species), pairs)
        column = int(np.flatnonzero(self.energy_columns())[0])
        n_draws = min(FORCE_DRAWS, self.n_draws) if want_deviations else 0
        energies, gradients, drawn, grades = [], [], [], None
        with serial_blas():
            for k in range(self.n_members):
                done = self._pass(k, geometry, batch.positions, True, False, n_draws, want_extrapolation and k == 0)
                grades = done.grades if k == 0 else grades
                energies.append(done.outputs[:, column])
                gradients.append(self._gradients(k, geometry, batch.positions, done.g_moments))
                drawn += [self._gradients(k, geometry, batch.positions, g)[0] for g in done.drawn_g_moments]
        forces, strain = (np.stack(parts) for parts in zip(*gradients))
        strain = 0.5 * (strain + strain.swapaxes(2, 3))
        return AtomicEnergies(np.stack(energies), -forces, strain, -np.stack(drawn) if drawn else None, grades)

    def evaluate_vectors(
        self, species: np.ndarray, row_start: np.ndarray, neighbor_species: np.ndarray, vectors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Energies of centers and derivatives in vectors to neighbors; see `EvaluatorBase.evaluate_vectors`.

        Each center stands at the origin, and each pair has a neighbor of its own: its gradient is that of the vector.
        """
        n_centers, n_pairs = len(species), len(vectors)
        numbers = np.array(self.species.numbers, np.int32)[np.concatenate([species, neighbor_species])]
        batch = Batch.from_arrays(np.concatenate([np.zeros((n_centers, 3)), vectors]), numbers)
        pairs = Pairs(
            np.asarray(row_start, np.int64), np.arange(n_centers, n_centers + n_pairs, dtype=np.int32),
            np.zeros(n_pairs, np.int32), np.zeros((1, 3), np.int32), np.zeros(1, np.int32), self.cutoff,
        )  # fmt: skip
        found = self.evaluate_centers(batch, pairs)
        return found.energies.mean(axis=0), -found.forces[:, n_centers:].mean(axis=0)

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
        columns = {known.name: columns for known, columns in head_columns(self.settings.heads)}[head.name]
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

    def features(self, batch: Batch, pairs: Pairs) -> np.ndarray:
        """Return the features (n_atoms, n_features) of the first member, in working type."""
        geometry = make_geometry(batch, batch.species(self.species), pairs)
        features = np.empty((batch.n_atoms, self._contractions.n_features), self.dtype)
        moments = self._moments.forward(geometry, batch.positions, self._betas[0])
        for rows in self._chunks(batch.n_atoms):
            features[rows] = self._contractions.forward(moments[rows])
        return features

    def hidden(self, batch: Batch, pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, last hidden layer and moments of the first member: (n_atoms, ...) each, in working type."""
        network, geometry = self._networks[0], make_geometry(batch, batch.species(self.species), pairs)
        features = np.empty((batch.n_atoms, network.n_features), self.dtype)
        hidden = np.empty((batch.n_atoms, network.n_hidden), self.dtype)
        with serial_blas():
            moments = self._moments.forward(geometry, batch.positions, self._betas[0])
            for rows in self._chunks(batch.n_atoms):
                features[rows] = self._contractions.forward(moments[rows])
                network.forward(features[rows])
                hidden[rows] = network.last_hidden()
        return features, hidden, moments

    def extrapolation(self, batch: Batch, pairs: Pairs) -> np.ndarray:
        """(n_atoms,) extrapolation grades, as in `evaluate`, for the price of the features of one member."""
        geometry = make_geometry(batch, batch.species(self.species), pairs)
        grades = np.empty(batch.n_atoms)
        with serial_blas():
            moments = self._moments.forward(geometry, batch.positions, self._betas[0])
            for rows in self._chunks(batch.n_atoms):
                features = self._contractions.forward(moments[rows])
                grades[rows] = self.environments.grades(features, geometry.species[rows])
        return grades

    def _member(self, k, batch, geometry, keys, total_charge, draw_keys, want_extrapolation) -> dict[str, np.ndarray]:
        want_forces = "forces" in keys or "stress" in keys
        n_force_draws = 0 if {"forces", "stress"}.isdisjoint(draw_keys) else min(FORCE_DRAWS, self.n_draws)
        done = self._pass(k, geometry, batch.positions, want_forces, bool(draw_keys), n_force_draws, want_extrapolation)
        result: dict[str, np.ndarray] = {}
        for head, columns in head_columns(self.settings.heads):
            if not set(keys).isdisjoint(output_units([head])):
                result |= head_outputs(head, done.outputs[:, columns], batch, done.moments, total_charge)
            if not set(draw_keys).isdisjoint(output_units([head])):
                drawn = head_changes(head, done.changes[..., columns], batch, done.moments)
                result |= {f"{key}_draws": result[key] + change for key, change in drawn.items()}
        if want_forces:
            result["forces"], result["stress"] = self._forces(k, batch, geometry, done.g_moments)
        if n_force_draws:
            drawn_forces = [self._forces(k, batch, geometry, g) for g in done.drawn_g_moments]
            for key, parts in zip(("forces", "stress"), zip(*drawn_forces)):
                result[f"{key}_draws"] = result[key] + np.stack(parts)
        if done.grades is not None:
            result["extrapolation_atoms"] = done.grades[None]
        return result

    def _pass(self, k, geometry, positions, want_forces, want_draws, n_force_draws, want_extrapolation) -> NetworkPass:
        """Take member k up its network and, for forces, down again, in chunks of centers."""
        network, centers = self._networks[k], geometry.species[: len(geometry.row_start) - 1]
        moments = self._moments.forward(geometry, positions, self._betas[k])
        outputs = np.empty((len(centers), network.n_outputs))
        g_moments = np.empty_like(moments if want_forces else moments[:0])
        scale, shift = (table[centers] for table in self._tables[k])
        g_outputs = self._energy_scales[k][centers if want_forces else centers[:0]]
        changes = np.empty((self.n_draws if want_draws else 0, *outputs.shape))
        drawn_g_moments = np.empty((n_force_draws, *moments.shape), self.dtype)
        grades = np.empty(len(centers)) if want_extrapolation and self.environments else None
        for rows in self._chunks(len(centers)):
            features = self._contractions.forward(moments[rows])
            outputs[rows] = network.forward(features)
            if grades is not None:
                grades[rows] = self.environments.grades(features, centers[rows])
            if len(changes):
                changes[:, rows] = network.drawn_outputs()
            for draw in range(n_force_draws):
                g_features = network.drawn_backward(draw, g_outputs[rows])
                drawn_g_moments[draw, rows] = self._contractions.backward(moments[rows], g_features)
            if want_forces:
                g_features = network.backward(g_outputs[rows])
                g_moments[rows] = self._contractions.backward(moments[rows], g_features)
        return NetworkPass(moments, scale * outputs + shift, scale * changes, g_moments, drawn_g_moments, grades)

    def _forces(self, k, batch, geometry, g_moments) -> tuple[np.ndarray, np.ndarray]:
        """Forces and stress of the energy whose derivative in the moments is given."""
        g_positions, g_strain = self._gradients(k, geometry, batch.positions, g_moments)
        return -g_positions, stress(g_strain, batch.volumes)

    def _gradients(self, k, geometry, positions, g_moments) -> tuple[np.ndarray, np.ndarray]:
        """Gradients in positions and strain of what has the derivative `g_moments` in the moments of member k."""
        return self._moments.backward(geometry, positions, self._betas[k], g_moments, want_beta=False)[:2]
