"""Stage "contractions" on the CPU: M -> the invariants G of method section 2, blocks 0..7, with both derivatives.

Sixteen atoms are worked on together, one per vector lane: a tile holds every component of sixteen atoms side by side,
component c of channel s at [(20 s + c) 16 + lane]. All loops over channels are plain loops, only the components of a
tensor are written out, so the same code serves every n_radial and compiles quickly.

Blocks 4, 5 and 6 share one shape: a matrix Q_rs, quadratic in the moments, contracted with every M2_t. Q costs once per
(r, s); its cotangent Qbar = sum_t g M2_t likewise, and so do the tangents of both in the second derivative.

The sixteen independent components are expanded to the twenty packed ones on the way in (zz = 1 - xx - yy, ...), and
cotangents folded back on the way out.
"""

import numba

from gmcore.jit import jit, parallel_jit, routine_jit
from gmcore.kernels.formulas import real
from gmcore.kernels.trilinear import (
    cubic_matrix,
    cubic_on_matrix,
    cubic_on_vector,
    cubic_product,
    matrix_times_vector,
    matrix_vector,
    outer,
    product,
)

LANES = 16
PACKED = 20 * LANES  # length of one channel in a tile
VECTOR, MATRIX, CUBIC = 1 * LANES, 4 * LANES, 10 * LANES  # where L = 1, 2, 3 begin in a channel
SMALL = 6 * LANES

# How often each packed component of 1 + 3 + 6 + 10 occurs in the full tensors.
MULTIPLICITY = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 3.0, 3.0, 3.0, 6.0, 3.0, 1.0, 3.0, 3.0, 1.0)


def n_features(n_radial):
    """Number of invariants: 94, 360, 910 for n_radial = 3, 5, 7."""
    n = n_radial
    return n + 3 * (n * (n + 1) // 2) + n * (n + 1) * (n + 2) // 6 + 2 * (n * n * (n + 1) // 2) + n**3


def n_scratch(n_radial):
    """Length of the scratch of one thread: three moment tiles, two feature tiles, four small tensors."""
    return 3 * n_radial * PACKED + 2 * n_features(n_radial) * LANES + 4 * SMALL


# --- one lane's tensors in and out of a tile ---------------------------------------------------------------------


@jit
def _vector(t, o):
    return t[o], t[o + 16], t[o + 32]


@jit
def _matrix(t, o):
    return t[o], t[o + 16], t[o + 32], t[o + 48], t[o + 64], t[o + 80]


@jit
def _cubic(t, o):
    return (
        t[o], t[o + 16], t[o + 32], t[o + 48], t[o + 64], t[o + 80], t[o + 96], t[o + 112], t[o + 128], t[o + 144],
    )  # fmt: skip


@jit
def _add_vector(t, o, v):
    t[o] += v[0]
    t[o + 16] += v[1]
    t[o + 32] += v[2]


@jit
def _add_matrix(t, o, c):
    t[o] += c[0]
    t[o + 16] += c[1]
    t[o + 32] += c[2]
    t[o + 48] += c[3]
    t[o + 64] += c[4]
    t[o + 80] += c[5]


@jit
def _add_cubic(t, o, c):
    t[o] += c[0]
    t[o + 16] += c[1]
    t[o + 32] += c[2]
    t[o + 48] += c[3]
    t[o + 64] += c[4]
    t[o + 80] += c[5]
    t[o + 96] += c[6]
    t[o + 112] += c[7]
    t[o + 128] += c[8]
    t[o + 144] += c[9]


# --- loops over the lanes; q is a small tensor, cleared by `_clear` ------------------------------------------------


@jit
def _clear(q):
    for k in range(SMALL):
        q[k] = real(q[0], 0.0)


@routine_jit
def _add_outer(q, a, i, b, j):
    for k in range(LANES):
        _add_matrix(q, k, outer(_vector(a, i + k), _vector(b, j + k)))


@routine_jit
def _add_product(q, o, a, i, b, j):
    for k in range(LANES):
        _add_matrix(q, o + k, product(_matrix(a, i + k), _matrix(b, j + k)))


@routine_jit
def _add_cubic_product(q, a, i, b, j):
    for k in range(LANES):
        _add_matrix(q, k, cubic_product(_cubic(a, i + k), _cubic(b, j + k)))


@routine_jit
def _add_cubic_on_matrix(q, a, i, b, j):
    for k in range(LANES):
        _add_vector(q, k, cubic_on_matrix(_cubic(a, i + k), _matrix(b, j + k)))


@routine_jit
def _add_matrix_vector(t, o, c, v, j):
    for k in range(LANES):
        _add_vector(t, o + k, matrix_vector(_matrix(c, k), _vector(v, j + k)))


@routine_jit
def _add_cubic_matrix(t, o, c, b, j):
    for k in range(LANES):
        _add_cubic(t, o + k, cubic_matrix(_cubic(b, j + k), _matrix(c, k)))


@routine_jit
def _add_cubic_on_vector(t, o, v, a, j):
    for k in range(LANES):
        _add_matrix(t, o + k, cubic_on_vector(_cubic(a, j + k), _vector(v, k)))


@routine_jit
def _add_matrix_times_vector(t, o, v, b, j):
    for k in range(LANES):
        _add_cubic(t, o + k, matrix_times_vector(_matrix(b, j + k), _vector(v, k)))


@jit
def _dot(n, g, f, q, t, o):
    """g[f] += q . t[o] over n components."""
    if n == 3:
        for k in range(LANES):
            g[f + k] += q[k] * t[o + k] + q[16 + k] * t[o + 16 + k] + q[32 + k] * t[o + 32 + k]
    else:
        for k in range(LANES):
            g[f + k] += (
                q[k] * t[o + k] + q[16 + k] * t[o + 16 + k] + q[32 + k] * t[o + 32 + k]
                + q[48 + k] * t[o + 48 + k] + q[64 + k] * t[o + 64 + k] + q[80 + k] * t[o + 80 + k]
            )  # fmt: skip


@jit
def _add_scaled(n, t, o, g, f, q, i):
    """t[o] += g[f] q[i] over n components."""
    for c in range(n):
        for k in range(LANES):
            t[o + c * LANES + k] += g[f + k] * q[i + c * LANES + k]


# --- the blocks ---------------------------------------------------------------------------------------------------


@jit
def _quadratic(kind, q, a, r, b, s):
    """q += Q(a_r, b_s), the matrix that block `kind` contracts with every M2_t."""
    if kind == 4:
        _add_product(q, 0, a, r + MATRIX, b, s + MATRIX)
    elif kind == 5:
        _add_outer(q, a, r + VECTOR, b, s + VECTOR)
    else:
        _add_cubic_product(q, a, r + CUBIC, b, s + CUBIC)


@jit
def _quadratic_adjoint(kind, w, r, c, b, s):
    """w_r += d<c, Q(a_r, b_s)>/da_r."""
    if kind == 4:
        _add_product(w, r + MATRIX, c, 0, b, s + MATRIX)
    elif kind == 5:
        _add_matrix_vector(w, r + VECTOR, c, b, s + VECTOR)
    else:
        _add_cubic_matrix(w, r + CUBIC, c, b, s + CUBIC)


@jit
def _rank_range(rank):
    """First and last-but-one packed component of M^rank."""
    if rank == 1:
        return 1, 4
    if rank == 2:
        return 4, 10
    return 10, 20


@routine_jit
def _forward_tile(n, m, g, q):
    """g (cleared) += invariants of one tile."""
    f = 0
    for s in range(n):
        for k in range(LANES):
            g[f + k] = m[s * PACKED + k]
        f += LANES
    for rank in range(1, 4):
        start, stop = _rank_range(rank)
        for r in range(n):
            for s in range(r, n):
                for c in range(start, stop):
                    weight = real(m[0], MULTIPLICITY[c])
                    i, j = r * PACKED + c * LANES, s * PACKED + c * LANES
                    for k in range(LANES):
                        g[f + k] += weight * m[i + k] * m[j + k]
                f += LANES
    for kind in range(4, 7):
        for r in range(n):
            for s in range(r, n):
                _clear(q)
                _quadratic(kind, q, m, r * PACKED, m, s * PACKED)
                for t in range(s if kind == 4 else 0, n):
                    _dot(6, g, f, q, m, t * PACKED + MATRIX)
                    f += LANES
    for r in range(n):
        for s in range(n):
            _clear(q)
            _add_cubic_on_matrix(q, m, r * PACKED + CUBIC, m, s * PACKED + MATRIX)
            for t in range(n):
                _dot(3, g, f, q, m, t * PACKED + VECTOR)
                f += LANES


@routine_jit
def _backward_tile(n, m, g, w, q, q_bar):
    """w (cleared) += J^T g of one tile."""
    f = 0
    for s in range(n):
        for k in range(LANES):
            w[s * PACKED + k] += g[f + k]
        f += LANES
    for rank in range(1, 4):
        start, stop = _rank_range(rank)
        for r in range(n):
            for s in range(r, n):
                for c in range(start, stop):
                    weight = real(m[0], MULTIPLICITY[c])
                    i, j = r * PACKED + c * LANES, s * PACKED + c * LANES
                    for k in range(LANES):
                        w[i + k] += weight * g[f + k] * m[j + k]
                    for k in range(LANES):
                        w[j + k] += weight * g[f + k] * m[i + k]
                f += LANES
    for kind in range(4, 7):
        for r in range(n):
            for s in range(r, n):
                _clear(q)
                _clear(q_bar)
                _quadratic(kind, q, m, r * PACKED, m, s * PACKED)
                for t in range(s if kind == 4 else 0, n):
                    o = t * PACKED + MATRIX
                    _add_scaled(6, w, o, g, f, q, 0)
                    _add_scaled(6, q_bar, 0, g, f, m, o)
                    f += LANES
                _quadratic_adjoint(kind, w, r * PACKED, q_bar, m, s * PACKED)
                _quadratic_adjoint(kind, w, s * PACKED, q_bar, m, r * PACKED)
    for r in range(n):
        for s in range(n):
            cubic, matrix = r * PACKED + CUBIC, s * PACKED + MATRIX
            _clear(q)
            _clear(q_bar)
            _add_cubic_on_matrix(q, m, cubic, m, matrix)
            for t in range(n):
                o = t * PACKED + VECTOR
                _add_scaled(3, w, o, g, f, q, 0)
                _add_scaled(3, q_bar, 0, g, f, m, o)
                f += LANES
            _add_matrix_times_vector(w, cubic, q_bar, m, matrix)
            _add_cubic_on_vector(w, matrix, q_bar, m, cubic)


@routine_jit
def _double_backward_tile(n, m, g, d, e, w, q, q_bar, q_dot, q_bar_dot):
    """e (cleared) += J d and w (cleared) += d/dtau J(m + tau d)^T g of one tile."""
    f = 0
    for s in range(n):
        for k in range(LANES):
            e[f + k] = d[s * PACKED + k]
        f += LANES
    for rank in range(1, 4):
        start, stop = _rank_range(rank)
        for r in range(n):
            for s in range(r, n):
                for c in range(start, stop):
                    weight = real(m[0], MULTIPLICITY[c])
                    i, j = r * PACKED + c * LANES, s * PACKED + c * LANES
                    for k in range(LANES):
                        e[f + k] += weight * (m[i + k] * d[j + k] + d[i + k] * m[j + k])
                    for k in range(LANES):
                        w[i + k] += weight * g[f + k] * d[j + k]
                    for k in range(LANES):
                        w[j + k] += weight * g[f + k] * d[i + k]
                f += LANES
    for kind in range(4, 7):
        for r in range(n):
            for s in range(r, n):
                _clear(q)
                _clear(q_bar)
                _clear(q_dot)
                _clear(q_bar_dot)
                _quadratic(kind, q, m, r * PACKED, m, s * PACKED)
                _quadratic(kind, q_dot, d, r * PACKED, m, s * PACKED)
                _quadratic(kind, q_dot, m, r * PACKED, d, s * PACKED)
                for t in range(s if kind == 4 else 0, n):
                    o = t * PACKED + MATRIX
                    _dot(6, e, f, q_dot, m, o)
                    _dot(6, e, f, q, d, o)
                    _add_scaled(6, w, o, g, f, q_dot, 0)
                    _add_scaled(6, q_bar, 0, g, f, m, o)
                    _add_scaled(6, q_bar_dot, 0, g, f, d, o)
                    f += LANES
                _quadratic_adjoint(kind, w, r * PACKED, q_bar_dot, m, s * PACKED)
                _quadratic_adjoint(kind, w, r * PACKED, q_bar, d, s * PACKED)
                _quadratic_adjoint(kind, w, s * PACKED, q_bar_dot, m, r * PACKED)
                _quadratic_adjoint(kind, w, s * PACKED, q_bar, d, r * PACKED)
    for r in range(n):
        for s in range(n):
            cubic, matrix = r * PACKED + CUBIC, s * PACKED + MATRIX
            _clear(q)
            _clear(q_bar)
            _clear(q_dot)
            _clear(q_bar_dot)
            _add_cubic_on_matrix(q, m, cubic, m, matrix)
            _add_cubic_on_matrix(q_dot, d, cubic, m, matrix)
            _add_cubic_on_matrix(q_dot, m, cubic, d, matrix)
            for t in range(n):
                o = t * PACKED + VECTOR
                _dot(3, e, f, q_dot, m, o)
                _dot(3, e, f, q, d, o)
                _add_scaled(3, w, o, g, f, q_dot, 0)
                _add_scaled(3, q_bar, 0, g, f, m, o)
                _add_scaled(3, q_bar_dot, 0, g, f, d, o)
                f += LANES
            _add_matrix_times_vector(w, cubic, q_bar_dot, m, matrix)
            _add_matrix_times_vector(w, cubic, q_bar, d, matrix)
            _add_cubic_on_vector(w, matrix, q_bar_dot, m, cubic)
            _add_cubic_on_vector(w, matrix, q_bar, d, cubic)


# --- tiles in and out ---------------------------------------------------------------------------------------------


@routine_jit
def _load_moments(first, moments, tile):
    """Expand the sixteen independent components of sixteen atoms to the twenty packed ones; absent atoms are zero."""
    n_atoms, n, _ = moments.shape
    for k in range(LANES):
        i = first + k
        for s in range(n):
            o = s * PACKED + k
            if i < n_atoms:
                m = moments[i, s]
                for c in range(9):
                    tile[o + c * LANES] = m[c]
                tile[o + 9 * LANES] = m[0] - m[4] - m[7]
                for c in range(10, 15):
                    tile[o + c * LANES] = m[c - 1]
                tile[o + 15 * LANES] = m[1] - m[9] - m[12]
                tile[o + 16 * LANES] = m[14]
                tile[o + 17 * LANES] = m[15]
                tile[o + 18 * LANES] = m[2] - m[10] - m[14]
                tile[o + 19 * LANES] = m[3] - m[11] - m[15]
            else:
                for c in range(20):
                    tile[o + c * LANES] = real(tile[0], 0.0)


@routine_jit
def _store_cotangent(first, tile, g_moments):
    """Fold the cotangent of the twenty packed components back to the sixteen independent ones."""
    n_atoms, n, _ = g_moments.shape
    for k in range(min(LANES, n_atoms - first)):
        for s in range(n):
            o = s * PACKED + k
            w = g_moments[first + k, s]
            for c in range(9):
                w[c] = tile[o + c * LANES]
            for c in range(10, 15):
                w[c - 1] = tile[o + c * LANES]
            w[14] = tile[o + 16 * LANES]
            w[15] = tile[o + 17 * LANES]
            zz, xzz, yzz, zzz = (
                tile[o + 9 * LANES], tile[o + 15 * LANES], tile[o + 18 * LANES], tile[o + 19 * LANES],
            )  # fmt: skip
            w[0] += zz
            w[4] -= zz
            w[7] -= zz
            w[1] += xzz
            w[9] -= xzz
            w[12] -= xzz
            w[2] += yzz
            w[10] -= yzz
            w[14] -= yzz
            w[3] += zzz
            w[11] -= zzz
            w[15] -= zzz


@routine_jit
def _load_features(first, features, tile):
    n_atoms, n = features.shape
    for k in range(LANES):
        i = first + k
        for f in range(n):
            tile[f * LANES + k] = features[i, f] if i < n_atoms else real(tile[0], 0.0)


@routine_jit
def _store_features(first, tile, features):
    n_atoms, n = features.shape
    for k in range(min(LANES, n_atoms - first)):
        for f in range(n):
            features[first + k, f] = tile[f * LANES + k]


@parallel_jit
def forward(moments, scratch, features):
    """Fill features (n_atoms, n_features) from moments (n_atoms, n_radial, 16); scratch (n_blocks, n_scratch)."""
    n_atoms, n = moments.shape[0], moments.shape[1]
    n_tiles = (n_atoms + LANES - 1) // LANES
    n_blocks = scratch.shape[0]
    size, wide = n * PACKED, features.shape[1] * LANES
    for block in numba.prange(n_blocks):
        m, g = scratch[block, :size], scratch[block, size : size + wide]
        q = scratch[block, size + wide : size + wide + SMALL]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            _load_moments(tile * LANES, moments, m)
            g[:] = 0
            _forward_tile(n, m, g, q)
            _store_features(tile * LANES, g, features)


@parallel_jit
def backward(moments, g_features, scratch, g_moments):
    """Fill g_moments = J^T g_features."""
    n_atoms, n = moments.shape[0], moments.shape[1]
    n_tiles = (n_atoms + LANES - 1) // LANES
    n_blocks = scratch.shape[0]
    size, wide = n * PACKED, g_features.shape[1] * LANES
    for block in numba.prange(n_blocks):
        m, w = scratch[block, :size], scratch[block, size : size + size]
        g = scratch[block, 2 * size : 2 * size + wide]
        small = scratch[block, 2 * size + wide :]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            _load_moments(tile * LANES, moments, m)
            _load_features(tile * LANES, g_features, g)
            w[:] = 0
            _backward_tile(n, m, g, w, small[:SMALL], small[SMALL : 2 * SMALL])
            _store_cotangent(tile * LANES, w, g_moments)


@parallel_jit
def double_backward(moments, g_features, gg_moments, scratch, gg_features, h_moments):
    """Derivatives of <g_moments, gg_moments>: gg_features = J gg_moments and h_moments."""
    n_atoms, n = moments.shape[0], moments.shape[1]
    n_tiles = (n_atoms + LANES - 1) // LANES
    n_blocks = scratch.shape[0]
    size, wide = n * PACKED, g_features.shape[1] * LANES
    for block in numba.prange(n_blocks):
        m, d, w = scratch[block, :size], scratch[block, size : 2 * size], scratch[block, 2 * size : 3 * size]
        g, e = scratch[block, 3 * size : 3 * size + wide], scratch[block, 3 * size + wide : 3 * size + 2 * wide]
        small = scratch[block, 3 * size + 2 * wide :]
        for tile in range(block * n_tiles // n_blocks, (block + 1) * n_tiles // n_blocks):
            _load_moments(tile * LANES, moments, m)
            _load_moments(tile * LANES, gg_moments, d)
            _load_features(tile * LANES, g_features, g)
            w[:] = 0
            e[:] = 0
            _double_backward_tile(
                n, m, g, d, e, w,
                small[:SMALL], small[SMALL : 2 * SMALL], small[2 * SMALL : 3 * SMALL], small[3 * SMALL : 4 * SMALL],
            )  # fmt: skip
            _store_features(tile * LANES, e, gg_features)
            _store_cotangent(tile * LANES, w, h_moments)
