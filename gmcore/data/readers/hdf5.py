"""The HDF5 data set of this project (structures end to end, labels with units), and flat files like npz.

::

    /                 attributes: format = "gmtensor-dataset", version = 1
    /offsets          (n_structures + 1,) int64: structure k has the atoms offsets[k] ... offsets[k + 1] - 1
    /numbers          (n_atoms,) int32
    /positions        (n_atoms, 3) float64, attribute unit
    /cells            (n_structures, 3, 3) float64, attribute unit; rows are the cell vectors
    /pbc              (n_structures, 3) bool
    /total_charge     (n_structures,) float64, e; may be missing
    /labels/NAME      (n_structures, ...) or (n_atoms, ...), attributes unit and per = "structure" | "atom"

A file without the attribute `format` but with arrays R, Z, N, ... at its top is read as described in
`gmcore.data.readers.arrays`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms

from gmcore.data.frames import Frame
from gmcore.data.readers.arrays import frames_from_arrays
from gmcore.errors import DataError
from gmcore.files import atomic_hdf5

FORMAT = "gmtensor-dataset"
VERSION = 1


def read_hdf5(path: Path) -> Iterator[Frame]:
    """Yield the structures of an HDF5 file.

    Raises
    ------
    DataError : the file cannot be read, has a newer version, or its arrays do not fit together.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") == FORMAT:
                return iter(_own_layout(file, path.name))
            arrays = {name: item[()] for name, item in file.items() if isinstance(item, h5py.Dataset)}
    except DataError:
        raise
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an HDF5 data set: {' '.join(str(error).split())}") from error
    return frames_from_arrays(arrays, path.name)


def _own_layout(file: h5py.File, name: str) -> list[Frame]:
    version = int(file.attrs.get("version", 0))
    if version > VERSION:
        raise DataError(
            f"{name} has version {version} of the layout, but this program reads versions up to {VERSION}: "
            "update gmtensor"
        )
    offsets, numbers, positions = file["offsets"][()], file["numbers"][()], file["positions"][()]
    cells, pbc = file["cells"][()], file["pbc"][()]
    for key, array in (("offsets", offsets), ("numbers", numbers)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(f"{key} of {name} must be a list of integers, got {array.dtype} {array.shape}")
    n_structures, n_atoms = len(offsets) - 1, len(numbers)
    if offsets[0] != 0 or offsets[-1] != n_atoms or (offsets[1:] < offsets[:-1]).any():
        raise DataError(f"offsets of {name} must increase from 0 to the number of atoms, {n_atoms}")
    for key, array, n in (
        ("positions", positions, n_atoms),
        ("cells", cells, n_structures),
        ("pbc", pbc, n_structures),
    ):
        if len(array) != n:
            raise DataError(f"{key} of {name} must have {n} rows, got {len(array)}")
    units = {"length": _unit(file["positions"])}
    if _unit(file["cells"]) != units["length"]:
        raise DataError(
            f"cells and positions of {name} must have the same unit, got {_unit(file['cells'])} and {units['length']}"
        )
    labels, per_atom = {}, set()
    for key, item in file.get("labels", {}).items():
        labels[key] = item[()]
        if item.attrs.get("per") == "atom":
            per_atom.add(key)
        n = n_atoms if key in per_atom else n_structures
        if len(labels[key]) != n:
            raise DataError(f"labels/{key} of {name} must have {n} rows, got {len(labels[key])}")
        if "unit" in item.attrs:
            units[key] = _unit(item)
    if "total_charge" in file:
        labels["total_charge"] = file["total_charge"][()]
    frames = []
    for k in range(n_structures):
        rows = slice(offsets[k], offsets[k + 1])
        fields = {key: array[rows] if key in per_atom else array[k] for key, array in labels.items()}
        atoms = Atoms(numbers[rows], positions[rows], cell=cells[k], pbc=pbc[k])
        frames.append(Frame(atoms, fields, f"structure {k} of {name}", units=units))
    return frames


def _unit(item: h5py.Dataset) -> str:
    unit = item.attrs["unit"]
    return unit.decode() if isinstance(unit, bytes) else str(unit)


def write_hdf5(
    path: str | Path,
    atoms: Sequence[Atoms],
    labels: Mapping[str, Sequence[np.ndarray]],
    units: Mapping[str, str],
    per_atom: Sequence[str] = (),
    total_charge: np.ndarray | None = None,
) -> None:
    """Write structures (A) and labels, one array per structure, in the layout above; whole or not at all.

    Parameters
    ----------
    units : unit of each label; it is stored with the label.
    per_atom : labels whose arrays have one row per atom.
    total_charge : (n_structures,) e.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    offsets = np.cumsum([0, *(len(frame) for frame in atoms)])
    with atomic_hdf5(path) as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file["offsets"] = offsets.astype(np.int64)
        file["numbers"] = np.concatenate([frame.numbers for frame in atoms]).astype(np.int32)
        file["positions"] = np.concatenate([frame.positions for frame in atoms])
        file["cells"] = np.array([frame.cell.array for frame in atoms])
        file["pbc"] = np.array([frame.pbc for frame in atoms])
        file["positions"].attrs["unit"] = file["cells"].attrs["unit"] = "A"
        if total_charge is not None:
            file["total_charge"] = np.asarray(total_charge, dtype=np.float64)
            file["total_charge"].attrs["unit"] = "e"
        for key, values in labels.items():
            atomwise = key in per_atom
            item = file.create_dataset(f"labels/{key}", data=np.concatenate(values) if atomwise else np.array(values))
            item.attrs["unit"], item.attrs["per"] = units[key], "atom" if atomwise else "structure"
