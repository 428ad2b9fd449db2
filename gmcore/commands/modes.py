"""Commands for harmonic modes and derivatives of D: `gmtensor modes` and `gmtensor export`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import Charge, Format, Periodic, Threads, UnitOptions
from gmcore.errors import GMError, excerpt

if TYPE_CHECKING:
    from ase import Atoms

    from gmcore.model import Model

CORE = 0.05
"""A: the direction from the mean position to an atom closer than this is random, even at zero temperature."""

WHOLE = 1e-6  # A, rounding errors of positions shifted by cell vectors

StructureFile = Annotated[Path, typer.Argument(metavar="STRUCTURE", help="File with the structure.")]
Metal = Annotated[
    str | None,
    typer.Option(metavar="ELEMENT", help="Metal of the molecule with D, for example in a crystal."),
]
Which = Annotated[int, typer.Option("--molecule", min=0, help="Index of the molecule with this metal, from 0.")]
Frame = Annotated[int, typer.Option(min=0, help="Index of the structure in the file, from 0.")]


def modes(
    structure: StructureFile,
    potential: Annotated[Path, typer.Option(metavar="MODEL", help="Model with energy and forces.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for modes.h5, modes.json, relaxed.extxyz.")],
    d_tensor: Annotated[
        Path | None,
        typer.Option("--d-tensor", metavar="MODEL", help="Model with D, for its derivatives along the modes."),
    ] = None,
    metal: Metal = None,
    which: Which = 0,
    relax: Annotated[bool, typer.Option("--relax/--no-relax", help="Relax the structure first.")] = True,
    fmax: Annotated[float, typer.Option(help="Largest force after the relaxation, eV/A.")] = 1e-4,
    relax_cell: Annotated[bool, typer.Option(help="Also relax the cell of a crystal.")] = False,
    step: Annotated[float, typer.Option(help="Displacement for finite differences of the forces, A.")] = 0.01,
    temperature: Annotated[
        list[float] | None, typer.Option(help="Temperature of harmonic averages of D, K; may be repeated.")
    ] = None,
    tensor_unit: Annotated[str, typer.Option(help="Unit of D on the screen and in modes.json: cm^-1, MHz, ...")] = (
        "cm^-1"
    ),
    rows: Annotated[int, typer.Option(min=0, help="Number of modes to show, strongest coupling first; 0: all.")] = 20,
    xyz: Annotated[bool, typer.Option(help="Also write modes.xyz with displacement vectors for viewers.")] = False,
    frame: Frame = 0,
    unit: UnitOptions = None,
    total_charge: Charge = None,
    pbc: Periodic = None,
    format: Format = "auto",
    threads: Threads = None,
) -> None:
    """Compute harmonic modes and derivatives of D.

    The molecule or crystal is relaxed first. Models are evaluated in double precision. Modes of a crystal are those at
    the Gamma point.
    """
    from rich.console import Console

    from gmcore.analysis.couplings import expand_tensor
    from gmcore.analysis.mode_files import file_names, mode_table, write_mode_files
    from gmcore.analysis.modes import harmonic_modes
    from gmcore.dynamics.relaxation import relax as to_minimum
    from gmcore.molecules.molecules import Molecules
    from gmcore.outputs import MODES, check_outputs
    from gmcore.units import conversion

    check_outputs([output / name for name in file_names(xyz)], [structure, potential, d_tensor], makes=(MODES, output))
    conversion("d_tensor", tensor_unit)
    for option, given in (("--temperature", temperature), ("--metal", metal)):
        if given and d_tensor is None:
            raise GMError(f"{option} needs --d-tensor, a model with D")
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
            f"excluded from D: {_named(atoms, expansion.left_out)}, too close to the mean position of the atoms; "
            "D models with basis 'moments' do not have this limitation"
        )
    Console().print(mode_table(found, expansion, tensor_unit, rows))
    for path in write_mode_files(output, found, expansion, tensor_unit, temperature or (), xyz):
        typer.echo(f"written: {path}")


def export_tensors(
    structure: StructureFile,
    d_tensor: Annotated[Path, typer.Option("--d-tensor", metavar="MODEL", help="Model with D.")],
    metal: Metal = None,
    which: Which = 0,
    molforge: Annotated[
        Path | None, typer.Option(help="File for MolForge with dD/dx, to be read in &DSI_BATH.")
    ] = None,
    easyspin: Annotated[Path | None, typer.Option(help="File for EasySpin with Sys.D and Sys.DFrame.")] = None,
    spin: Annotated[float | None, typer.Option(help="Spin S for EasySpin: 1, 1.5, 2, ...")] = None,
    core: Annotated[
        float | None,
        typer.Option(min=0.0, help="Exclude atoms from D that are closer than this to the mean position, A."),
    ] = None,
    places: Annotated[
        str | None,
        typer.Option(
            help="Numbers of the atoms in the unit cell of MolForge, from 1, for example 5,8-12 (default: 1, 2, ...)."
        ),
    ] = None,
    frame: Frame = 0,
    unit: UnitOptions = None,
    pbc: Periodic = None,
    format: Format = "auto",
    threads: Threads = None,
) -> None:
    """Write D or its derivatives for other programs.

    The programs are EasySpin (D) and MolForge (dD/dx). MolForge needs dD/dx at the minimum of the energy: use
    relaxed.extxyz of `gmtensor modes`.
    """
    from gmcore.exchange.easyspin import SUFFIXES as EASYSPIN_SUFFIXES
    from gmcore.exchange.easyspin import write_easyspin
    from gmcore.exchange.molforge import SUFFIXES as MOLFORGE_SUFFIXES
    from gmcore.exchange.molforge import write_molforge
    from gmcore.outputs import check_outputs
    from gmcore.tensor_gradients import d_tensor_gradient, near_center, without_core

    if molforge is None and easyspin is None:
        raise GMError("nothing to export: give --molforge FILE, --easyspin FILE, or both")
    if places is not None and molforge is None:
        raise GMError("--places is only for MolForge: it needs --molforge")
    for path, suffixes in ((molforge, MOLFORGE_SUFFIXES), (easyspin, EASYSPIN_SUFFIXES)):
        check_outputs([] if path is None else [path], [structure, d_tensor], suffixes=suffixes)
    check_outputs([path for path in (molforge, easyspin) if path is not None])
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
        typer.echo(f"excluded from D: {_named(atoms, central)}")
    elif len(central) and molforge is not None:
        raise GMError(
            f"dD/dx of a model with basis 'positions' is not defined for atoms within {CORE:g} A of the mean position, "
            f"got {_named(atoms, central)}: exclude them with --core {CORE:g}, or use a model with basis 'moments'"
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
    """Read one structure of a file."""
    from gmcore.commands.data import read_structures

    dataset = read_structures(path, unit, total_charge, pbc, format)
    if frame >= len(dataset):
        raise GMError(f"{path} has {len(dataset)} structures, numbered from 0, got --frame {frame}")
    return dataset.atoms[frame]


def _molecule(atoms: Atoms, metal: str, which: int, path: Path) -> tuple[Atoms, list[int]]:
    """Return a molecule of a crystal and the numbers of its atoms, from 1.

    No bond of the molecule may cross a cell boundary, because the cells of MolForge's supercell are not known here.
    """
    import numpy as np
    from ase import Atoms

    from gmcore.molecules.molecules import Molecules

    molecules = Molecules.from_metal(atoms, metal)
    if which >= len(molecules):
        raise GMError(f"{path} has {len(molecules)} molecules with {metal}, numbered from 0, got --molecule {which}")
    indices = molecules.indices[which]
    whole = molecules.extract(atoms.positions, atoms.cell.array)[which]
    cut = np.abs(whole - atoms.positions[indices]).max(axis=1) > WHOLE
    if cut.any():
        raise GMError(
            f"the molecule must not cross a cell boundary in {path}, got {cut.sum()} atoms in other cells: "
            "shift the atoms so that the molecule is whole"
        )
    return Atoms(molecules.numbers, whole), (indices + 1).tolist()


def _load(path: Path, threads: int | None) -> Model:
    """Load a model in double precision, which finite differences and tight relaxations need."""
    from gmcore.model import load_model
    from gmcore.threads import set_threads

    set_threads(threads)
    return load_model(path, dtype="float64")


def _load_d(path: Path, threads: int | None) -> Model:
    """Load a model with one D tensor in double precision."""
    model = _load(path, threads)
    _d_name(model)  # fails now rather than after a long computation
    return model


def _d_name(model: Model) -> str:
    """Return the name of the only D tensor of a model."""
    names = [head.name for head in model.settings.heads if head.kind == "d_tensor"]
    if len(names) != 1:
        raise GMError(f"--d-tensor needs a model with one D tensor, got a model of {', '.join(model.units)}")
    return names[0]


def _named(atoms: Atoms, indices: Iterable[int]) -> str:
    """List atoms by symbol and number, from 1."""
    return ", ".join(f"{atoms.symbols[i]}{i + 1}" for i in indices)


def _numbers(text: str) -> list[int]:
    """[5, 8, 9, 10] of "5,8-10"."""
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            numbers += range(int(first), int(last if dash else first) + 1)
    except ValueError:
        raise GMError(f"--places must be numbers and ranges, for example 5,8-12, got {excerpt(text)}") from None
    return numbers
