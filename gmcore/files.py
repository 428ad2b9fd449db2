"""Files that appear whole or not at all.

A file is written under a temporary name in the folder of its target, flushed to the disk and renamed: POSIX and
Windows replace atomically within one file system. A kill in between leaves the old file, or none, under the name.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmcore.errors import GMError, excerpt, shortened

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
