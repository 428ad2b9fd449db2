"""Arguments and options that several commands of `gmtensor` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration, YAML.")]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, HDF5.")]
UnitOptions = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="QUANTITY=UNIT", help="Unit of a quantity in the file; repeat for each quantity."),
]
KeyOptions = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="LABEL=NAME", help="Name that a label has in the file; repeat for each label."),
]
Charge = Annotated[
    str | None,
    typer.Option(help="Total charge of every structure in e, or the name of a key in the file."),
]
Periodic = Annotated[
    bool | None,
    typer.Option("--pbc/--no-pbc", help="Override the periodicity that the file states."),
]
Format = Annotated[str, typer.Option(help="Format of the file: auto, extxyz, ase, npz or hdf5.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; all cores if not given.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
