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
def wrap_atoms(positions, cells, atoms, bad):
    """Fill positions, fractional coordinates and cell offsets of `atoms`.

    bad[0] = 1 where a position is not a number or out of bounds.
    """
    i = cuda.grid(1)
    if i >= positions.shape[0]:
        return
    k = atoms.structure[i]
    valid = True
    for a in range(3):
        valid = valid and abs(positions[i, a]) < MAX_COORDINATE
    if not valid:
        bad[0] = 1
    for b in range(3):
        atoms.positions[i, b] = positions[i, b] if valid else 0.0
    for a in range(3):
        s = 0.0
        for b in range(3):
            s += (positions[i, b] if valid else 0.0) * cells.inverse[k, b, a]
        offset = math.floor(s) if cells.pbc[k, a] else 0
        atoms.fractional[i, a] = s - offset
        atoms.cell_offsets[i, a] = offset
        if offset != 0:
            for b in range(3):
                atoms.positions[i, b] -= offset * cells.lattice[k, a, b]


@cuda_jit
def tile_bounds(first, last, atoms, bounds):
    """Fill bounds (n_tiles, 3, 4): smallest and largest fractional coordinate and cell offset.

    A tile holds the atoms first <= i < last.
    """
    t = cuda.grid(1)
    if t >= first.shape[0]:
        return
    for a in range(3):
        low, high = math.inf, -math.inf
        fewest, most = math.inf, -math.inf
        for i in range(first[t], last[t]):
            low, high = min(low, atoms.fractional[i, a]), max(high, atoms.fractional[i, a])
            offset = float(atoms.cell_offsets[i, a])
            fewest, most = min(fewest, offset), max(most, offset)
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


@exact_jit
def bins_in_reach(i, k, a, atoms, cells, grid):
    """First and last bin along axis a within the cutoff of atom i."""
    return first_and_last(
        atoms.fractional[i, a], grid.reach[k, a], cells.pbc[k, a], grid.axes[k, a, 0], grid.axes[k, a, 1],
        grid.n_bins[k, a],
    )  # fmt: skip


@cuda_jit
def bin_atoms(atoms, grid, numbers, key):
    """Bin of every atom into key (n_atoms,), and the codes of `numbers`."""
    i = cuda.grid(1)
    if i >= atoms.structure.shape[0]:
        return
    k = atoms.structure[i]
    b, wound = np.int64(0), np.int64(0)
    for a in range(3):
        n = grid.n_bins[k, a]
        b = b * n + bin_of(atoms.fractional[i, a], grid.axes[k, a, 0], grid.axes[k, a, 1], n)
        wound += atoms.cell_offsets[i, a] * numbers.stride[k, a]
    key[i] = grid.first_bin[k] + b
    numbers.code[i] = -wound
    numbers.center_code[i] = numbers.zero[k] + wound


@cuda_jit
def count_rows(binned, atoms, cells, grid, limit2, count, nearest2):
    """Count the neighbors of every center and find the squared distance of the nearest one (inf without any).

    limit2 is the squared cutoff.
    """
    slot = cuda.grid(1)
    place, bin_start = binned.place, binned.bin_start
    if slot >= place.shape[0]:
        return
    i = binned.order[slot]
    k = atoms.structure[i]
    x, y, z = place[slot, 0], place[slot, 1], place[slot, 2]
    nx, ny, nz = grid.n_bins[k, 0], grid.n_bins[k, 1], grid.n_bins[k, 2]
    x0, x1 = bins_in_reach(i, k, 0, atoms, cells, grid)
    y0, y1 = bins_in_reach(i, k, 1, atoms, cells, grid)
    z0, z1 = bins_in_reach(i, k, 2, atoms, cells, grid)
    lattice = cells.lattice
    within = 0
    nearest = math.inf
    for bx in range(x0, x1 + 1):
        tx = bx // nx
        for by in range(y0, y1 + 1):
            ty = by // ny
            column = grid.first_bin[k] + ((bx - tx * nx) * ny + (by - ty * ny)) * nz
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
def fill_rows(binned, atoms, cells, grid, numbers, limit2, row_start, neighbor, shift, overflow):
    """Write the rows that `count_rows` counted.

    A row that does not fit into `neighbor` is left out and overflow[0] set to 1: the arrays must then be made larger
    and filled again.
    """
    slot = cuda.grid(1)
    place, bin_start = binned.place, binned.bin_start
    if slot >= place.shape[0]:
        return
    i = binned.order[slot]
    if row_start[i + 1] > neighbor.shape[0]:
        overflow[0] = 1
        return
    k = atoms.structure[i]
    x, y, z = place[slot, 0], place[slot, 1], place[slot, 2]
    nx, ny, nz = grid.n_bins[k, 0], grid.n_bins[k, 1], grid.n_bins[k, 2]
    x0, x1 = bins_in_reach(i, k, 0, atoms, cells, grid)
    y0, y1 = bins_in_reach(i, k, 1, atoms, cells, grid)
    z0, z1 = bins_in_reach(i, k, 2, atoms, cells, grid)
    lattice, stride = cells.lattice, numbers.stride
    p = row_start[i]
    for bx in range(x0, x1 + 1):
        tx = bx // nx
        for by in range(y0, y1 + 1):
            ty = by // ny
            column = grid.first_bin[k] + ((bx - tx * nx) * ny + (by - ty * ny)) * nz
            for tz in range(z0 // nz, z1 // nz + 1):
                sx = tx * lattice[k, 0, 0] + ty * lattice[k, 1, 0] + tz * lattice[k, 2, 0]
                sy = tx * lattice[k, 0, 1] + ty * lattice[k, 1, 1] + tz * lattice[k, 2, 1]
                sz = tx * lattice[k, 0, 2] + ty * lattice[k, 1, 2] + tz * lattice[k, 2, 2]
                home = tx == 0 and ty == 0 and tz == 0
                moved = tx * stride[k, 0] + ty * stride[k, 1] + tz * stride[k, 2] + numbers.center_code[i]
                begin, end = max(z0 - tz * nz, 0), min(z1 - tz * nz, nz - 1) + 1
                for g in range(bin_start[column + begin], bin_start[column + end]):
                    dx, dy, dz = (place[g, 0] - x) + sx, (place[g, 1] - y) + sy, (place[g, 2] - z) + sz
                    d2 = dx * dx + dy * dy + dz * dz
                    if d2 < limit2 and not (home and g == slot):
                        j = binned.order[g]
                        neighbor[p] = j
                        shift[p] = moved + numbers.code[j]
                        p += 1


@cuda_jit
def find_movers(positions, reference, structure, deformation, limit2, moved):
    """Set moved[0] = 1 if an atom lies farther than sqrt(limit2) of its structure from where it is expected.

    It is expected where the deformation of the cell (n_structures, 3, 3) takes its place in `reference`. An atom that
    is not a number counts as moved.
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
