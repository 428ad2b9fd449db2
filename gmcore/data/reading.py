"""Structures with labels from a file of any known format: raw frames, in the file's own units.

A frame carries every named array of its file under the name that the file uses; `gmcore.data.datasets` chooses,
converts and checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gmcore.data.frames import Frame, check_numbers
from gmcore.errors import DataError, shortened
from gmcore.formats import file_format


def read_frames(path: str | Path, declared: str = "auto", start: int = 0, stop: int | None = None) -> Iterator[Frame]:
    """Yield the frames of a data file.

    Parameters
    ----------
    start, stop : number of the first frame, and one past the last (default: all).

    Raises
    ------
    DataError : the file is missing, not in the format, contains no structures, or atoms that are no elements.
    """
    path = Path(path)
    name = file_format(path, declared)
    if not path.is_file():
        raise DataError(f"data file {path} does not exist")
    empty = True
    for frame in islice(_frames(name, path, start), None if stop is None else max(stop - start, 0)):
        empty = False
        check_numbers(frame)
        yield frame
    if empty and start == 0 and stop is None:
        raise DataError(f"data file {path} contains no structures")


def count_frames(path: str | Path, declared: str = "auto") -> int:
    """Return the number of frames of a data file, without reading more than that takes.

    Raises
    ------
    DataError : the file is missing, not in the format, or contains no structures.
    """
    path = Path(path)
    name = file_format(path, declared)
    if not path.is_file():
        raise DataError(f"data file {path} does not exist")
    if name == "extxyz":
        from gmcore.extxyz.reading import count_xyz_frames

        try:
            found = count_xyz_frames(path)
        except DataError:
            raise
        except Exception as error:  # of ASE, which raises anything
            reason = shortened(str(error)) or type(error).__name__
            raise DataError(f"{path} cannot be read as extended XYZ: {reason}") from error
    else:
        found = sum(1 for _ in _frames(name, path, 0))
    if not found:
        raise DataError(f"data file {path} contains no structures")
    return found


def _frames(name: str, path: Path, start: int) -> Iterator[Frame]:
    """Return the frames of a format from `start` on; readers are imported on use.

    A configuration is so checked without ASE or HDF5.
    """
    if name == "extxyz":
        from gmcore.data.readers.ase_files import read_extxyz

        return read_extxyz(path, start)
    if name == "npz":
        from gmcore.data.readers.arrays import read_npz as reader
    elif name == "hdf5":
        from gmcore.data.readers.hdf5 import read_hdf5 as reader
    else:
        from gmcore.data.readers.ase_files import read_ase as reader
    return islice(reader(path), start, None)
