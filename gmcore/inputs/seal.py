"""The seal of a file: one line at its end with the SHA-256 of all bytes before it.

HDF5 ignores bytes behind its own end, so a sealed file is opened by any program. A program that opens it for writing
cuts the seal off; the file then counts as one without a seal. The seal finds damage. It proves nothing about who wrote
the file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from gmcore.errors import DamagedFileError

MARK = b"\ngmtensor sha256 "
LENGTH = len(MARK) + 64 + 1
BLOCK = 2**20


def seal_of(content: bytes) -> bytes:
    """Return the seal of a content."""
    return _line(hashlib.sha256(content).hexdigest())


def seal_file(path: Path) -> None:
    """Append its seal to a file that has none."""
    digest = _digest(path, path.stat().st_size)
    with open(path, "ab") as file:
        file.write(_line(digest))


def is_sealed(path: str | os.PathLike) -> bool:
    """Whether a file has a seal, which then fits its bytes.

    Raises
    ------
    DamagedFileError : the seal does not fit.
    """
    path = Path(path)
    n_bytes = path.stat().st_size - LENGTH
    if n_bytes < 0:
        return False
    with open(path, "rb") as file:
        file.seek(n_bytes)
        end = file.read(LENGTH)
    if MARK not in end:
        return False
    if end != _line(_digest(path, n_bytes)):
        raise DamagedFileError(
            f"{path} is truncated or damaged: its bytes do not have the checksum that stands at its end; "
            "use another copy of it"
        )
    return True


def _line(digest: str) -> bytes:
    return MARK + digest.encode() + b"\n"


def _digest(path: Path, n_bytes: int) -> str:
    """SHA-256 of the first bytes of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while n_bytes > 0 and (block := file.read(min(BLOCK, n_bytes))):
            digest.update(block)
            n_bytes -= len(block)
    return digest.hexdigest()
