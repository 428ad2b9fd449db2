"""Tiles: the moments or features of sixteen atoms side by side, one atom per vector lane.

Component c of channel s lies at [(20 s + c) 16 + lane] of a flat array, feature f at [16 f + lane]. Here are the ways
in and out of a tile.

Components, multiplicities and folding: docs/method.md, section 2.
"""

from gmcore.kernels.compile import routine_jit
from gmcore.kernels.formulas import real
from gmcore.kernels.vector_cpu import LANES, transpose_square

PACKED = 20 * LANES  # length of one channel
VECTOR, MATRIX, CUBIC = 1 * LANES, 4 * LANES, 10 * LANES  # where L = 1, 2, 3 begin in a channel

# How often each packed component of 1 + 3 + 6 + 10 occurs in the full tensors.
MULTIPLICITY = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 3.0, 3.0, 3.0, 6.0, 3.0, 1.0, 3.0, 3.0, 1.0)


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
    whole = n - n % LANES if first + LANES <= n_atoms else 0
    for f in range(0, whole, LANES):
        transpose_square(tile, f * LANES, LANES, features.reshape(-1), first * n + f, n)
    for k in range(LANES):
        i = first + k
        for f in range(whole, n):
            tile[f * LANES + k] = features[i, f] if i < n_atoms else real(tile[0], 0.0)


@routine_jit
def store_features(first, tile, features):
    """Write the features of a tile to the atoms from number `first` on."""
    n_atoms, n = features.shape
    whole = n - n % LANES if first + LANES <= n_atoms else 0
    for f in range(0, whole, LANES):
        transpose_square(features.reshape(-1), first * n + f, n, tile, f * LANES, LANES)
    for k in range(min(LANES, n_atoms - first)):
        for f in range(whole, n):
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
