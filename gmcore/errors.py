"""The root of the errors that a user can cause; subclasses live beside their cause."""

from __future__ import annotations


class GMError(ValueError):
    """Input that cannot be used, said in one sentence: what must hold and what came."""


class DataError(GMError):
    """A data file, or a label in it, that cannot be used."""


class DamagedFileError(GMError):
    """A file that is damaged, claims more memory than it can need, or depends on other files."""
