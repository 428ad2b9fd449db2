"""Formats of data files, recognized by their suffixes. No reader is imported, so a configuration is checked quickly."""

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
    """Return the format of a file: the declared one, or for "auto" the one that belongs to its suffix.

    Raises
    ------
    DataError : the suffix is unknown.

    Examples
    --------
    >>> file_format("frames.xyz")
    'extxyz'
    """
    if declared != "auto":
        return declared
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"the format of {path} is unknown, because its suffix {excerpt(suffix)} is not one of "
            f"{', '.join(SUFFIXES)}: rename the file or state its format"
        )
    return SUFFIXES[suffix]
