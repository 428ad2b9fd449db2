"""Make the two data files of this example: potential.extxyz (GFN2-xTB labels) and d_tensor.extxyz (model D tensors).

    pip install tblite
    python make_data.py TRAJECTORIES [--output FOLDER] [--seed 1]

Each file starts with the structure relaxed with GFN2-xTB. Two kinds of frames follow.

Samples of the normal modes: the Hessian of the relaxed ion is computed from differences of forces, and structures are
drawn from the classical thermal distribution of the harmonic potential that it describes. Every frame is independent
of all others, and they surround the minimum in all directions. A few picoseconds of dynamics do not achieve that,
because the slowest modes have periods above one picosecond.

Frames of dynamics, which show the anharmonic motion: TRAJECTORIES is a folder of molecular dynamics of [Co(pdms)2]2- at
GFN2-xTB level, extended XYZ files named T<temperature>_*.extxyz with the keys energy_ref (eV), forces_ref (eV/A),
dipole_ref (e A) and charges_ref (e). Frames are drawn without replacement, the same number from each temperature.

All draws use seeded generators. The same folder, seed and version of tblite give the same files, up to rounding in the
last digits. It takes a few minutes.

Numbers are written with fixed precision, finer than any model resolves: positions 1e-6 A (a rounding of 5e-7 A moves
a force by at most 5e-5 eV/A), forces 1e-4 eV/A, energies 1e-5 eV, charges and dipoles 1e-5. The D tensors belong to
the positions as written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
import numpy as np
from ase import units
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from ligand_field import d_tensor
from tblite.ase import TBLite

TOTAL_CHARGE, MULTIPLICITY = -2, 4
# The hot frames keep the potential from inventing minima where a run at 100 K would find them.
POTENTIAL_MODES, POTENTIAL_DYNAMICS = (100, 200, 300), (100, 300, 400, 450, 500)
# D grows steeply as its gap closes: a few hot frames would rule the loss, and the mean D of cold runs would be biased.
D_MODES, D_DYNAMICS = (50, 100, 200), (100, 300)
RIGID = 6
"""Modes of translation and rotation."""


def read_trajectories(folder: Path, temperatures: tuple[int, ...]) -> dict[int, list[ase.Atoms]]:
    """Frames of each temperature, files in the order of their names; SystemExit names a missing temperature."""
    frames = {}
    for temperature in temperatures:
        files = sorted(folder.glob(f"T{temperature}_*.extxyz"))
        if not files:
            raise SystemExit(f"{folder} must contain a file T{temperature}_*.extxyz for {temperature} K, found none")
        frames[temperature] = [atoms for file in files for atoms in ase.io.read(file, ":")]
    return frames


def evenly(total: int, parts: int) -> list[int]:
    """Numbers that differ by one at most and add up to the total."""
    return np.diff(np.linspace(0, total, parts + 1).round().astype(int)).tolist()


def select(frames: dict[int, list[ase.Atoms]], total: int, rng: np.random.Generator) -> list[tuple[int, ase.Atoms]]:
    """(temperature, frame) pairs, spread evenly over the temperatures, in order of time within each."""
    chosen = []
    for temperature, count in zip(frames, evenly(total, len(frames))):
        if count > len(frames[temperature]):
            raise SystemExit(
                f"{count} frames were requested at {temperature} K, but the trajectory has "
                f"only {len(frames[temperature])}"
            )
        rows = np.sort(rng.choice(len(frames[temperature]), size=count, replace=False))
        chosen += [(temperature, frames[temperature][row]) for row in rows]
    return chosen


def xtb() -> TBLite:
    """GFN2-xTB for the ion."""
    return TBLite(method="GFN2-xTB", charge=TOTAL_CHARGE, multiplicity=MULTIPLICITY, verbosity=0)


def label(atoms: ase.Atoms) -> None:
    """Put GFN2-xTB labels on a frame, in ASE units (eV, eV/A, e, e A)."""
    atoms.calc = xtb()
    atoms.info["energy_ref"] = atoms.get_potential_energy()
    atoms.info["dipole_ref"] = atoms.get_dipole_moment()
    atoms.arrays["forces_ref"] = atoms.get_forces()
    atoms.arrays["charges_ref"] = atoms.get_charges()


def relax(start: ase.Atoms) -> tuple[ase.Atoms, np.ndarray]:
    """The relaxed ion, and the matrix (3 n_atoms, 3 n_atoms), A/eV^0.5, that makes thermal displacements.

    With H the mass-weighted Hessian without translations and rotations, the matrix is M^-1/2 H^-1/2. Times (kT)^0.5 it
    turns standard normal numbers into displacements with the covariance kT M^-1/2 H^-1 M^-1/2. The symmetric root does
    not depend on the signs and the order of eigenvectors, so the frames do not either.
    """
    atoms = ase.Atoms(start.numbers, start.positions, calculator=xtb())
    BFGS(atoms, logfile=None).run(fmax=0.003, steps=1000)
    with TemporaryDirectory() as folder:
        vibrations = Vibrations(atoms, name=str(Path(folder) / "modes"), delta=0.005)
        vibrations.run()
        hessian = vibrations.get_vibrations().get_hessian_2d()
    roots = np.repeat(atoms.get_masses() ** -0.5, 3)
    squares, vectors = np.linalg.eigh(roots[:, None] * hessian * roots)
    squares, vectors = squares[RIGID:], vectors[:, RIGID:]
    if squares[0] <= 0.0:
        raise SystemExit("the relaxed ion must be a minimum, but its Hessian has a negative eigenvalue")
    return ase.Atoms(atoms.numbers, atoms.positions), roots[:, None] * ((vectors * squares**-0.5) @ vectors.T)


def sample(
    relaxed: ase.Atoms, root: np.ndarray, temperatures: tuple[int, ...], total: int, rng: np.random.Generator
) -> list[tuple[int, ase.Atoms]]:
    """(temperature, frame) pairs from the harmonic thermal distribution, spread evenly over the temperatures."""
    chosen = []
    for temperature, count in zip(temperatures, evenly(total, len(temperatures))):
        for normal in rng.standard_normal((count, len(root))):
            moved = relaxed.copy()
            moved.positions += (np.sqrt(units.kB * temperature) * root @ normal).reshape(-1, 3)
            chosen.append((temperature, moved))
    return chosen


def fixed(values: np.ndarray, digits: int) -> str:
    """Numbers with a fixed count of decimals; adding 0.0 turns a rounded -0 into 0."""
    return " ".join(f"{value + 0.0:.{digits}f}" for value in np.round(np.ravel(values), digits))


def frame_text(atoms: ase.Atoms, temperature: int, columns: list[tuple[str, np.ndarray, int]], info: str) -> str:
    """One extended-XYZ frame with per-atom columns (name, values, digits) after the positions."""
    columns = [("pos", atoms.positions, 6), *columns]
    properties = "species:S:1" + "".join(f":{n}:R:{np.size(v) // len(atoms)}" for n, v, _ in columns)
    header = (
        f"Properties={properties} {info} total_charge={TOTAL_CHARGE} multiplicity={MULTIPLICITY} "
        f'temperature={temperature} pbc="F F F"'
    )
    rows = [
        " ".join([symbol, *(fixed(values[i], digits) for _, values, digits in columns)])
        for i, symbol in enumerate(atoms.get_chemical_symbols())
    ]
    return "\n".join([str(len(atoms)), header, *rows]) + "\n"


def potential_frame(temperature: int, atoms: ase.Atoms) -> str:
    """A frame of potential.extxyz: energy, forces, dipole about the coordinate origin, charges."""
    columns = [("forces_ref", atoms.arrays["forces_ref"], 4), ("charges_ref", atoms.arrays["charges_ref"], 5)]
    energy, dipole = fixed(atoms.info["energy_ref"], 5), fixed(atoms.info["dipole_ref"], 5)
    return frame_text(atoms, temperature, columns, f'energy_ref={energy} dipole_ref="{dipole}"')


def d_tensor_frame(temperature: int, atoms: ase.Atoms) -> str:
    """A frame of d_tensor.extxyz: the traceless model D tensor, cm^-1, as rows in JSON (ase reads a 3x3 array)."""
    tensor = np.round(d_tensor(atoms.numbers, np.round(atoms.positions, 6)), 4)
    tensor[2, 2] = -tensor[0, 0] - tensor[1, 1]  # rounding must not bring a trace back
    rows = ", ".join("[" + fixed(row, 4).replace(" ", ", ") + "]" for row in tensor)
    return frame_text(atoms, temperature, [], f'd_tensor_ref="_JSON [{rows}]"')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trajectories", type=Path, help="folder of the xTB trajectory files")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--potential-frames", type=int, nargs=2, default=(150, 249), metavar=("MODES", "DYNAMICS"))
    parser.add_argument("--d-frames", type=int, nargs=2, default=(449, 150), metavar=("MODES", "DYNAMICS"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    hot = read_trajectories(options.trajectories, POTENTIAL_DYNAMICS)
    cold = read_trajectories(options.trajectories, D_DYNAMICS)
    relaxed, root = relax(hot[POTENTIAL_DYNAMICS[0]][0])

    def draw(temperatures, trajectories, counts, stream):
        rng = np.random.default_rng([options.seed, stream])
        samples = sample(relaxed, root, temperatures, counts[0], rng)
        return [(0, relaxed.copy()), *samples, *select(trajectories, counts[1], rng)]

    potential = draw(POTENTIAL_MODES, hot, options.potential_frames, 0)
    for _, atoms in potential:
        label(atoms)
    magnetic = draw(D_MODES, cold, options.d_frames, 1)
    for name, write, chosen in (
        ("potential.extxyz", potential_frame, potential),
        ("d_tensor.extxyz", d_tensor_frame, magnetic),
    ):
        path = options.output / name
        path.write_text("".join(write(*frame) for frame in chosen), encoding="utf-8")
        print(f"{path}: {len(chosen)} frames, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
