"""Refuse a misspelt name by naming the nearest one that exists."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the nearest of `known`, or "; known: ..." where none is near."""
    known = list(known)
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {by_lower[near[0]]!r}?"
    return f"; known: {', '.join(known)}"
