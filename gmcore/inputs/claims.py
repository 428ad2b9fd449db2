"""How much memory a file may claim: a damaged or compressed file of a few kB can ask for any amount."""

from __future__ import annotations

import os

from gmcore.errors import DamagedFileError

ALLOWANCE = 2**26
"""Bytes that any file may claim."""

RATIO = 100
"""Bytes that a file may claim beyond that, per byte of its own; positions and labels compress less than this."""


def claimable(n_stored: int) -> int:
    """Return the number of bytes that a file of `n_stored` bytes may claim."""
    return ALLOWANCE + RATIO * n_stored


def check_claim(path: str | os.PathLike, what: str, n_bytes: int) -> None:
    """Refuse data that would take more memory than a file of this size can hold.

    Raises
    ------
    DamagedFileError : the claim is too large; the message names `what` and the file.
    """
    n_stored = os.stat(path).st_size
    if n_bytes > claimable(n_stored):
        raise DamagedFileError(
            f"{what} of {path} would take {_size(n_bytes)} of memory, the file itself has {_size(n_stored)}: "
            "it is damaged, or was made to fill the memory; use another copy of it"
        )


def _size(n_bytes: int) -> str:
    """Return a number of bytes in a unit that suits it.

    >>> _size(7000), _size(12 * 10**9)
    ('7.0 kB', '12.0 GB')
    """
    size, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000.0 and len(units) > 1:
        size, units = size / 1000.0, units[1:]
    return f"{size:.1f} {units[0]}" if size < 1e6 else f"{size:.1e} {units[0]}"
