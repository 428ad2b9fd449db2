"""Tiles: the moments or features of sixteen atoms side by side, one atom per vector lane.

Component c of channel s lies at [(20 s + c) 16 + lane] of a flat array, feature f at [16 f + lane]. Here are the ways
in and out of a tile, and the loops over its lanes around the trilinear forms.

Components, multiplicities and folding: docs/method.md, section 2.
"""

from gmcore.kernels.compile import jit, routine_jit
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
from gmcore.kernels.vector_cpu import LANES

PACKED = 20 * LANES  # length of one channel
VECTOR, MATRIX, CUBIC = 1 * LANES, 4 * LANES, 10 * LANES  # where L = 1, 2, 3 begin in a channel
SMALL = 6 * LANES  # length of one small tensor, a vector or a matrix

# How often each packed component of 1 + 3 + 6 + 10 occurs in the full tensors.
MULTIPLICITY = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 3.0, 3.0, 3.0, 6.0, 3.0, 1.0, 3.0, 3.0, 1.0)


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


# --- loops over the lanes; q is a small tensor, cleared by `clear` ------------------------------------------------


@jit
def clear(q):
    """Set a small tensor to zero."""
    for k in range(SMALL):
        q[k] = real(q[0], 0.0)


@routine_jit
def add_outer(q, a, i, b, j):
    """q += d(u.C.v)/dC for the vectors u = a[i], v = b[j]."""
    for k in range(LANES):
        _add_matrix(q, k, outer(_vector(a, i + k), _vector(b, j + k)))


@routine_jit
def add_product(q, o, a, i, b, j):
    """q[o] += d tr(A B C)/dC for the matrices A = a[i], B = b[j]."""
    for k in range(LANES):
        _add_matrix(q, o + k, product(_matrix(a, i + k), _matrix(b, j + k)))


@routine_jit
def add_cubic_product(q, a, i, b, j):
    """q += d(A:B:C)/dC for the cubic tensors A = a[i], B = b[j]."""
    for k in range(LANES):
        _add_matrix(q, k, cubic_product(_cubic(a, i + k), _cubic(b, j + k)))


@routine_jit
def add_cubic_on_matrix(q, a, i, b, j):
    """q += d(A:B.v)/dv for the cubic tensor A = a[i] and the matrix B = b[j]."""
    for k in range(LANES):
        _add_vector(q, k, cubic_on_matrix(_cubic(a, i + k), _matrix(b, j + k)))


@routine_jit
def add_matrix_vector(t, o, c, v, j):
    """t[o] += d(u.C.v)/du for the small matrix C = c and the vector v[j]."""
    for k in range(LANES):
        _add_vector(t, o + k, matrix_vector(_matrix(c, k), _vector(v, j + k)))


@routine_jit
def add_cubic_matrix(t, o, c, b, j):
    """t[o] += d(A:B:C)/dA for the small matrix C = c and the cubic tensor B = b[j]."""
    for k in range(LANES):
        _add_cubic(t, o + k, cubic_matrix(_cubic(b, j + k), _matrix(c, k)))


@routine_jit
def add_cubic_on_vector(t, o, v, a, j):
    """t[o] += d(A:B.v)/dB for the small vector v and the cubic tensor A = a[j]."""
    for k in range(LANES):
        _add_matrix(t, o + k, cubic_on_vector(_cubic(a, j + k), _vector(v, k)))


@routine_jit
def add_matrix_times_vector(t, o, v, b, j):
    """t[o] += d(A:B.v)/dA for the small vector v and the matrix B = b[j]."""
    for k in range(LANES):
        _add_cubic(t, o + k, matrix_times_vector(_matrix(b, j + k), _vector(v, k)))


# --- tiles in and out ---------------------------------------------------------------------------------------------


@routine_jit
def load_moments(first, moments, tile):
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
def store_cotangent(first, tile, g_moments):
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
def load_features(first, features, tile):
    """Features of sixteen atoms from number `first` on into a tile; absent atoms are zero."""
    n_atoms, n = features.shape
    for k in range(LANES):
        i = first + k
        for f in range(n):
            tile[f * LANES + k] = features[i, f] if i < n_atoms else real(tile[0], 0.0)


@routine_jit
def store_features(first, tile, features):
    """Write the features of a tile to the atoms from number `first` on."""
    n_atoms, n = features.shape
    for k in range(min(LANES, n_atoms - first)):
        for f in range(n):
            features[first + k, f] = tile[f * LANES + k]


@routine_jit
def weigh(n, tile, weighted):
    """weighted = tile times the multiplicity of each packed component."""
    for s in range(n):
        for c in range(20):
            weight = real(tile[0], MULTIPLICITY[c])
            o = s * PACKED + c * LANES
            for k in range(LANES):
                weighted[o + k] = weight * tile[o + k]
