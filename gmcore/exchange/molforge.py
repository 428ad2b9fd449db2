"""Derivatives of D for MolForge, a program for spin relaxation.

The file that `FILENAME` of a section `&DSI_BATH kind` names, with `NORDER 1`:

    nderiv
    l v                    l = 3 (i - 1) + a: atom i, direction a, from 1; v: cell of the supercell, from 1
    D_xx D_xy D_xz         dD/dx, cm^-1/A, three rows
    D_yx D_yy D_yz
    D_zx D_zy D_zz

Atoms are numbered as in MolForge's own unit cell. Layout, indices and units are those of its source code
(github LunghiGroup/MolForge: Spiral/parse_input.f90, parse_DSIbath; Modules/def_spinphonon.f90, cart2brill, where
the modes are given in A). Derivatives of second order (`NORDER 2`) are not written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import ExportError
from gmcore.files import atomic_path

SUFFIXES = (".dat", ".txt")


def write_molforge(
    path: str | os.PathLike,
    gradient: ArrayLike,
    atoms: Sequence[int] | None = None,
    cells: Sequence[int] | None = None,
) -> None:
    """Write dD/dx for `&DSI_BATH` of MolForge, whole or not at all.

    Parameters
    ----------
    gradient : (n_atoms, 3, 3, 3), cm^-1/A, as of `d_tensor_gradient`.
    atoms : number of each atom in MolForge's unit cell, from 1; their own order if not given.
    cells : number of the cell of the supercell in which each atom lies, from 1; the first cell if not given.

    Raises
    ------
    ExportError : wrong shapes, values that are not finite, numbers below 1, or two atoms in the same place.
    WriteError : the disk is full or the folder cannot be written to.
    """
    derivatives = np.asarray(gradient, np.float64)
    if derivatives.ndim != 4 or derivatives.shape[1:] != (3, 3, 3) or not len(derivatives):
        raise ExportError(f"derivatives must have shape (n_atoms, 3, 3, 3), got {derivatives.shape}")
    if not np.isfinite(derivatives).all():
        n_wrong = np.count_nonzero(~np.isfinite(derivatives))
        raise ExportError(f"derivatives must be finite, got {n_wrong} values that are NaN or infinite")
    places = _numbers("atoms", atoms, range(1, len(derivatives) + 1)), _numbers("cells", cells, [1] * len(derivatives))
    if any(len(numbers) != len(derivatives) for numbers in places):
        raise ExportError(
            f"atoms and cells must be lists of {len(derivatives)} numbers, got {len(places[0])} and {len(places[1])}"
        )
    if len(set(zip(*places))) != len(derivatives):
        raise ExportError(
            "every atom must have a place of its own in MolForge's supercell, but two atoms have the same one: "
            "correct the numbers of atoms and cells"
        )
    lines = [str(3 * len(derivatives))]
    for atom, cell, of_atom in zip(*places, derivatives):
        for a, tensor in enumerate(of_atom, start=1):
            lines.append(f"{3 * (atom - 1) + a} {cell}")
            lines += [" ".join(f"{value: .12e}" for value in row) for row in tensor]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def _numbers(name: str, given: Sequence[int] | None, default: Sequence[int]) -> list[int]:
    """Return numbers that count from 1."""
    numbers = np.asarray(list(default) if given is None else given)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.min(initial=1) < 1:
        raise ExportError(f"{name} must be whole numbers that count from 1, got {numbers.tolist()}")
    return numbers.tolist()
