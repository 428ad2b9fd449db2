"""Structures with labels from a file of any known format: raw frames, in the file's own units.

A frame carries every named array of its file under the name that the file uses; `gmcore.data.datasets` chooses,
converts and checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from gmcore.data.frames import Frame, check_numbers
from gmcore.errors import DataError
from gmcore.formats import file_format


def read_frames(path: str | Path, declared: str = "auto") -> Iterator[Frame]:
    """Yield the frames of a data file.

    Raises
    ------
    DataError : the file is missing, not in the format, contains no structures, or atoms that are no elements.
    """
    path = Path(path)
    reader = _reader(file_format(path, declared))
    if not path.is_file():
        raise DataError(f"data file {path} does not exist")
    empty = True
    for frame in reader(path):
        empty = False
        check_numbers(frame)
        yield frame
    if empty:
        raise DataError(f"data file {path} contains no structures")


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
