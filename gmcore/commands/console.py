"""Output for a terminal or a pipe with another encoding than UTF-8: plain spellings in place of what it lacks."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

SPELLINGS = {"\u2212": "-", "\u2013": "-", "\u00b1": "+-", "\u27e8": "<", "\u27e9": ">", "\u2202": "d"}
"""Minus, dash, plus-minus, angle brackets, partial derivative; other characters lose their accents and positions."""


def plain_spelling(text: str) -> str:
    """Return text in ASCII that reads like `text`, "?" for a character without one.

    Examples
    --------
    >>> plain_spelling("D −46.7 ± 0.3 cm⁻¹, Å"), plain_spelling("語")
    ('D -46.7 +- 0.3 cm-1, A', '?')
    """
    return "".join(_plain(character) for character in text)


def _plain(character: str) -> str:
    parts = "".join(SPELLINGS.get(part, part) for part in unicodedata.normalize("NFKD", character))
    return parts.encode("ascii", "ignore").decode() or "?"


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks; the protocol is that of `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain_spelling(error.object[error.start : error.end]), error.end


def never_fail_on_encoding() -> None:
    """Let stdout and stderr spell plainly what their encoding lacks, instead of failing after all work is done."""
    codecs.register_error("gmtensor-plain", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="gmtensor-plain")
