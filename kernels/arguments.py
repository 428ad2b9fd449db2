"""Groups of arrays that kernels share, so that a kernel is called with a few named things instead of twenty arrays."""

from typing import NamedTuple

import numpy as np

MAX_RADIAL = 8
"""Most radial functions of a descriptor: radial coefficients are padded to this number, unused ones are zero."""


class Geometry(NamedTuple):
    """Who neighbors whom; all that is not differentiated. Pair p of center i: d = r_j - r_i + displacement[shift[p]].

    species (n_atoms,) int32; structure (n_atoms,) int32; row_start (n_atoms + 1,) int64; neighbor, shift (n_pairs,)
    int32; displacement (n_shifts, 3) float64, A; n_structures counts empty structures too.

    reverse (n_pairs,) int32: number of the pair j -> i, -S of each pair i -> j, S. Only a gradient in positions on the
    GPU reads it, so it is empty on the CPU.
    """

    species: np.ndarray
    structure: np.ndarray
    row_start: np.ndarray
    neighbor: np.ndarray
    shift: np.ndarray
    displacement: np.ndarray
    reverse: np.ndarray
    n_structures: int


class RadialBasis(NamedTuple):
    """Cutoff and Gaussians in working type: scalars (3,) = r_max, gamma, c kappa; centers (n_basis,) = mu_b, A."""

    scalars: np.ndarray
    centers: np.ndarray


class Blocks(NamedTuple):
    """Share of the threads: block k owns the center atoms bounds[k] <= i < bounds[k + 1] and the scratch rows [k].

    bounds (n_blocks + 1,) int64; reals (n_blocks, n_rows, capacity) in working type; integers (n_blocks, 2, capacity)
    int32. capacity: the longest row of the neighbor list, rounded up to a multiple of the vector length.
    """

    bounds: np.ndarray
    reals: np.ndarray
    integers: np.ndarray


class Cells(NamedTuple):
    """Periodic cells: lattice (n_structures, 3, 3) rows, A, its inverse, and pbc (n_structures, 3) bool."""

    lattice: np.ndarray
    inverse: np.ndarray
    pbc: np.ndarray


class WrappedAtoms(NamedTuple):
    """Atoms moved into their cells: positions (n_atoms, 3) = those given - cell_offsets @ lattice, A.

    structure (n_atoms,) integers; fractional (n_atoms, 3), in [0, 1] along periodic axes; cell_offsets (n_atoms, 3)
    int64, zero along the others.
    """

    structure: np.ndarray
    positions: np.ndarray
    fractional: np.ndarray
    cell_offsets: np.ndarray


class Grid(NamedTuple):
    """Bins of each structure: equal slices of the fractional coordinates.

    reach (n_structures, 3): the cutoff in fractional coordinates; axes (n_structures, 3, 2): origin, and bins per unit
    of the coordinate; n_bins (n_structures, 3) int64; first_bin (n_structures + 1,) int64, counted along z first.
    """

    reach: np.ndarray
    axes: np.ndarray
    n_bins: np.ndarray
    first_bin: np.ndarray


class Images(NamedTuple):
    """Periodic images, bin by bin; the images of bin b are bin_start[b] ... bin_start[b + 1] - 1.

    bin_start (n_all_bins + 1,) int64; place (6, n_images), A: wrapped position of the atom, then the displacement of
    its cell; atom (n_images,) int32; code (n_images,) int32: its part in the number of a pair's cell shift.
    """

    bin_start: np.ndarray
    place: np.ndarray
    atom: np.ndarray
    code: np.ndarray


class BinnedAtoms(NamedTuple):
    """Wrapped atoms bin by bin, for a search that walks over the cells instead of writing images down.

    bin_start (n_all_bins + 1,) int64; order (n_atoms,) int64: number of each atom; place (n_atoms, 3), A.
    """

    bin_start: np.ndarray
    order: np.ndarray
    place: np.ndarray


class ShiftNumbers(NamedTuple):
    """Rows of the table of cell shifts: the number of a pair's shift is a sum over its two atoms and its cell shift.

    stride (n_structures, 3) int64 of the three components; zero (n_structures,) int64: row of S = 0; code, center_code
    (n_atoms,) int64: part of an atom as neighbor and as center.
    """

    stride: np.ndarray
    zero: np.ndarray
    code: np.ndarray
    center_code: np.ndarray


class Motion(NamedTuple):
    """Atoms that move, and what moves them.

    positions (n_replicas, n_atoms, 3), A, and velocities, A/fs; terms (n_terms, n_replicas, n_atoms, 3), which add up
    to the force; half_kick (n_atoms,): dt/2 over the mass, times what makes A/fs of these sums; half_mass (n_atoms,):
    half the mass in eV/(A/fs)^2.
    """

    positions: np.ndarray
    velocities: np.ndarray
    terms: np.ndarray
    half_kick: np.ndarray
    half_mass: np.ndarray


class Bath(NamedTuple):
    """Heat bath of Langevin dynamics.

    decay = exp(-friction dt); width (n_replicas, n_atoms) of the noise, A/fs; keys (n_replicas, 2) uint32 of the random
    numbers; heat (n_replicas, n_atoms), eV: what the bath has given to each atom.
    """

    decay: float
    width: np.ndarray
    keys: np.ndarray
    heat: np.ndarray


class Chain(NamedTuple):
    """Nose-Hoover chains, all (n_replicas, chain_length): velocities xi, positions eta, n k_B T (eV), and masses."""

    xi: np.ndarray
    eta: np.ndarray
    target: np.ndarray
    mass: np.ndarray
