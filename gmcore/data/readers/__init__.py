"""Readers of structures with labels: each yields raw frames, as the file has them and in the file's units.

A frame carries every named array of its file under the name that the file uses; `gmcore.data.datasets` chooses,
converts and checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcore.errors import GMError

if TYPE_CHECKING:
    from ase import Atoms

SUFFIXES = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".traj": "ase",
    ".db": "ase",
    ".json": "ase",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}


class DataError(GMError):
    """A data file, or a label in it, that cannot be used."""


@dataclass
class Frame:
    """One structure as its file has it.

    Attributes
    ----------
    atoms : positions, numbers, cell and pbc in the file's length unit, no calculator.
    fields : every other named value of the structure.
    origin : where it stands, for messages: "frame 12 of train.extxyz".
    units : units that the file itself states, by field name and "length"; empty for most formats.
    padding : rows that follow the last atom in the fields with one row per atom.
    """

    atoms: Atoms
    fields: dict[str, np.ndarray]
    origin: str
    units: dict[str, str] = field(default_factory=dict)
    padding: int = 0


def file_format(path: str | Path, declared: str = "auto") -> str:
    """Return the format of a file: what is declared, else what its suffix says.

    >>> file_format("frames.xyz")
    'extxyz'
    """
    if declared != "auto":
        return declared
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"the format of {path} cannot be told from its suffix {suffix!r} (known: {', '.join(SUFFIXES)}); state it"
        )
    return SUFFIXES[suffix]


def read_frames(path: str | Path, declared: str = "auto") -> Iterator[Frame]:
    """Yield the frames of a data file.

    Errors
    ------
    DataError : missing, not in the format, or without structures.
    """
    path = Path(path)
    reader = _reader(file_format(path, declared))
    if not path.is_file():
        raise DataError(f"data file {path} does not exist")
    empty = True
    for frame in reader(path):
        empty = False
        yield frame
    if empty:
        raise DataError(f"data file {path} holds no structures")


def _reader(name: str) -> Callable[[Path], Iterator[Frame]]:
    """Return the reader of a format; imported on use, so that a configuration is checked without ASE or HDF5."""
    if name == "npz":
        from gmcore.data.readers.arrays import read_npz

        return read_npz
    if name == "hdf5":
        from gmcore.data.readers.hdf5 import read_hdf5

        return read_hdf5
    from gmcore.data.readers.ase_files import read_ase, read_extxyz

    return read_ase if name == "ase" else read_extxyz
