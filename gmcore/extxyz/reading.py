"""Frames of extended XYZ files, one after another, with a part of a file in memory.

Sizes that a file claims are compared with what it has before anything is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.data import atomic_numbers
from ase.io import iread, read
from ase.io.extxyz import per_config_properties

from gmcore.extxyz.comment import Column, parse_comment, parse_properties
from gmcore.formats import OddLines, check_columns, xyz_contents
from gmcore.kernels.text_cpu import parse_numbers, split_rows

BLOCK = 64
"""Frames that are converted together."""
DEFAULT = "species:S:1:pos:R:3"


class XYZFrame(NamedTuple):
    """An ordinary frame of an extended XYZ file.

    Attributes
    ----------
    numbers : (n_atoms,) int64.
    positions : (n_atoms, 3) float64, in the unit of the file.
    cell : (3, 3) float64, rows are the cell vectors; zeros if the file has none.
    pbc : (3,) bool.
    fields : all other values under the names in the file; a stress has the six numbers of ASE.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    fields: dict[str, Any]


def read_xyz_frames(path: Path, start: int = 0) -> Iterator[XYZFrame | Atoms]:
    """Yield the frames of a file from number `start` on: ordinary ones as arrays, others as ASE reads them.

    Raises
    ------
    DataError : the file claims more atoms or columns than it has.
    Exception : whatever ASE raises for what it cannot read.
    """
    number, contents = start, xyz_contents(path, start)
    try:
        while block := list(islice(contents, BLOCK)):
            yield from _ordinary([content for _, content in block]) or _one_by_one(block, path)
            number += len(block)
    except OddLines:
        yield from islice(iread(path, index=":", format="extxyz"), number, None)


def _one_by_one(block: list[tuple[int, list[bytes]]], path: Path) -> Iterator[XYZFrame | Atoms]:
    for line, content in block:
        found = _ordinary([content])
        yield found[0] if found else _by_ase(content, path, line)


def count_xyz_frames(path: Path) -> int:
    """Return the number of frames of a file.

    Raises
    ------
    DataError : a frame claims more atoms than the file can hold.
    Exception : whatever ASE raises for what it cannot read.
    """
    try:
        return sum(1 for _ in xyz_contents(path, rows=False))
    except OddLines:
        return sum(1 for _ in iread(path, index=":", format="extxyz"))


def _ordinary(contents: list[list[bytes]]) -> list[XYZFrame] | None:
    """Return frames with the same columns, read by the conversions of ASE without the rest of it.

    None if ASE must see one of them.
    """
    try:
        comments = [parse_comment(content[1].decode()) for content in contents]
        (properties,) = {info.pop("Properties", DEFAULT) for info in comments}
        columns = parse_properties(properties)
        counts = [int(content[0]) for content in contents]
        if columns is None or 0 in counts or [len(content) - 2 for content in contents] != counts:
            return None
        table = _Table(b"".join(row for content in contents for row in content[2:]), sum(counts), columns[-1].last)
        arrays = {column.name: table.array(column) for column in columns}
        first, frames = 0, []
        for n_atoms, info in zip(counts, comments):
            own = {name: array[first : first + n_atoms] for name, array in arrays.items()}
            frames.append(_frame(own, info))
            first += n_atoms
        return frames
    except Exception:  # whatever it is, ASE says it better
        return None


class _Table:
    """The rows of frames as words.

    Raises
    ------
    ValueError : a row has another number of words, or there are other characters than those of ASCII.
    """

    def __init__(self, text: bytes, n_rows: int, n_columns: int):
        if not text.endswith(b"\n"):
            text += b"\n"
        self._text, self._bytes = text, np.frombuffer(text, np.uint8)
        self._words = np.empty((n_rows, n_columns, 2), np.int64)
        if split_rows(self._bytes, self._words) != n_rows:
            raise ValueError("the rows must have as many words as there are columns")

    def array(self, column: Column) -> np.ndarray:
        """Return the values of a quantity, of elements their atomic numbers."""
        words = self._words[:, column.first : column.last]
        if column.name == "symbols":
            return self._elements(words[:, 0])
        if column.convert is float:
            values = self._numbers(np.ascontiguousarray(words).reshape(-1, 2))
        else:
            values = np.array(
                [column.convert(self._word(*word)) for word in words.reshape(-1, 2).tolist()], column.dtype
            )
        return values.reshape(words.shape[:2]) if words.shape[1] > 1 else values

    def _word(self, start: int, end: int) -> str:
        return self._text[start:end].decode()

    def _numbers(self, words: np.ndarray) -> np.ndarray:
        values, known = np.empty(len(words)), np.empty(len(words), bool)
        parse_numbers(self._bytes, words, values, known)
        for k in np.flatnonzero(~known):
            values[k] = float(self._word(*words[k]))
        return values

    def _elements(self, words: np.ndarray) -> np.ndarray:
        first, last = words.T
        if (last - first).max() > 2:
            raise ValueError("a symbol has one or two letters")
        second = np.where(last - first == 2, self._bytes[last - 1].astype(np.int64), 0)
        codes = self._bytes[first] + 256 * second
        numbers = _ELEMENTS[codes]
        if numbers.min() < 0:
            raise ValueError("a word is no element")
        return numbers


def _element_table() -> np.ndarray:
    """(65536,) atomic number by the one or two characters of a symbol in any case; -1 for others."""
    table = np.full(1 << 16, -1)
    for symbol, number in atomic_numbers.items():
        for spelling in {symbol, symbol.lower(), symbol.upper(), symbol.swapcase()}:
            if 1 <= len(spelling) <= 2:
                table[int.from_bytes(spelling.encode(), "little")] = number
    return table


_ELEMENTS = _element_table()


def _frame(arrays: dict[str, np.ndarray], info: dict[str, Any]) -> XYZFrame:
    """Return a frame of its columns and the entries of its comment line; any error is a reason to ask ASE."""
    lattice, pbc = info.pop("Lattice", None), info.pop("pbc", None)
    if pbc is None:
        pbc = lattice is not None
    elif not isinstance(pbc, bool) and not (isinstance(pbc, list) and len(pbc) == 3):
        raise ValueError("pbc must be one or three truth values")
    numbers = arrays.pop("symbols") if "symbols" in arrays else arrays.pop("numbers").astype(np.int64)
    positions = arrays.pop("positions")
    results = {name: arrays.pop(name) for name in list(arrays) if name in all_properties}
    if "stress" in info:
        info["stress"] = info["stress"][(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
    results |= {name: info.pop(name) for name in list(info) if name in per_config_properties}
    for name in results.keys() - {"energy", "magmom", "free_energy"}:  # the rest is numbers for ASE
        results[name] = np.array(results[name], float)
    cell = np.zeros((3, 3)) if lattice is None else np.ascontiguousarray(lattice.T, dtype=float)
    pbc = np.array(pbc if isinstance(pbc, list) else [pbc] * 3)
    return XYZFrame(numbers, positions, cell, pbc, results | info | arrays)


def _by_ase(content: list[bytes], path: Path, line: int) -> Atoms:
    """Let ASE read a frame, after its claims were checked."""
    check_columns(content, path, line)
    # as a text file is opened: lines may end in any way
    return read(StringIO(b"".join(content).decode(), newline=None), index=0, format="extxyz")
