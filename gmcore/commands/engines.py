"""Commands that run other programs with a model: `gmtensor lammps` and `gmtensor ipi`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import USER_ERROR, Threads
from gmcore.errors import GMError


def lammps(
    script: Annotated[Path, typer.Argument(metavar="INPUT", help="Input file of LAMMPS with lines for gmtensor.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ...]", help="Arguments of LAMMPS, such as -- -var T 300.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Run LAMMPS with a model as its potential.

    With several processes: mpirun -n 4 gmtensor lammps INPUT. The lines for gmtensor name the model and the recording
    of a trajectory with D tensors: docs/engines.md.
    """
    from gmcore.engines.lammps_script import run_script

    try:
        run_script(script, arguments or (), threads)
    except GMError:
        if _rank() == 0:  # all processes raise it, one says it
            raise
        raise typer.Exit(USER_ERROR) from None


def _rank() -> int:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return 0
    return int(MPI.COMM_WORLD.Get_rank())
