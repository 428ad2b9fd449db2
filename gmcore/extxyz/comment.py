"""The comment line of extended XYZ: names with values, as `ase.io.extxyz.key_val_str_to_dict` understands them.

What is read here are words, numbers, lists of numbers and JSON in plain or double quotes. A line with anything else,
escapes and brackets for example, is given to ASE.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

MATRICES = {"Lattice", "virial", "stress"}
"""Names whose nine numbers are the columns of a matrix."""
_ENTRY = re.compile(r"""\s*([^\s="'{}\[\]\\]+)(?:=(?:"([^"\\]+)"|([^\s="'{}\[\]\\]+)))?(?=\s|$)""")
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:[ ,]+{_NUMBER})*")
_NOT_A_NUMBER = re.compile(r"[A-HJ-MO-Za-hj-mo-z_]")
"""How text begins that is no number: ASE takes inf and nan for numbers."""
_SAFE = re.compile(r"""[^"'\\{}\[\]]+""")
_QUOTED = re.compile(r"[ {}\[\]]")
_WORDS = re.compile(r"[^\s,]+")
_LOGICAL = dict.fromkeys(("T", "true", "True", "TRUE"), True) | dict.fromkeys(("F", "false", "False", "FALSE"), False)
_KINDS: dict[str, Any] = {
    "R": float,
    "I": int,
    "S": str,
    "L": {"T": True, "F": False, "True": True, "False": False}.get,
}
_TYPES: dict[str, np.dtype] = {"R": np.dtype("d"), "I": np.dtype("i"), "S": np.dtype(object), "L": np.dtype(bool)}
_NAMES = {"pos": "positions", "Z": "numbers", "charge": "charges", "species": "symbols"}


class Column(NamedTuple):
    """A quantity of the atoms in an extended XYZ file.

    Attributes
    ----------
    name : its name in `ase.Atoms.arrays`, or "symbols".
    first, last : its first word in a row, and one past its last.
    convert : from a word to a value.
    dtype : of the array.
    """

    name: str
    first: int
    last: int
    convert: Any
    dtype: np.dtype


def parse_comment(line: str) -> dict[str, Any]:
    """Return the entries of a comment line.

    Raises
    ------
    ValueError : ASE cannot read it.
    """
    found: dict[str, Any] = {}
    line, at = line.strip(), 0
    while at < len(line):
        entry = _ENTRY.match(line, at)
        if entry is None or entry[1].lower() == "uid":
            from ase.io.extxyz import key_val_str_to_dict

            return key_val_str_to_dict(line)
        key, text = entry[1], entry[2] or entry[3] or "T"
        known = _KNOWN.get(text) if key not in MATRICES else None
        if known is None:
            known = _value(key, text)
            if isinstance(known, (str, bool)) and len(_KNOWN) < 1000:  # texts that come again, units for example
                _KNOWN[text] = known
        found[key] = known
        at = entry.end()
    return found


_KNOWN: dict[str, str | bool] = {}
"""Values that are no numbers, by their text."""


def _value(key: str, text: str) -> Any:
    """Return a value as ASE would: numbers, a matrix, truth values, JSON, or the text."""
    numbers = None
    if _NUMBERS.fullmatch(text):
        words = text.replace(",", " ").split()
        if "." in text:  # one of them is no integer, so that none is
            numbers = np.array([float(word) for word in words])
        else:
            numbers = _numbers(words)
    elif not _NOT_A_NUMBER.match(text):
        numbers = _numbers(_WORDS.findall(text))
    if numbers is not None and len(numbers) == 1:
        numbers = numbers[0]
    if key in MATRICES:
        if numbers is None or numbers.shape != (9,):
            raise ValueError(f"{key} must be nine numbers")
        return numbers.reshape((3, 3), order="F")
    if numbers is not None:
        return numbers
    logical = [_LOGICAL.get(word) for word in _WORDS.findall(text)]
    if None not in logical:
        return logical[0] if len(logical) == 1 else logical
    if text.startswith("_JSON "):
        content = json.loads(text.replace("_JSON ", "", 1))
        array = np.array(content)
        return array if array.dtype.kind in "ifb" else content
    return text


def _numbers(words: list[str]) -> np.ndarray | None:
    for kind in (int, float):
        try:
            return np.array(words, dtype=kind)
        except (ValueError, OverflowError):
            continue
    return None


@lru_cache(maxsize=64)
def parse_properties(text: str) -> tuple[Column, ...] | None:
    """Return the columns that the entry `Properties` declares; None if they are not ordinary ones.

    Ordinary columns have one name each, elements, positions and no constraints or charges that ASE treats apart.
    """
    parts = text.split(":")
    if len(parts) % 3:
        return None
    columns, words, at = [], [], 0
    for name, kind, count in zip(parts[::3], parts[1::3], parts[2::3]):
        if kind not in _KINDS or not count.isdecimal() or not 0 < int(count) < 10000:
            return None
        n = int(count)
        columns.append(Column(_NAMES.get(name, name), at, at + n, _KINDS[kind], _TYPES[kind]))
        words += [name] if n == 1 else [f"{name}{k}" for k in range(n)]
        at += n
    by_name = {column.name: column for column in columns}
    elements = by_name.get("symbols", by_name.get("numbers"))
    positions = by_name.get("positions")
    if (
        len(by_name) != len(columns)
        or len(set(words)) != len(words)
        or elements is None
        or elements.last - elements.first != 1
        or elements.convert is not (str if elements.name == "symbols" else int)
        or ("symbols" in by_name and "numbers" in by_name)
        or positions is None
        or positions.last - positions.first != 3
        or positions.convert is not float
        or by_name.keys() & {"move_mask", "initial_charges", "initial_magmoms"}
    ):
        return None
    return tuple(columns)


def comment_entry(key: str, value: Any) -> str:
    """Return `key=value` of a comment line as ASE writes it; empty if ASE leaves it out."""
    if isinstance(value, float):  # of NumPy, too
        text = f"{value}"
    elif isinstance(value, str):
        text = value if _plain(value) else ""
    elif isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size:
        if key in MATRICES:
            text = " ".join(map(str, value.reshape(value.size, order="F").tolist()))
        elif value.ndim == 1:
            text = " ".join(map(str, value.tolist()))
        elif value.ndim > 1:
            text = f"_JSON {json.dumps(value.tolist())}"
        else:
            text = f"{value[()]}"
    else:
        text = ""
    if not text or not _plain(key):
        from ase.io.extxyz import key_val_dict_to_str

        return key_val_dict_to_str({key: value})
    quoted = '"' if _QUOTED.search(text) else ""
    return f"{key}={quoted}{text}{quoted}"


def _plain(text: str) -> bool:
    """Whether a name or a text needs no escapes."""
    return _SAFE.fullmatch(text) is not None and text.strip() == text
