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

    from gmcore.exchange.tensors import ComputedTensor

SUFFIXES = (".extxyz", ".xyz", ".h5", ".hdf5")


def import_tensors(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Output files of programs, folders of them, patterns in quotes, or text files with a 3x3 matrix.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Data set to write: .extxyz or .h5.")],
    format: Annotated[
        str, typer.Option(help="Format of the files: auto, orca, orca-property, single-aniso, rassi-h5 or plain.")
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
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out files that cannot be used, and list them at the end.")
    ] = False,
) -> None:
    """Collect D tensors in a data set.

    D tensors and geometries are read from outputs of ORCA and OpenMolcas (SINGLE_ANISO, rassi.h5), or from plain text.
    Each matrix is diagonalized and compared with the values that the program prints. A plain matrix needs a unit, for
    example --unit d_tensor=cm^-1, and a geometry: --geometry, or a file of the same name ending in .xyz.
    """
    from gmcore.commands.data import name_value_pairs
    from gmcore.exchange.tensor_files import in_frame_of, read_tensors, tensor_paths
    from gmcore.outputs import check_outputs

    files = tensor_paths(files)
    beside = [file.with_suffix(".xyz") for file in files]
    check_outputs([output], [*files, geometry, *beside], suffixes=SUFFIXES)
    if geometry is not None and len(files) > 1:
        raise GMError(f"--geometry can only be used with one file, got {len(files)} files")
    if rotate and geometry is None:
        raise GMError("--rotate needs --geometry, which defines the frame to rotate into")
    stated = name_value_pairs("--unit", unit, ("d_tensor",)).get("d_tensor")
    given = None if geometry is None else _geometry(geometry)
    tensors: list[ComputedTensor] = []
    refused: list[str] = []
    for file, near in zip(files, beside):
        try:
            found = read_tensors(file, format, level=level, contribution=contribution, unit=stated)
            for k, tensor in enumerate(found):
                own = _geometry(near) if given is None and tensor.atoms is None and near.is_file() else given
                found[k] = in_frame_of(tensor, own, rotate)
        except (GMError, OSError) as error:
            if not skip:
                raise
            reason = str(error)
            refused.append(f"  {reason if str(file) in reason else f'{file}: {reason}'}")
        else:
            tensors += found
    if not tensors:
        raise GMError("\n".join([f"none of the {len(files)} files can be used:", *refused]))
    _write(output, tensors)
    if refused:
        typer.echo("\n".join([f"left out: {len(refused)} of {len(files)} files", *refused]))


def _write(output: Path, tensors: list[ComputedTensor]) -> None:
    """Write the data set and say what is in it: D, and spin, charge, energy, forces where every file has them."""
    import numpy as np
    from ase import Atoms

    from gmcore.data.labels import detraced
    from gmcore.evaluation.predictions import write_predictions
    from gmcore.exchange.spin_hamiltonian import spin_text

    spins = {tensor.spin: tensor.origin for tensor in tensors if tensor.spin is not None}
    if len(spins) > 1:
        stated = " and ".join(f"S = {spin_text(spin)} in {origin}" for spin, origin in sorted(spins.items())[:2])
        raise GMError(f"all D tensors of a data set must have the same spin, got {stated}: import them apart")
    values, notes = detraced("d_tensor", np.array([tensor.tensor for tensor in tensors]), "cm^-1")
    frames = []
    for tensor, value in zip(tensors, values):
        typer.echo(f"{tensor.origin}: {_described(tensor, value)}")
        for note in tensor.notes:
            typer.echo(f"  {note}")
        frame = Atoms(tensor.atoms)
        if tensor.charge is not None:
            frame.info["total_charge"] = tensor.charge
        frames.append(frame)
    for note in notes:
        typer.echo(note)
    labels: dict[str, np.ndarray | list[np.ndarray]] = {"d_tensor": values}
    units = {"d_tensor": "cm^-1"}
    known = [tensor.spin for tensor in tensors if tensor.spin is not None]
    if len(known) == len(tensors):
        labels["multiplicity"] = np.array([round(2.0 * spin) + 1 for spin in known])
        units["multiplicity"] = ""
    if all(tensor.energy is not None for tensor in tensors):
        labels["energy"] = np.array([tensor.energy for tensor in tensors])
        units["energy"] = "eV"
    forces = [tensor.forces for tensor in tensors if tensor.forces is not None]
    if len(forces) == len(tensors):
        labels["forces"] = forces
        units["forces"] = "eV/A"
    elif forces:
        typer.echo(f"forces are left out: only {len(forces)} of {len(tensors)} structures have them")
    write_predictions(output, frames, labels, units)
    listed = "".join(f"{key} in {unit}, " for key, unit in units.items() if unit)
    typer.echo(f"written: {output} ({len(tensors)} structures; {listed}lengths in A)")


def _described(tensor: ComputedTensor, value: np.ndarray) -> str:
    """D, E, E/|D| and the axis of a traceless tensor (3, 3), cm^-1, its spin and its kind, as text."""
    from gmcore.anisotropy import zfs_parameters
    from gmcore.exchange.spin_hamiltonian import spin_text

    found = zfs_parameters(value)
    axis = " ".join(f"{part:.4f}" for part in found.axis)
    spin = "" if tensor.spin is None else f", S = {spin_text(tensor.spin)}"
    kind = f" ({tensor.kind})" if tensor.kind else ""
    return f"D = {found.d:.4f}, E = {found.e:.4f} cm^-1, E/|D| = {found.e_over_d:.4f}, axis {axis}{spin}{kind}"


def _geometry(path: Path) -> Atoms:
    """Read a file with one structure."""
    from gmcore.data.reading import read_frames
    from gmcore.errors import DataError

    frames = [frame.atoms() for frame in read_frames(path)]
    if len(frames) != 1:
        raise DataError(f"a geometry must be one structure, got {len(frames)} in {path}")
    return frames[0]
