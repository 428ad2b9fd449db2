"""What a committee says about the force on each atom, on the device."""

import math

from numba import cuda

from gmcore.kernels.compile import cuda_jit


@cuda_jit
def mean_and_deviation(g_positions, forces, deviation):
    """Fill forces (n_atoms, 3) with the mean of -g_positions (n_members, n_atoms, 3), and their deviation (n_atoms,).

    deviation = sqrt(sum over x, y, z of the population variance over the members).
    """
    i = cuda.grid(1)
    if i >= forces.shape[0]:
        return
    n_members, variance = g_positions.shape[0], 0.0
    for a in range(3):
        mean = 0.0
        for m in range(n_members):
            mean += g_positions[m, i, a]
        mean /= n_members
        for m in range(n_members):
            away = g_positions[m, i, a] - mean
            variance += away * away / n_members
        forces[i, a] = -mean
    deviation[i] = math.sqrt(variance)
