"""Make the starting data of this example: potential.extxyz (GFN2-xTB labels) and initial.extxyz (no labels).

    pip install tblite
    python make_data.py [--output FOLDER] [--seed 1]
    gmtensor label initial.extxyz label.yaml -o d_tensor.extxyz     # needs OpenMolcas; 60 frames, about 10 CPU s each

Langevin dynamics of the ion with GFN2-xTB at 100, 200 and 300 K, each from the relaxed structure. After 1 ps, one frame
every 20 fs goes into potential.extxyz; 60 of the frames at 300 K, drawn at random, make initial.extxyz.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS
from tblite.ase import TBLite

TOTAL_CHARGE, MULTIPLICITY = -2, 4
TEMPERATURES = (100, 200, 300)
FRAMES = 150
"""Frames of each temperature."""
EVERY, EQUILIBRATION = 20, 1000
"""Steps of 1 fs."""
INITIAL = 60
"""Frames to label with the reference method before the first round."""


def xtb() -> TBLite:
    """GFN2-xTB for the ion."""
    return TBLite(method="GFN2-xTB", charge=TOTAL_CHARGE, multiplicity=MULTIPLICITY, verbosity=0)


def relaxed() -> Atoms:
    """[Co(SH)4]2-, relaxed from a tetrahedron with the hydrogen atoms turned alternately."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3.0)
    sulfur = 2.35 * corners
    across = np.array([[1, -1, 0], [1, 1, 0], [-1, -1, 0], [-1, 1, 0]]) / np.sqrt(2.0)
    hydrogen = sulfur + 1.35 * (0.2 * corners + np.sqrt(1.0 - 0.04) * across)
    atoms = Atoms("CoS4H4", np.vstack([np.zeros(3), sulfur, hydrogen]), calculator=xtb())
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=500)
    return atoms


def dynamics(start: Atoms, temperature: int, seed: int) -> list[Atoms]:
    """Frames of one trajectory, with energies (eV) and forces (eV/A)."""
    rng = np.random.default_rng([seed, temperature])
    atoms = start.copy()
    atoms.calc = xtb()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    integrator = Langevin(atoms, units.fs, temperature_K=temperature, friction=0.005 / units.fs, rng=rng)
    integrator.run(EQUILIBRATION)
    frames = []
    for _ in range(FRAMES):
        integrator.run(EVERY)
        frames.append(labeled(atoms, temperature))
    return frames


def labeled(atoms: Atoms, temperature: int) -> Atoms:
    """A copy with its labels under the names and with the digits of the file."""
    frame = Atoms(atoms.numbers, np.round(atoms.positions, 6))
    frame.calc = xtb()
    frame.info = {"energy_ref": round(float(frame.get_potential_energy()), 5), "temperature": temperature}
    frame.info |= {"total_charge": TOTAL_CHARGE, "multiplicity": MULTIPLICITY}
    frame.arrays["forces_ref"] = np.round(frame.get_forces(), 4)
    frame.calc = None
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    start = relaxed()
    frames = {temperature: dynamics(start, temperature, options.seed) for temperature in TEMPERATURES}
    everything = [labeled(start, 0), *(frame for part in frames.values() for frame in part)]
    ase.io.write(options.output / "potential.extxyz", everything, format="extxyz")
    rows = np.sort(np.random.default_rng(options.seed).choice(FRAMES, INITIAL, replace=False))
    initial = [frames[300][row].copy() for row in rows]
    for frame in initial:
        del frame.info["energy_ref"], frame.arrays["forces_ref"]
    ase.io.write(options.output / "initial.extxyz", initial, format="extxyz")


if __name__ == "__main__":
    main()
