"""A walk through everything in an HDF5 file, which finds links that lead out of it and sizes that cannot be.

Run as a program, with a file and limits, it also reads the data, in a process that may hang or crash without harm. It
imports nothing of this package, because that process is isolated from it. It prints what is wrong, or nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py

LARGEST_ATTRIBUTE = 2**24
"""Bytes."""

LARGEST_BLOCK = 2**30
"""Bytes: of a block in which a dataset is stored; HDF5 reads it as a whole."""

MEMORY = 2**30
"""Bytes: what the process may need in addition to the loaded libraries."""

READ = 2**24
"""Bytes that are read together."""


class UnsoundError(Exception):
    """What is wrong with a file, as the end of a sentence."""


def walk(file: h5py.File, most: int | None = None) -> None:
    """Visit every object of a file once; with `most`, also read attributes and the data of up to so many bytes each.

    Raises
    ------
    UnsoundError : a link to another file, a link without an end, or impossible sizes.
    """
    import h5py

    root = file["/"]
    seen, waiting, soft = {h5py.h5o.get_info(root.id).addr}, [root], []
    while waiting:
        group = waiting.pop()
        _check_attributes(group, most)
        for name in group:
            link, where = group.get(name, getlink=True), _shown(f"{(group.name or '').rstrip('/')}/{name}")
            if isinstance(link, h5py.ExternalLink):
                raise UnsoundError(f"{where} is a link to another file, {_shown(link.filename)}, which is not read")
            if isinstance(link, h5py.SoftLink):
                soft.append((group, name, where))
                continue
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append(item)
                continue
            _check_attributes(item, most)
            if isinstance(item, h5py.Dataset):
                _check_dataset(item, where, most)
    for group, name, where in soft:  # all links that they can pass through have been seen now
        try:
            group[name]
        except (KeyError, OSError, RuntimeError):
            raise UnsoundError(f"{where} is a link that leads nowhere, or in a circle") from None


def claimed(dataset: h5py.Dataset) -> int:
    """Return the bytes of memory that reading a dataset takes: its own, or those of one block on the disk."""
    block = math.prod(dataset.chunks) if dataset.chunks else 0
    return max(math.prod(dataset.shape or ()), block) * dataset.dtype.itemsize


def _check_attributes(item: Any, most: int | None) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        if math.prod(attribute.shape or ()) * attribute.get_type().get_size() > LARGEST_ATTRIBUTE:
            raise UnsoundError(f"the attribute {_shown(name)} of {_shown(item.name or '')} is too large")
        if most is not None:
            with contextlib.suppress(Exception):  # a type that NumPy does not know: whoever needs it will say so
                item.attrs[name]


def _check_dataset(dataset: h5py.Dataset, where: str, most: int | None) -> None:
    if dataset.external or dataset.is_virtual:
        raise UnsoundError(f"{where} has its data in other files, which are not read")
    try:
        n_bytes = claimed(dataset)
    except TypeError:  # a type that NumPy does not know
        return
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > LARGEST_BLOCK:
        raise UnsoundError(f"{where} is stored in blocks of impossible size")
    if most is None or not dataset.size or n_bytes > most:
        return
    with contextlib.suppress(Exception):  # data in an unknown compression, say: whoever needs them will say so
        if not dataset.shape:
            dataset[()]
            return
        rows = max(READ * len(dataset) // n_bytes, 1)
        for first in range(0, len(dataset), rows):
            dataset[first : first + rows]


def _shown(text: str | bytes) -> str:
    """Return a name from a file, fit for a message."""
    text = text.decode("ascii", "backslashreplace") if isinstance(text, bytes) else text
    return text.encode("ascii", "backslashreplace").decode()[:200]


def _limit(cpu_seconds: int) -> None:
    """Let the system end this process if it takes too much time, and refuse it more memory than it can need."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError):  # the system allows even less
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as file:
            loaded = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (loaded + MEMORY, loaded + MEMORY))


def _main(path: str, cpu_seconds: str, most: str, *folders: str) -> None:
    sys.path.extend(folders)
    import h5py

    _limit(int(cpu_seconds))
    reason = ""
    try:
        with h5py.File(path, "r") as file:
            walk(file, int(most))
    except MemoryError:
        reason = "opening it takes more than 1 GB of memory"
    except Exception as error:
        reason = _shown(" ".join(str(error).split()) or type(error).__name__)
    sys.stdout.write(reason)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
