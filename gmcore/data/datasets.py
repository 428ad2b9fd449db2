"""Data sets: structures and their reference values, in A, eV, e and cm^-1, whatever units the files use.

Every structure must have every requested label, and every label must have a stated unit. Nothing is skipped silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from gmcore.anisotropy import zfs_parameters
from gmcore.data.fields import find_fields
from gmcore.data.frames import Frame, check_numbers
from gmcore.data.labels import detraced, label_array, symmetrized
from gmcore.data.order import epoch_batches
from gmcore.data.readers.hdf5 import write_hdf5
from gmcore.data.reading import read_frames
from gmcore.data.structures import structures_of, unit_of_field
from gmcore.errors import DataError, excerpt
from gmcore.quantities import BY_NAME, PER_ATOM
from gmcore.suggest import did_you_mean
from gmcore.units import conversion


@dataclass(frozen=True, eq=False)
class Dataset:
    """Structures with reference values, in internal units.

    Attributes
    ----------
    atoms : structures without calculators, A; `info["total_charge"]` and `info["multiplicity"]` where known.
    labels : per label one float64 array per structure, shapes as in `gmcore.data.labels`. A stress is NaN where the
        structure has no volume.
    units : unit of each label.
    total_charge : (n_structures,) float64, e; 0 where none is known.
    notes : what was changed on reading: traces removed, tensors made symmetric.
    """

    atoms: list[Atoms]
    labels: dict[str, list[np.ndarray]]
    units: dict[str, str]
    total_charge: np.ndarray
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def from_atoms(
        cls,
        atoms: Iterable[Atoms],
        labels: Sequence[str] | None = None,
        *,
        units: Mapping[str, str] | None = None,
        keys: Mapping[str, str] | None = None,
        total_charge: float | str | None = None,
        pbc: bool | None = None,
    ) -> Dataset:
        """Return a data set of structures in memory, which stay what they are.

        Labels are looked for in the results of a calculator, in `info` and in `arrays`, as in a file.

        Parameters
        ----------
        labels : labels wanted, of `gmcore.quantities`; those of `units` if not given.
        units : unit of each label, and of "length" if it is not A.
        keys, total_charge, pbc : as in `read_dataset`.

        Raises
        ------
        DataError : no structures, a value that cannot be used, or labels that are missing.
        UnitError : a unit is not stated or not known.

        Examples
        --------
        >>> from ase.build import molecule
        >>> water = molecule("H2O")
        >>> water.info["energy"] = -14.2
        >>> data = Dataset.from_atoms([water], units={"energy": "eV"})
        >>> len(data), data.species, list(data.labels)
        (1, (1, 8), ['energy'])
        """
        from gmcore.data.readers.ase_files import frame_of

        if isinstance(atoms, Atoms):
            raise DataError("Dataset.from_atoms needs a list of structures, got a single one: write [atoms]")
        frames = [frame_of(structure, f"structure {k}") for k, structure in enumerate(atoms)]
        if not frames:
            raise DataError("a data set needs at least one structure, got none")
        for frame in frames:
            check_numbers(frame)
        units = {"length": "A", **(units or {})}
        wanted = [name for name in units if name != "length"] if labels is None else labels
        return _dataset(frames, wanted, units=units, keys=keys or {}, total_charge=total_charge, pbc=pbc, added=False)

    def __len__(self) -> int:
        return len(self.atoms)

    def split(self, *sizes: int, seed: int = 1) -> tuple[Dataset, ...]:
        """Return disjoint parts of these sizes, drawn at random.

        `split(train, validation, test, seed=seed)` gives the parts of a configuration with these numbers.

        Raises
        ------
        DataError : there are fewer structures, or a size is no number of structures.

        Examples
        --------
        >>> from ase.build import molecule
        >>> data = Dataset.from_atoms([molecule("H2O")] * 10)
        >>> [len(part) for part in data.split(6, 2, 2)]
        [6, 2, 2]
        """
        for size in sizes:
            if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
                raise DataError(f"the parts of a split must be numbers of structures, at least 1, got {excerpt(size)}")
        if sum(sizes) > len(self):
            raise DataError(
                f"the parts of the split need {sum(sizes)} structures, but the data have {len(self)}: ask for fewer"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        starts = np.cumsum([0, *sizes[:0:-1]])[::-1]  # the last part comes first, as in `gmcore.data.splits`
        return tuple(self.subset(order[start : start + size]) for start, size in zip(starts, sizes))

    def batches(self, batch_size: int = 8, *, seed: int | None = None) -> Batches:
        """Return the data set as batches for `GMModel.fit`, in random order if there is a seed.

        Raises
        ------
        DataError : the batch size is no number of structures.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise DataError(f"batch_size must be a number of structures, at least 1, got {excerpt(batch_size)}")
        return Batches(self, int(batch_size), seed)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """Return the structures at `indices`, in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        return Dataset(
            [self.atoms[i] for i in rows],
            {label: [values[i] for i in rows] for label, values in self.labels.items()},
            self.units,
            self.total_charge[rows],
            self.notes,
        )

    def joined(self, other: Dataset) -> Dataset:
        """Return the structures of this data set, then those of another one with the same labels.

        Raises
        ------
        DataError : a label has another kind of unit in the other data set.
        """
        for label, unit in self.units.items():
            if other.units[label] != unit:
                raise DataError(
                    f"{label} must have the same kind of unit in all files, got {unit} and {other.units[label]}"
                )
        return Dataset(
            [*self.atoms, *other.atoms],
            {label: [*values, *other.labels[label]] for label, values in self.labels.items()},
            self.units,
            np.concatenate([self.total_charge, other.total_charge]),
            (*self.notes, *other.notes),
        )

    def rotated(self, seed: int) -> Dataset:
        """Return the data set with every structure and its labels rotated at random about the origin.

        An equivariant model is equally accurate on them. Data in a single orientation cannot test that.
        """
        from scipy.spatial.transform import Rotation

        rotations = Rotation.from_quat(np.random.default_rng(seed).normal(size=(len(self), 4))).as_matrix()
        frames = []
        for frame, rotation in zip(self.atoms, rotations):
            moved = frame.copy()
            moved.positions = frame.positions @ rotation.T
            moved.cell[:] = frame.cell.array @ rotation.T
            frames.append(moved)
        labels = {
            label: [_rotated_label(label, value, rotation) for value, rotation in zip(values, rotations)]
            for label, values in self.labels.items()
        }
        return replace(self, atoms=frames, labels=labels)

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(int(z) for z in np.unique(np.concatenate([frame.numbers for frame in self.atoms])))

    def summary(self) -> list[str]:
        """Return lines that describe the data set, without `notes`, which the parts of one data set share."""
        formulas = Counter(frame.get_chemical_formula() for frame in self.atoms)
        common = ", ".join(f"{n} x {name}" for name, n in formulas.most_common(4))
        more = f" and {len(formulas) - 4} other formulas" if len(formulas) > 4 else ""
        periodic = sum(bool(frame.pbc.any()) for frame in self.atoms)
        n_atoms = sum(len(frame) for frame in self.atoms)
        lines = [f"{len(self)} structures, {n_atoms} atoms, {periodic} periodic: {common}{more}"]
        for label, values in self.labels.items():
            numbers = np.concatenate([np.ravel(value) for value in values])
            numbers = numbers[np.isfinite(numbers)]
            if not numbers.size:  # stresses of molecules, forces of structures without atoms
                lines.append(f"{label}: no values")
                continue
            lines.append(
                f"{label}: mean {numbers.mean():.6g}, standard deviation {numbers.std():.4g}, "
                f"from {numbers.min():.6g} to {numbers.max():.6g} {self.units[label]}"
            )
            if label == "d_tensor":
                found, unit = zfs_parameters(np.array(values)), self.units[label]
                lines.append(
                    f"D: mean {found.d.mean():.5g}, standard deviation {found.d.std():.3g} {unit}; "
                    f"E: mean {found.e.mean():.4g}, standard deviation {found.e.std():.3g} {unit}"
                )
        return lines

    def write(self, path: str | Path) -> None:
        """Write an HDF5 data set that `read_dataset` reads back; its units are stored in the file.

        Raises
        ------
        WriteError : the disk is full or the folder cannot be written to.
        """
        write_hdf5(path, self.atoms, self.labels, self.units, PER_ATOM, self.total_charge)


@dataclass(frozen=True)
class Batches:
    """A data set that is to be used batch by batch: what `GMModel.fit` takes.

    Attributes
    ----------
    dataset : the structures and their labels.
    batch_size : structures of a batch; the last one of an epoch may be smaller.
    seed : of the order, which differs from epoch to epoch and depends on seed and epoch alone; None: that of the data.
    """

    dataset: Dataset
    batch_size: int
    seed: int | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Indices of the structures of each batch of an epoch."""
        return epoch_batches(len(self.dataset), self.batch_size, self.seed, epoch)


def _rotated_label(label: str, value: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    if BY_NAME[label].shape == (3,):
        return value @ rotation.T
    return rotation @ value @ rotation.T if BY_NAME[label].is_tensor else value


def read_dataset(
    files: str | Path | Iterable[str | Path],
    labels: Sequence[str],
    *,
    units: Mapping[str, str] | None = None,
    keys: Mapping[str, str] | None = None,
    format: str = "auto",
    total_charge: float | str | None = None,
    pbc: bool | None = None,
    added: bool = False,
) -> Dataset:
    """Read structures and `labels` from one or several files.

    Parameters
    ----------
    labels : labels wanted, of `gmcore.quantities`.
    units : unit of "length" and of each label as the files have them; a file that states its own needs none.
    keys : label -> its name in the files, if that differs.
    total_charge : charge of every structure, e, or the name under which the files have it.
    pbc : overrides the periodicity of the files.
    added : the arguments describe other files, to which these are added: where a file lacks a name, the standard one is
        looked for, and what a file states of units and of its total charge goes first.

    Raises
    ------
    DataError : a file or value cannot be used, labels are missing, or a unit contradicts the file.
    UnitError : a unit is not stated or not known.
    """
    for quantity, unit in (units or {}).items():
        conversion(quantity, unit)  # a wrong unit is reported before a large file is read
    files = [files] if isinstance(files, (str, Path)) else list(files)
    frames = [frame for file in files for frame in read_frames(file, format)]
    return _dataset(frames, labels, units=units or {}, keys=keys or {}, total_charge=total_charge, pbc=pbc, added=added)


def _dataset(
    frames: list[Frame],
    labels: Sequence[str],
    *,
    units: Mapping[str, str],
    keys: Mapping[str, str],
    total_charge: float | str | None,
    pbc: bool | None,
    added: bool,
) -> Dataset:
    """Convert and check frames, whose structures become those of the data set; arguments as in `read_dataset`."""
    for label in (*labels, *keys):
        if label not in BY_NAME:
            raise DataError(f"unknown label {excerpt(label)}{did_you_mean(label, BY_NAME)}")
    for quantity, unit in units.items():
        conversion(quantity, unit)
    if pbc is not None:
        for frame in frames:
            frame.pbc = np.full(3, pbc)
    found = find_fields(frames, labels, keys, total_charge, added)
    structures = structures_of(frames, units, total_charge, added)
    values, internal, notes = {}, {}, []
    for label in labels:
        values[label], internal[label], label_notes = _label(label, frames, found[label], units, keys, added)
        notes += label_notes
    charges = np.array([charge or 0.0 for charge in structures.total_charge])
    return Dataset(structures.atoms(), values, internal, charges, tuple(notes))


def _label(
    label: str,
    frames: Sequence[Frame],
    names: Sequence[str | None],
    units: Mapping[str, str],
    keys: Mapping[str, str],
    added: bool,
) -> tuple[list[np.ndarray], str, list[str]]:
    """Return the values of one label, its internal unit and notes on what was changed."""
    values, internal = [], set()
    for frame, name in zip(frames, names):
        if name is None:
            values.append(np.full(BY_NAME[label].shape, np.nan))
            continue
        stated = units if name == keys.get(label, name) else {}  # units belong to the names that they were stated with
        factor, unit = conversion(label, unit_of_field(label, name, frame, stated, added))
        internal.add(unit)
        values.append(label_array(label, frame.fields[name], frame) * factor)
    if len(internal) != 1:
        raise DataError(f"{label} must have the same kind of unit in all files, got {', '.join(sorted(internal))}")
    unit = internal.pop()
    if not BY_NAME[label].is_tensor:
        return values, unit, []
    tensors, notes = symmetrized(label, np.array(values), [frame.origin for frame in frames], unit)
    if BY_NAME[label].traceless:
        tensors, more = detraced(label, tensors, unit)
        notes += more
    return list(tensors), unit, notes
