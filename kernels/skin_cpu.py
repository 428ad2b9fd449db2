"""How far a batch has moved since its neighbor list was built."""

import math

import numba

from gmcore.kernels.compile import exact_jit, parallel_jit


@exact_jit
def closing_distance(offsets, positions, reference, deformation, closing):
    """closing (n_structures,): bound on how much any two atoms of a structure came closer by moving.

    u_i = r_i - r0_i F is the displacement beside the homogeneous deformation F of the cell, taken about the mean of u,
    since a common translation changes no distance. Two atoms approach by at most the two largest |u|.
    """
    for k in range(offsets.size - 1):
        begin, end = offsets[k], offsets[k + 1]
        mean_x, mean_y, mean_z = 0.0, 0.0, 0.0
        for i in range(begin, end):
            x, y, z = _displacement(positions[i], reference[i], deformation[k])
            mean_x += x
            mean_y += y
            mean_z += z
        n = max(end - begin, 1)
        mean_x, mean_y, mean_z = mean_x / n, mean_y / n, mean_z / n
        largest, second = 0.0, 0.0
        for i in range(begin, end):
            x, y, z = _displacement(positions[i], reference[i], deformation[k])
            u2 = (x - mean_x) ** 2 + (y - mean_y) ** 2 + (z - mean_z) ** 2
            if u2 > largest:
                largest, second = u2, largest
            elif u2 > second:
                second = u2
        closing[k] = math.sqrt(largest) + math.sqrt(second)


@exact_jit
def _displacement(r, r0, f):
    return (
        r[0] - (r0[0] * f[0, 0] + r0[1] * f[1, 0] + r0[2] * f[2, 0]),
        r[1] - (r0[0] * f[0, 1] + r0[1] * f[1, 1] + r0[2] * f[2, 1]),
        r[2] - (r0[0] * f[0, 2] + r0[1] * f[1, 2] + r0[2] * f[2, 2]),
    )


@parallel_jit
def nearest_neighbors(positions, displacements, row_start, neighbor, shift, nearest2):
    """nearest2 (n_atoms,): squared distance of the nearest neighbor, infinity without neighbors."""
    for i in numba.prange(positions.shape[0]):
        best = math.inf
        for p in range(row_start[i], row_start[i + 1]):
            j, s = neighbor[p], shift[p]
            x = positions[j, 0] - positions[i, 0] + displacements[s, 0]
            y = positions[j, 1] - positions[i, 1] + displacements[s, 1]
            z = positions[j, 2] - positions[i, 2] + displacements[s, 2]
            best = min(best, x * x + y * y + z * z)
        nearest2[i] = best
