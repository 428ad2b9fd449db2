"""Formats of data files, told from their suffixes. Needs no reader, so that a configuration is checked quickly."""

from __future__ import annotations

from pathlib import Path

from gmcore.errors import DataError, excerpt

SUFFIXES = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".traj": "ase",
    ".db": "ase",
    ".json": "ase",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}


def file_format(path: str | Path, declared: str = "auto") -> str:
    """Return the format of a file: what is declared, else what its suffix says.

    >>> file_format("frames.xyz")
    'extxyz'
    """
    if declared != "auto":
        return declared
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"the format of {path} cannot be told from its suffix {excerpt(suffix)} "
            f"(known: {', '.join(SUFFIXES)}); state it"
        )
    return SUFFIXES[suffix]
