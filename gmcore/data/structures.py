"""Structures as arrays, end to end, in A: what predictions need of frames, whatever units the files use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from gmcore.data.frames import Frame
from gmcore.engine.neighbors import NeighborError, build_pairs
from gmcore.engine.structures import Batch, StructureError
from gmcore.errors import DataError, excerpt
from gmcore.units import UNITS, UnitError, conversion, not_stated

SHORT = 0.5  # A: a search that finds coincident atoms and little else


@dataclass(frozen=True, eq=False)
class Structures:
    """Structures without labels.

    Attributes
    ----------
    batch : numbers, positions, cells, pbc and offsets, A.
    total_charge : of each structure, e; None where it is not known.
    multiplicity : of each structure; None where it is not known.
    """

    batch: Batch
    total_charge: list[float | None]
    multiplicity: list[int | None]

    def __len__(self) -> int:
        return self.batch.n_structures

    def info(self, k: int) -> dict[str, float | int]:
        """What is known of structure k beside its atoms, by the names of `Atoms.info`."""
        known = {"total_charge": self.total_charge[k], "multiplicity": self.multiplicity[k]}
        return {key: value for key, value in known.items() if value is not None}

    def atoms(self) -> list[Atoms]:
        """Return the structures as those of ASE; charge and multiplicity are in `info`."""
        batch, found = self.batch, []
        for k in range(len(self)):
            own = slice(batch.offsets[k], batch.offsets[k + 1])
            atoms = Atoms(batch.numbers[own], batch.positions[own], cell=batch.cells[k], pbc=batch.pbc[k])
            atoms.info = dict(self.info(k))
            found.append(atoms)
        return found

    @classmethod
    def from_atoms(cls, atoms: Sequence[Atoms]) -> Structures:
        """Structures of ASE, with what their `info` says."""
        charges = [frame.info.get("total_charge") for frame in atoms]
        return cls(Batch.from_atoms(atoms), charges, [frame.info.get("multiplicity") for frame in atoms])


def structures_of(
    frames: Sequence[Frame],
    units: Mapping[str, str],
    total_charge: float | str | None = None,
    added: bool = False,
) -> Structures:
    """Return the structures of frames, checked; the arguments are those of `gmcore.data.datasets.read_dataset`.

    Raises
    ------
    DataError : a structure cannot be evaluated, or a charge is no number.
    UnitError : the unit of length is not stated or not known.
    """
    charges = [
        total_charge_of(frame, None if added and "total_charge" in frame.fields else total_charge) for frame in frames
    ]
    factors = np.array(
        [conversion("length", unit_of_field("length", "length", frame, units, added))[0] for frame in frames]
    )
    counts = [len(frame.numbers) for frame in frames]
    positions = np.concatenate([np.asarray(frame.positions, np.float64) for frame in frames])
    cells = np.array([frame.cell for frame in frames], dtype=np.float64)
    if (factors != 1.0).any():
        positions = positions * np.repeat(factors, counts)[:, None]
        cells = cells * factors[:, None, None]
    numbers = np.concatenate([frame.numbers for frame in frames]).astype(np.int32)
    pbc, offsets = np.array([frame.pbc for frame in frames], dtype=bool), np.cumsum([0, *counts])
    try:
        batch = _checked(positions, numbers, cells, pbc, offsets)
    except (StructureError, NeighborError):
        for k, frame in enumerate(frames):
            own = slice(offsets[k], offsets[k + 1])
            try:
                _checked(positions[own], numbers[own], cells[k], pbc[k], np.array([0, counts[k]]))
            except (StructureError, NeighborError) as error:
                raise DataError(f"{frame.origin}: {error}") from error
        raise
    return Structures(batch, charges, [_multiplicity(frame) for frame in frames])


def _checked(*arrays: np.ndarray) -> Batch:
    """Return the batch of arrays on which a model can be evaluated."""
    batch = Batch.from_arrays(*arrays)
    build_pairs(batch, SHORT)  # finds atoms in one place
    return batch


def _multiplicity(frame: Frame) -> int | None:
    value = frame.fields.get("multiplicity")
    if isinstance(value, (int, float, np.number)) and np.isfinite(value):
        return round(float(value))
    return None


def unit_of_field(quantity: str, name: str, frame: Frame, units: Mapping[str, str], added: bool) -> str:
    """Return the unit of a field, from the file or from the configuration; both must say the same, unless `added`.

    Raises
    ------
    UnitError : no unit is stated, or it is not known.
    DataError : the configuration contradicts the file.
    """
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


def total_charge_of(frame: Frame, stated: float | str | None) -> float | None:
    """Return the charge that is stated or that the file has, None where neither says anything.

    Raises
    ------
    DataError : the file has no finite number.
    """
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
