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
def wrap_atoms(positions, offsets, lattice, inverse, pbc, wrapped, fractional, turns, bounds):
    """wrapped = positions - turns @ lattice, with fractional coordinates in [0, 1] along periodic axes.

    bounds (n_structures, 3, 4): smallest and largest fractional coordinate, smallest and largest turn.
    """
    for k in range(offsets.size - 1):
        bounds[k] = 0.0
        for i in range(offsets[k], offsets[k + 1]):
            first = i == offsets[k]
            for b in range(3):
                wrapped[i, b] = positions[i, b]
            for a in range(3):
                s = 0.0
                for b in range(3):
                    s += positions[i, b] * inverse[k, b, a]
                turn = math.floor(s) if pbc[k, a] else 0.0
                s -= turn
                fractional[i, a] = s
                turns[i, a] = np.int64(turn)
                if turn != 0.0:
                    for b in range(3):
                        wrapped[i, b] -= turn * lattice[k, a, b]
                if first or s < bounds[k, a, 0]:
                    bounds[k, a, 0] = s
                if first or s > bounds[k, a, 1]:
                    bounds[k, a, 1] = s
                if first or turn < bounds[k, a, 2]:
                    bounds[k, a, 2] = turn
                if first or turn > bounds[k, a, 3]:
                    bounds[k, a, 3] = turn


@exact_jit
def plan_grids(
    cutoff, offsets, inverse, pbc, bounds, slices, single_bin, reach, grid, n_bins, first_bin, shift_range, size
):
    """Choose the bins of each structure.

    slices (3,): bins per cutoff along each axis; single_bin: no bins below this number of images.
    Fills reach (n_structures, 3); grid (n_structures, 3, 2): origin and bins per unit; n_bins (n_structures, 3);
    first_bin (n_structures + 1,); shift_range (n_structures, 3); size (2,): upper bounds, as floats that cannot
    overflow, of the numbers of images and of rows of the shift table.
    """
    size[:] = 0.0
    first_bin[0] = 0
    for k in range(offsets.size - 1):
        images, rows = float(offsets[k + 1] - offsets[k]), 1.0
        for a in range(3):
            norm = math.sqrt(inverse[k, 0, a] ** 2 + inverse[k, 1, a] ** 2 + inverse[k, 2, a] ** 2)
            reach[k, a] = cutoff * norm * (1.0 + MARGIN) + MARGIN
            shift_range[k, a] = 0
            if pbc[k, a]:
                images *= 2.0 + 2.0 * reach[k, a]
                turns = math.floor(1.0 + reach[k, a]) + bounds[k, a, 3] - bounds[k, a, 2]
                rows *= 1.0 + 2.0 * turns
                shift_range[k, a] = np.int64(turns)
        size[0] += images
        size[1] += rows
        _choose_bins(k, images, pbc, bounds, slices, single_bin, reach, grid, n_bins)
        first_bin[k + 1] = first_bin[k] + n_bins[k, 0] * n_bins[k, 1] * n_bins[k, 2]


@exact_jit
def _choose_bins(k, images, pbc, bounds, slices, single_bin, reach, grid, n_bins):
    total = 1.0
    for a in range(3):
        low, high = bounds[k, a, 0], bounds[k, a, 1]
        if pbc[k, a]:
            low, high = -reach[k, a], 1.0 + reach[k, a]
        extent = high - low + MARGIN
        bins = max(1.0, math.floor(extent * slices[a] / reach[k, a])) if images > single_bin else 1.0
        grid[k, a, 0] = low
        grid[k, a, 1] = extent
        n_bins[k, a] = np.int64(min(bins, 1e6))
        total *= n_bins[k, a]
    while total > 2.0 * images + 8.0:  # mostly empty space: halve the longest axis
        a = np.argmax(n_bins[k])
        total /= n_bins[k, a]
        n_bins[k, a] = (n_bins[k, a] + 1) // 2
        total *= n_bins[k, a]
    for a in range(3):
        grid[k, a, 1] = n_bins[k, a] / grid[k, a, 1]


@exact_jit
def _bin(s, grid, n):
    return min(max(np.int64(math.floor((s - grid[0]) * grid[1])), 0), n - 1)


@exact_jit
def _bins_in_reach(s, reach, grid, n):
    """First and one past the last bin that meets [s - reach, s + reach]."""
    return _bin(s - reach, grid, n), _bin(s + reach, grid, n) + 1


@exact_jit
def _image_span(s, reach, periodic):
    """First and one past the last shift that brings s into [-reach, 1 + reach]."""
    if not periodic:
        return 0, 1
    return np.int64(math.ceil(-reach - s)), np.int64(math.floor(1.0 + reach - s)) + 1


@exact_jit
def count_images(offsets, fractional, pbc, reach, grid, n_bins, first_bin, bin_start):
    """bin_start (n_all_bins + 1,): first image of each bin in the order in which `place_images` writes them."""
    bin_start[:] = 0
    for k in range(offsets.size - 1):
        for i in range(offsets[k], offsets[k + 1]):
            x0, x1 = _image_span(fractional[i, 0], reach[k, 0], pbc[k, 0])
            y0, y1 = _image_span(fractional[i, 1], reach[k, 1], pbc[k, 1])
            z0, z1 = _image_span(fractional[i, 2], reach[k, 2], pbc[k, 2])
            for x in range(x0, x1):
                bx = _bin(fractional[i, 0] + x, grid[k, 0], n_bins[k, 0])
                for y in range(y0, y1):
                    by = _bin(fractional[i, 1] + y, grid[k, 1], n_bins[k, 1])
                    column = first_bin[k] + (bx * n_bins[k, 1] + by) * n_bins[k, 2]
                    for z in range(z0, z1):
                        bz = _bin(fractional[i, 2] + z, grid[k, 2], n_bins[k, 2])
                        bin_start[column + bz + 1] += 1
    for b in range(1, bin_start.size):
        bin_start[b] += bin_start[b - 1]


@exact_jit
def place_images(
    offsets, fractional, wrapped, turns, lattice, pbc, reach, grid, n_bins, first_bin, stride, cursor, image, atom, code
):
    """Write the images bin by bin: image (6, n_images), wrapped position and displacement; atom and code (n_images,).

    cursor: a copy of bin_start, used up. stride (n_structures, 2) of the x and y components in `linear`.
    """
    for k in range(offsets.size - 1):
        for i in range(offsets[k], offsets[k + 1]):
            x0, x1 = _image_span(fractional[i, 0], reach[k, 0], pbc[k, 0])
            y0, y1 = _image_span(fractional[i, 1], reach[k, 1], pbc[k, 1])
            z0, z1 = _image_span(fractional[i, 2], reach[k, 2], pbc[k, 2])
            for x in range(x0, x1):
                bx = _bin(fractional[i, 0] + x, grid[k, 0], n_bins[k, 0])
                for y in range(y0, y1):
                    by = _bin(fractional[i, 1] + y, grid[k, 1], n_bins[k, 1])
                    column = first_bin[k] + (bx * n_bins[k, 1] + by) * n_bins[k, 2]
                    for z in range(z0, z1):
                        bz = _bin(fractional[i, 2] + z, grid[k, 2], n_bins[k, 2])
                        g = cursor[column + bz]
                        cursor[column + bz] = g + 1
                        for b in range(3):
                            image[b, g] = wrapped[i, b]
                            image[3 + b, g] = x * lattice[k, 0, b] + y * lattice[k, 1, b] + z * lattice[k, 2, b]
                        atom[g] = i
                        code[g] = (
                            (x - turns[i, 0]) * stride[k, 0] + (y - turns[i, 1]) * stride[k, 1] + (z - turns[i, 2])
                        )


@exact_jit
def count_rows(begin, end, limit2, close2, structure, fractional, wrapped, reach, grid, n_bins, first_bin, bin_start,
               image, count, n_close):  # fmt: skip
    """Per center in [begin, end): neighbors, and images closer than sqrt(close2), the center itself included."""
    wx, wy, wz, sx, sy, sz = image[0], image[1], image[2], image[3], image[4], image[5]
    for i in range(begin, end):
        k = structure[i]
        x, y, z = wrapped[i, 0], wrapped[i, 1], wrapped[i, 2]
        x0, x1 = _bins_in_reach(fractional[i, 0], reach[k, 0], grid[k, 0], n_bins[k, 0])
        y0, y1 = _bins_in_reach(fractional[i, 1], reach[k, 1], grid[k, 1], n_bins[k, 1])
        z0, z1 = _bins_in_reach(fractional[i, 2], reach[k, 2], grid[k, 2], n_bins[k, 2])
        within, close = 0, 0
        for bx in range(x0, x1):
            for by in range(y0, y1):
                column = first_bin[k] + (bx * n_bins[k, 1] + by) * n_bins[k, 2]
                for g in range(np.uint64(bin_start[column + z0]), np.uint64(bin_start[column + z1])):
                    dx, dy, dz = (wx[g] - x) + sx[g], (wy[g] - y) + sy[g], (wz[g] - z) + sz[g]
                    d2 = dx * dx + dy * dy + dz * dz
                    within += d2 < limit2
                    close += d2 < close2
        count[i] = within - 1
        n_close[i] = close


@exact_jit
def fill_rows(begin, end, limit2, structure, fractional, wrapped, reach, grid, n_bins, first_bin, bin_start,
              image, atom, code, center_code, row_start, scratch, neighbor, shift):  # fmt: skip
    """Write the rows of the centers in [begin, end); scratch has room for the longest row and two more.

    Only the center itself lies at distance zero: coincident atoms were refused after the count.
    """
    wx, wy, wz, sx, sy, sz = image[0], image[1], image[2], image[3], image[4], image[5]
    for i in range(begin, end):
        k = structure[i]
        x, y, z = wrapped[i, 0], wrapped[i, 1], wrapped[i, 2]
        x0, x1 = _bins_in_reach(fractional[i, 0], reach[k, 0], grid[k, 0], n_bins[k, 0])
        y0, y1 = _bins_in_reach(fractional[i, 1], reach[k, 1], grid[k, 1], n_bins[k, 1])
        z0, z1 = _bins_in_reach(fractional[i, 2], reach[k, 2], grid[k, 2], n_bins[k, 2])
        n = np.uint64(0)
        for bx in range(x0, x1):
            for by in range(y0, y1):
                column = first_bin[k] + (bx * n_bins[k, 1] + by) * n_bins[k, 2]
                for g in range(np.uint64(bin_start[column + z0]), np.uint64(bin_start[column + z1])):
                    dx, dy, dz = (wx[g] - x) + sx[g], (wy[g] - y) + sy[g], (wz[g] - z) + sz[g]
                    d2 = dx * dx + dy * dy + dz * dz
                    scratch[n] = g  # written always, kept by the count: no branch to mispredict
                    n += np.uint64((d2 < limit2) & (d2 > 0.0))
        start = row_start[i]
        for m in range(row_start[i + 1] - start):
            g = scratch[m]
            neighbor[start + m] = atom[g]
            shift[start + m] = code[g] + center_code[i]


@parallel_jit
def count_rows_parallel(chunks, limit2, close2, structure, fractional, wrapped, reach, grid, n_bins, first_bin,
                        bin_start, image, count, n_close):  # fmt: skip
    for c in numba.prange(chunks.size - 1):
        count_rows(chunks[c], chunks[c + 1], limit2, close2, structure, fractional, wrapped, reach, grid, n_bins,
                   first_bin, bin_start, image, count, n_close)  # fmt: skip


@parallel_jit
def fill_rows_parallel(chunks, limit2, structure, fractional, wrapped, reach, grid, n_bins, first_bin, bin_start,
                       image, atom, code, center_code, row_start, scratch, neighbor, shift):  # fmt: skip
    for c in numba.prange(chunks.size - 1):
        fill_rows(chunks[c], chunks[c + 1], limit2, structure, fractional, wrapped, reach, grid, n_bins, first_bin,
                  bin_start, image, atom, code, center_code, row_start, scratch[c], neighbor, shift)  # fmt: skip


@exact_jit
def number_centers(offsets, turns, stride, zero, center_code):
    """Add to the code of an image to get the number of the pair's shift; zero (n_structures,): number of S = 0."""
    for k in range(offsets.size - 1):
        for i in range(offsets[k], offsets[k + 1]):
            center_code[i] = zero[k] + turns[i, 0] * stride[k, 0] + turns[i, 1] * stride[k, 1] + turns[i, 2]


@exact_jit
def number_shifts(shift_range, first_shift, shifts, shift_structure):
    for k in range(first_shift.size - 1):
        s = first_shift[k]
        for x in range(-shift_range[k, 0], shift_range[k, 0] + 1):
            for y in range(-shift_range[k, 1], shift_range[k, 1] + 1):
                for z in range(-shift_range[k, 2], shift_range[k, 2] + 1):
                    shifts[s, 0], shifts[s, 1], shifts[s, 2] = x, y, z
                    shift_structure[s] = k
                    s += 1
