"""The command `gmtensor import`, which collects D tensors from quantum chemistry in a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import UnitOptions
from gmcore.errors import GMError

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

SUFFIXES = (".extxyz", ".xyz", ".h5", ".hdf5")


def import_tensors(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Output files of programs, or text files with a 3x3 matrix.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Data set to write: .extxyz or .h5.")],
    format: Annotated[
        str, typer.Option(help="Format of the files: auto, orca, orca-property, single-aniso or plain.")
    ] = "auto",
    level: Annotated[
        str | None, typer.Option(help="Level of theory, if a file has several: scf, casscf or nevpt2.")
    ] = None,
    contribution: Annotated[
        str | None,
        typer.Option(help="Tensor: total, second-order, effective, spin-spin, second-order+ssc or effective+ssc."),
    ] = None,
    geometry: Annotated[
        Path | None,
        typer.Option(help="Geometry to write instead of that in the file, with the same order of atoms."),
    ] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="Rotate the tensor into the frame of --geometry.")] = False,
    unit: UnitOptions = None,
) -> None:
    """Collect D tensors in a data set.

    D tensors and geometries are read from outputs of ORCA and SINGLE_ANISO, or from plain text. Each matrix is
    diagonalized and compared with the values that the program prints. A plain matrix needs a unit, for example --unit
    d_tensor=cm^-1, and a geometry: --geometry, or a file of the same name ending in .xyz.
    """
    import numpy as np

    from gmcore.commands.data import name_value_pairs
    from gmcore.data.labels import detraced
    from gmcore.evaluation.predictions import write_predictions
    from gmcore.exchange.tensor_files import in_frame_of, read_tensors
    from gmcore.outputs import check_outputs

    beside = [file.with_suffix(".xyz") for file in files]
    check_outputs([output], [*files, geometry, *beside], suffixes=SUFFIXES)
    if geometry is not None and len(files) > 1:
        raise GMError(f"--geometry can only be used with one file, got {len(files)} files")
    if rotate and geometry is None:
        raise GMError("--rotate needs --geometry, which defines the frame to rotate into")
    stated = name_value_pairs("--unit", unit, ("d_tensor",)).get("d_tensor")
    given = None if geometry is None else _geometry(geometry)
    tensors = []
    for file, near in zip(files, beside):
        for tensor in read_tensors(file, format, level=level, contribution=contribution, unit=stated):
            own = _geometry(near) if given is None and tensor.atoms is None and near.is_file() else given
            tensors.append(in_frame_of(tensor, own, rotate))
    values, notes = detraced("d_tensor", np.array([tensor.tensor for tensor in tensors]), "cm^-1")
    for tensor, value in zip(tensors, values):
        typer.echo(f"{tensor.origin}: {_described(value)}{f' ({tensor.kind})' if tensor.kind else ''}")
        for note in tensor.notes:
            typer.echo(f"  {note}")
    for note in notes:
        typer.echo(note)
    write_predictions(output, [tensor.atoms for tensor in tensors], {"d_tensor": values}, {"d_tensor": "cm^-1"})
    typer.echo(f"written: {output} ({len(tensors)} structures; d_tensor in cm^-1, lengths in A)")


def _described(value: np.ndarray) -> str:
    """D, E, E/|D| and the axis of a tensor (3, 3), cm^-1, as text."""
    from gmcore.anisotropy import zfs_parameters

    found = zfs_parameters(value)
    axis = " ".join(f"{part:.4f}" for part in found.axis)
    return f"D = {found.d:.4f}, E = {found.e:.4f} cm^-1, E/|D| = {found.e_over_d:.4f}, axis {axis}"


def _geometry(path: Path) -> Atoms:
    """Read a file with one structure."""
    from gmcore.data.reading import read_frames
    from gmcore.errors import DataError

    frames = [frame.atoms for frame in read_frames(path)]
    if len(frames) != 1:
        raise DataError(f"a geometry must be one structure, got {len(frames)} in {path}")
    return frames[0]
