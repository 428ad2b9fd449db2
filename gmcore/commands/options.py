"""Arguments and options shared by several commands of `gmtensor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

USER_ERROR = 2

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration file (YAML).")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file (HDF5).")]
UnitOptions = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="QUANTITY=UNIT", help="Unit of a quantity in the file; may be repeated."),
]
KeyOptions = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="LABEL=NAME", help="Name of a label in the file; may be repeated."),
]
Charge = Annotated[
    str | None,
    typer.Option(help="Total charge of each structure in e, or the name of a key in the file."),
]
Periodic = Annotated[
    bool | None,
    typer.Option("--pbc/--no-pbc", help="Override the periodicity given in the file."),
]
Format = Annotated[str, typer.Option(help="Format of the file: auto, extxyz, ase, npz, hdf5, lammps or mdanalysis.")]
Elements = Annotated[
    list[str] | None,
    typer.Option(
        "--element", metavar="TYPE=SYMBOL", help="Element of a type of LAMMPS or of a topology; may be repeated."
    ),
]
Topology = Annotated[
    Path | None, typer.Option(help="File that names the atoms of a trajectory which MDAnalysis reads.")
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="HH:MM",
        help="Time limit, such as 23:30 or 1-12:00; the work ends before it, and the same command goes on.",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Number of threads (default: all cores).")]
DeviceOption = Annotated[str, typer.Option("--device", help="Device: cpu or cuda.")]
