"""Files that appear whole or not at all.

A file is written under a temporary name in the folder of its target, flushed to the disk and renamed: POSIX and
Windows replace atomically within one file system. A kill in between leaves the old file, or none, under the name.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gmcore.errors import GMError
from gmcore.inputs.seal import seal_of

if TYPE_CHECKING:
    import h5py

FULL_DISK = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not become so large here",
}


class WriteError(GMError):
    """A file could not be written; what stood under its name before is unchanged."""


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
        raise WriteError(f"{target} could not be written: {reason}; a file of that name is unchanged") from error
    finally:
        with suppress(OSError):  # nothing to remove, or its folder never came to be
            temporary.unlink()


@contextmanager
def atomic_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yield an HDF5 file to be filled; on success it becomes `path` as in `atomic_path`, on any error nothing does.

    It is put together in memory: where HDF5 itself meets a full disk, objects that it cannot close crash the process.
    A seal, see `gmcore.inputs.seal`, is appended.

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
        with open(temporary, "wb") as stream:
            stream.write(image)
            stream.write(seal_of(image))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError, places: set[Path]) -> str | None:
    """Why writing to `places` failed; None for another error, that of a file that is read meanwhile, say."""
    if error.errno in FULL_DISK:
        return FULL_DISK[error.errno]
    if isinstance(error.filename, (str, os.PathLike)) and Path(error.filename) in places:
        return (error.strerror or str(error)).lower()
    return None


def relative_path(path: str | os.PathLike, folder: str | os.PathLike) -> str:
    """Return a path as seen from a folder, with forward slashes; its name alone if it is on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return Path(path).name
