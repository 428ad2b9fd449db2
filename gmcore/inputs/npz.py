"""npz files: the headers of all arrays first, the arrays themselves when they are asked for.

A compressed file of a few MB can hold arrays of many GB, of which a reader may need none.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from gmcore.errors import DamagedFileError
from gmcore.inputs.claims import check_claim

SUFFIX = ".npy"


class ArrayHeader(NamedTuple):
    """What is known of an array before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def n_bytes(self) -> int:
        """Bytes that the array takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class NpzArrays(Mapping[str, np.ndarray]):
    """Arrays of an npz file by name; each is read anew whenever it is asked for.

    Attributes
    ----------
    path : the file.
    headers : shape and type of each array.

    Raises
    ------
    DamagedFileError : not an npz file, or an array that is damaged, is no plain data, or takes too much memory.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.headers: dict[str, ArrayHeader] = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.namelist():
                    if member.endswith(SUFFIX):
                        with archive.open(member) as stream:
                            self.headers[member.removesuffix(SUFFIX)] = _header(stream)
        except Exception as error:  # zipfile.BadZipFile, zlib.error, EOFError, struct.error, ...
            raise self._damaged(error) from error

    def __getitem__(self, name: str) -> np.ndarray:
        """Read an array."""
        header = self.headers[name]
        check_claim(self.path, name, header.n_bytes)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(name + SUFFIX) as stream:
                if _header(stream) != header:
                    raise ValueError("it has changed while it was read")
            with zipfile.ZipFile(self.path) as archive, archive.open(name + SUFFIX) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except MemoryError:
            raise
        except Exception as error:
            raise self._damaged(error) from error

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.headers)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.headers)

    def __contains__(self, name: object) -> bool:
        """Whether there is an array of this name; reads nothing."""
        return name in self.headers

    def everything(self) -> dict[str, np.ndarray]:
        """Read all arrays, which together must not take too much memory."""
        check_claim(self.path, "the content", sum(header.n_bytes for header in self.headers.values()))
        return {name: self[name] for name in self.headers}

    def _damaged(self, error: Exception) -> DamagedFileError:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return DamagedFileError(f"{self.path} cannot be read as npz: {reason}")


def _header(stream: IO[bytes]) -> ArrayHeader:
    """Read the header at the start of an array in NumPy's format."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"arrays in version {version[0]}.{version[1]} of NumPy's format are not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if any(n < 0 for n in shape):
        raise ValueError(f"an array has the impossible shape {shape}")
    return ArrayHeader(shape, dtype)
