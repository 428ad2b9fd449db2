"""Reference values: each is brought to one shape and meaning, or refused with the name of its structure.

==========  ===============  =============================================================================
label       shape            accepted in the file as
==========  ===============  =============================================================================
energy      ()               a number
forces      (n_atoms, 3)     the same
stress      (3, 3)           3x3, 9 numbers or 6 in Voigt order xx yy zz yz xz xy; sign of ASE: (dE/deps)/V
charges     (n_atoms,)       the same, or (n_atoms, 1)
dipole      (3,)             the same
d_tensor    (3, 3)           3x3 or 9 numbers; the trace is removed (it shifts all levels equally, H = S.D.S)
tensor      (3, 3)           3x3 or 9 numbers
==========  ===============  =============================================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from gmcore.anisotropy import detrace
from gmcore.data.frames import Frame
from gmcore.errors import DataError, excerpt
from gmcore.quantities import BY_NAME

SYMMETRY_TOLERANCE = 0.01
"""Largest |P - P^T| over largest |P| that is taken for rounding and averaged away."""

_VOIGT = ((0, 5, 4), (5, 1, 3), (4, 3, 2))
_WORDS = {(): "one number", (3,): "3 numbers", (3, 3): "3x3 or 9 numbers"}


def label_array(label: str, value: Any, frame: Frame) -> np.ndarray:
    """Return `value` as a float64 array of the label's shape; the unit is left as it is.

    Raises
    ------
    DataError : the value is not numeric, has the wrong shape, or is not finite.
    """
    quantity, n_atoms = BY_NAME[label], len(frame.numbers)
    try:
        # ASE leaves a quoted list of lists as text
        array = np.asarray(json.loads(value) if isinstance(value, str) else value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise DataError(f"{label} of {frame.origin} must be numbers, got {excerpt(value, 60)}") from None
    if quantity.per_atom:
        array = array[: len(array) - frame.padding] if array.ndim else array
        shape = (n_atoms, *quantity.shape)
        fits = array.size == np.prod(shape) and array.ndim >= 1 and len(array) == n_atoms
        wanted = f"shape {shape}"
    else:
        if label == "stress" and array.size == 6:
            array = array.reshape(6)[np.array(_VOIGT)]
        shape = quantity.shape
        fits = array.size == np.prod(shape, dtype=int)
        wanted = "3x3, 9 or 6 numbers (Voigt)" if label == "stress" else _WORDS[shape]
    if not fits:
        raise DataError(f"{label} of {frame.origin} must have {wanted}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{label} of {frame.origin} must be finite, got {array[~np.isfinite(array)].flat[0]}")
    return array.reshape(shape)


def symmetrized(label: str, values: np.ndarray, origins: Sequence[str], unit: str) -> tuple[np.ndarray, list[str]]:
    """Return tensors (n_structures, 3, 3) made symmetric, and notes on what changed; NaN rows are kept.

    Raises
    ------
    DataError : the asymmetry of a tensor exceeds `SYMMETRY_TOLERANCE` of its largest element.
    """
    transposed = values.transpose(0, 2, 1)
    asymmetry = np.abs(values - transposed).max(axis=(1, 2))
    allowed = SYMMETRY_TOLERANCE * np.abs(values).max(axis=(1, 2))
    if (asymmetry > allowed).any():
        k = int(np.argmax(np.nan_to_num(asymmetry - allowed)))
        raise DataError(
            f"{label} of {origins[k]} must be symmetric to {100 * SYMMETRY_TOLERANCE:g} % of its largest element, "
            f"got elements that differ by {asymmetry[k]:.4g} {unit}"
        )
    largest = float(np.nanmax(asymmetry, initial=0.0))
    notes = []
    if largest > 1e-9 * float(np.nanmax(np.abs(values), initial=0.0)):
        notes.append(f"{label}: averaged with the transpose, largest difference {largest:.3g} {unit}")
    return 0.5 * (values + transposed), notes


def detraced(label: str, values: np.ndarray, unit: str) -> tuple[np.ndarray, list[str]]:
    """Return tensors (n_structures, 3, 3) without their traces, and a note on the traces that were removed."""
    values, traces = detrace(values)
    notes = []
    if np.abs(traces).max(initial=0.0) > 1e-6 * np.abs(values).max(initial=0.0):
        notes.append(f"{label}: trace removed, mean {traces.mean():.4g}, standard deviation {traces.std():.3g} {unit}")
    return values, notes
