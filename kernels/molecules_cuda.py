"""Molecules of a moving structure made whole along their bonds, on the device; one thread per molecule.

The rule is that of `gmcore.molecules.molecules`: along each bond the image of the child that is nearest to its parent;
whole numbers of cell vectors are added up along the way, so no rounding is.
"""

import math

from numba import cuda

from gmcore.kernels.compile import cuda_device_jit, cuda_jit


@cuda_device_jit
def length2(x, y, z, n0, n1, n2, lattice, r):
    """Squared length of (x, y, z) + n @ lattice[r]."""
    x += n0 * lattice[r, 0, 0] + n1 * lattice[r, 1, 0] + n2 * lattice[r, 2, 0]
    y += n0 * lattice[r, 0, 1] + n1 * lattice[r, 1, 1] + n2 * lattice[r, 2, 1]
    z += n0 * lattice[r, 0, 2] + n1 * lattice[r, 1, 2] + n2 * lattice[r, 2, 2]
    return x * x + y * y + z * z


@cuda_device_jit
def nearest_image(x, y, z, lattice, inverse, safe, r):
    """Whole numbers n for which |(x, y, z) + n @ lattice[r]| is least, in a Minkowski-reduced lattice.

    What is shorter than `safe`, half of the least height of the cell, has no shorter image. Else the 26 images around
    the best one known are tried until none is shorter: those of a reduced lattice decide.
    """
    n0 = -math.floor(x * inverse[r, 0, 0] + y * inverse[r, 1, 0] + z * inverse[r, 2, 0] + 0.5)
    n1 = -math.floor(x * inverse[r, 0, 1] + y * inverse[r, 1, 1] + z * inverse[r, 2, 1] + 0.5)
    n2 = -math.floor(x * inverse[r, 0, 2] + y * inverse[r, 1, 2] + z * inverse[r, 2, 2] + 0.5)
    least = length2(x, y, z, n0, n1, n2, lattice, r)
    searching = least > safe[r] * safe[r]
    while searching:
        searching = False
        c0, c1, c2 = n0, n1, n2
        for image in range(27):
            i = image // 9
            j = (image - 9 * i) // 3
            m0, m1, m2 = c0 + (i - 1), c1 + (j - 1), c2 + (image - 9 * i - 3 * j - 1)
            found = length2(x, y, z, m0, m1, m2, lattice, r)
            if found < least:
                n0, n1, n2, least, searching = m0, m1, m2, found, True
    return n0, n1, n2


@cuda_jit
def unwrap(positions, indices, walk, lattice, inverse, safe, shifts, whole):
    """whole (n_replicas n_molecules n_own, 3) = the molecules of positions (n_replicas, n_atoms, 3).

    indices (n_molecules, n_own) are their atoms; walk (n_bonds, 2) the bonds of a molecule from parent to child, each
    parent before its children; lattice and inverse (n_replicas, 3, 3) with zeros for what is not periodic; safe
    (n_replicas,) A; shifts, shaped as whole, is scratch.
    """
    thread = cuda.grid(1)
    n_molecules, n_own = indices.shape[0], indices.shape[1]
    r = thread // n_molecules
    if r >= positions.shape[0]:
        return
    molecule = thread - r * n_molecules
    first = thread * n_own
    for k in range(n_own):
        for a in range(3):
            whole[first + k, a] = positions[r, indices[molecule, k], a]
            shifts[first + k, a] = 0.0
    for bond in range(walk.shape[0]):
        parent, child = walk[bond, 0], walk[bond, 1]
        i, j = indices[molecule, parent], indices[molecule, child]
        x = positions[r, j, 0] - positions[r, i, 0]
        y = positions[r, j, 1] - positions[r, i, 1]
        z = positions[r, j, 2] - positions[r, i, 2]
        n0, n1, n2 = nearest_image(x, y, z, lattice, inverse, safe, r)
        n0 += shifts[first + parent, 0]
        n1 += shifts[first + parent, 1]
        n2 += shifts[first + parent, 2]
        shifts[first + child, 0], shifts[first + child, 1], shifts[first + child, 2] = n0, n1, n2
        for a in range(3):
            whole[first + child, a] += n0 * lattice[r, 0, a] + n1 * lattice[r, 1, a] + n2 * lattice[r, 2, a]
