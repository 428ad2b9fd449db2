"""Steps of LAMMPS with a model: one process, two processes, and one process with two threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.io import write

from perf.harness import ROOT, Comparison, foreign_share, processor_time
from perf.peers import installed
from perf.report import Row
from perf.systems import bulk

SIZES = (512, 4096)
STEPS = {512: 40, 4096: 8}
ROUNDS = 5
LAYOUTS = {"1 process": (1, 1), "2 processes": (2, 1), "1 process, 2 threads": (1, 2)}
"""Number of processes, and of threads of each."""


def run() -> list[Row]:
    if not (installed("lammps") and installed("mpi4py")):
        return [Row("a step", "LAMMPS", "us/atom", note="the extra 'engines' is not installed")]
    rows = []
    for n_atoms in SIZES:
        samples: dict[str, list[float]] = {name: [] for name in LAYOUTS}
        shares = []
        for turn in range(ROUNDS):
            names = list(LAYOUTS)
            names = names[turn % len(names) :] + names[: turn % len(names)]
            for name in names:
                before = processor_time()
                samples[name].append(seconds_per_step(n_atoms, *LAYOUTS[name]))
                shares.append(foreign_share(before, processor_time()))
        seconds = {name: np.array(values) for name, values in samples.items()}
        found = Comparison(seconds, {name: values[0] for name, values in samples.items()}, float(np.median(shares)))
        system = f"{n_atoms} atoms, 100 neighbors, 6.5 A, NVE"
        rows.append(Row.timed(found, "1 process", system, "us/atom", per=n_atoms))
        for name in list(LAYOUTS)[1:]:
            rows.append(Row.timed(found, name, system, "us/atom", per=n_atoms, to="1 process"))
    return rows


def seconds_per_step(n_atoms: int, n_processes: int, n_threads: int) -> float:
    """Wall time of a step in a fresh LAMMPS."""
    threads = str(n_threads)
    env = os.environ | {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    mpirun = Path(sys.executable).with_name("mpirun")
    launch = [str(mpirun if mpirun.is_file() else "mpirun"), "-n", str(n_processes)] if n_processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/system.data"
        write(path, bulk(n_atoms), format="lammps-data", specorder=["H", "C", "O"], masses=True, units="metal")
        command = [*launch, sys.executable, "-m", "perf.bench_lammps", str(n_atoms), path]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"LAMMPS ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def child(n_atoms: int, path: str) -> None:
    """Print the seconds of a step, on the first process."""
    from mpi4py import MPI

    from gmcore.engines.lammps import LammpsPotential, open_lammps
    from gmcore.model import Model
    from perf.systems import model_parts

    settings, member = model_parts()
    lammps = open_lammps(["-screen", "none", "-log", "none"])
    lammps.commands_string(f"units metal\natom_style atomic\nboundary p p p\nread_data {path}")
    potential = LammpsPotential(lammps, Model(settings, [member], "float32"), ["H", "C", "O"])
    # at rest and with tiny steps: random forces would drive the atoms into each other
    potential.command("timestep 1e-9\nfix move all nve\nthermo 1000\nrun 2")
    start = time.perf_counter()
    potential.command(f"run {STEPS[n_atoms]} pre no")
    seconds = (time.perf_counter() - start) / STEPS[n_atoms]
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(seconds))


if __name__ == "__main__":
    child(int(sys.argv[1]), sys.argv[2])
