"""The spin Hamiltonian S.D.S: its levels, its tensor, and whether it describes computed levels at all.

Spin matrices refer to the states m = -S ... S, with the usual phases.
"""

from __future__ import annotations

import numpy as np

from gmcore.errors import DataError

EXACT = 0.1
"""Largest difference, cm^-1, between computed levels and those of S.D.S for S = 1 and 3/2, without other terms."""
HIGHER_TERMS = 0.1
"""The same for S >= 2, as a part of the width of the multiplet: terms of fourth order in S are not in D."""
APART = 2.0
"""The next state must lie at least this many times as high as the multiplet is wide."""


def spin_text(spin: float) -> str:
    """The spin as chemists write it.

    >>> spin_text(1.5), spin_text(2.0)
    ('3/2', '2')
    """
    return f"{round(2 * spin)}/2" if round(2 * spin) % 2 else f"{round(spin)}"


def spin_matrices(spin: float) -> np.ndarray:
    """Sx, Sy, Sz: (3, 2S + 1, 2S + 1), complex."""
    m = np.arange(-spin, spin + 0.5)
    raising = np.diag(np.sqrt(spin * (spin + 1.0) - m[:-1] * (m[:-1] + 1.0)), -1)
    return np.array([(raising + raising.T) / 2.0, (raising - raising.T) / 2.0j, np.diag(m)])


def tensor_of(hamiltonian: np.ndarray, spin: float) -> np.ndarray:
    """The traceless D, (3, 3), of the S.D.S that is nearest to a Hermitian matrix (2S + 1, 2S + 1); S >= 1."""
    s = spin_matrices(spin)
    products = np.einsum("aij,bji->ab", hamiltonian @ s, s).real
    tensor = (products + products.T) / 2.0
    tensor -= np.trace(tensor) / 3.0 * np.eye(3)
    return tensor * 30.0 / (spin * (spin + 1) * (2 * spin - 1) * (2 * spin + 1) * (2 * spin + 3))


def levels_of(tensor: np.ndarray, spin: float) -> np.ndarray:
    """Levels of S.D.S from 0 up, (2S + 1,), in the unit of `tensor`."""
    s = spin_matrices(spin)
    levels = np.linalg.eigvalsh(np.einsum("ab,aij,bjk->ik", tensor, s, s))
    return levels - levels[0]


def check_multiplet(tensor: np.ndarray, spin: float, levels: np.ndarray, above: float | None, origin: str) -> None:
    """Check that a ground multiplet is one that a D tensor describes.

    Parameters
    ----------
    tensor : (3, 3), cm^-1.
    levels : computed levels of the multiplet, (2S + 1,), cm^-1, increasing.
    above : level of the next state, cm^-1 on the same scale; None where there is none.

    Raises
    ------
    DataError : the next state lies too near, or the levels are not those of S.D.S.
    """
    apart = None if above is None else above - float(levels[0])
    levels, expected = levels - levels[0], levels_of(tensor, spin)
    shown = [", ".join(f"{level:.1f}" for level in values) for values in (expected, levels)]
    allowed = EXACT if spin < 2.0 else max(EXACT, HIGHER_TERMS * float(levels[-1]))
    if not np.abs(levels - expected).max() <= allowed:
        raise DataError(
            f"the levels of {origin} must be those of S.D.S with S = {spin_text(spin)}, {shown[0]} cm^-1, got "
            f"{shown[1]} cm^-1: the ground state is orbitally degenerate, or this is not its spin"
        )
    if apart is not None and apart < APART * float(levels[-1]):
        raise DataError(
            f"the ground multiplet of {origin} must lie apart from the other states, got levels up to "
            f"{levels[-1]:.1f} cm^-1 and the next state at {apart:.1f} cm^-1: it is nearly degenerate, or "
            f"S = {spin_text(spin)} is not its spin"
        )
