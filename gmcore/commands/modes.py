"""Commands around the harmonic modes: `gmtensor modes` and `gmtensor export`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import Charge, Format, Periodic, Threads, UnitOptions
from gmcore.errors import GMError

if TYPE_CHECKING:
    from ase import Atoms

    from gmcore.model import Model

CORE = 0.05
"""A; closer to the mean position the motion of an atom, even at zero temperature, turns its direction at random."""

WHOLE = 1e-6  # A; rounding of positions that were shifted by cell vectors

StructureFile = Annotated[Path, typer.Argument(metavar="STRUCTURE", help="Structure in any readable format.")]
Metal = Annotated[
    str | None,
    typer.Option(metavar="ELEMENT", help="D belongs to the molecule bonded around this metal, as in a crystal."),
]
Which = Annotated[int, typer.Option("--molecule", min=0, help="Which of several such molecules, from 0.")]
Frame = Annotated[int, typer.Option(min=0, help="Which structure of the file, from 0.")]


def modes(
    structure: StructureFile,
    potential: Annotated[Path, typer.Option(metavar="MODEL", help="Model of energy and forces.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for modes.h5, modes.json, relaxed.extxyz.")],
    d_tensor: Annotated[
        Path | None, typer.Option("--d-tensor", metavar="MODEL", help="Model of D: its derivatives along the modes.")
    ] = None,
    metal: Metal = None,
    which: Which = 0,
    relax: Annotated[bool, typer.Option("--relax/--no-relax", help="Go to the nearest minimum first.")] = True,
    fmax: Annotated[float, typer.Option(help="Largest force that the relaxation leaves, eV/A.")] = 1e-4,
    relax_cell: Annotated[bool, typer.Option(help="Relax the cell of a crystal as well.")] = False,
    step: Annotated[float, typer.Option(help="Displacement of the force differences, A.")] = 0.01,
    temperature: Annotated[
        list[float] | None, typer.Option(help="Temperature, K, of harmonic averages of D; repeat.")
    ] = None,
    tensor_unit: Annotated[str, typer.Option(help="Unit of D on the screen and in modes.json: cm^-1, MHz, ...")] = (
        "cm^-1"
    ),
    rows: Annotated[int, typer.Option(min=0, help="Modes on the screen, strongest coupling first; 0 for all.")] = 20,
    xyz: Annotated[bool, typer.Option(help="Also write modes.xyz with displacement vectors, for viewers.")] = False,
    frame: Frame = 0,
    unit: UnitOptions = None,
    total_charge: Charge = None,
    pbc: Periodic = None,
    format: Format = "auto",
    threads: Threads = None,
) -> None:
    """Relax a molecule or crystal, find its harmonic modes and how D changes along them.

    Models are evaluated in double precision, a crystal at Gamma.
    """
    from rich.console import Console

    from gmcore.analysis.couplings import expand_tensor
    from gmcore.analysis.mode_files import mode_table, write_mode_files
    from gmcore.analysis.modes import harmonic_modes
    from gmcore.dynamics.relaxation import relax as to_minimum
    from gmcore.molecules.molecules import Molecules
    from gmcore.units import conversion

    conversion("d_tensor", tensor_unit)
    for option, given in (("--temperature", temperature), ("--metal", metal)):
        if given and d_tensor is None:
            raise GMError(f"{option} is about D and needs --d-tensor")
    atoms = _read_structure(structure, frame, unit, total_charge, pbc, format)
    forces = _load(potential, threads)
    magnetic = None if d_tensor is None else _load_d(d_tensor, threads)
    if relax:
        atoms = to_minimum(atoms, forces, fmax=fmax, cell=relax_cell)
    found = harmonic_modes(atoms, forces, step)
    expansion = None
    if magnetic is not None:
        molecules = None if metal is None else Molecules.from_metal(found.atoms, metal)
        expansion = expand_tensor(magnetic, found, _d_name(magnetic), molecules=molecules, which=which)
    typer.echo(found.summary())
    if expansion is not None and expansion.left_out:
        typer.echo(
            f"left out of D: {_named(atoms, expansion.left_out)}, too close to the mean position for a direction; "
            "a D model of basis 'moments' has no such atoms"
        )
    Console().print(mode_table(found, expansion, tensor_unit, rows))
    for path in write_mode_files(output, found, expansion, tensor_unit, temperature or (), xyz):
        typer.echo(f"written: {path}")


def export_tensors(
    structure: StructureFile,
    d_tensor: Annotated[Path, typer.Option("--d-tensor", metavar="MODEL", help="Model of D.")],
    metal: Metal = None,
    which: Which = 0,
    molforge: Annotated[Path | None, typer.Option(help="dD/dx as MolForge reads it in &DSI_BATH.")] = None,
    easyspin: Annotated[Path | None, typer.Option(help="Script with Sys.D and Sys.DFrame of EasySpin.")] = None,
    spin: Annotated[float | None, typer.Option(help="Spin S for EasySpin: 1, 1.5, 2, ...")] = None,
    core: Annotated[
        float | None, typer.Option(min=0.0, help="Leave atoms this close to the mean position, A, out of D.")
    ] = None,
    places: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the atoms in MolForge's unit cell, from 1, as in 5,8-12; 1, 2, ... if not given."
        ),
    ] = None,
    frame: Frame = 0,
    unit: UnitOptions = None,
    pbc: Periodic = None,
    format: Format = "auto",
    threads: Threads = None,
) -> None:
    """Write D of a structure, or its derivatives dD/dx, for other programs.

    dD/dx belongs to the minimum around which MolForge expands: take relaxed.extxyz of `gmtensor modes`.
    """
    from gmcore.exchange.exports import write_easyspin, write_molforge
    from gmcore.tensor_gradients import d_tensor_gradient, near_center, without_core

    if molforge is None and easyspin is None:
        raise GMError("nothing to export: say where to with --molforge or --easyspin")
    if places is not None and molforge is None:
        raise GMError("--places numbers the atoms for MolForge and needs --molforge")
    atoms = _read_structure(structure, frame, unit, None, pbc, format)
    model = _load_d(d_tensor, threads)
    name = _d_name(model)
    numbers = None if places is None else _numbers(places)
    if metal is not None:
        atoms, own = _molecule(atoms, metal, which, path=structure)
        numbers = own if places is None else numbers
    central = near_center(model, atoms, CORE if core is None else core, name)
    if core is not None and len(central):
        model = without_core(model, core, name)
        typer.echo(f"left out of D: {_named(atoms, central)}")
    elif len(central) and molforge is not None:
        raise GMError(
            f"dD/dx has no meaning for atoms within {CORE:g} A of the mean position in a model of basis 'positions', "
            f"got {_named(atoms, central)}; leave them out with --core {CORE:g}, or take a model of basis 'moments'"
        )
    if molforge is not None:
        write_molforge(molforge, d_tensor_gradient(model, atoms, name), atoms=numbers)
        typer.echo(f"written: {molforge} ({3 * len(atoms)} derivatives, cm^-1/A)")
    if easyspin is not None:
        write_easyspin(easyspin, model.predict(atoms, [name])[name][0], spin)
        typer.echo(f"written: {easyspin} (Sys.D in MHz)")


def _read_structure(
    path: Path, frame: int, unit: list[str] | None, total_charge: str | None, pbc: bool | None, format: str
) -> Atoms:
    from gmcore.commands.data import read_structures

    dataset = read_structures(path, unit, total_charge, pbc, format)
    if frame >= len(dataset):
        raise GMError(f"{path} holds {len(dataset)} structures, numbered from 0, got --frame {frame}")
    return dataset.atoms[frame]


def _molecule(atoms: Atoms, metal: str, which: int, path: Path) -> tuple[Atoms, list[int]]:
    """A molecule of a crystal and the numbers of its atoms, from 1.

    It must lie whole in the file: in which cell of MolForge's supercell an image would have to be is not known here.
    """
    import numpy as np
    from ase import Atoms

    from gmcore.molecules.molecules import Molecules

    molecules = Molecules.from_metal(atoms, metal)
    if which >= len(molecules):
        raise GMError(f"{path} holds {len(molecules)} molecules with {metal}, numbered from 0, got --molecule {which}")
    indices = molecules.indices[which]
    whole = molecules.extract(atoms.positions, atoms.cell.array)[which]
    cut = np.abs(whole - atoms.positions[indices]).max(axis=1) > WHOLE
    if cut.any():
        raise GMError(
            f"the molecule must lie whole in {path}, not cut by a cell boundary, got {cut.sum()} atoms in other cells"
        )
    return Atoms(molecules.numbers, whole), (indices + 1).tolist()


def _load(path: Path, threads: int | None) -> Model:
    """A model in double precision: differences and tight minima need the digits."""
    from gmcore.model import load_model
    from gmcore.threads import set_threads

    set_threads(threads)
    return load_model(path, dtype="float64")


def _load_d(path: Path, threads: int | None) -> Model:
    model = _load(path, threads)
    _d_name(model)  # before hours are spent
    return model


def _d_name(model: Model) -> str:
    """The name of the only D tensor of a model."""
    names = [head.name for head in model.settings.heads if head.kind == "d_tensor"]
    if len(names) != 1:
        raise GMError(f"a model of one D tensor is needed, this one predicts {', '.join(model.units)}")
    return names[0]


def _named(atoms: Atoms, indices: Iterable[int]) -> str:
    """Atoms by symbol and number from 1."""
    return ", ".join(f"{atoms.symbols[i]}{i + 1}" for i in indices)


def _numbers(text: str) -> list[int]:
    """[5, 8, 9, 10] of "5,8-10"."""
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            numbers += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise GMError(f"--places must be numbers and ranges such as 5,8-12, got {text!r}") from None
    return numbers
