"""HDF5 files, opened only after a check: libhdf5 hangs or crashes on some damaged files, and takes the program with it.

A file with a seal is checked by it (`gmcore.inputs.seal`). Any other file, such as one of another program, is opened
and read first in a process of its own with limits on time and memory. Each file is checked once per process, unless it
changes. Links out of the file are refused either way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmcore.errors import DamagedFileError
from gmcore.inputs import hdf5_walk
from gmcore.inputs.claims import check_claim, claimable
from gmcore.inputs.seal import is_sealed

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"

CPU_SECONDS = 3
"""Time that a small file may take to be opened and read."""

WALL_SECONDS = 30
"""The same on a clock, which also runs while a busy machine or a slow disk lets the process wait."""

SPEED = 1e6
"""Bytes per second: a larger file may take longer. One of many small arrays takes 0.2 ms for 600 bytes."""

_checked: dict[Path, tuple[int, int, int]] = {}
"""Files that were found sound, by path: when changed, size, identity on the disk."""


def has_signature(path: str | os.PathLike) -> bool:
    """Whether a file starts as HDF5 does, possibly after a block of the user's own."""
    n_bytes, offset = os.stat(path).st_size, 0
    with open(path, "rb") as file:
        while offset + len(SIGNATURE) <= n_bytes:
            file.seek(offset)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
            offset = 2 * offset or 512
    return False


@contextmanager
def open_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yield an HDF5 file, opened for reading, after a check.

    Raises
    ------
    DamagedFileError : the file is not HDF5, is damaged, or needs other files.
    OSError : the file cannot be opened.
    """
    import h5py

    path = Path(path)
    found = path.stat()
    state, key = (found.st_mtime_ns, found.st_size, found.st_ino), path.resolve()
    new = _checked.get(key) != state
    if new and not has_signature(path):
        raise DamagedFileError(f"{path} is not an HDF5 file, or its beginning is lost")
    sealed = new and is_sealed(path)
    if new and not sealed:
        _check_in_child(path, found.st_size)
    with h5py.File(path, "r") as file:
        if sealed:
            try:
                hdf5_walk.walk(file)
            except hdf5_walk.UnsoundError as error:
                raise DamagedFileError(f"{path} cannot be used: {error}") from None
        _checked[key] = state
        yield file


def check_array(item: Any, path: str | os.PathLike, name: str) -> None:
    """Refuse what is no dataset of numbers, or claims more memory than the size of the file can account for.

    Raises
    ------
    DamagedFileError : it is a group, holds no numbers, or claims too much.
    """
    import h5py

    if not isinstance(item, h5py.Dataset) or item.shape is None or item.dtype.kind not in "biuf":
        raise DamagedFileError(f"{name} of {path} must be an array of numbers, got {_kind(item)}")
    check_claim(path, name, hdf5_walk.claimed(item))


def read_array(item: Any, path: str | os.PathLike, name: str) -> np.ndarray:
    """Read a dataset of numbers; raises as `check_array`."""
    check_array(item, path, name)
    return np.asarray(item[()])


def _kind(item: object) -> str:
    import h5py

    if not isinstance(item, h5py.Dataset):
        return "a group" if isinstance(item, h5py.Group) else "nothing"
    return "an empty dataset" if item.shape is None else f"data of type {item.dtype}"[:200]


def _check_in_child(path: Path, n_bytes: int) -> None:
    """Open and read a file in a process of its own.

    Raises
    ------
    DamagedFileError : it did not survive this, or found the file unsound.
    """
    import h5py

    if not sys.executable or getattr(sys, "frozen", False):  # there is no Python to start
        return
    more = n_bytes / SPEED
    # the same packages as here, found in the same order, and nothing that a user or a site starts with Python
    packages = [str(Path(str(package.__file__)).parents[1]) for package in (h5py, np)]
    folders = dict.fromkeys([*packages, *filter(os.path.isabs, sys.path)])
    numbers = (str(int(CPU_SECONDS + more)), str(claimable(n_bytes)))
    command = [sys.executable, "-I", "-S", hdf5_walk.__file__, os.path.abspath(path), *numbers, *folders]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=WALL_SECONDS + more
        )
        code, reason = done.returncode, done.stdout.decode("ascii", "replace")
    except subprocess.TimeoutExpired:
        code, reason = 0, "HDF5 does not come to an end with it"
    if code < 0 or code > 255:
        killed = sys.platform != "win32" and -code in _TIME_SIGNALS
        reason = "HDF5 does not come to an end with it" if killed else "HDF5 crashes on it"
    elif code:
        last = (done.stderr.decode("utf-8", "replace").split("\n") or [""])[-2:]
        reason = f"the check of HDF5 files failed ({' '.join(last).strip()[:200]})"
    if reason:
        raise DamagedFileError(f"{path} is truncated or damaged: {reason}; use another copy of it")


_TIME_SIGNALS = (24, 9)
"""SIGXCPU and SIGKILL, by which the system ends a process that has used up its time."""
