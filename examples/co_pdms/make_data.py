"""Make the two data files of this example: potential.extxyz (GFN2-xTB labels) and d_tensor.extxyz (model D tensors).

    python make_data.py TRAJECTORIES [--output FOLDER] [--seed 1] [--relabel]

TRAJECTORIES is the folder of the xTB trajectory files: extended XYZ named T<temperature>_*.extxyz, molecular dynamics
of [Co(pdms)2]2- at GFN2-xTB level with the keys energy_ref (eV), forces_ref (eV/A), dipole_ref (e A) and charges_ref
(e). Frames are drawn without replacement, the same number from each temperature, with a seeded generator, so that the
same folder and seed give the same bytes. With --relabel the labels are computed again by GFN2-xTB (`pip install
tblite`), charge -2 and quartet, and the trajectories need positions only.

Numbers are written with fixed precision, finer than any model resolves: positions 1e-6 A (a rounding of 5e-7 A moves
a force by at most 5e-5 eV/A), forces 1e-4 eV/A, energies 1e-5 eV, charges and dipoles 1e-5. The D tensors belong to
the positions as written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ligand_field import d_tensor

TOTAL_CHARGE, MULTIPLICITY = -2, 4
POTENTIAL_TEMPERATURES = (100, 300, 400, 450, 500)
# Second-order perturbation theory is at its best where the molecule stays near its equilibrium geometry.
D_TEMPERATURES = (100, 300, 400)


def read_trajectories(folder: Path, temperatures: tuple[int, ...]) -> dict[int, list[ase.Atoms]]:
    """Frames of each temperature, files in the order of their names; SystemExit names a missing temperature."""
    frames = {}
    for temperature in temperatures:
        files = sorted(folder.glob(f"T{temperature}_*.extxyz"))
        if not files:
            raise SystemExit(f"{folder} must contain a file T{temperature}_*.extxyz for {temperature} K, found none")
        frames[temperature] = [atoms for file in files for atoms in ase.io.read(file, ":")]
    return frames


def select(frames: dict[int, list], n_total: int, seed: int) -> list[tuple[int, ase.Atoms]]:
    """(temperature, frame) pairs, n_total spread evenly over the temperatures, in order of time within each."""
    rng = np.random.default_rng(seed)
    chosen = []
    for temperature, count in zip(frames, np.diff(np.linspace(0, n_total, len(frames) + 1).round().astype(int))):
        if count > len(frames[temperature]):
            raise SystemExit(
                f"{count} frames were requested at {temperature} K, but the trajectory has "
                f"only {len(frames[temperature])}"
            )
        rows = np.sort(rng.choice(len(frames[temperature]), size=count, replace=False))
        chosen += [(temperature, frames[temperature][row]) for row in rows]
    return chosen


def relabel(atoms: ase.Atoms) -> None:
    """Put fresh GFN2-xTB labels on a frame, in ASE units (eV, eV/A, e, e A)."""
    from tblite.ase import TBLite  # needed for --relabel only

    atoms.calc = TBLite(method="GFN2-xTB", charge=TOTAL_CHARGE, multiplicity=MULTIPLICITY, verbosity=0)
    atoms.info["energy_ref"] = atoms.get_potential_energy()
    atoms.info["dipole_ref"] = atoms.get_dipole_moment()
    atoms.arrays["forces_ref"] = atoms.get_forces()
    atoms.arrays["charges_ref"] = atoms.get_charges()


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
    parser.add_argument("--potential-frames", type=int, default=400)
    parser.add_argument("--d-frames", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--relabel", action="store_true", help="compute the GFN2-xTB labels again with tblite")
    options = parser.parse_args()

    potential = select(
        read_trajectories(options.trajectories, POTENTIAL_TEMPERATURES), options.potential_frames, options.seed
    )
    if options.relabel:
        for _, atoms in potential:
            relabel(atoms)
    magnetic = select(read_trajectories(options.trajectories, D_TEMPERATURES), options.d_frames, options.seed + 1)
    for name, write, chosen in (
        ("potential.extxyz", potential_frame, potential),
        ("d_tensor.extxyz", d_tensor_frame, magnetic),
    ):
        path = options.output / name
        path.write_text("".join(write(*frame) for frame in chosen), encoding="utf-8")
        print(f"{path}: {len(chosen)} frames, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
