"""Structures and labels as batches of tensors: neighbor lists once per structure, batches by concatenation, no padding.

A batch is (inputs, labels), two dicts. Inputs, for n_atoms atoms of n_structures structures laid end to end:

    positions (n_atoms, 3) float64, A; strain (n_structures, 3, 3) float64, zeros;
    species, structure, row_start, neighbor, shift, displacement: `gmcore.kernels.arguments.Geometry`;
    volume (n_structures,) float64, A^3, NaN for molecules; total_charge (n_structures,) float64, e.

Labels, float64, internal units: energy (n_structures,), forces (n_atoms, 3), stress, d_tensor, tensor (n_structures,
3, 3), charges (n_atoms,), dipole (n_structures, 3). A stress may be NaN where the structure is not periodic.

The order of the structures in epoch e is a function of (seed, e) alone: a training that is restarted at epoch e sees
the batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count

import keras
import numpy as np
import tensorflow as tf
from ase import Atoms

from gmcore.data.order import epoch_batches, epoch_order
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.structures import Batch, SpeciesTable
from gmcore.errors import GMError
from gmcore.quantities import BY_NAME

SEARCHED_TOGETHER = 256
"""Structures per call of the neighbor search: bounds its memory."""

_INPUTS = {
    "positions": ((None, 3), np.float64),
    "strain": ((None, 3, 3), np.float64),
    "species": ((None,), np.int32),
    "structure": ((None,), np.int32),
    "row_start": ((None,), np.int64),
    "neighbor": ((None,), np.int32),
    "shift": ((None,), np.int32),
    "displacement": ((None, 3), np.float64),
    "volume": ((None,), np.float64),
    "total_charge": ((None,), np.float64),
}


class _Ragged:
    """Rows of many structures laid end to end; `take` concatenates those of a few."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self.values = np.concatenate(parts)
        self._bounds = np.concatenate([[0], np.cumsum([len(part) for part in parts])])

    def lengths(self, chosen: np.ndarray) -> np.ndarray:
        return self._bounds[chosen + 1] - self._bounds[chosen]

    def take(self, chosen: np.ndarray) -> np.ndarray:
        return np.concatenate([self.values[self._bounds[k] : self._bounds[k + 1]] for k in chosen])


class PreparedData:
    """Structures with neighbor lists and labels, ready to be cut into batches.

    Memory is that of the neighbor lists, 8 bytes per pair.

    Parameters
    ----------
    atoms : structures.
    settings : descriptor; its r_max is the cutoff, its species the elements that may occur.
    labels : label -> one array per structure, internal units.
    total_charge : (n_structures,) e; zeros if not given.
    """

    def __init__(
        self,
        atoms: Sequence[Atoms],
        settings: DescriptorSettings,
        labels: Mapping[str, Sequence[np.ndarray]] | None = None,
        total_charge: np.ndarray | None = None,
    ):
        self.n_structures = len(atoms)
        table = SpeciesTable(settings.species)
        columns: dict[str, list[np.ndarray]] = {
            name: [] for name in ("positions", "species", "row_length", "neighbor", "shift", "displacement", "volume")
        }
        for start in range(0, len(atoms), SEARCHED_TOGETHER):
            self._append(Batch.from_atoms(atoms[start : start + SEARCHED_TOGETHER]), settings.r_max, table, columns)
        if not self.n_structures:
            raise GMError("the data must hold at least one structure, got none")
        self._volume = np.array(columns.pop("volume"))
        self._ragged = {name: _Ragged(parts) for name, parts in columns.items()}
        self._total_charge = np.zeros(len(atoms)) if total_charge is None else np.asarray(total_charge, np.float64)
        self._labels = {name: self._label(name, values, atoms) for name, values in (labels or {}).items()}

    @staticmethod
    def _append(batch: Batch, cutoff: float, table: SpeciesTable, columns: dict[str, list[np.ndarray]]) -> None:
        pairs = build_pairs(batch, cutoff)
        displacements = pairs.displacements(batch.cells)
        species = table.index(batch.numbers)
        first_shift = np.searchsorted(pairs.shift_structure, np.arange(batch.n_structures + 1))
        for k in range(batch.n_structures):
            atoms = slice(batch.offsets[k], batch.offsets[k + 1])
            rows = pairs.row_start[batch.offsets[k] : batch.offsets[k + 1] + 1]
            columns["positions"].append(batch.positions[atoms])
            columns["species"].append(species[atoms])
            columns["row_length"].append(np.diff(rows))
            columns["neighbor"].append(pairs.neighbor[rows[0] : rows[-1]] - np.int32(batch.offsets[k]))
            columns["shift"].append(pairs.shift[rows[0] : rows[-1]] - np.int32(first_shift[k]))
            columns["displacement"].append(displacements[first_shift[k] : first_shift[k + 1]])
            columns["volume"].append(batch.volumes[k])

    def _label(self, name: str, values: Sequence[np.ndarray], atoms: Sequence[Atoms]) -> _Ragged | np.ndarray:
        per_atom, shape = BY_NAME[name].per_atom, BY_NAME[name].shape
        arrays = [np.asarray(value, np.float64) for value in values]
        for k, (array, frame) in enumerate(zip(arrays, atoms)):
            expected = (len(frame), *shape) if per_atom else shape
            if array.shape != expected:
                raise GMError(f"label {name} of structure {k} must have shape {expected}, got {array.shape}")
        if len(arrays) != len(atoms):
            raise GMError(f"label {name} must be given for all {len(atoms)} structures, got {len(arrays)}")
        return _Ragged(arrays) if per_atom else np.array(arrays)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(self._labels)

    def label(self, name: str) -> np.ndarray:
        """All values of a label laid end to end: (n_structures, ...) or (n_atoms, ...)."""
        values = self._labels[name]
        return values.values if isinstance(values, _Ragged) else values

    def batch(self, chosen: Sequence[int] | np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and labels of the structures `chosen`, in this order, as arrays."""
        chosen = np.asarray(chosen, np.int64)
        take = {name: column.take(chosen) for name, column in self._ragged.items()}
        n_atoms = self._ragged["positions"].lengths(chosen)
        n_pairs = self._ragged["neighbor"].lengths(chosen)
        n_shifts = self._ragged["displacement"].lengths(chosen)
        row_start = np.zeros(len(take["row_length"]) + 1, np.int64)
        np.cumsum(take["row_length"], out=row_start[1:])
        inputs = {
            "positions": take["positions"],
            "strain": np.zeros((len(chosen), 3, 3)),
            "species": take["species"],
            "structure": np.repeat(np.arange(len(chosen), dtype=np.int32), n_atoms),
            "row_start": row_start,
            "neighbor": take["neighbor"] + np.repeat(_starts(n_atoms), n_pairs),
            "shift": take["shift"] + np.repeat(_starts(n_shifts), n_pairs),
            "displacement": take["displacement"],
            "volume": self._volume[chosen],
            "total_charge": self._total_charge[chosen],
        }
        labels = {
            name: values.take(chosen) if isinstance(values, _Ragged) else values[chosen]
            for name, values in self._labels.items()
        }
        return inputs, labels

    def batches(self, batch_size: int) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """All structures in their order, once."""
        return map(self.batch, epoch_batches(self.n_structures, batch_size, None, 0))

    def sample(
        self, n_structures: int, batch_size: int
    ) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Batches of at most `n_structures` structures, picked at random, the same ones each time."""
        chosen = np.sort(epoch_order(self.n_structures, 0, 0)[:n_structures])
        for start in range(0, len(chosen), batch_size):
            yield self.batch(chosen[start : start + batch_size])

    def dataset(
        self, batch_size: int, *, seed: int | Sequence[int] | None = None, first_epoch: int = 0
    ) -> tf.data.Dataset:
        """Batches as a `tf.data.Dataset`, prepared while the previous ones are computed on.

        Without `seed` one pass in the order of the data. With it an endless sequence of shuffled epochs from
        `first_epoch` on, to be used with `steps_per_epoch`; the order in an epoch depends on seed and epoch only.
        """
        n_batches = -(-self.n_structures // batch_size) if seed is None else tf.data.INFINITE_CARDINALITY
        return self.stream(lambda: self.order(batch_size, seed, first_epoch), n_batches)

    def order(self, batch_size: int, seed: int | Sequence[int] | None, first_epoch: int) -> Iterator[np.ndarray]:
        """Structures of each batch of `dataset`."""
        epochs = (0,) if seed is None else count(first_epoch)
        return chain.from_iterable(epoch_batches(self.n_structures, batch_size, seed, epoch) for epoch in epochs)

    def stream(self, chosen: Callable[[], Iterable[np.ndarray]], n_batches: int) -> tf.data.Dataset:
        """Batches as a `tf.data.Dataset`: whenever it is begun, those of the structures that `chosen()` gives."""
        batches = tf.data.Dataset.from_generator(
            lambda: map(self.batch, chosen()), output_signature=self.signature()
        ).prefetch(2)
        return batches.apply(tf.data.experimental.assert_cardinality(n_batches))

    def signature(self) -> tuple[dict[str, tf.TensorSpec], dict[str, tf.TensorSpec]]:
        """Types and static shapes of a batch, for TensorFlow."""
        return (
            {name: tf.TensorSpec(shape, dtype) for name, (shape, dtype) in _INPUTS.items()},
            {
                name: tf.TensorSpec((None, *values.shape[1:]), tf.float64)
                for name, values in self._label_arrays().items()
            },
        )

    def _label_arrays(self) -> dict[str, np.ndarray]:
        return {name: self.label(name) for name in self._labels}


def model_inputs(
    atoms: Atoms | Sequence[Atoms], settings: DescriptorSettings, total_charge=None
) -> dict[str, tf.Tensor]:
    """Inputs of a model or of `GaussianMomentsLayer` for one structure or several."""
    frames = [atoms] if hasattr(atoms, "get_positions") else list(atoms)
    inputs, _ = PreparedData(frames, settings, total_charge=total_charge).batch(np.arange(len(frames)))
    return tensors(inputs)


def symbolic_inputs() -> dict[str, keras.KerasTensor]:
    """Inputs of a functional Keras model over batches of structures, with the names and types of a batch."""
    return {
        name: keras.Input(shape=shape[1:], dtype=np.dtype(dtype).name, name=name)
        for name, (shape, dtype) in _INPUTS.items()
    }


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Arrays of a batch as tensors."""
    return {name: tf.constant(value) for name, value in arrays.items()}


def _starts(lengths: np.ndarray) -> np.ndarray:
    """First index of each part, int32."""
    return (np.cumsum(lengths) - lengths).astype(np.int32)
