"""Command that brings D tensors from quantum chemistry into a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import UnitOptions
from gmcore.errors import GMError

if TYPE_CHECKING:
    from ase import Atoms

SUFFIXES = (".extxyz", ".xyz", ".h5", ".hdf5")


def import_tensors(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Outputs of programs, or 3x3 matrices as text.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Data set: .extxyz or .h5.")],
    format: Annotated[str, typer.Option(help="auto, orca, orca-property, single-aniso or plain.")] = "auto",
    level: Annotated[
        str | None, typer.Option(help="Energies, where a file has several: scf, casscf or nevpt2.")
    ] = None,
    contribution: Annotated[
        str | None,
        typer.Option(help="Which tensor: total, second-order, effective, spin-spin, second-order+ssc, effective+ssc."),
    ] = None,
    geometry: Annotated[
        Path | None, typer.Option(help="Geometry to write, same order of atoms; for a plain matrix its own.")
    ] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="Rotate the tensor into the frame of --geometry.")] = False,
    unit: UnitOptions = None,
) -> None:
    """Collect D tensors and their geometries from ORCA, SINGLE_ANISO or plain text into a data set.

    Every matrix is diagonalized here and compared with what its program prints. A plain matrix needs its unit, as in
    --unit d_tensor=cm^-1, and a geometry: --geometry, or a file of its name ending in .xyz.
    """
    import numpy as np

    from gmcore.commands.data import name_value_pairs
    from gmcore.data.labels import detraced
    from gmcore.evaluation.predictions import write_predictions
    from gmcore.exchange.tensor_files import in_frame_of, read_tensors

    if output.suffix.lower() not in SUFFIXES:
        raise GMError(f"the suffix of the output must be one of {', '.join(SUFFIXES)}, got {str(output)!r}")
    if geometry is not None and len(files) > 1:
        raise GMError(f"--geometry belongs to one file, got {len(files)}")
    if rotate and geometry is None:
        raise GMError("--rotate needs --geometry, the frame into which the tensors are rotated")
    stated = name_value_pairs("--unit", unit, ("d_tensor",)).get("d_tensor")
    given = None if geometry is None else _geometry(geometry)
    tensors = []
    for file in files:
        for tensor in read_tensors(file, format, level=level, contribution=contribution, unit=stated):
            beside = file.with_suffix(".xyz")
            own = _geometry(beside) if given is None and tensor.atoms is None and beside.is_file() else given
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


def _described(value) -> str:
    from gmcore.anisotropy import zfs_parameters

    found = zfs_parameters(value)
    axis = " ".join(f"{part:.4f}" for part in found.axis)
    return f"D = {found.d:.4f}, E = {found.e:.4f} cm^-1, E/|D| = {found.e_over_d:.4f}, axis {axis}"


def _geometry(path: Path) -> Atoms:
    from gmcore.data.reading import read_frames
    from gmcore.errors import DataError

    frames = [frame.atoms for frame in read_frames(path)]
    if len(frames) != 1:
        raise DataError(f"a geometry must be one structure, {path} holds {len(frames)}")
    return frames[0]
