"""What quantum nuclei do to D: path integrals of i-PI beside the harmonic estimate.

    python quantum.py RUN_PREFIX TEMPERATURE POTENTIAL D_MODEL      (runs/ipi/pimd 300 ...)

Along a path integral the beads have the quantum distribution of the nuclei. Their centroid has, as long as the
potential is harmonic, exactly the classical one. The difference

    D of <D(bead)> - D of <D(centroid)>

is the effect of quantum nuclei up to anharmonic terms of the centroid, and slow motion, which is the same in both,
cancels. Tensors are averaged in the Eckart frame of the centroid; errors are those of five blocks (jackknife).

The harmonic estimate is the same difference for the modes of the relaxed structure, <D> = D0 + 1/2 sum D'' <q^2>, with

    <q^2> = sum over k < P of x/(x^2 + (2 P sin(pi k/P))^2),   x = hbar omega/kT

for P beads and coth(x/2)/2 for infinitely many (P = 1 is the classical one). Both are also computed with the exact D of
the example's data, which real data do not offer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase.io import read

from gmcore import load_model, zfs_parameters
from gmcore.analysis.couplings import SECOND_STEP, expand_tensor
from gmcore.analysis.modes import frequency_to_omega, harmonic_modes, thermal_variance
from gmcore.dynamics.relaxation import relax
from gmcore.molecules.superposition import align, rotate_tensors
from gmcore.units import BOLTZMANN, HBAR

DATA = Path(__file__).resolve().parents[1] / "co_pdms"
START = DATA / "potential.extxyz"
sys.path.append(str(DATA))
from ligand_field import d_tensor  # noqa: E402

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


def show_path_integral(name: str, beads: np.ndarray, centroids: np.ndarray, rotations: np.ndarray) -> None:
    """Print D of beads (n_beads, n, 3, 3) and centroids (n, 3, 3), with jackknife errors over blocks."""
    of_beads, of_centroids = rotate_tensors(beads.mean(axis=0), rotations), rotate_tensors(centroids, rotations)
    rows = np.arange(len(of_centroids))
    left_out = [np.setdiff1d(rows, block) for block in np.array_split(rows, N_BLOCKS)]
    parts = np.array([difference(of_beads[kept], of_centroids[kept]) for kept in left_out])
    errors = np.sqrt((N_BLOCKS - 1) * parts.var(axis=0))
    words = zip(("beads", "centroid", "difference"), difference(of_beads, of_centroids), errors)
    print(f"{name}, path integral:", ", ".join(f"{what} {value:.2f} +- {error:.2f}" for what, value, error in words))


def show_harmonic(name: str, value: np.ndarray, second: np.ndarray, variances: dict[str, np.ndarray]) -> None:
    """Print D of the mean tensor for each <q^2> (n_modes,)."""
    d = {k: zfs_parameters(value + 0.5 * np.einsum("k,kab->ab", v, second)).d for k, v in variances.items()}
    print(f"{name}, harmonic:", ", ".join(f"{k} {v:.2f} ({v - d['classical']:+.2f})" for k, v in d.items()))


def exact(frames: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """D of the ligand-field model, of which the training data are, for positions (..., n_atoms, 3)."""
    flat = [d_tensor(numbers, places) for places in frames.reshape(-1, *frames.shape[-2:])]
    return np.reshape(flat, (*frames.shape[:-2], 3, 3))


def main() -> None:
    prefix, temperature, potential, d_model = sys.argv[1], float(sys.argv[2]), *sys.argv[3:5]
    start, model = read(START), load_model(d_model, "float64")
    positions, tensors = read_beads(prefix)
    first = int(DISCARD * positions.shape[1])
    positions, tensors = positions[:, first:], tensors[:, first:]
    n_beads, n = positions.shape[:2]
    print(f"D of the averaged tensor in cm^-1; {n_beads} beads, {temperature:g} K, {n} samples")
    centroids = positions.mean(axis=0)
    frames = [start.copy() for _ in range(n)]
    for frame, places in zip(frames, centroids):
        frame.positions = places
    rotations = align(centroids, start.positions, start.get_masses())
    show_path_integral("learned", tensors, model.predict(frames, errors=False)["d_tensor"], rotations)
    show_path_integral("exact", exact(positions, start.numbers), exact(centroids, start.numbers), rotations)

    best = load_model(potential, "float64")
    modes = harmonic_modes(relax(start, best, 1e-4), best)
    variances = {
        "classical": thermal_variance(modes.frequencies, temperature, quantum=False),
        f"{n_beads} beads": bead_variance(modes.frequencies, temperature, n_beads),
        "quantum": thermal_variance(modes.frequencies, temperature),
    }
    expansion = expand_tensor(model, modes)
    show_harmonic("learned", expansion.value, expansion.second, variances)
    places, steps = modes.atoms.positions, SECOND_STEP * modes.displacements
    value, up, down = (exact(x, start.numbers) for x in (places, places + steps, places - steps))
    show_harmonic("exact", value, (up + down - 2.0 * value) / SECOND_STEP**2, variances)


if __name__ == "__main__":
    main()
