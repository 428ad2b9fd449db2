"""Run by mpirun on 1, 2 or 4 processes: systems in LAMMPS with a model, results by atom as arrays in one file.

Usage: mpirun -n N python -m support.lammps_runs FOLDER MODEL [nve] [SINGLE_MODEL]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from gmcore.engines.lammps import LammpsPotential, open_lammps

ELEMENTS = ("H", "N", "Co")
BOUNDARY = {"molecule": "f f f", "crystal": "p p p", "slab": "p p f"}
SETUP = "units metal\natom_style atomic\nboundary {}\nread_data {}\n"


def write_system(folder: Path, name: str, atoms: Atoms) -> None:
    """A system as LAMMPS reads it; its cell must be lower triangular, so that LAMMPS does not turn it."""
    write(
        folder / f"{name}.data", atoms, format="lammps-data", specorder=list(ELEMENTS), masses=True, velocities=True,
        units="metal",
    )  # fmt: skip
    write(folder / f"{name}.traj", atoms)


def by_tag(potential: LammpsPotential, *arrays: np.ndarray) -> list[np.ndarray]:
    """Arrays of the own atoms of all processes in the order of the tags."""
    n_own = potential.lammps.extract_setting("nlocal")
    tags = potential.atom_array("id", n_own)
    parts = potential.comm.allgather([np.array(tags), *map(np.array, arrays)])
    columns = [np.concatenate([part[k] for part in parts]) for k in range(len(arrays) + 1)]
    return [column[np.argsort(columns[0])] for column in columns[1:]]


def start(folder: Path, name: str, model: str, every: int = 0) -> LammpsPotential:
    lammps = open_lammps(["-screen", "none", "-log", "none"])
    lammps.commands_string(SETUP.format(BOUNDARY[name], folder / f"{name}.data"))
    return LammpsPotential(lammps, model, ELEMENTS, every=every)


def point(folder: Path, name: str, model: str) -> dict[str, np.ndarray]:
    """Energies, forces, stress, deviations and grades of one structure."""
    potential = start(folder, name, model, every=1)
    lammps = potential.lammps
    potential.command(
        "compute atoms all pe/atom fix\ncompute virial all pressure NULL virial\nfix keep all ave/atom 1 1 1 c_atoms\n"
        "thermo_style custom step pe c_virial[1]\nthermo_modify norm no\nrun 0"
    )
    n_own = lammps.extract_setting("nlocal")
    own = [potential.atom_array("f", n_own, 3), lammps.numpy.extract_compute("atoms", 1, 1)]
    own += [potential.atom_array(name, n_own) for name in ("d_forces_deviation", "d_extrapolation")]
    found = dict(zip(("forces", "energies", "deviation", "grade"), by_tag(potential, *own)))
    found["energy"] = lammps.get_thermo("pe")
    found["pressure"] = lammps.numpy.extract_compute("virial", 0, 1).copy()
    found["largest"] = [lammps.extract_fix("gmtensor", 0, 1, k) for k in range(2)]
    lammps.close()
    return found


def dynamics(folder: Path, model: str) -> dict[str, np.ndarray]:
    """1000 steps of NVE of the crystal: total energy every 100 steps, and positions after the first 100."""
    potential = start(folder, "crystal", model)
    lammps = potential.lammps
    lammps.commands_string("timestep 0.0005\nfix nve all nve\nthermo 100\nthermo_modify norm no")
    energies = []
    for part in range(10):
        potential.command("run 100")
        energies.append(lammps.get_thermo("etotal"))
        if part == 0:
            (positions,) = by_tag(potential, potential.atom_array("x", lammps.extract_setting("nlocal"), 3))
    lammps.close()
    return {"positions": positions, "total": energies}


def main() -> None:
    folder, model = Path(sys.argv[1]), sys.argv[2]
    results = {}
    for name in BOUNDARY:
        results |= {f"{name}/{key}": value for key, value in point(folder, name, model).items()}
    for single in (path for path in sys.argv[3:] if path.endswith(".h5")):  # one member, with draws of its last layer
        results |= {f"single/{key}": value for key, value in point(folder, "crystal", single).items()}
    if "nve" in sys.argv:
        results |= {f"nve/{key}": value for key, value in dynamics(folder, model).items()}
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        np.savez(folder / f"results_{MPI.COMM_WORLD.size}.npz", **results)


if __name__ == "__main__":
    main()
