"""Commands that run other programs with a model: `gmtensor lammps` and `gmtensor ipi`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gmcore.commands.options import USER_ERROR, ModelFile, Threads
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


def ipi(
    model: ModelFile,
    structure: Annotated[Path, typer.Argument(metavar="STRUCTURE", help="File with the atoms, in the order of i-PI.")],
    address: Annotated[
        str | None, typer.Option(help="Host of i-PI, and the port after a colon: localhost:31415.")
    ] = None,
    unix: Annotated[str | None, typer.Option(help="Name of the unix socket of i-PI.")] = None,
    d_tensor: Annotated[Path | None, typer.Option(help="Model with a D tensor; D is written to the extras.")] = None,
    metal: Annotated[str | None, typer.Option(help="Element that defines the molecules for D.")] = None,
    deviations: Annotated[
        bool, typer.Option("--deviations", help="Also write deviations and extrapolation grades to the extras.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Write extras only in every N-th call.")] = 1,
    dtype: Annotated[str | None, typer.Option(help="Precision: float32 or float64 (default: as trained).")] = None,
    threads: Threads = None,
) -> None:
    """Compute energies, forces, virials and D tensors for i-PI on a socket.

    Start i-PI first, then this command, once or several times. It ends with i-PI.
    """
    from gmcore.engines import EngineError
    from gmcore.engines.ipi import IPIDriver, serve

    host, _, port = (address or "").partition(":")
    if address is not None and not (host and port.isdecimal()):
        raise EngineError(f"the address must be a host and a port such as localhost:31415, got {address!r}")
    driver = IPIDriver(
        model, structure, d_tensor, metal, deviations=deviations, every=every, dtype=dtype, threads=threads
    )
    count = serve(driver, host or None, int(port or 0), unix)
    typer.echo(f"i-PI has ended; structures computed: {count}")
