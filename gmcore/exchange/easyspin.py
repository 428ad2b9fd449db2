"""D for EasySpin, a program for EPR spectra.

A script for MATLAB that sets `Sys.D`, the principal values of D in MHz, and `Sys.DFrame`, the Euler angles in radians
that rotate the molecular frame into the frame of the tensor: about z, then the new y, then the new z, counterclockwise.
With R = erot(Sys.DFrame) = Rz(gamma) Ry(beta) Rz(alpha) of passive rotations

    R = [ cg cb ca - sg sa    cg cb sa + sg ca   -cg sb ]
        [-sg cb ca - cg sa   -sg cb sa + cg ca    sg sb ]        D = R^T diag(Sys.D) R,
        [ sb ca               sb sa               cb    ]

so the rows of R are the principal axes in the molecular frame (easyspin.org: frames, eulerangles; source: erot.m,
ham_zf.m). The molecular frame is that of the coordinates. This is `DFrame` of EasySpin 5 and later; the `Dpa` of
version 4 has the opposite convention and is not written. The axes are ordered so that z belongs to the value of largest
magnitude and D_x >= D_y, thus E = (D_x - D_y)/2 >= 0. A trace is removed, because it shifts all levels equally.
"""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from gmcore.anisotropy import detrace, zfs_parameters
from gmcore.errors import ExportError
from gmcore.files import atomic_path
from gmcore.units import conversion

SUFFIXES = (".m",)

POLE = 1e-8
"""sin(beta) below which alpha and gamma are about the same axis: only their sum is defined, and gamma is set to 0."""


def write_easyspin(path: str | os.PathLike, tensor: ArrayLike, spin: float | None = None) -> None:
    """Write a MATLAB script that sets `Sys.D` and `Sys.DFrame`, and `Sys.S` where the spin is given.

    Parameters
    ----------
    tensor : (3, 3), cm^-1, in the frame of the coordinates.
    spin : 1, 3/2, 2, ...; smaller spins have no zero-field splitting.

    Raises
    ------
    ExportError : the spin has no zero-field splitting, or there is more than one tensor.
    TensorError : the matrix is not a D tensor.
    WriteError : the disk is full or the folder cannot be written to.
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
    """Return principal values (3,) in MHz and Euler angles (3,) in radians of a D tensor (3, 3) in cm^-1.

    alpha and gamma lie between -pi and pi, beta between 0 and pi.

    Raises
    ------
    TensorError : the matrix is not a D tensor.
    ExportError : there is more than one tensor.
    """
    traceless, _ = detrace(tensor)
    if traceless.shape != (3, 3):
        raise ExportError(f"EasySpin needs one tensor of shape (3, 3), got {traceless.shape}")
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
