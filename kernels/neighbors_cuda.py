"""Neighbor search on the device: sort the atoms into bins, then let each atom walk the bins in reach.

Geometry, margins and the numbering of cell shifts are those of `neighbors_cpu`. What differs is that no images are
written down, since their number is not known without asking the host. Bins of a periodic axis cut the cell into n equal
slices and are counted on beyond the cell: bin b stands for bin b - X n of the cell, shifted by X = floor(b / n). A cell
smaller than the cutoff is one bin whose shifts run over as many cells as are in reach.

Centers are taken in the order of the bins, so that the threads of a warp walk the same bins. Each row is written by one
thread in a fixed order: the same input gives the same arrays. d = (w_j - w_i) + X @ lattice changes its sign exactly
when i and j change places, so each pair has its reverse even where rounding decides; hence no fast-math in this file.
"""

import math

import numpy as np
from numba import cuda

from gmcore.kernels.compile import cuda_jit, exact_jit

MAX_COORDINATE = 1e8
"""Coordinates, A, beyond which a position is refused; not-a-number among them."""


@cuda_jit
def wrap_atoms(positions, structure, lattice, inverse, pbc, wrapped, fractional, turns, bad):
    """wrapped = positions - turns @ lattice, fractional coordinates in [0, 1] along periodic axes; bad[0] = 1 where a
    position is not a number or out of bounds.
    """
    i = cuda.grid(1)
    if i >= positions.shape[0]:
        return
    k = structure[i]
    valid = True
    for a in range(3):
        valid = valid and abs(positions[i, a]) < MAX_COORDINATE
    if not valid:
        bad[0] = 1
    for b in range(3):
        wrapped[i, b] = positions[i, b] if valid else 0.0
    for a in range(3):
        s = 0.0
        for b in range(3):
            s += (positions[i, b] if valid else 0.0) * inverse[k, b, a]
        turn = math.floor(s) if pbc[k, a] else 0
        fractional[i, a] = s - turn
        turns[i, a] = turn
        if turn != 0:
            for b in range(3):
                wrapped[i, b] -= turn * lattice[k, a, b]


@cuda_jit
def tile_bounds(first, last, fractional, turns, bounds):
    """bounds (n_tiles, 3, 4): smallest and largest fractional coordinate and turn of the atoms first <= i < last."""
    t = cuda.grid(1)
    if t >= first.shape[0]:
        return
    for a in range(3):
        low, high = math.inf, -math.inf
        fewest, most = math.inf, -math.inf
        for i in range(first[t], last[t]):
            low, high = min(low, fractional[i, a]), max(high, fractional[i, a])
            fewest, most = min(fewest, float(turns[i, a])), max(most, float(turns[i, a]))
        bounds[t, a, 0], bounds[t, a, 1] = low, high
        bounds[t, a, 2], bounds[t, a, 3] = fewest, most


@exact_jit
def bin_of(s, origin, per_unit, n):
    """Bin of the fractional coordinate s; everything beyond the ends belongs to the first and the last bin."""
    return min(max(np.int64(math.floor((s - origin) * per_unit)), 0), n - 1)


@exact_jit
def first_and_last(s, reach, periodic, origin, per_unit, n):
    """Bins that meet [s - reach, s + reach]; along a periodic axis counted on beyond the cell."""
    if periodic:
        return np.int64(math.floor((s - reach) * per_unit)), np.int64(math.floor((s + reach) * per_unit))
    return bin_of(s - reach, origin, per_unit, n), bin_of(s + reach, origin, per_unit, n)


@cuda_jit
def bin_atoms(structure, fractional, turns, grid, n_bins, first_bin, stride, zero, key, code, center_code):
    """Bin of every atom, and its part in the number of a pair's shift, as neighbor and as center.

    grid (n_structures, 3, 2): origin and bins per unit; zero (n_structures,): number of S = 0.
    """
    i = cuda.grid(1)
    if i >= structure.shape[0]:
        return
    k = structure[i]
    b, wound = np.int64(0), np.int64(0)
    for a in range(3):
        b = b * n_bins[k, a] + bin_of(fractional[i, a], grid[k, a, 0], grid[k, a, 1], n_bins[k, a])
        wound += turns[i, a] * stride[k, a]
    key[i] = first_bin[k] + b
    code[i] = -wound
    center_code[i] = zero[k] + wound


@cuda_jit
def count_rows(
    order, place, structure, fractional, lattice, pbc, reach, grid, n_bins, first_bin, bin_start, limit2, count,
    nearest2,
):  # fmt: skip
    """Number of neighbors of every center and the squared distance of the nearest one (inf without any).

    order (n_atoms,): atoms bin by bin; bin_start (n_all_bins + 1,) counts in it; place (n_atoms, 3): their wrapped
    positions in this order; limit2: squared cutoff.
    """
    slot = cuda.grid(1)
    if slot >= order.shape[0]:
        return
    i = order[slot]
    k = structure[i]
    x, y, z = place[slot, 0], place[slot, 1], place[slot, 2]
    nx, ny, nz = n_bins[k, 0], n_bins[k, 1], n_bins[k, 2]
    x0, x1 = first_and_last(fractional[i, 0], reach[k, 0], pbc[k, 0], grid[k, 0, 0], grid[k, 0, 1], nx)
    y0, y1 = first_and_last(fractional[i, 1], reach[k, 1], pbc[k, 1], grid[k, 1, 0], grid[k, 1, 1], ny)
    z0, z1 = first_and_last(fractional[i, 2], reach[k, 2], pbc[k, 2], grid[k, 2, 0], grid[k, 2, 1], nz)
    within = 0
    nearest = math.inf
    for bx in range(x0, x1 + 1):
        tx = bx // nx
        for by in range(y0, y1 + 1):
            ty = by // ny
            column = first_bin[k] + ((bx - tx * nx) * ny + (by - ty * ny)) * nz
            for tz in range(z0 // nz, z1 // nz + 1):
                sx = tx * lattice[k, 0, 0] + ty * lattice[k, 1, 0] + tz * lattice[k, 2, 0]
                sy = tx * lattice[k, 0, 1] + ty * lattice[k, 1, 1] + tz * lattice[k, 2, 1]
                sz = tx * lattice[k, 0, 2] + ty * lattice[k, 1, 2] + tz * lattice[k, 2, 2]
                home = tx == 0 and ty == 0 and tz == 0
                begin, end = max(z0 - tz * nz, 0), min(z1 - tz * nz, nz - 1) + 1
                for g in range(bin_start[column + begin], bin_start[column + end]):
                    dx, dy, dz = (place[g, 0] - x) + sx, (place[g, 1] - y) + sy, (place[g, 2] - z) + sz
                    d2 = dx * dx + dy * dy + dz * dz
                    if d2 < limit2 and not (home and g == slot):
                        within += 1
                        nearest = min(nearest, d2)
    count[i] = within
    nearest2[i] = nearest


@cuda_jit
def fill_rows(
    order, place, structure, fractional, lattice, pbc, reach, grid, n_bins, first_bin, bin_start, limit2, stride, code,
    center_code, row_start, neighbor, shift, overflow,
):  # fmt: skip
    """Write the rows that `count_rows` counted. A row that does not fit into `neighbor` is left out and overflow[0]
    set to 1: the arrays are then of no use until they have been made larger and filled again.
    """
    slot = cuda.grid(1)
    if slot >= order.shape[0]:
        return
    i = order[slot]
    if row_start[i + 1] > neighbor.shape[0]:
        overflow[0] = 1
        return
    k = structure[i]
    x, y, z = place[slot, 0], place[slot, 1], place[slot, 2]
    nx, ny, nz = n_bins[k, 0], n_bins[k, 1], n_bins[k, 2]
    x0, x1 = first_and_last(fractional[i, 0], reach[k, 0], pbc[k, 0], grid[k, 0, 0], grid[k, 0, 1], nx)
    y0, y1 = first_and_last(fractional[i, 1], reach[k, 1], pbc[k, 1], grid[k, 1, 0], grid[k, 1, 1], ny)
    z0, z1 = first_and_last(fractional[i, 2], reach[k, 2], pbc[k, 2], grid[k, 2, 0], grid[k, 2, 1], nz)
    p = row_start[i]
    for bx in range(x0, x1 + 1):
        tx = bx // nx
        for by in range(y0, y1 + 1):
            ty = by // ny
            column = first_bin[k] + ((bx - tx * nx) * ny + (by - ty * ny)) * nz
            for tz in range(z0 // nz, z1 // nz + 1):
                sx = tx * lattice[k, 0, 0] + ty * lattice[k, 1, 0] + tz * lattice[k, 2, 0]
                sy = tx * lattice[k, 0, 1] + ty * lattice[k, 1, 1] + tz * lattice[k, 2, 1]
                sz = tx * lattice[k, 0, 2] + ty * lattice[k, 1, 2] + tz * lattice[k, 2, 2]
                home = tx == 0 and ty == 0 and tz == 0
                moved = tx * stride[k, 0] + ty * stride[k, 1] + tz * stride[k, 2] + center_code[i]
                begin, end = max(z0 - tz * nz, 0), min(z1 - tz * nz, nz - 1) + 1
                for g in range(bin_start[column + begin], bin_start[column + end]):
                    dx, dy, dz = (place[g, 0] - x) + sx, (place[g, 1] - y) + sy, (place[g, 2] - z) + sz
                    d2 = dx * dx + dy * dy + dz * dz
                    if d2 < limit2 and not (home and g == slot):
                        j = order[g]
                        neighbor[p] = j
                        shift[p] = moved + code[j]
                        p += 1


@cuda_jit
def find_movers(positions, reference, structure, deformation, limit2, moved):
    """moved[0] = 1 if an atom lies farther than sqrt(limit2) of its structure from where the deformation of the cell,
    (n_structures, 3, 3), takes its place in `reference`; an atom that is not a number counts as moved.
    """
    i = cuda.grid(1)
    if i >= positions.shape[0]:
        return
    k = structure[i]
    u2 = 0.0
    for b in range(3):
        u = positions[i, b]
        for a in range(3):
            u -= reference[i, a] * deformation[k, a, b]
        u2 += u * u
    if not u2 <= limit2[k]:
        moved[0] = 1
