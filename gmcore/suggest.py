"""Suggestions for misspelled names: the known name that is most similar."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that is spelled most like `name`; None if none is similar.

    Examples
    --------
    >>> nearest("r_maxx", ["r_min", "r_max"])
    'r_max'
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(str(name)[:100].lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the most similar of `known`, or "; known: ..." if none is similar."""
    known = list(known)
    near = nearest(name, known)
    return f"; known: {', '.join(known)}" if near is None else f"; did you mean {near!r}?"
