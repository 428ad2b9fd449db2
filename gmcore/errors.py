"""The root of the errors that a user can cause; most subclasses are defined next to their cause."""

from __future__ import annotations


class GMError(ValueError):
    """Input that cannot be used; the message says what must hold, what came and what to do."""


class DataError(GMError):
    """A data file, or a label in it, that cannot be used."""


class ExportError(GMError):
    """Values that cannot be written for another program, because it could not read them or would misread them."""
