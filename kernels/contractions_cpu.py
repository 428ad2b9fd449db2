"""Stage "contractions" on the CPU: M -> the invariants G, blocks 0 to 7, with both derivatives.

Formulas: docs/method.md, sections 3, 6.2 and 7.2.

Sixteen atoms are worked on together, one per vector lane (`tiles_cpu`). All loops over channels are plain loops, only
the components of a tensor are written out, so the same code serves every n_radial and compiles quickly.

Blocks 4, 5 and 6 share one shape: a matrix Q_rs, quadratic in the moments, contracted with every M2_t. Q costs once per
(r, s); its cotangent Qbar = sum_t g M2_t likewise, and so do the tangents of both in the second derivative.

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
    SMALL,
    VECTOR,
    add_cubic_matrix,
    add_cubic_on_matrix,
    add_cubic_on_vector,
    add_cubic_product,
    add_matrix_times_vector,
    add_matrix_vector,
    add_outer,
    add_product,
    clear,
    load_features,
    load_moments,
    store_cotangent,
    store_features,
    weigh,
)
from gmcore.kernels.vector_cpu import add_dot, add_scaled


def n_features(n_radial):
    """Number of invariants: 94, 360, 910 for n_radial = 3, 5, 7."""
    n = n_radial
    return n + 3 * (n * (n + 1) // 2) + n * (n + 1) * (n + 2) // 6 + 2 * (n * n * (n + 1) // 2) + n**3


def n_scratch(n_radial):
    """Length of the scratch of one thread: four moment tiles, two feature tiles, four small tensors."""
    return 4 * n_radial * PACKED + 2 * n_features(n_radial) * LANES + 4 * SMALL


@jit
def _quadratic(kind, q, a, r, b, s):
    """q += Q(a_r, b_s), the matrix that block `kind` contracts with every M2_t."""
    if kind == 4:
        add_product(q, 0, a, r + MATRIX, b, s + MATRIX)
    elif kind == 5:
        add_outer(q, a, r + VECTOR, b, s + VECTOR)
    else:
        add_cubic_product(q, a, r + CUBIC, b, s + CUBIC)


@jit
def _quadratic_adjoint(kind, w, r, c, b, s):
    """w_r += d<c, Q(a_r, b_s)>/da_r."""
    if kind == 4:
        add_product(w, r + MATRIX, c, 0, b, s + MATRIX)
    elif kind == 5:
        add_matrix_vector(w, r + VECTOR, c, b, s + VECTOR)
    else:
        add_cubic_matrix(w, r + CUBIC, c, b, s + CUBIC)


@jit
def _rank_range(rank):
    """Where M^rank begins in a channel, and its number of packed components."""
    if rank == 1:
        return VECTOR, 3
    if rank == 2:
        return MATRIX, 6
    return CUBIC, 10


@routine_jit
def _forward_tile(n, m, weighted, g, q):
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
    for kind in range(4, 7):
        for r in range(n):
            for s in range(r, n):
                clear(q)
                _quadratic(kind, q, m, r * PACKED, m, s * PACKED)
                for t in range(s if kind == 4 else 0, n):
                    add_dot(6, g, f, q, 0, m, t * PACKED + MATRIX)
                    f += LANES
    for r in range(n):
        for s in range(n):
            clear(q)
            add_cubic_on_matrix(q, m, r * PACKED + CUBIC, m, s * PACKED + MATRIX)
            for t in range(n):
                add_dot(3, g, f, q, 0, m, t * PACKED + VECTOR)
                f += LANES


@routine_jit
def _backward_tile(n, m, weighted, g, w, q, q_bar):
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
    for kind in range(4, 7):
        for r in range(n):
            for s in range(r, n):
                clear(q)
                clear(q_bar)
                _quadratic(kind, q, m, r * PACKED, m, s * PACKED)
                for t in range(s if kind == 4 else 0, n):
                    o = t * PACKED + MATRIX
                    add_scaled(6, w, o, g, f, q, 0)
                    add_scaled(6, q_bar, 0, g, f, m, o)
                    f += LANES
                _quadratic_adjoint(kind, w, r * PACKED, q_bar, m, s * PACKED)
                _quadratic_adjoint(kind, w, s * PACKED, q_bar, m, r * PACKED)
    for r in range(n):
        for s in range(n):
            cubic, matrix = r * PACKED + CUBIC, s * PACKED + MATRIX
            clear(q)
            clear(q_bar)
            add_cubic_on_matrix(q, m, cubic, m, matrix)
            for t in range(n):
                o = t * PACKED + VECTOR
                add_scaled(3, w, o, g, f, q, 0)
                add_scaled(3, q_bar, 0, g, f, m, o)
                f += LANES
            add_matrix_times_vector(w, cubic, q_bar, m, matrix)
            add_cubic_on_vector(w, matrix, q_bar, m, cubic)


@routine_jit
def _double_backward_tile(n, m, g, d, weighted, e, w, q, q_bar, q_dot, q_bar_dot):
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
    for kind in range(4, 7):
        for r in range(n):
            for s in range(r, n):
                clear(q)
                clear(q_bar)
                clear(q_dot)
                clear(q_bar_dot)
                _quadratic(kind, q, m, r * PACKED, m, s * PACKED)
                _quadratic(kind, q_dot, d, r * PACKED, m, s * PACKED)
                _quadratic(kind, q_dot, m, r * PACKED, d, s * PACKED)
                for t in range(s if kind == 4 else 0, n):
                    o = t * PACKED + MATRIX
                    add_dot(6, e, f, q_dot, 0, m, o)
                    add_dot(6, e, f, q, 0, d, o)
                    add_scaled(6, w, o, g, f, q_dot, 0)
                    add_scaled(6, q_bar, 0, g, f, m, o)
                    add_scaled(6, q_bar_dot, 0, g, f, d, o)
                    f += LANES
                _quadratic_adjoint(kind, w, r * PACKED, q_bar_dot, m, s * PACKED)
                _quadratic_adjoint(kind, w, r * PACKED, q_bar, d, s * PACKED)
                _quadratic_adjoint(kind, w, s * PACKED, q_bar_dot, m, r * PACKED)
                _quadratic_adjoint(kind, w, s * PACKED, q_bar, d, r * PACKED)
    for r in range(n):
        for s in range(n):
            cubic, matrix = r * PACKED + CUBIC, s * PACKED + MATRIX
            clear(q)
            clear(q_bar)
            clear(q_dot)
            clear(q_bar_dot)
            add_cubic_on_matrix(q, m, cubic, m, matrix)
            add_cubic_on_matrix(q_dot, d, cubic, m, matrix)
            add_cubic_on_matrix(q_dot, m, cubic, d, matrix)
            for t in range(n):
                o = t * PACKED + VECTOR
                add_dot(3, e, f, q_dot, 0, m, o)
                add_dot(3, e, f, q, 0, d, o)
                add_scaled(3, w, o, g, f, q_dot, 0)
                add_scaled(3, q_bar, 0, g, f, m, o)
                add_scaled(3, q_bar_dot, 0, g, f, d, o)
                f += LANES
            add_matrix_times_vector(w, cubic, q_bar_dot, m, matrix)
            add_matrix_times_vector(w, cubic, q_bar, d, matrix)
            add_cubic_on_vector(w, matrix, q_bar_dot, m, cubic)
            add_cubic_on_vector(w, matrix, q_bar, d, cubic)


@parallel_jit
def forward(moments, scratch, features):
    """Fill features (n_atoms, n_features) from moments (n_atoms, n_radial, 16); scratch (n_blocks, n_scratch)."""
    n_atoms, n = moments.shape[0], moments.shape[1]
    n_tiles = (n_atoms + LANES - 1) // LANES
    n_blocks = scratch.shape[0]
    size, wide = n * PACKED, features.shape[1] * LANES
    for block in numba.prange(n_blocks):
        m, weighted = scratch[block, :size], scratch[block, size : 2 * size]
        g, small = scratch[block, 2 * size : 2 * size + wide], scratch[block, 2 * size + wide :]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            load_moments(tile * LANES, moments, m)
            weigh(n, m, weighted)
            g[:] = 0
            _forward_tile(n, m, weighted, g, small[:SMALL])
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
        g, small = scratch[block, 3 * size : 3 * size + wide], scratch[block, 3 * size + wide :]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            load_moments(tile * LANES, moments, m)
            weigh(n, m, weighted)
            load_features(tile * LANES, g_features, g)
            w[:] = 0
            _backward_tile(n, m, weighted, g, w, small[:SMALL], small[SMALL : 2 * SMALL])
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
        small = scratch[block, 4 * size + 2 * wide :]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            load_moments(tile * LANES, moments, m)
            load_moments(tile * LANES, gg_moments, d)
            weigh(n, d, weighted)
            load_features(tile * LANES, g_features, g)
            w[:] = 0
            e[:] = 0
            _double_backward_tile(
                n, m, g, d, weighted, e, w,
                small[:SMALL], small[SMALL : 2 * SMALL], small[2 * SMALL : 3 * SMALL], small[3 * SMALL : 4 * SMALL],
            )  # fmt: skip
            store_features(tile * LANES, e, gg_features)
            store_cotangent(tile * LANES, w, h_moments)
