"""One structure as it is in its file: what every reader yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


@dataclass
class Frame:
    """One structure as it is in its file.

    Attributes
    ----------
    atoms : positions, numbers, cell and pbc in the file's length unit, no calculator.
    fields : every other named value of the structure.
    origin : where it is, for error messages: "frame 12 of train.extxyz".
    units : units that the file itself states, by field name and "length"; empty for most formats.
    padding : rows that follow the last atom in the fields with one row per atom.
    """

    atoms: Atoms
    fields: dict[str, np.ndarray]
    origin: str
    units: dict[str, str] = field(default_factory=dict)
    padding: int = 0
