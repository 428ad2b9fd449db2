"""A D tensor as plain text: three rows of three numbers, `#` begins a comment; the unit must be stated.

The geometry that defines its frame is in a file of its own.
"""

from __future__ import annotations

import numpy as np

from gmcore.errors import DataError
from gmcore.exchange.tensors import ComputedTensor, checked_tensor, numbers_in
from gmcore.units import conversion, not_stated


def read_plain_tensor(text: str, name: str, unit: str | None = None) -> list[ComputedTensor]:
    """Return the tensor of a plain file, converted to cm^-1.

    Raises
    ------
    DataError : not three rows of three finite numbers, or not symmetric.
    UnitError : a unit that is not stated or not known.
    """
    lines = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
    if len(lines) != 3:
        raise DataError(f"{name} must contain three rows of three numbers, or be the output of a supported program")
    rows = np.array([numbers_in(line, 3, name) for line in lines])
    if unit is None:
        raise not_stated("d_tensor")
    tensor, notes = checked_tensor(rows * conversion("d_tensor", unit)[0], "cm^-1", name, 6, None)
    return [ComputedTensor(tensor, "cm^-1", None, "", "", 0, name, notes)]
