"""D and its derivatives for programs that simulate spins: MolForge (spin relaxation) and EasySpin (EPR spectra).

**MolForge**, the file that `FILENAME` of a section `&DSI_BATH kind` names, with `NORDER 1`:

    nderiv
    l v                    l = 3 (i - 1) + a: atom i, direction a, from 1; v: cell of the supercell, from 1
    D_xx D_xy D_xz         dD/dx, cm^-1/A, three rows
    D_yx D_yy D_yz
    D_zx D_zy D_zz

Atoms count as in MolForge's own unit cell. Layout, indices and units are those that its source reads and uses
(github LunghiGroup/MolForge: Spiral/parse_input.f90, parse_DSIbath; Modules/def_spinphonon.f90, cart2brill, where
the modes are given in A). Derivatives of second order (`NORDER 2`) are not written.

**EasySpin**, a script for MATLAB that sets `Sys.D`, the principal values of D in MHz, and `Sys.DFrame`, the Euler
angles in radians that turn the molecular frame into the frame of the tensor: about z, then the new y, then the new z,
counterclockwise. With R = erot(Sys.DFrame) = Rz(gamma) Ry(beta) Rz(alpha) of passive rotations

    R = [ cg cb ca - sg sa    cg cb sa + sg ca   -cg sb ]
        [-sg cb ca - cg sa   -sg cb sa + cg ca    sg sb ]        D = R^T diag(Sys.D) R,
        [ sb ca               sb sa               cb    ]

so the rows of R are the principal axes in the molecular frame (easyspin.org: frames, eulerangles; source: erot.m,
ham_zf.m). The molecular frame is that of the coordinates. This is `DFrame` of EasySpin 5 and later; the `Dpa` of
version 4 went the other way and is not written. The axes are ordered so that z belongs to the value of largest
magnitude and D_x >= D_y, thus E = (D_x - D_y)/2 >= 0. A trace is removed: it shifts all levels alike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from gmcore.anisotropy import detrace, zfs_parameters
from gmcore.errors import GMError
from gmcore.files import atomic_path
from gmcore.units import conversion

MOLFORGE_SUFFIXES, EASYSPIN_SUFFIXES = (".dat", ".txt"), (".m",)

POLE = 1e-8
"""sin(beta) below which alpha and gamma turn about the same axis and only their sum is defined: gamma is then 0."""


class ExportError(GMError):
    """What another program could not read, or would misread."""


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
    ExportError : wrong shapes, values that are not finite, numbers below 1, or an atom that comes twice.
    """
    gradient = np.asarray(gradient, np.float64)
    if gradient.ndim != 4 or gradient.shape[1:] != (3, 3, 3) or not len(gradient):
        raise ExportError(f"derivatives must have shape (n_atoms, 3, 3, 3), got {gradient.shape}")
    if not np.isfinite(gradient).all():
        raise ExportError(
            f"derivatives must be finite, got {np.count_nonzero(~np.isfinite(gradient))} values that are not"
        )
    places = _numbers("atoms", atoms, range(1, len(gradient) + 1)), _numbers("cells", cells, [1] * len(gradient))
    if any(len(numbers) != len(gradient) for numbers in places):
        raise ExportError(f"atoms and cells must be {len(gradient)} numbers, got {len(places[0])} and {len(places[1])}")
    if len(set(zip(*places))) != len(gradient):
        raise ExportError("every atom must have its own place in MolForge's supercell, got one twice")
    lines = [str(3 * len(gradient))]
    for atom, cell, of_atom in zip(*places, gradient):
        for a, tensor in enumerate(of_atom, start=1):
            lines.append(f"{3 * (atom - 1) + a} {cell}")
            lines += [" ".join(f"{value: .12e}" for value in row) for row in tensor]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_easyspin(path: str | os.PathLike, tensor: ArrayLike, spin: float | None = None) -> None:
    """Write a MATLAB script that sets `Sys.D` and `Sys.DFrame`, and `Sys.S` where the spin is given.

    Parameters
    ----------
    tensor : (3, 3), cm^-1, in the frame of the coordinates.
    spin : 1, 3/2, 2, ...: without one half-integer or integer there is no zero-field splitting.

    Raises
    ------
    ExportError : a spin without zero-field splitting; TensorError : no D tensor.
    """
    if spin is not None and not (spin >= 1.0 and float(2.0 * spin).is_integer()):
        raise ExportError(f"the spin must be 1, 3/2, 2, ... to have a zero-field splitting, got {spin:g}")
    values, angles = easyspin_frame(tensor)
    d, e, *_ = zfs_parameters(tensor)
    lines = [
        "% zero-field splitting, written by gmtensor",
        f"% D = {d:.6f} cm^-1, E = {e:.6f} cm^-1; frame: Cartesian axes of the coordinates",
        *([] if spin is None else [f"Sys.S = {Fraction(spin).limit_denominator(2)};"]),
        f"Sys.D = [{' '.join(f'{value:.6f}' for value in values)}];  % MHz",
        f"Sys.DFrame = [{' '.join(f'{angle:.12f}' for angle in angles)}];  % rad, molecular frame -> D frame",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")


def easyspin_frame(tensor: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Principal values (3,) in MHz and Euler angles (3,) in radians of a D tensor (3, 3) in cm^-1.

    alpha and gamma lie between -pi and pi, beta between 0 and pi. TensorError: no D tensor.
    """
    traceless, _ = detrace(tensor)
    if traceless.shape != (3, 3):
        raise ExportError(f"one tensor of shape (3, 3) is needed, got {traceless.shape}")
    values, vectors = np.linalg.eigh(traceless)
    order = [1, 0, 2] if values[2] >= -values[0] else [2, 1, 0]  # D_x >= D_y, |D_z| largest
    axes = vectors[:, order].T
    axes[2] *= np.sign(axes[2, np.abs(axes[2]).argmax()])
    axes[1] *= np.sign(np.linalg.det(axes))
    sin_beta = np.hypot(axes[2, 0], axes[2, 1])
    beta = np.arctan2(sin_beta, axes[2, 2])
    if sin_beta > POLE:
        alpha, gamma = np.arctan2(axes[2, 1], axes[2, 0]), np.arctan2(axes[1, 2], -axes[0, 2])
    else:
        alpha, gamma = np.arctan2(-axes[1, 0], axes[1, 1]), 0.0
    return values[order] / conversion("d_tensor", "MHz")[0], np.array([alpha, beta, gamma])


def _numbers(name: str, given: Sequence[int] | None, default: Sequence[int]) -> list[int]:
    """Numbers that count from 1."""
    numbers = np.asarray(list(default) if given is None else given)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.min(initial=1) < 1:
        raise ExportError(f"{name} must be whole numbers that count from 1, got {numbers.tolist()}")
    return numbers.tolist()
