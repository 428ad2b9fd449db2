"""What quantum nuclei do to D: path integrals of i-PI beside the harmonic estimate.

    python quantum.py RUN_PREFIX TEMPERATURE POTENTIAL D_MODEL      (runs/ipi/pimd 300 ...)

Along a path integral the beads have the quantum distribution of the nuclei. Their centroid has, as long as the
potential is harmonic, exactly the classical one. The difference

    D of <D(bead)> - D of <D(centroid)>

is the effect of quantum nuclei up to anharmonic terms of the centroid, and slow motion, which is the same in both,
cancels. Tensors are averaged in the Eckart frame of the centroid; errors are those of five blocks (jackknife).

The harmonic estimate is the same difference for the modes of the relaxed structure, <D> = D0 + 1/2 sum D'' <q^2>, with

    <q^2> = sum over k < P of x/(x^2 + (2 P sin(pi k/P))^2),   x = hbar omega/kT

for P beads and coth(x/2)/2 for infinitely many (P = 1 is the classical one).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase.io import read

from gmcore import load_model, zfs_parameters
from gmcore.analysis.couplings import expand_tensor
from gmcore.analysis.modes import frequency_to_omega, harmonic_modes
from gmcore.dynamics.relaxation import relax
from gmcore.molecules.superposition import align, rotate_tensors
from gmcore.units import BOLTZMANN, HBAR

START = Path(__file__).parents[1] / "co_pdms" / "potential.extxyz"
N_BLOCKS = 5
DISCARD = 0.2
"""Share of the run that is taken for equilibration."""


def bead_variance(frequencies: np.ndarray, temperature: float, n_beads: int) -> np.ndarray:
    """<q^2> of a harmonic ring polymer, frequencies in cm^-1."""
    x = HBAR * frequency_to_omega(frequencies)[:, None] / (BOLTZMANN * temperature)
    springs = 2.0 * n_beads * np.sin(np.pi * np.arange(n_beads) / n_beads)
    return (x / (x**2 + springs**2)).sum(axis=1)


def read_beads(prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n_beads, n, n_atoms, 3) A and D (n_beads, n, 3, 3) cm^-1."""
    positions, tensors = [], []
    for path in sorted(Path(prefix).parent.glob(f"{Path(prefix).name}.positions_*.xyz")):
        positions.append([frame.positions for frame in read(path, ":", format="xyz")])
        path = path.with_name(path.name.replace(".positions_", ".d_").removesuffix(".xyz"))
        numbers = [line.split() for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        tensors.append(np.array(numbers, float).reshape(-1, 3, 3))
    n = min(map(len, tensors))
    return np.array([bead[:n] for bead in positions]), np.array([bead[:n] for bead in tensors])


def difference(beads: np.ndarray, centroids: np.ndarray) -> tuple[float, float, float]:
    """D of the mean over beads, D of the mean over centroids, and what is between them."""
    quantum, classical = zfs_parameters(beads.mean(axis=0)).d, zfs_parameters(centroids.mean(axis=0)).d
    return quantum, classical, quantum - classical


def main() -> None:
    prefix, temperature, potential, d_model = sys.argv[1], float(sys.argv[2]), *sys.argv[3:5]
    start, model = read(START), load_model(d_model, "float64")
    positions, tensors = read_beads(prefix)
    first = int(DISCARD * positions.shape[1])
    positions, tensors = positions[:, first:], tensors[:, first:]
    n_beads, n = positions.shape[:2]
    centroids = positions.mean(axis=0)
    frames = [start.copy() for _ in range(n)]
    for frame, places in zip(frames, centroids):
        frame.positions = places
    rotations = align(centroids, start.positions, start.get_masses())
    of_centroids = rotate_tensors(model.predict(frames, errors=False)["d_tensor"], rotations)
    of_beads = rotate_tensors(tensors.mean(axis=0), rotations)
    found = np.array(difference(of_beads, of_centroids))
    blocks = np.array_split(np.arange(n), N_BLOCKS)
    left_out = [np.setdiff1d(np.arange(n), block) for block in blocks]
    parts = np.array([difference(of_beads[rows], of_centroids[rows]) for rows in left_out])
    errors = np.sqrt((N_BLOCKS - 1) * parts.var(axis=0))
    print(f"{n_beads} beads, {temperature:g} K, {n} samples")
    for name, value, error in zip(("beads", "centroid", "difference"), found, errors):
        print(f"D of the averaged tensor, {name:10}: {value:7.2f} +- {error:.2f} cm^-1")

    exact = load_model(potential, "float64")
    modes = harmonic_modes(relax(start, exact, 1e-4), exact)
    expansion = expand_tensor(model, modes)
    harmonic = {}
    for name, p in (("classical", 1), (f"{n_beads} beads", n_beads)):
        shift = np.einsum("k,kab->ab", bead_variance(modes.frequencies, temperature, p), expansion.second)
        harmonic[name] = zfs_parameters(expansion.value + 0.5 * shift).d
    harmonic["quantum"] = zfs_parameters(expansion.thermal_mean(temperature)).d
    for name, value in harmonic.items():
        print(f"harmonic, {name:10}: {value:7.2f}, difference {value - harmonic['classical']:6.2f} cm^-1")


if __name__ == "__main__":
    main()
