"""The root of the errors that a user can cause; subclasses live beside their cause."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

LONGEST = 200
"""Characters of a value in a message."""

_REPR = Repr()
_REPR.maxlevel = 3  # values may repeat themselves on every level: no more of them is looked at than is shown
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 2 * LONGEST
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxarray = 20


class GMError(ValueError):
    """Input that cannot be used, said in one sentence: what must hold and what came."""


class DataError(GMError):
    """A data file, or a label in it, that cannot be used."""


def excerpt(value: Any, limit: int = LONGEST) -> str:
    """Return a value as a message shows it: what Python writes for it, cut off after `limit` characters.

    >>> excerpt(["papr", 3.5]), excerpt("x" * 1000, limit=12)
    ("['papr', 3.5]", "'xxxxxxxx...")
    """
    try:
        text = _REPR.repr(value)
    except Exception:  # an integer of more digits than Python writes
        text = f"a value of type {type(value).__name__}"
    return shortened(text, limit)


def shortened(text: str, limit: int = LONGEST) -> str:
    """Return a text on one line, cut off after `limit` characters."""
    text = " ".join(text[: 10 * limit].split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
