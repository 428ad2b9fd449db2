"""Groups of arrays that kernels share, so that a kernel is called with a few named things instead of twenty arrays."""

from typing import NamedTuple

import numpy as np

MAX_RADIAL = 8
"""Most radial functions of a descriptor: radial coefficients are padded to this number, unused ones are zero."""


class Geometry(NamedTuple):
    """Who neighbors whom; all that is not differentiated. Pair p of center i: d = r_j - r_i + displacement[shift[p]].

    species (n_atoms,) int32; structure (n_atoms,) int32; row_start (n_atoms + 1,) int64; neighbor, shift (n_pairs,)
    int32; displacement (n_shifts, 3) float64, A; n_structures counts empty structures too.
    """

    species: np.ndarray
    structure: np.ndarray
    row_start: np.ndarray
    neighbor: np.ndarray
    shift: np.ndarray
    displacement: np.ndarray
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
