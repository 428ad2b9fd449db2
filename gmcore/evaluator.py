"""All members of a committee on a batch with a given neighbor list: arrays in, arrays out.

Per member: moments -> for chunks of atoms (contractions -> network up -> network down -> contractions back) -> moments
back. Features and hidden layers exist for one chunk at a time, so memory is linear in the number of atoms with a small
factor: pairs, moments and their cotangents.

    forces = -dE/dr;  stress = sym(dE/deps)/V, eV/A^3, NaN where no cell is defined        (method section 4)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .consistency import check_model
from .errors import GMError
from .heads import head_outputs, output_units
from .neighbors import Pairs
from .network import Network
from .settings import Member, ModelSettings
from .stages import Contractions, Moments, check_dtype, make_geometry
from .structures import Batch, SpeciesTable
from .threads import get_threads, serial_blas

CHUNK = 1024  # atoms; with many threads more, so that each has enough rows for its matrix products
ROWS_PER_THREAD = 128


class Evaluator:
    """A committee ready to compute.

    Parameters
    ----------
    settings, members : the model; checked for consistency.
    dtype : "float32" or "float64"; that of the settings if not given. Energies and positions are always float64.

    Attributes
    ----------
    units : dict, what is predicted and in which unit.
    species : SpeciesTable
    cutoff : float, A
    """

    def __init__(self, settings: ModelSettings, members: Sequence[Member], dtype: str | None = None):
        check_model(settings, members)
        self.settings, self.dtype = settings, check_dtype(dtype or settings.dtype)
        self.units = output_units(settings.heads)
        self.species = SpeciesTable(settings.descriptor.species)
        self.cutoff = float(settings.descriptor.r_max)
        self._moments = Moments(settings.descriptor, self.dtype.name)
        self._contractions = Contractions(settings.descriptor.n_radial, self.dtype.name)
        self._members = list(members)
        self._betas = [np.ascontiguousarray(member.beta, self.dtype) for member in members]
        self._networks = [Network(member, self.dtype.name) for member in members]

    @property
    def n_members(self) -> int:
        """Size of the committee."""
        return len(self._members)

    def check_keys(self, keys: Iterable[str] | None) -> tuple[str, ...]:
        """The outputs asked for, all of them for None; one that the model lacks raises GMError."""
        if keys is None:
            return tuple(self.units)
        keys = (keys,) if isinstance(keys, str) else tuple(keys)
        for key in keys:
            if key not in self.units:
                raise GMError(f"this model predicts {', '.join(self.units)}, it cannot predict {key!r}")
        return keys

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

        Errors
        ------
        UnknownElementError : an element the model does not know.
        GMError : unknown key, or a total charge that is needed and missing.
        """
        keys = self.check_keys(keys)
        species = self.species.index(batch.numbers)
        geometry = make_geometry(batch, species, pairs)
        with serial_blas():  # also keeps other Python threads out of the networks' work arrays
            results = [self._member(k, batch, geometry, keys, total_charge) for k in range(self.n_members)]
        return {key: np.stack([result[key] for result in results]) for key in keys}

    def _member(self, k, batch, geometry, keys, total_charge) -> dict[str, np.ndarray]:
        member, network, beta = self._members[k], self._networks[k], self._betas[k]
        want_forces = "forces" in keys or "stress" in keys
        moments = self._moments.forward(geometry, batch.positions, beta)
        outputs = np.empty((batch.n_atoms, network.n_outputs))
        g_moments = np.empty_like(moments) if want_forces else None
        scale, shift = self._per_atom(member.scale, geometry.species), self._per_atom(member.shift, geometry.species)
        g_outputs = self._energy_cotangent(scale) if want_forces else None
        size = max(CHUNK, ROWS_PER_THREAD * get_threads())
        for start in range(0, batch.n_atoms, size):
            rows = slice(start, start + size)
            outputs[rows] = network.forward(self._contractions.forward(moments[rows]))
            if want_forces:
                g_features = network.backward(g_outputs[rows])
                g_moments[rows] = self._contractions.backward(moments[rows], g_features)
        outputs = scale * outputs + shift
        result = {}
        for head, columns in self._columns():
            if not set(keys).isdisjoint(output_units([head])):
                result |= head_outputs(head, outputs[:, columns], batch, moments, total_charge)
        if want_forces:
            g_positions, g_strain, _ = self._moments.backward(
                geometry, batch.positions, beta, g_moments, want_beta=False
            )
            result["forces"] = -g_positions
            result["stress"] = 0.5 * (g_strain + g_strain.swapaxes(1, 2)) / batch.volumes[:, None, None]
        return result

    def _columns(self):
        """Heads with the columns of the network's outputs that are theirs."""
        start = 0
        for head in self.settings.heads:
            yield head, slice(start, start + head.width)
            start += head.width

    def _per_atom(self, by_head: dict[str, np.ndarray], species: np.ndarray) -> np.ndarray:
        """Scale or shift of every atom and network output, (n_atoms, n_outputs) float64."""
        table = np.concatenate([by_head[head.name] for head in self.settings.heads], axis=1)
        return table.astype(np.float64)[species]

    def _energy_cotangent(self, scale: np.ndarray) -> np.ndarray:
        """dE/dy (n_atoms, n_outputs): the scale in the column of the energy, zero in the others."""
        g_outputs = np.zeros(scale.shape, self.dtype)
        for head, columns in self._columns():
            if head.kind == "energy":
                g_outputs[:, columns] = scale[:, columns]
        return g_outputs
