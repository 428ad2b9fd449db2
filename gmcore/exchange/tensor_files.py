"""D tensors from the files of quantum chemistry programs: choosing one, and checking its frame and values.

A D matrix means nothing without a frame: its elements refer to the frame in which the program had the atoms. Every
tensor is therefore kept with that geometry, or refused until one is given. Two geometries are compared by
superposition. If one is rotated, it is refused, or on request the tensor is rotated with it (D' = R D R^T).

Eigenvalues are never taken from a file, because some versions print zeros next to a correct matrix. The matrix is
diagonalized here, and the D and E that a program printed must agree with it within the printed digits.

========================  =========================================================================================
format                    read by
========================  =========================================================================================
orca                      `gmcore.exchange.orca`: ORCA output, SCF tensor and QDPT blocks of CASSCF and NEVPT2
orca-property             `gmcore.exchange.orca_property`: ORCA's property file in text form, SCF tensor
single-aniso              `gmcore.exchange.openmolcas`: output of SINGLE_ANISO, its geometry from OpenMolcas
plain                     `gmcore.exchange.plain_text`: three rows of three numbers
========================  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcore.errors import DataError, excerpt
from gmcore.exchange.tensors import ComputedTensor

if TYPE_CHECKING:
    from ase import Atoms

FORMATS = ("orca", "orca-property", "single-aniso", "plain")
SAME = 2e-3
"""Root mean square distance, A, below which two geometries count as one: files have few digits."""


def read_tensors(
    path: str | Path,
    format: str = "auto",
    *,
    level: str | None = None,
    contribution: str | None = None,
    unit: str | None = None,
) -> list[ComputedTensor]:
    """Read the D tensors of a file, one for each geometry that has one.

    Parameters
    ----------
    level : "scf", "casscf", "nevpt2"; needed where the file has several.
    contribution : "total", "second-order", "effective", "spin-spin", "second-order+ssc", "effective+ssc"; needed where
        the file has several.
    unit : unit of a plain matrix; other files are in cm^-1.

    Raises
    ------
    DataError : the file is missing or not in the format, has no tensor or several that fit, or contradicts itself.
    UnitError : the unit is unknown, or missing for a plain matrix.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"file {path} does not exist")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    found = _reader(_detected(text) if format == "auto" else format)(text, path.name, unit)
    if not found:
        raise DataError(f"{path.name} contains no D tensor in a known layout")
    return _chosen(found, path.name, level, contribution)


def _detected(text: str) -> str:
    head = text[:4000]
    if "!PROPERTIES!" in head or "$Calculation_Status" in head:
        return "orca-property"
    if "* O   R   C   A *" in text:
        return "orca"
    return "single-aniso" if "MAIN ANISOTROPY AXES" in text else "plain"


def _reader(name: str) -> Callable[[str, str, str | None], list[ComputedTensor]]:
    if name not in FORMATS:
        raise DataError(f"the format must be one of auto, {', '.join(FORMATS)}, got {excerpt(name)}")
    if name == "orca":
        from gmcore.exchange.orca import read_orca as reader
    elif name == "orca-property":
        from gmcore.exchange.orca_property import read_orca_property as reader
    elif name == "single-aniso":
        from gmcore.exchange.openmolcas import read_single_aniso as reader
    else:
        from gmcore.exchange.plain_text import read_plain_tensor as reader
    return reader


def _chosen(
    found: Sequence[ComputedTensor], name: str, level: str | None, contribution: str | None
) -> list[ComputedTensor]:
    """Return the one tensor of each geometry that fits what is asked for."""
    fitting = [
        tensor for tensor in found if level in (None, tensor.level) and contribution in (None, tensor.contribution)
    ]
    kinds = ", ".join(dict.fromkeys(f"'{tensor.kind}'" for tensor in found))
    if not fitting:
        asked = " ".join(part for part in (level, contribution) if part)
        raise DataError(f"{name} contains no D tensor of the kind {excerpt(asked)}; it contains {kinds}")
    for step in dict.fromkeys(tensor.step for tensor in fitting):
        several = [tensor for tensor in fitting if tensor.step == step]
        different = dict.fromkeys(f"'{tensor.kind}'" for tensor in several)
        if len(different) > 1:
            raise DataError(
                f"{name} contains several D tensors, {', '.join(different)}: choose one by level and contribution"
            )
        if len(several) > 1:
            raise DataError(
                f"{name} contains {len(several)} D tensors of the kind {several[0].kind!r} for one geometry, and "
                "nothing tells them apart: remove all but one from the file"
            )
    return fitting


def in_frame_of(tensor: ComputedTensor, geometry: Atoms | None, rotate: bool = False) -> ComputedTensor:
    """Return the tensor with the geometry that it belongs to, in the frame of `geometry` where that is given.

    Parameters
    ----------
    geometry : the same atoms in the same order; taken for the tensor's frame where its file has no geometry.
    rotate : rotate the tensor where `geometry` is rotated against the file's.

    Raises
    ------
    DataError : there is no geometry, it has other atoms or another shape, or it is rotated and `rotate` is False.
    GeometryError : all atoms lie on one line, so the rotation is not defined.
    """
    if geometry is None:
        if tensor.atoms is None:
            raise DataError(
                f"the tensor of {tensor.origin} needs the geometry that defines its frame: give one (--geometry)"
            )
        return tensor
    if tensor.atoms is None:
        return replace(tensor, atoms=geometry)
    if not np.array_equal(tensor.atoms.numbers, geometry.numbers):
        raise DataError(
            f"the geometry must have the atoms of {tensor.origin} in the same order, {tensor.atoms.symbols}, "
            f"got {geometry.symbols}"
        )
    ours, theirs = (atoms.positions - atoms.positions.mean(axis=0) for atoms in (tensor.atoms, geometry))
    if _rms(ours - theirs) < SAME:
        return replace(tensor, atoms=geometry)
    from gmcore.molecules.superposition import align

    rotation = align(ours[None], theirs)[0]
    apart = _rms(ours @ rotation.T - theirs)
    if apart >= SAME:
        raise DataError(
            f"the geometry must be that of {tensor.origin}, got one that differs by {apart:.3g} A after superposition"
        )
    angle = float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0))))
    if not rotate:
        raise DataError(
            f"the geometry must be in the frame of {tensor.origin}, got one rotated by {angle:.3g} degrees "
            "(use --rotate to rotate the tensor with it)"
        )
    note = f"rotated by {angle:.3g} degrees into the frame of the geometry"
    return replace(tensor, tensor=rotation @ tensor.tensor @ rotation.T, atoms=geometry, notes=(*tensor.notes, note))


def _rms(differences: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(differences**2, axis=1))))
