"""Data sets: structures and their reference values, in A, eV, e and cm^-1, whatever units the files use.

Every structure must have every requested label, and every label must have a stated unit. Nothing is skipped silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from gmcore.anisotropy import zfs_parameters
from gmcore.data.frames import Frame
from gmcore.data.labels import detraced, label_array, symmetrized
from gmcore.data.readers.hdf5 import write_hdf5
from gmcore.data.reading import read_frames
from gmcore.engine.neighbors import NeighborError, build_pairs
from gmcore.engine.structures import Batch, StructureError
from gmcore.errors import DataError, excerpt, shortened
from gmcore.quantities import BY_NAME, PER_ATOM
from gmcore.suggest import nearest
from gmcore.units import UNITS, UnitError, conversion, not_stated

SHORT = 0.5  # A: a search that finds coincident atoms and little else


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

    def __len__(self) -> int:
        return len(self.atoms)

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
    keys, units = dict(keys or {}), dict(units or {})
    for quantity, unit in units.items():
        conversion(quantity, unit)  # a wrong unit is reported before a large file is read
    files = [files] if isinstance(files, (str, Path)) else list(files)
    frames = [frame for file in files for frame in read_frames(file, format)]
    if pbc is not None:
        for frame in frames:
            frame.atoms.pbc = pbc
    found = _found(frames, labels, keys, total_charge, added)
    charges = [
        _total_charge(frame, None if added and "total_charge" in frame.fields else total_charge) for frame in frames
    ]
    for frame, charge in zip(frames, charges):
        multiplicity = frame.fields.get("multiplicity")
        frame.atoms.info = {} if charge is None else {"total_charge": charge}
        if isinstance(multiplicity, (int, float, np.number)) and np.isfinite(multiplicity):
            frame.atoms.info["multiplicity"] = round(float(multiplicity))
        factor, _ = conversion("length", _unit("length", "length", frame, units, added))
        frame.atoms.set_cell(frame.atoms.cell.array * factor)
        frame.atoms.positions *= factor
    _check_structures(frames)
    values, internal, notes = {}, {}, []
    for label in labels:
        values[label], internal[label], label_notes = _label(label, frames, found[label], units, keys, added)
        notes += label_notes
    atoms = [frame.atoms for frame in frames]
    return Dataset(atoms, values, internal, np.array([charge or 0.0 for charge in charges]), tuple(notes))


def _found(
    frames: Sequence[Frame],
    labels: Sequence[str],
    keys: Mapping[str, str],
    total_charge: float | str | None,
    added: bool,
) -> dict[str, list[str | None]]:
    """Return for each label the name of its field in each frame; missing ones stop here, with counts."""
    candidates = {label: (keys[label],) if label in keys else (label, *BY_NAME[label].aliases) for label in labels}
    if isinstance(total_charge, str):
        candidates["total_charge"] = (total_charge,)
    if added:
        standard = {label: (label, *BY_NAME[label].aliases) if label in BY_NAME else (label,) for label in candidates}
        _refuse_two_names(frames, {label: keys[label] for label in labels if label in keys})
        candidates = {label: tuple(dict.fromkeys(names + standard[label])) for label, names in candidates.items()}
    found = {
        label: [next((name for name in names if name in frame.fields), None) for frame in frames]
        for label, names in candidates.items()
    }
    # a structure without a volume has no stress; at least one must have it, though
    needed = {label: [label != "stress" or _has_volume(frame.atoms) for frame in frames] for label in candidates}
    counts = {
        label: sum(need and name is not None for need, name in zip(needed[label], names))
        for label, names in found.items()
    }
    missing = [label for label in candidates if not 0 < counts[label] == sum(needed[label])]
    if missing:
        raise DataError(_missing(frames, candidates, counts, missing))
    return {label: [n if ok else None for n, ok in zip(found[label], needed[label])] for label in labels}


def _refuse_two_names(frames: Sequence[Frame], keys: Mapping[str, str]) -> None:
    """Refuse frames of added files that have a label under its name in the other files and the standard one too."""
    for frame in frames:
        for label, name in keys.items():
            if name != label and name in frame.fields and label in frame.fields:
                raise DataError(
                    f"{frame.origin} has both {name} and {label}, and only one of them can be the {label} to learn: "
                    "remove the other one from the added file"
                )


def _missing(
    frames: Sequence[Frame], candidates: Mapping[str, Sequence[str]], counts: Mapping[str, int], missing: Sequence[str]
) -> str:
    available: dict[str, Frame] = {}
    for frame in frames:
        for field_name in frame.fields:
            available.setdefault(field_name, frame)
    table = "; ".join(f"{label} found in {count} of {len(frames)} frames" for label, count in counts.items())
    similar = {
        label: name
        for label in missing
        if counts[label] == 0 and (name := _similar(label, candidates[label], available)) is not None
    }
    settings = [f"{label}: {name}" for label, name in similar.items() if label != "total_charge"]
    settings = [f"keys: {{{', '.join(settings)}}}"] if settings else []
    settings += [f"total_charge: {similar['total_charge']}"] if "total_charge" in similar else []
    hint = f"; did you mean {', '.join(similar.values())} (data: {', '.join(settings)})?" if similar else ""
    return f"labels are missing: {table}; available keys: {shortened(', '.join(available)) or 'none'}{hint}"


def _similar(label: str, candidates: Sequence[str], available: Mapping[str, Frame]) -> str | None:
    """Return the field that was probably meant: one that is spelled alike, or has a candidate's name among its words.

    A field whose values cannot be the label is none.
    """
    fitting = [name for name, frame in available.items() if _can_be(label, name, frame)]
    alike = [near for candidate in candidates if (near := nearest(candidate, fitting)) is not None]
    named = [name for name in fitting for candidate in candidates if f"_{candidate}_" in f"_{name}_"]  # D_raw
    return next(iter(alike + named), None)


def _can_be(label: str, name: str, frame: Frame) -> bool:
    try:
        if label in BY_NAME:
            label_array(label, frame.fields[name], frame)
    except DataError:
        return False
    return True


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
        factor, unit = conversion(label, _unit(label, name, frame, stated, added))
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


def _unit(quantity: str, name: str, frame: Frame, units: Mapping[str, str], added: bool) -> str:
    """Return the unit of a field, from the file or from the configuration; both must say the same, unless `added`."""
    in_file, stated = frame.units.get(name), units.get(quantity)
    if in_file is not None:
        try:
            conversion(quantity, in_file)
        except UnitError as error:
            raise UnitError(f"{frame.origin} states the unit of {name}: {error}") from None
    if in_file is None and stated is None:
        if added:
            written = "positions" if quantity == "length" else name
            raise UnitError(
                f'{frame.origin} must state the unit of {written}, by units="{written}=..."; '
                f"known: {', '.join(UNITS[quantity])}"
            )
        raise not_stated(quantity)
    if (
        not added
        and in_file is not None
        and stated is not None
        and conversion(quantity, in_file) != conversion(quantity, stated)
    ):
        raise DataError(
            f"the unit of {quantity} is {in_file} in the file of {frame.origin}, not {stated}: "
            "correct the stated unit or leave it out"
        )
    return in_file or str(stated)


def _total_charge(frame: Frame, stated: float | str | None) -> float | None:
    """Return the charge that is stated or that the file has, None where neither says anything."""
    if isinstance(stated, (int, float)):
        return float(stated)
    value = frame.fields.get("total_charge" if stated is None else stated)
    if value is None:
        return None
    try:
        charge = float(np.asarray(value, dtype=np.float64).reshape(()))
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"the total charge of {frame.origin} must be one number, got {excerpt(value)}") from None
    if not np.isfinite(charge):
        raise DataError(f"the total charge of {frame.origin} must be finite, got {charge}")
    return charge


def _has_volume(atoms: Atoms) -> bool:
    return bool(atoms.pbc.any()) and abs(atoms.cell.volume) > 0.0


def _check_structures(frames: Sequence[Frame]) -> None:
    """Refuse structures that no model can be evaluated on, with the name of the frame."""
    try:
        _check([frame.atoms for frame in frames])
    except (StructureError, NeighborError):
        for frame in frames:
            try:
                _check(frame.atoms)
            except (StructureError, NeighborError) as error:
                raise DataError(f"{frame.origin}: {error}") from error
        raise


def _check(atoms: Atoms | Sequence[Atoms]) -> None:
    build_pairs(Batch.from_atoms(atoms), SHORT)  # finds atoms in one place
