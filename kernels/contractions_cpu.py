"""Stage "contractions" on the CPU: M -> the invariants G, blocks 0 to 7, with both derivatives.

Formulas: docs/method.md, sections 3, 6.2 and 7.2.

Sixteen atoms are worked on together, one per vector lane (`tiles_cpu`). All loops over channels are plain loops, only
the components of a tensor are written out, so the same code serves every n_radial and compiles quickly.

Blocks 4 to 7 share one shape: a tensor Q_rs, quadratic in the moments, contracted with the moments of every channel t.
Q costs once per (r, s); its cotangent Qbar = sum_t g M_t likewise, and so do the tangents of both in the second
derivative (`trilinear_cpu`).

The sixteen independent components are expanded to the twenty packed ones on the way in (zz = 1 - xx - yy, ...), and
cotangents folded back on the way out.
"""

import numba

from gmcore.kernels.compile import jit, parallel_jit, routine_jit
from gmcore.kernels.tiles_cpu import (
    CUBIC,
    LANES,
    MATRIX,
    PACKED,
    VECTOR,
    load_features,
    load_moments,
    store_cotangent,
    store_features,
    weigh,
)
from gmcore.kernels.trilinear_cpu import (
    backward_4,
    backward_5,
    backward_6,
    backward_7,
    double_backward_4,
    double_backward_5,
    double_backward_6,
    double_backward_7,
    forward_4,
    forward_5,
    forward_6,
    forward_7,
)
from gmcore.kernels.vector_cpu import add_dot, add_scaled


def n_features(n_radial):
    """Number of invariants: 360, 593, 1324 for n_radial = 5, 6, 8."""
    n = n_radial
    return n + 3 * (n * (n + 1) // 2) + n * (n + 1) * (n + 2) // 6 + 2 * (n * n * (n + 1) // 2) + n**3


def n_scratch(n_radial):
    """Length of the scratch of one thread: four moment tiles, two feature tiles."""
    return 4 * n_radial * PACKED + 2 * n_features(n_radial) * LANES


@jit
def _rank_range(rank):
    """Where M^rank begins in a channel, and its number of packed components."""
    if rank == 1:
        return VECTOR, 3
    if rank == 2:
        return MATRIX, 6
    return CUBIC, 10


@routine_jit
def _forward_tile(n, m, weighted, g):
    """g (cleared) += invariants of one tile; `weighted` is m times the multiplicity of each component."""
    f = 0
    for s in range(n):
        for k in range(LANES):
            g[f + k] = m[s * PACKED + k]
        f += LANES
    for rank in range(1, 4):
        start, n_c = _rank_range(rank)
        for r in range(n):
            for s in range(r, n):
                add_dot(n_c, g, f, weighted, r * PACKED + start, m, s * PACKED + start)
                f += LANES
    for r in range(n):
        for s in range(r, n):
            forward_4(n - s, g, f, m, r * PACKED, s * PACKED, s * PACKED)
            f += (n - s) * LANES
    for r in range(n):
        for s in range(r, n):
            forward_5(n, g, f, m, r * PACKED, s * PACKED, 0)
            f += n * LANES
    for r in range(n):
        for s in range(r, n):
            forward_6(n, g, f, m, r * PACKED, s * PACKED, 0)
            f += n * LANES
    for r in range(n):
        for s in range(n):
            forward_7(n, g, f, m, r * PACKED, s * PACKED, 0)
            f += n * LANES


@routine_jit
def _backward_tile(n, m, weighted, g, w):
    """w (cleared) += J^T g of one tile; `weighted` as in the forward pass."""
    f = 0
    for s in range(n):
        for k in range(LANES):
            w[s * PACKED + k] += g[f + k]
        f += LANES
    for rank in range(1, 4):
        start, n_c = _rank_range(rank)
        for r in range(n):
            for s in range(r, n):
                i, j = r * PACKED + start, s * PACKED + start
                add_scaled(n_c, w, i, g, f, weighted, j)
                add_scaled(n_c, w, j, g, f, weighted, i)
                f += LANES
    for r in range(n):
        for s in range(r, n):
            backward_4(n - s, w, g, f, m, r * PACKED, s * PACKED, s * PACKED)
            f += (n - s) * LANES
    for r in range(n):
        for s in range(r, n):
            backward_5(n, w, g, f, m, r * PACKED, s * PACKED, 0)
            f += n * LANES
    for r in range(n):
        for s in range(r, n):
            backward_6(n, w, g, f, m, r * PACKED, s * PACKED, 0)
            f += n * LANES
    for r in range(n):
        for s in range(n):
            backward_7(n, w, g, f, m, r * PACKED, s * PACKED, 0)
            f += n * LANES


@routine_jit
def _double_backward_tile(n, m, g, d, weighted, e, w):
    """e (cleared) += J d and w (cleared) += d/dtau J(m + tau d)^T g of one tile; `weighted` belongs to d."""
    f = 0
    for s in range(n):
        for k in range(LANES):
            e[f + k] = d[s * PACKED + k]
        f += LANES
    for rank in range(1, 4):
        start, n_c = _rank_range(rank)
        for r in range(n):
            for s in range(r, n):
                i, j = r * PACKED + start, s * PACKED + start
                add_dot(n_c, e, f, weighted, i, m, j)
                add_dot(n_c, e, f, m, i, weighted, j)
                add_scaled(n_c, w, i, g, f, weighted, j)
                add_scaled(n_c, w, j, g, f, weighted, i)
                f += LANES
    for r in range(n):
        for s in range(r, n):
            double_backward_4(n - s, e, w, g, f, m, d, r * PACKED, s * PACKED, s * PACKED)
            f += (n - s) * LANES
    for r in range(n):
        for s in range(r, n):
            double_backward_5(n, e, w, g, f, m, d, r * PACKED, s * PACKED, 0)
            f += n * LANES
    for r in range(n):
        for s in range(r, n):
            double_backward_6(n, e, w, g, f, m, d, r * PACKED, s * PACKED, 0)
            f += n * LANES
    for r in range(n):
        for s in range(n):
            double_backward_7(n, e, w, g, f, m, d, r * PACKED, s * PACKED, 0)
            f += n * LANES


@parallel_jit
def forward(moments, scratch, features):
    """Fill features (n_atoms, n_features) from moments (n_atoms, n_radial, 16); scratch (n_blocks, n_scratch)."""
    n_atoms, n = moments.shape[0], moments.shape[1]
    n_tiles = (n_atoms + LANES - 1) // LANES
    n_blocks = scratch.shape[0]
    size, wide = n * PACKED, features.shape[1] * LANES
    for block in numba.prange(n_blocks):
        m, weighted = scratch[block, :size], scratch[block, size : 2 * size]
        g = scratch[block, 2 * size : 2 * size + wide]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            load_moments(tile * LANES, moments, m)
            weigh(n, m, weighted)
            g[:] = 0
            _forward_tile(n, m, weighted, g)
            store_features(tile * LANES, g, features)


@parallel_jit
def backward(moments, g_features, scratch, g_moments):
    """Fill g_moments = J^T g_features."""
    n_atoms, n = moments.shape[0], moments.shape[1]
    n_tiles = (n_atoms + LANES - 1) // LANES
    n_blocks = scratch.shape[0]
    size, wide = n * PACKED, g_features.shape[1] * LANES
    for block in numba.prange(n_blocks):
        m, w, weighted = scratch[block, :size], scratch[block, size : 2 * size], scratch[block, 2 * size : 3 * size]
        g = scratch[block, 3 * size : 3 * size + wide]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            load_moments(tile * LANES, moments, m)
            weigh(n, m, weighted)
            load_features(tile * LANES, g_features, g)
            w[:] = 0
            _backward_tile(n, m, weighted, g, w)
            store_cotangent(tile * LANES, w, g_moments)


@parallel_jit
def double_backward(moments, g_features, gg_moments, scratch, gg_features, h_moments):
    """Derivatives of <g_moments, gg_moments>: gg_features = J gg_moments and h_moments."""
    n_atoms, n = moments.shape[0], moments.shape[1]
    n_tiles = (n_atoms + LANES - 1) // LANES
    n_blocks = scratch.shape[0]
    size, wide = n * PACKED, g_features.shape[1] * LANES
    for block in numba.prange(n_blocks):
        m, d, w = scratch[block, :size], scratch[block, size : 2 * size], scratch[block, 2 * size : 3 * size]
        weighted = scratch[block, 3 * size : 4 * size]
        g, e = scratch[block, 4 * size : 4 * size + wide], scratch[block, 4 * size + wide : 4 * size + 2 * wide]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            load_moments(tile * LANES, moments, m)
            load_moments(tile * LANES, gg_moments, d)
            weigh(n, d, weighted)
            load_features(tile * LANES, g_features, g)
            w[:] = 0
            e[:] = 0
            _double_backward_tile(n, m, g, d, weighted, e, w)
            store_features(tile * LANES, e, gg_features)
            store_cotangent(tile * LANES, w, h_moments)
