"""Files that appear whole or not at all.

A file is written under a temporary name in the folder of its target, flushed to the disk and renamed: POSIX and
Windows replace atomically within one file system. If the process is killed before that, an older file is unchanged.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from gmcore.errors import GMError

if TYPE_CHECKING:
    import h5py
    from typing_extensions import Buffer

FULL_DISK = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
}


class WriteError(GMError):
    """A file could not be written; an older file of the same name is unchanged."""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`; on success it becomes `path`, on any error it is removed.

    The suffix is kept because writers choose their format by it. Missing folders are made.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(6)}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        if os.name == "posix":  # the new name itself reaches the disk with its folder
            _flush(target.parent)
    except OSError as error:
        reason = _reason(error, {temporary, target, target.parent})
        if reason is None:
            raise
        raise WriteError(f"{target} could not be written: {reason}; an older file of that name is unchanged") from error
    finally:
        with suppress(OSError):  # nothing to remove, or its folder never came to be
            temporary.unlink()


@contextmanager
def atomic_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yield an HDF5 file to be filled; on success it becomes `path` as in `atomic_path`, on any error nothing does.

    The file is built in memory, because HDF5 crashes the process when it cannot close its objects on a full disk.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    import h5py

    with h5py.File(Path(path).name, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)


@contextmanager
def streamed_hdf5(path: str | os.PathLike) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yield an HDF5 file to be filled piece by piece, and a function to call after each piece; as `atomic_path`.

    This is for files that are too large for the memory. HDF5 would crash the process if it met a full disk, so it does
    not see one: from the first error on, pieces are kept in memory until the file is closed. The function raises that
    error, so that few pieces follow.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    import h5py

    with atomic_path(path) as temporary, FileIO(temporary, "w+") as raw:
        stream = _Stream(raw)
        with h5py.File(stream, "w") as file:
            yield file, stream.check
        stream.check()


class _Stream:
    """A file for HDF5 whose writing never fails.

    Parameters
    ----------
    raw : the file on the disk, empty and without a buffer.
    """

    def __init__(self, raw: FileIO):
        self._raw, self._position, self._size = raw, 0, 0
        self._error: BaseException | None = None
        self._kept: list[tuple[int, bytes]] = []  # places and pieces that are not on the disk

    def check(self) -> None:
        """Raise the error that writing has met; it may also be an interrupt."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place of the file."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """Return the present place."""
        return self._position

    def write(self, data: Buffer) -> int:
        """Write a piece, or keep it."""
        piece = memoryview(data).cast("B")
        start, self._position = self._position, self._position + len(piece)
        self._size = max(self._size, self._position)
        done = 0
        try:
            while self._error is None and done < len(piece):
                self._raw.seek(start + done)
                done += self._raw.write(piece[done:]) or 0
        except BaseException as error:  # an interrupt as well: in the middle of HDF5 it would have the same effect
            self._error = error
        if done < len(piece):
            self._kept.append((start + done, bytes(piece[done:])))
        return len(piece)

    def read(self, n_bytes: int = -1) -> bytes:
        """Return what follows."""
        found = bytearray(max(self._size - self._position, 0) if n_bytes < 0 else n_bytes)
        self.readinto(found)
        return bytes(found)

    def readinto(self, target: Buffer) -> int:
        """Read what follows; the file counts as filled with zeros beyond its end."""
        view = memoryview(target).cast("B")
        start, end, done = self._position, self._position + len(view), 0
        self._raw.seek(start)
        while done < len(view) and (count := self._raw.readinto(view[done:])):
            done += count
        view[done:] = bytes(len(view) - done)
        for place, piece in self._kept:
            first, last = max(place, start), min(place + len(piece), end)
            if first < last:
                view[first - start : last - start] = piece[first - place : last - place]
        self._position = end
        return len(view)

    def truncate(self, size: int) -> int:
        """Change the size of the file."""
        try:
            if self._error is None:
                self._raw.truncate(size)
        except BaseException as error:
            self._error = error
        self._size = size
        return size

    def flush(self) -> None:
        """Do nothing: the file has no buffer."""


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError, places: set[Path]) -> str | None:
    """Return why writing to `places` failed; None for any other error, such as one from a file that is being read."""
    if error.errno in FULL_DISK:
        return FULL_DISK[error.errno]
    if isinstance(error.filename, (str, os.PathLike)) and Path(error.filename) in places:
        return (error.strerror or str(error)).lower()
    return None


def relative_path(path: str | os.PathLike, folder: str | os.PathLike) -> str:
    """Return the path relative to a folder, with forward slashes; its name alone if it is on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(path).name
