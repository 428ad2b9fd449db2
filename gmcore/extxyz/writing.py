"""Frames as extended XYZ, byte for byte what `ase.io.write` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write
from ase.io.extxyz import per_atom_properties, per_config_properties
from ase.stress import voigt_6_to_full_3x3_stress

from gmcore.extxyz.comment import comment_entry
from gmcore.kernels.text_cpu import WIDTH, write_rows

COLUMNS = {"positions": "pos", "charges": "charge"}
"""Names of the file where they differ from those of ASE's arrays."""


def xyz_text(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    info: Mapping[str, Any],
    columns: Mapping[str, np.ndarray],
) -> str:
    """Return a frame.

    Parameters
    ----------
    numbers : (n_atoms,) atomic numbers.
    positions : (n_atoms, 3) float64, A.
    cell : (3, 3) float64, A, rows are the cell vectors; zeros for none.
    pbc : (3,) bool.
    info : entries of the comment line.
    columns : name -> (n_atoms,) or (n_atoms, n) float64.
    """
    values = [positions, *(np.reshape(array, (len(numbers), -1)) for array in columns.values())]
    widths = [array.shape[1] for array in values]
    names = ("positions", *columns)
    properties = ":".join(f"{COLUMNS.get(name, name)}:R:{width}" for name, width in zip(names, widths))
    entries = [f"Properties=species:S:1:{properties}"]
    if cell.any():
        entries.insert(0, f'Lattice="{" ".join(map(str, cell.ravel().tolist()))}"')
    entries += filter(None, (comment_entry(key, value) for key, value in info.items() if key != "pbc"))
    entries.append(f'pbc="{" ".join("FT"[int(along)] for along in pbc)}"')
    return f"{len(numbers)}\n{' '.join(entries)}\n{_rows(numbers, np.concatenate(values, axis=1))}"


def _rows(numbers: np.ndarray, values: np.ndarray) -> str:
    """Return the rows of a frame: symbols, and numbers as %16.8f."""
    text = np.empty((len(numbers), 3 + (WIDTH + 1) * values.shape[1]), np.uint8)
    if write_rows(_SYMBOLS[numbers], values, text):
        return text.tobytes().decode()
    row = " ".join(["%16.8f"] * values.shape[1])
    return "".join(f"{chemical_symbols[z]:<2} {row}\n" % tuple(line) for z, line in zip(numbers, values.tolist()))


_SYMBOLS = np.array([list(f"{symbol:<2}"[:2].encode()) for symbol in chemical_symbols], np.uint8)
"""(119, 2) characters of the symbols, by atomic number."""


def write_xyz(stream: TextIO, frames: Iterable[Atoms]) -> None:
    """Write structures of ASE, with the results of their calculators."""
    for atoms in frames:
        stream.write(_ordinary(atoms) or _by_ase(atoms))


def _ordinary(atoms: Atoms) -> str:
    """Return a frame without constraints whose arrays hold real numbers; nothing if ASE must write it."""
    columns = {name: array for name, array in atoms.arrays.items() if name not in ("numbers", "positions")}
    info = dict(atoms.info)
    if atoms.constraints or not len(atoms) or "pbc" in info or columns.keys() & {"symbols", "species", "pos"}:
        return ""
    for name, value in (atoms.calc.results if atoms.calc is not None else {}).items():
        if name in info or name in columns:
            return ""
        if name in per_config_properties:
            info[name] = value
        elif name in per_atom_properties:
            columns[name] = value
    if np.shape(info.get("stress", ())) == (6,):
        info["stress"] = voigt_6_to_full_3x3_stress(info["stress"])
    if not all(
        isinstance(array, np.ndarray) and array.dtype == float and array.ndim <= 2 for array in columns.values()
    ):
        return ""
    return xyz_text(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, info, columns)


def _by_ase(atoms: Atoms) -> str:
    text = StringIO()
    write(text, atoms, format="extxyz")
    return text.getvalue()
