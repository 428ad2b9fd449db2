"""Damage of JSON and YAML by structure, and of the rows of an ASE database."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import yaml

from fuzz.mutations import DEPTHS, Unreadable

VALUES = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 10**12, 2**32 + 6, 2**63, -(2**63) - 1, 10**400, "", "a", "-1"),
    *(
        "1e999",
        "nan",
        "~nosuchuser",
        "/dev/null",
        ".",
        "..",
        "\x00",
        "\ud800",
        "x" * 20000,
        [],
        {},
        [[]],
        [{}],
        {"": 0},
    ),
    *({"a": {"b": [1]}}, [1, "a", None], [[1], [1, 2]], list(range(1000)), {"__ndarray__": [[-1], "float64", []]}),
    *({"__ndarray__": [[10**10], "float64", [1.0]]}, {"__complex__": [1, "a"]}, {"__datetime__": "x"}),
    *({"__ase_objtype__": "cell", "array": 1}, {"__ndarray__": 5}, float("nan"), float("inf"), -float("inf")),
)
NESTED = "nested here"


def damaged_tree(content: bytes, structure: str, rng: Random, target: Path) -> tuple[bytes, str]:
    """Change one node of a JSON or YAML file."""
    try:
        tree = json.loads(content) if structure == "json" else yaml.load(content, Loader=yaml.CSafeLoader)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise Unreadable from error
    places = _places(tree)
    if not places:
        raise Unreadable
    holder, key = rng.choice(places)
    where, what = f"of {key!r}", rng.randrange(8)
    if what == 0:
        del holder[key]
        words = f"{key!r} removed"
    elif what == 1:
        other, name = rng.choice(places)
        holder[key] = json.loads(
            json.dumps(other.get(name) if isinstance(other, dict) else _item(other, name), default=str)
        )
        words = f"value {where} is now that of {name!r}"
    elif what == 2 and isinstance(holder, dict):
        holder[rng.choice(("", "a", "units", "0", "format"))] = holder.pop(key)
        words = f"{key!r} renamed"
    elif what == 3 and isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice((1, 3, 1000))
        words = f"item {key} repeated"
    elif what == 4:
        holder[key] = NESTED
        words = f"value {where} nested deeply"
    elif what == 5:
        holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))
        words = f"value {where} wrapped"
    else:
        value = rng.choice(VALUES)
        holder[key] = value
        words = (
            f"value {where} is now {str(value)[:40]!r}" if not isinstance(value, int) else f"value {where} is a number"
        )
    return _dumped(tree, structure, rng), words


def _item(items: Any, k: int) -> Any:
    return items[k] if k < len(items) else None


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return (holder, key) of every node; long lists of numbers count once, or they would be all that is hit."""
    if isinstance(tree, dict):
        found = [(tree, key) for key in tree]
        return found + [place for value in tree.values() for place in _places(value)]
    if isinstance(tree, list) and tree:
        shown = tree[:3] if all(isinstance(item, (int, float)) for item in tree) else tree
        return [(tree, k) for k in range(len(shown))] + [place for value in shown for place in _places(value)]
    return []


def _dumped(tree: Any, structure: str, rng: Random) -> bytes:
    if structure == "json":
        text = _json(tree)
    else:
        try:
            text = yaml.dump(tree, Dumper=yaml.CSafeDumper, allow_unicode=False)
        except (yaml.YAMLError, UnicodeError, ValueError):  # JSON is YAML, nearly
            text = _json(tree)
    depth, (left, right) = rng.choice(DEPTHS), rng.choice((("[", "]"), ('{"a":', "}")))
    return (
        text.replace(f'"{NESTED}"', NESTED).replace(NESTED, left * depth + "1" + right * depth).encode(errors="replace")
    )


def _json(tree: Any) -> str:
    """JSON with numbers of any length, which Python writes as text up to 4300 digits only."""
    return json.dumps(tree, default=str)


def damaged_database(content: bytes, structure: str, rng: Random, target: Path) -> tuple[bytes, str]:
    """Change one cell, or the tables, of an ASE database."""
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    values = (
        None,
        -1,
        0,
        10**12,
        1.5,
        "a",
        "",
        "{",
        '{"a": 1}',
        "[[[1]]]",
        b"",
        b"\x00" * 7,
        b"\xff" * 24,
        b"\x00" * 24,
    )
    try:
        connection = sqlite3.connect(target)
        with connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            table = rng.choice(sorted(tables))
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            column, value = rng.choice(columns), rng.choice(values)
            if rng.random() < 0.1:
                connection.execute(f"DROP TABLE {table}")
                words = f"table {table} removed"
            elif rng.random() < 0.1:
                connection.execute(f"DELETE FROM {table}")
                words = f"table {table} emptied"
            else:
                connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
                words = f"{column} of {table} is now {value!r}"
        connection.close()
    except (sqlite3.Error, IndexError) as error:
        raise Unreadable from error
    return target.read_bytes(), words
