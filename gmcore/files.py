"""Files that appear whole or not at all, and folders that one process writes at a time.

A file is written under a temporary name in the folder of its target, flushed to the disk and renamed: POSIX and
Windows replace atomically within one file system. If the process is killed before that, an older file is unchanged.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import FileIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmcore.errors import GMError, excerpt, shortened
from gmcore.inputs.seal import seal_file, seal_of

if TYPE_CHECKING:
    import h5py
    from typing_extensions import Buffer

if sys.platform != "win32":
    import fcntl

FULL_DISK = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
}

LOCK = ".gmtensor.lock"
DAY = 86400.0  # seconds

PART = re.compile(r"\..*\.([0-9a-f]{4})([0-9a-f]{6})[0-9a-f]{2}\.part(\.[^.]*)?", re.DOTALL)
"""Name of a temporary file of `atomic_path`: digits of the machine, of the process and of the file."""

_numbers = count()
_cleaned: set[str] = set()


class WriteError(GMError):
    """A file could not be written; an older file of the same name is unchanged."""


class LockError(GMError):
    """Another process writes to a folder, or the folder cannot be used."""


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`; on success it becomes `path`, on any error it is removed.

    The suffix is kept because writers choose their format by it. Missing folders are made. The first call of a process
    for a folder also removes what killed processes left there, see `remove_parts`.

    Raises
    ------
    WriteError : the disk is full or the folder cannot be written to.
    """
    target = Path(path)
    # a name may have 255 bytes, and a character up to four
    temporary = target.with_name(f".{target.stem[:40]}.{_owner()}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if (folder := os.path.abspath(target.parent)) not in _cleaned:
            _cleaned.add(folder)
            remove_parts(target.parent)
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        if os.name == "posix":  # the new name itself reaches the disk with its folder
            with suppress(OSError):  # the file is in its place; some network disks flush no folders
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

    The file is built in memory, because HDF5 crashes the process when it cannot close its objects on a full disk. A
    seal, see `gmcore.inputs.seal`, is appended.

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

    with atomic_path(path) as temporary:
        with FileIO(temporary, "w+") as raw:
            stream = _Stream(raw)
            with h5py.File(stream, "w") as file:
                yield file, stream.check
            stream.check()
        seal_file(temporary)


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


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of `atomic_path` whose processes were killed.

    A file of this machine is removed if its process has ended. Whether a process of another machine, or one before the
    last start of this machine, still runs is not known: its files are removed a day after they were last written to.
    """
    with suppress(OSError):  # the folder does not exist or cannot be read
        for entry in os.scandir(folder):
            part = PART.fullmatch(entry.name)
            if part is None or not entry.is_file(follow_symlinks=False):
                continue
            ended = part[1] == _machine() and not _is_running(int(part[2], 16))
            with suppress(OSError):  # another process removed it, or it may not be removed
                if ended or time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY:
                    os.unlink(entry.path)


@contextmanager
def lock_folder(folder: str | os.PathLike, name: str = LOCK) -> Iterator[None]:
    """Lock a folder against other processes that lock it by the same name; create it if necessary.

    The lock is a file in the folder that holds process id and machine of its owner. It ends with the process, however
    that ends; a lock file that is left behind locks nothing. On systems that cannot lock files, such as Windows and
    some network disks, this does not lock anything.

    Raises
    ------
    LockError : another process has locked the folder, or the folder cannot be created or written to.
    """
    folder = Path(folder)
    try:
        existed = folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LockError(
            f"the output folder {shortened(str(folder))} cannot be created: {error.strerror}; choose another output"
        ) from error
    if sys.platform == "win32":
        yield
        return
    path = folder / name
    descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk; the lock holds without its text
            os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)  # the lock ends here, after its file is gone: nobody else can have locked this file
        if not existed:
            with suppress(OSError):  # something was written into it
                folder.rmdir()


def _locked(path: Path) -> int:
    """Create a file if necessary and lock it; return its descriptor."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise LockError(
                f"the output folder {path.parent} cannot be written to: {error.strerror}; choose another output"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, 1000).decode(errors="replace").split()
            os.close(descriptor)
            number, machine = text if len(text) == 2 else ("", platform.node())
            owner = f"another process{f' ({number})' if number else ''}"
            place = "" if machine == platform.node() else f" on {machine}"
            raise LockError(
                f"{owner}{place} is writing to the folder {path.parent}: wait until it has finished, or choose "
                "another output"
            ) from None
        except OSError:  # a disk without locks
            return descriptor
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its owner removed the file between the two calls, so that it locks nothing


def _owner() -> str:
    """Twelve digits that name the machine (4), this process (6) and one of its temporary files (2)."""
    return f"{_machine()}{os.getpid() & 0xFFFFFF:06x}{next(_numbers) & 0xFF:02x}"


@cache
def _machine() -> str:
    """Four digits for what numbers its processes as this one does: a machine from start to stop, or a container."""
    name = platform.node()
    with suppress(OSError):
        name += Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(name.encode()) & 0xFFFF:04x}"


def _is_running(process: int) -> bool:
    """Whether a process of this machine may still be running."""
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to another user
        return True
    return True


def read_json(path: str | os.PathLike, schema: Any, error: type[GMError], advice: str) -> Any:
    """Return the content of a JSON file that fits a schema.

    Parameters
    ----------
    schema : type that pydantic knows, for example `dict[str, str]`; numbers must have the type that is stated.
    error : class of the errors.
    advice : what to do with a file that does not fit.

    Raises
    ------
    FileNotFoundError : there is no such file.
    error : the file is not JSON, or its content does not fit.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as unreadable:
        raise error(f"{path} cannot be read: {shortened(str(unreadable))}; {advice}") from unreadable
    return fitting(content, schema, path, error, advice)


def fitting(content: Any, schema: Any, path: str | os.PathLike, error: type[GMError], advice: str) -> Any:
    """Return the content of a file as its schema has it; parameters and errors as in `read_json`."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(schema).validate_python(content, strict=True)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        place = shortened(".".join(str(part) for part in first["loc"])) or "its content"
        got = "" if first["type"] == "missing" else f", got {excerpt(first['input'], 60)}"
        reason = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}{got}"
        raise error(f"{path} does not hold what it should: {reason}; {advice}") from invalid


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
