"""Neighbor search: bin all periodic images of each structure, then test each atom against the bins in reach.

Images. Along a periodic direction a sphere of radius r_c covers `reach` = r_c |column of the inverse lattice| in
fractional coordinates, in any triclinic cell. With all atoms wrapped into [0, 1], only images inside
[-reach, 1 + reach] matter; each is written down once as an atom of its own, so that the search itself knows nothing
of periodicity. Cells smaller than the cutoff only have more images; self-images are images like any other.

Bins are equal slices of the fractional coordinates. The last axis is sliced finest: bins along it are neighbors in
memory, so each atom reads a few long contiguous runs of coordinates. A small structure is a single bin, which is the
direct search over all pairs.

Two passes, count then fill, take the same decisions bit for bit; hence no fast-math in this file. An image keeps its
wrapped position and its cell displacement apart: (w_j - w_i) + D changes its sign exactly when i and j change places,
so each pair has its reverse even where rounding decides whether it lies within the cutoff.

Cell shifts are numbered structure by structure: S in [-range, range]^3 is row first_shift + linear(S + range), and
since `linear` is linear, the number of a pair's shift is a sum of one integer of the image and one of the center.
"""

import math

import numba
import numpy as np

from gmcore.kernels.compile import exact_jit, parallel_jit

MARGIN = 1e-9
"""Widening of the search in fractional coordinates, far above rounding; distances decide in the end."""


@exact_jit
def wrap_atoms(positions, offsets, cells, atoms, bounds):
    """Fill positions, fractional coordinates and cell offsets of `atoms`.

    bounds (n_structures, 3, 4): smallest and largest fractional coordinate, smallest and largest cell offset.
    """
    for k in range(offsets.size - 1):
        bounds[k] = 0.0
        for i in range(offsets[k], offsets[k + 1]):
            first = i == offsets[k]
            for b in range(3):
                atoms.positions[i, b] = positions[i, b]
            for a in range(3):
                s = 0.0
                for b in range(3):
                    s += positions[i, b] * cells.inverse[k, b, a]
                offset = math.floor(s) if cells.pbc[k, a] else 0.0
                s -= offset
                atoms.fractional[i, a] = s
                atoms.cell_offsets[i, a] = np.int64(offset)
                if offset != 0.0:
                    for b in range(3):
                        atoms.positions[i, b] -= offset * cells.lattice[k, a, b]
                if first or s < bounds[k, a, 0]:
                    bounds[k, a, 0] = s
                if first or s > bounds[k, a, 1]:
                    bounds[k, a, 1] = s
                if first or offset < bounds[k, a, 2]:
                    bounds[k, a, 2] = offset
                if first or offset > bounds[k, a, 3]:
                    bounds[k, a, 3] = offset


@exact_jit
def plan_grids(cutoff, offsets, cells, bounds, slices, single_bin, grid, shift_range, size):
    """Choose the bins of each structure: fill `grid`.

    slices (3,): bins per cutoff along each axis; single_bin: no bins below this number of images.
    Fills shift_range (n_structures, 3) too, and size (2,): upper bounds, as floats that cannot overflow, of the numbers
    of images and of rows of the shift table.
    """
    size[:] = 0.0
    grid.first_bin[0] = 0
    for k in range(offsets.size - 1):
        images, rows = float(offsets[k + 1] - offsets[k]), 1.0
        for a in range(3):
            inverse = cells.inverse[k]
            norm = math.sqrt(inverse[0, a] ** 2 + inverse[1, a] ** 2 + inverse[2, a] ** 2)
            reach = cutoff * norm * (1.0 + MARGIN) + MARGIN
            grid.reach[k, a] = reach
            shift_range[k, a] = 0
            if cells.pbc[k, a]:
                images *= 2.0 + 2.0 * reach
                farthest = math.floor(1.0 + reach) + bounds[k, a, 3] - bounds[k, a, 2]
                rows *= 1.0 + 2.0 * farthest
                shift_range[k, a] = np.int64(farthest)
        size[0] += images
        size[1] += rows
        _choose_bins(k, images, cells.pbc, bounds, slices, single_bin, grid)
        n_bins = grid.n_bins[k]
        grid.first_bin[k + 1] = grid.first_bin[k] + n_bins[0] * n_bins[1] * n_bins[2]


@exact_jit
def _choose_bins(k, images, pbc, bounds, slices, single_bin, grid):
    axes, n_bins, reach = grid.axes[k], grid.n_bins[k], grid.reach[k]
    total = 1.0
    for a in range(3):
        low, high = bounds[k, a, 0], bounds[k, a, 1]
        if pbc[k, a]:
            low, high = -reach[a], 1.0 + reach[a]
        extent = high - low + MARGIN
        bins = max(1.0, math.floor(extent * slices[a] / reach[a])) if images > single_bin else 1.0
        axes[a, 0] = low
        axes[a, 1] = extent
        n_bins[a] = np.int64(min(bins, 1e6))
        total *= n_bins[a]
    while total > 2.0 * images + 8.0:  # mostly empty space: halve the longest axis
        a = np.argmax(n_bins)
        total /= n_bins[a]
        n_bins[a] = (n_bins[a] + 1) // 2
        total *= n_bins[a]
    for a in range(3):
        axes[a, 1] = n_bins[a] / axes[a, 1]


@exact_jit
def _bin(s, axis, n):
    return min(max(np.int64(math.floor((s - axis[0]) * axis[1])), 0), n - 1)


@exact_jit
def _bins_in_reach(i, k, a, atoms, grid):
    """First and one past the last bin along axis a that meets [s - reach, s + reach], s that of atom i."""
    s, reach, axis, n = atoms.fractional[i, a], grid.reach[k, a], grid.axes[k, a], grid.n_bins[k, a]
    return _bin(s - reach, axis, n), _bin(s + reach, axis, n) + 1


@exact_jit
def _image_span(s, reach, periodic):
    """First and one past the last shift that brings s into [-reach, 1 + reach]."""
    if not periodic:
        return 0, 1
    return np.int64(math.ceil(-reach - s)), np.int64(math.floor(1.0 + reach - s)) + 1


@exact_jit
def count_images(offsets, cells, atoms, grid, bin_start):
    """bin_start (n_all_bins + 1,): first image of each bin in the order in which `place_images` writes them."""
    bin_start[:] = 0
    for k in range(offsets.size - 1):
        axes, n_bins, reach, pbc = grid.axes[k], grid.n_bins[k], grid.reach[k], cells.pbc[k]
        for i in range(offsets[k], offsets[k + 1]):
            s = atoms.fractional[i]
            x0, x1 = _image_span(s[0], reach[0], pbc[0])
            y0, y1 = _image_span(s[1], reach[1], pbc[1])
            z0, z1 = _image_span(s[2], reach[2], pbc[2])
            for x in range(x0, x1):
                bx = _bin(s[0] + x, axes[0], n_bins[0])
                for y in range(y0, y1):
                    by = _bin(s[1] + y, axes[1], n_bins[1])
                    column = grid.first_bin[k] + (bx * n_bins[1] + by) * n_bins[2]
                    for z in range(z0, z1):
                        bz = _bin(s[2] + z, axes[2], n_bins[2])
                        bin_start[column + bz + 1] += 1
    for b in range(1, bin_start.size):
        bin_start[b] += bin_start[b - 1]


@exact_jit
def place_images(offsets, cells, atoms, grid, stride, cursor, images):
    """Fill place, atom and code of `images` bin by bin.

    cursor: a copy of bin_start, used up. stride (n_structures, 2) of the x and y components in `linear`.
    """
    for k in range(offsets.size - 1):
        axes, n_bins, reach = grid.axes[k], grid.n_bins[k], grid.reach[k]
        lattice, pbc = cells.lattice[k], cells.pbc[k]
        for i in range(offsets[k], offsets[k + 1]):
            s, offset = atoms.fractional[i], atoms.cell_offsets[i]
            x0, x1 = _image_span(s[0], reach[0], pbc[0])
            y0, y1 = _image_span(s[1], reach[1], pbc[1])
            z0, z1 = _image_span(s[2], reach[2], pbc[2])
            for x in range(x0, x1):
                bx = _bin(s[0] + x, axes[0], n_bins[0])
                for y in range(y0, y1):
                    by = _bin(s[1] + y, axes[1], n_bins[1])
                    column = grid.first_bin[k] + (bx * n_bins[1] + by) * n_bins[2]
                    for z in range(z0, z1):
                        bz = _bin(s[2] + z, axes[2], n_bins[2])
                        g = cursor[column + bz]
                        cursor[column + bz] = g + 1
                        for b in range(3):
                            images.place[b, g] = atoms.positions[i, b]
                            images.place[3 + b, g] = x * lattice[0, b] + y * lattice[1, b] + z * lattice[2, b]
                        images.atom[g] = i
                        images.code[g] = (
                            (x - offset[0]) * stride[k, 0] + (y - offset[1]) * stride[k, 1] + (z - offset[2])
                        )


@exact_jit
def count_rows(begin, end, limit2, close2, atoms, grid, images, count, n_close):
    """Per center in [begin, end): neighbors, and images closer than sqrt(close2), the center itself included."""
    place, bin_start = images.place, images.bin_start
    wx, wy, wz, sx, sy, sz = place[0], place[1], place[2], place[3], place[4], place[5]
    for i in range(begin, end):
        k = atoms.structure[i]
        x, y, z = atoms.positions[i, 0], atoms.positions[i, 1], atoms.positions[i, 2]
        x0, x1 = _bins_in_reach(i, k, 0, atoms, grid)
        y0, y1 = _bins_in_reach(i, k, 1, atoms, grid)
        z0, z1 = _bins_in_reach(i, k, 2, atoms, grid)
        within, close = 0, 0
        for bx in range(x0, x1):
            for by in range(y0, y1):
                column = grid.first_bin[k] + (bx * grid.n_bins[k, 1] + by) * grid.n_bins[k, 2]
                for g in range(np.uint64(bin_start[column + z0]), np.uint64(bin_start[column + z1])):
                    dx, dy, dz = (wx[g] - x) + sx[g], (wy[g] - y) + sy[g], (wz[g] - z) + sz[g]
                    d2 = dx * dx + dy * dy + dz * dz
                    within += d2 < limit2
                    close += d2 < close2
        count[i] = within - 1
        n_close[i] = close


@exact_jit
def fill_rows(begin, end, limit2, atoms, grid, images, center_code, row_start, scratch, neighbor, shift):
    """Write the rows of the centers in [begin, end); scratch has room for the longest row and two more.

    Only the center itself lies at distance zero: coincident atoms were refused after the count.
    """
    place, bin_start = images.place, images.bin_start
    wx, wy, wz, sx, sy, sz = place[0], place[1], place[2], place[3], place[4], place[5]
    for i in range(begin, end):
        k = atoms.structure[i]
        x, y, z = atoms.positions[i, 0], atoms.positions[i, 1], atoms.positions[i, 2]
        x0, x1 = _bins_in_reach(i, k, 0, atoms, grid)
        y0, y1 = _bins_in_reach(i, k, 1, atoms, grid)
        z0, z1 = _bins_in_reach(i, k, 2, atoms, grid)
        n = np.uint64(0)
        for bx in range(x0, x1):
            for by in range(y0, y1):
                column = grid.first_bin[k] + (bx * grid.n_bins[k, 1] + by) * grid.n_bins[k, 2]
                for g in range(np.uint64(bin_start[column + z0]), np.uint64(bin_start[column + z1])):
                    dx, dy, dz = (wx[g] - x) + sx[g], (wy[g] - y) + sy[g], (wz[g] - z) + sz[g]
                    d2 = dx * dx + dy * dy + dz * dz
                    scratch[n] = g  # written always, kept by the count: no branch to mispredict
                    n += np.uint64((d2 < limit2) & (d2 > 0.0))
        start = row_start[i]
        for m in range(row_start[i + 1] - start):
            g = scratch[m]
            neighbor[start + m] = images.atom[g]
            shift[start + m] = images.code[g] + center_code[i]


@parallel_jit
def count_rows_parallel(chunks, limit2, close2, atoms, grid, images, count, n_close):
    """`count_rows` for chunks of centers in parallel; chunk c holds the centers chunks[c] <= i < chunks[c + 1]."""
    for c in numba.prange(chunks.size - 1):
        count_rows(chunks[c], chunks[c + 1], limit2, close2, atoms, grid, images, count, n_close)


@parallel_jit
def fill_rows_parallel(chunks, limit2, atoms, grid, images, center_code, row_start, scratch, neighbor, shift):
    """`fill_rows` for chunks of centers in parallel; scratch has one row per chunk."""
    for c in numba.prange(chunks.size - 1):
        fill_rows(chunks[c], chunks[c + 1], limit2, atoms, grid, images, center_code, row_start, scratch[c],
                  neighbor, shift)  # fmt: skip


@exact_jit
def number_centers(offsets, cell_offsets, stride, zero, center_code):
    """Add to the code of an image to get the number of the pair's shift; zero (n_structures,): number of S = 0."""
    for k in range(offsets.size - 1):
        for i in range(offsets[k], offsets[k + 1]):
            offset = cell_offsets[i]
            center_code[i] = zero[k] + offset[0] * stride[k, 0] + offset[1] * stride[k, 1] + offset[2]


@exact_jit
def number_shifts(shift_range, first_shift, shifts, shift_structure):
    """Fill the table of cell shifts (n_shifts, 3) and the structure that each row belongs to (n_shifts,)."""
    for k in range(first_shift.size - 1):
        s = first_shift[k]
        for x in range(-shift_range[k, 0], shift_range[k, 0] + 1):
            for y in range(-shift_range[k, 1], shift_range[k, 1] + 1):
                for z in range(-shift_range[k, 2], shift_range[k, 2] + 1):
                    shifts[s, 0], shifts[s, 1], shifts[s, 2] = x, y, z
                    shift_structure[s] = k
                    s += 1
