"""From the partial sums of `moments_cuda` to gradients, always in the same order: no atomics, the same bits every time.

    positions:  g_i = sum over the row of i of (p_ji - p_ij)      p_ji: the reverse pair, in the row of j
    strain:     per center -> per part of a structure -> per structure, in one go where a structure is one part
    beta:       per block -> sum

What is summed: docs/method.md, section 6.3.

Sums over pairs and atoms are carried in float64; what comes in may be float32.
"""

import math

from numba import cuda

from gmcore.kernels.compile import cuda_device_jit, cuda_jit
from gmcore.kernels.formulas import real
from gmcore.kernels.moments_cuda import LANES, ROW

MAX_LANES = 128  # threads of a block that sums over the atoms of a structure
MAX_ROW = MAX_LANES + 1  # a constant: shapes of shared memory must not be expressions


@cuda_jit
def find_reverse(geometry):
    """Fill geometry.reverse: number of the pair j -> i, -S of each pair i -> j, S; -1 if the list lacks it.

    Launch one block of 32 lanes per center; they search the row of j side by side. Shifts are compared through their
    displacements, which are exact opposites of each other.
    """
    lane = cuda.threadIdx.x
    i = cuda.blockIdx.x
    for pair in range(geometry.row_start[i] + lane, geometry.row_start[i + 1], LANES):
        geometry.reverse[pair] = -1
    cuda.syncthreads()
    for pair in range(geometry.row_start[i], geometry.row_start[i + 1]):
        j, k = geometry.neighbor[pair], geometry.shift[pair]
        for other in range(geometry.row_start[j] + lane, geometry.row_start[j + 1], LANES):
            if geometry.neighbor[other] == i:
                back = geometry.shift[other]
                if (
                    geometry.displacement[back, 0] == -geometry.displacement[k, 0]
                    and geometry.displacement[back, 1] == -geometry.displacement[k, 1]
                    and geometry.displacement[back, 2] == -geometry.displacement[k, 2]
                ):
                    geometry.reverse[pair] = other


@cuda_device_jit
def _add_up(rows, n_rows, lane):
    """Sum of each row of shared memory over the lanes of the block, a power of two, into its first element."""
    half = cuda.blockDim.x // 2
    while half > 0:
        cuda.syncthreads()
        if lane < half:
            for e in range(n_rows):
                rows[e, lane] += rows[e, lane + half]
        half //= 2
    cuda.syncthreads()


@cuda_jit
def sum_positions(geometry, pairs, positions):
    """Fill positions (n_members, n_atoms, 3), float64, from pairs (n_members, n_pairs, 3).

    Launch (n_atoms, n_members) blocks of 32 lanes. A pair without a reverse makes the result not-a-number rather than
    wrong.
    """
    rows = cuda.shared.array((3, ROW), positions.dtype)
    lane = cuda.threadIdx.x
    i, m = cuda.blockIdx.x, cuda.blockIdx.y
    x = y = z = real(positions[m, i, 0], 0.0)
    for pair in range(geometry.row_start[i] + lane, geometry.row_start[i + 1], LANES):
        other = geometry.reverse[pair]
        if other < 0:
            x = real(x, math.nan)
        else:
            x += real(x, pairs[m, other, 0]) - real(x, pairs[m, pair, 0])
            y += real(x, pairs[m, other, 1]) - real(x, pairs[m, pair, 1])
            z += real(x, pairs[m, other, 2]) - real(x, pairs[m, pair, 2])
    rows[0, lane], rows[1, lane], rows[2, lane] = x, y, z
    _add_up(rows, 3, lane)
    if lane < 3:
        positions[m, i, lane] = rows[lane, 0]


@cuda_device_jit
def _first_atom(structure, k):
    """Number of atoms in structures before k; `structure` (n_atoms,) ascends."""
    low, high = 0, structure.shape[0]
    while low < high:
        middle = (low + high) // 2
        if structure[middle] < k:
            low = middle + 1
        else:
            high = middle
    return low


@cuda_jit
def sum_strain_parts(structure, centers, parts):
    """Fill parts (n_members, n_structures, n_parts, 9), float64, from centers (n_members, n_atoms, 3, 3).

    Launch a grid (n_structures, n_parts, n_members) of blocks of at most 128 lanes, a power of two; a part takes every
    n_parts-th run of as many atoms.
    """
    rows = cuda.shared.array((9, MAX_ROW), parts.dtype)
    lane, lanes = cuda.threadIdx.x, cuda.blockDim.x
    k, part, m = cuda.blockIdx.x, cuda.blockIdx.y, cuda.blockIdx.z
    begin, end = _first_atom(structure, k), _first_atom(structure, k + 1)
    for e in range(9):
        rows[e, lane] = real(parts[m, k, part, 0], 0.0)
    for i in range(begin + part * lanes + lane, end, parts.shape[2] * lanes):
        for e in range(9):
            rows[e, lane] += real(parts[m, k, part, 0], centers[m, i, e // 3, e % 3])
    _add_up(rows, 9, lane)
    for e in range(lane, 9, lanes):
        parts[m, k, part, e] = rows[e, 0]


@cuda_jit
def sum_strain(parts, strain):
    """Fill strain (n_structures, 3, 3) from parts (n_structures, n_parts, 9). One thread per entry."""
    entry = cuda.grid(1)
    if entry < strain.shape[0] * 9:
        k, e = entry // 9, entry % 9
        total = real(strain[0, 0, 0], 0.0)
        for part in range(parts.shape[1]):
            total += parts[k, part, e]
        strain[k, e // 3, e % 3] = total


@cuda_jit
def sum_beta(blocks, beta):
    """Fill beta (n_species, n_species, n_radial, n_basis) from blocks (n_blocks, n_species, n_species, n_basis, 8).

    One thread per entry.
    """
    entry = cuda.grid(1)
    n_species, _, n_radial, n_basis = beta.shape
    if entry < n_species * n_species * n_radial * n_basis:
        b, s = entry % n_basis, entry // n_basis % n_radial
        neighbor = entry // (n_basis * n_radial) % n_species
        center = entry // (n_basis * n_radial * n_species)
        total = real(blocks[0, 0, 0, 0, 0], 0.0)
        for block in range(blocks.shape[0]):
            total += blocks[block, center, neighbor, b, s]
        beta[center, neighbor, s, b] = total


@cuda_jit
def pack_beta(beta, packed):
    """Fill packed (n_species, n_species, n_basis, 8) from beta (n_species, n_species, n_radial, n_basis).

    One thread per entry of `packed`; channels that beta lacks become zero.
    """
    entry = cuda.grid(1)
    n_species, _, n_basis, n_channels = packed.shape
    if entry < n_species * n_species * n_basis * n_channels:
        s, b = entry % n_channels, entry // n_channels % n_basis
        neighbor = entry // (n_channels * n_basis) % n_species
        center = entry // (n_channels * n_basis * n_species)
        packed[center, neighbor, b, s] = (
            beta[center, neighbor, s, b] if s < beta.shape[2] else real(beta[0, 0, 0, 0], 0.0)
        )
