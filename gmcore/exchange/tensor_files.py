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
rassi-h5                  `gmcore.exchange.rassi`: rassi.h5 of OpenMolcas, compared with an output beside it
plain                     `gmcore.exchange.plain_text`: three rows of three numbers
========================  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gmcore.errors import DataError, excerpt
from gmcore.exchange.openmolcas import read_single_aniso
from gmcore.exchange.openmolcas_gradients import lowest_state_forces
from gmcore.exchange.openmolcas_runs import calculations
from gmcore.exchange.rassi import SUFFIX, compare_with_text, read_rassi
from gmcore.exchange.tensors import ComputedTensor
from gmcore.inputs.hdf5 import has_signature

if TYPE_CHECKING:
    from ase import Atoms

FORMATS = ("orca", "orca-property", "single-aniso", "rassi-h5", "plain")
ORCA_BANNER = "* O   R   C   A *"
OUTPUTS = (".out", ".log", SUFFIX)
"""Names of the files of a folder that are read."""
_OPENMOLCAS = ("MAIN ANISOTROPY AXES", "This run of MOLCAS", "--- Start Module:")
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
    DamagedFileError : an HDF5 file is damaged.
    UnitError : the unit is unknown, or missing for a plain matrix.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"file {path} does not exist")
    if format == "rassi-h5" or (format == "auto" and (path.name.endswith(SUFFIX) or has_signature(path))):
        return _chosen(
            [_beside_text(tensor, path) for tensor in read_rassi(path, unit)], str(path), level, contribution
        )
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    found = _reader(_detected(text) if format == "auto" else format)(text, str(path), unit)
    if not found:
        raise DataError(f"{path} contains no D tensor in a known layout")
    return _chosen(found, str(path), level, contribution)


def tensor_paths(given: Sequence[Path]) -> list[Path]:
    """Return the files that paths, folders and patterns name, each once, in the order given and then by name.

    A folder stands for the files in it that end in .out, .log or .rassi.h5. An output whose rassi.h5 is among the files
    is left out: it is read with it.

    Raises
    ------
    DataError : a path does not exist, or a folder or pattern has no files.
    """
    found: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            named = sorted(file for file in path.iterdir() if file.name.endswith(OUTPUTS) and file.is_file())
        elif path.exists() or not has_magic(str(path)):
            named = [path]
        else:
            named = sorted(map(Path, glob(str(path), recursive=True)))
        if not named:
            raise DataError(f"{path} names no output: a folder must have files that end in {', '.join(OUTPUTS)}")
        found |= dict.fromkeys(named)
    beside = {text_beside(path) for path in found}
    return [path for path in found if path not in beside]


def text_beside(path: Path) -> Path | None:
    """The output of OpenMolcas that belongs to a rassi.h5 file by its name: a.out or a.log beside a.rassi.h5."""
    if not path.name.endswith(SUFFIX):
        return None
    names = (path.with_name(path.name.removesuffix(SUFFIX) + suffix) for suffix in (".out", ".log"))
    return next((name for name in names if name.is_file()), None)


def _beside_text(tensor: ComputedTensor, path: Path) -> ComputedTensor:
    """The tensor, if the output beside its file, where there is one, ended well and has the same molecule and D."""
    beside = text_beside(path)
    if beside is None:
        return tensor
    text = beside.read_text(encoding="utf-8-sig", errors="replace")
    if _detected(text) != "single-aniso":
        return tensor
    if "MAIN ANISOTROPY AXES" not in text:
        last = calculations(text.splitlines(), str(beside))[-1]
        _, atoms = last.geometry_before(last.stop)
        if atoms is not None:
            in_frame_of(tensor, atoms)  # refuses another molecule or frame
        positions = None if atoms is None else atoms.positions
        forces, notes = lowest_state_forces(last, positions, tensor.energy)
        return replace(tensor, notes=(*tensor.notes, *notes), charge=last.charge_before(last.stop), forces=forces)
    others = read_single_aniso(text, str(beside))
    if len(others) > 1:
        raise DataError(f"{beside} has {len(others)} D tensors and {path} only one: move one of them to another folder")
    other = others[0] if others[0].atoms is None else in_frame_of(others[0], tensor.atoms)
    notes = (*tensor.notes, compare_with_text(tensor, other), *other.notes)
    return replace(tensor, notes=notes, charge=other.charge, forces=other.forces)


def _detected(text: str) -> str:
    head = text[:4000]
    if "!PROPERTIES!" in head or "$Calculation_Status" in head:
        return "orca-property"
    if ORCA_BANNER in text:
        return "orca"
    return "single-aniso" if any(words in text for words in _OPENMOLCAS) else "plain"


def _reader(name: str) -> Callable[[str, str, str | None], list[ComputedTensor]]:
    if name not in FORMATS:
        raise DataError(f"the format must be one of auto, {', '.join(FORMATS)}, got {excerpt(name)}")
    if name == "orca":
        from gmcore.exchange.orca import read_orca as reader
    elif name == "orca-property":
        from gmcore.exchange.orca_property import read_orca_property as reader
    elif name == "single-aniso":
        reader = read_single_aniso
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
    """Return the tensor with the geometry that it belongs to, and its forces, in the frame of `geometry` if given.

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
    return replace(
        tensor,
        tensor=rotation @ tensor.tensor @ rotation.T,
        atoms=geometry,
        notes=(*tensor.notes, note),
        forces=None if tensor.forces is None else tensor.forces @ rotation.T,
    )


def _rms(differences: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(differences**2, axis=1))))
