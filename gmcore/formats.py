"""Formats of data files, recognized by their suffixes, and what files that ASE reads may claim.

No reader is imported, so a configuration is checked quickly. ASE believes what a file says about its size: numbers of
atoms, columns and bytes. They are compared with the file before ASE makes room for them.
"""

from __future__ import annotations

import io
import math
import mmap
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from gmcore.errors import DataError, excerpt, shortened

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
    ".lammpstrj": "lammps",
    ".dump": "lammps",
} | dict.fromkeys((".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".tng"), "mdanalysis")
FOREIGN = ("lammps", "mdanalysis")
"""Trajectories of other programs."""
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))


def file_format(path: str | Path, declared: str = "auto") -> str:
    """Return the format of a file: the declared one, or for "auto" the one that belongs to its suffix.

    Raises
    ------
    DataError : the suffix is unknown.

    Examples
    --------
    >>> file_format("frames.xyz")
    'extxyz'
    """
    if declared != "auto":
        return declared
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"the format of {path} is unknown, because its suffix {excerpt(suffix)} is not one of "
            f"{', '.join(SUFFIXES)}: rename the file or state its format"
        )
    return SUFFIXES[suffix]


_DECLARED = re.compile(rb"(?<![A-Za-z0-9_])Properties\s*=\s*[\"'{]?([^\s\"'}]+)", re.IGNORECASE)
_ARRAY = re.compile(rb'"__ndarray__"\s*:\s*\[\s*(?:\[([\d\s,.eE+]*)\]|([\d.eE+]+))')


COMPRESSED = (".gz", ".bz2", ".xz")
"""Suffixes of files that ASE opens in another way."""


class OddLines(Exception):
    """The lines of a file are not those of XYZ as it is usually written: they are for ASE alone."""


def xyz_contents(path: Path, start: int = 0, rows: bool = True) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines of each frame of extended XYZ from number `start` on, and the number of the first, from 1.

    Parameters
    ----------
    rows : keep the lines of the atoms.

    Raises
    ------
    DataError : a frame claims more atoms than the file can hold.
    OddLines : from here on the file is for ASE.
    """
    if path.suffix.lower() in COMPRESSED:
        raise OddLines
    size = path.stat().st_size
    with open(path, "rb") as stream:
        line, header, number = 1, stream.readline(100), 0
        while header.strip():
            try:
                n_atoms = int(header)
            except ValueError:
                raise OddLines from None
            comment = stream.readline()
            left = size - stream.tell()
            if not 0 <= 2 * n_atoms <= left + 1:  # a row has a character and the end of its line
                raise DataError(
                    f"{path} cannot be read as extended XYZ: line {line} promises {excerpt(n_atoms)} atoms, "
                    f"{left} bytes follow"
                )
            content = [header, comment, *islice(stream, n_atoms)]
            first, line = line, line + 2 + n_atoms
            while (header := stream.readline()).lstrip().startswith(b"VEC"):
                content.append(header)
                line += 1
            joined = b"".join(content)
            if b"\r" in joined and joined.count(b"\r") != joined.count(b"\r\n"):  # ends a line for ASE
                raise OddLines
            if number >= start:
                yield first, content if rows else content[:2]
            number += 1


def check_columns(content: list[bytes], path: Path, line: int) -> None:
    """Refuse a frame of extended XYZ that declares more columns than its first row has words.

    Parameters
    ----------
    content : its lines.
    path, line : where it is, for the message.

    Raises
    ------
    DataError : it does.
    """
    words, declared = len((content[2:] or content[1:])[0].split()), _DECLARED.search(content[1])
    try:
        columns = sum(int(count) for count in declared[1].split(b":")[2::3]) if declared else 0
    except ValueError:
        return
    if columns > words:
        raise DataError(
            f"{path} cannot be read as extended XYZ: line {line + 1} declares {columns} columns, "
            f"the row below has {words}"
        )


def check_extxyz(path: Path) -> None:
    """Refuse more atoms or columns than an extended XYZ file has room for: ASE would look for them all.

    Raises
    ------
    DataError : a frame claims more than the file can hold.
    """
    with suppress(OddLines):
        for line, content in xyz_contents(path):
            check_columns(content, path, line)


def check_arrays(path: str | Path) -> None:
    """Compare the arrays in the JSON of an ASE database or trajectory with the length of the file.

    Raises
    ------
    DataError : an array claims more elements than the file has bytes; ASE makes room for it before it looks.
    """
    size = Path(path).stat().st_size
    if size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in _ARRAY.finditer(content):
            try:
                shape = found[1] if found[2] is None else found[2]
                count = math.prod(float(part) for part in shape.split(b",") if part.strip())
            except ValueError:  # no number: ASE refuses it
                continue
            if count > size:
                raise DataError(f"{path} claims an array of {count:.3g} numbers, more than it has bytes")


class BoundedFile(io.FileIO):
    """A file that is never asked for more than it has: ASE reads as many bytes as a damaged header says.

    It has no `fileno`, because with one ASE lets NumPy make arrays of any size in advance.
    """

    def read(self, size: int | None = -1) -> bytes:
        """Read at most what is left."""
        at = self.tell()
        rest = max(self.seek(0, io.SEEK_END) - at, 0)
        self.seek(at)
        return super().read(rest if size is None or size < 0 else min(size, rest)) or b""

    def fileno(self) -> int:
        """Not given away."""
        raise io.UnsupportedOperation("fileno")


def read_structure(path: str | Path, index: int = 0) -> Atoms:
    """Read one structure of a file of any format of ASE.

    Raises
    ------
    DataError : no such structure, or a file that cannot be read or claims more than it has.
    """
    from ase.io import read

    suffix = Path(path).suffix.lower()
    try:
        if suffix in (".xyz", ".extxyz"):
            check_extxyz(Path(path))
        if suffix in (".traj", ".json"):
            check_arrays(path)
        if suffix == ".traj":
            with BoundedFile(path) as file:
                return read(file, index=index, format="traj")
        return read(path, index=index)
    except DataError:
        raise
    except (IndexError, StopIteration) as error:
        raise DataError(f"the file {path} has no structure of index {index}; indices start at 0") from error
    except Exception as error:  # ASE's parsers raise anything
        reason = shortened(str(error)) or type(error).__name__
        raise DataError(f"structure {index} of the file {path} cannot be read: {reason}") from error
