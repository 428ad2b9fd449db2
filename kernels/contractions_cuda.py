"""Stage "contractions" on the GPU: M -> the invariants G, blocks 0 to 7, with both derivatives.

Formulas: docs/method.md, sections 3, 6.2 and 7.2.

A block of (lanes, n_radial) threads takes `lanes` atoms, one per lane. Their moments, expanded to the twenty packed
components, and their features lie in shared memory, number after number, lane beside lane; global memory is read and
written along its rows, so features are (n_atoms, n_features) as on the CPU. Threads of a row of the block do the same
for their atoms. All loops over channels are plain loops: one kernel serves every n_radial.

Forward, rows of the block share the pairs (r, s); backward, row r gathers all that arrives at channel r in registers.
Gathering computes some products n_radial times that a scatter would compute once, and needs no sums between threads.

Blocks 4 to 7 are trilinear and so their cotangent is bilinear in the moments: `_cotangent(x, y)` with x = y = M is the
first derivative, and its product rule, once (M, Md) and once (Md, M), the second.

The argument lists are those of `contractions_cpu` without `scratch`. Launch ceil(n_atoms / lanes) blocks with
`shared_bytes` of dynamic shared memory; `choose_lanes` says how many lanes fit.
"""

import numpy as np
from numba import cuda

from gmcore.kernels.compile import cuda_device_jit, cuda_jit
from gmcore.kernels.formulas import real
from gmcore.kernels.packed import (
    add3,
    add6,
    add10,
    block_starts,
    dot3,
    dot6,
    dot10,
    pair_number,
    pair_of,
    triple_number,
    weigh6,
    weigh10,
)
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

N_COMPONENTS = 16
N_PACKED = 20
VECTOR, MATRIX, CUBIC = 1, 4, 10  # where L = 1, 2, 3 begin among the packed components
index = np.uint32  # Numba counts a negative index from the end, which costs three instructions unless it is unsigned
SHARED_LIMIT = 48 * 1024  # bytes that every block may have
MAX_LANES = 16  # leaves room for several blocks on a multiprocessor


def shared_bytes(n_radial, n_features, lanes, itemsize, n_tiles):
    """Shared memory of features and n_tiles sets of moments: one in `forward` and `backward`, two in the second."""
    return (n_tiles * n_radial * N_PACKED + n_features) * (lanes + 1) * itemsize


def choose_lanes(n_radial, n_features, itemsize, n_tiles):
    """Atoms of a block: a power of two that fits into shared memory."""
    lanes = MAX_LANES
    while shared_bytes(n_radial, n_features, lanes, itemsize, n_tiles) > SHARED_LIMIT:
        lanes //= 2
    return lanes


# --- packed tensors of one lane -----------------------------------------------------------------------------------


@cuda_device_jit
def _vector(tile, begin, step):
    o, k = index(begin), index(step)
    return tile[o], tile[o + k], tile[o + 2 * k]


@cuda_device_jit
def _matrix(tile, begin, step):
    o, k = index(begin), index(step)
    return tile[o], tile[o + k], tile[o + 2 * k], tile[o + 3 * k], tile[o + 4 * k], tile[o + 5 * k]


@cuda_device_jit
def _cubic(tile, begin, step):
    o, k = index(begin), index(step)
    return (
        tile[o], tile[o + k], tile[o + 2 * k], tile[o + 3 * k], tile[o + 4 * k],
        tile[o + 5 * k], tile[o + 6 * k], tile[o + 7 * k], tile[o + 8 * k], tile[o + 9 * k],
    )  # fmt: skip


# --- in and out of shared memory ----------------------------------------------------------------------------------


@cuda_device_jit
def _thread():
    """Number of this thread in its block, and of threads."""
    return cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockDim.x * cuda.blockDim.y


@cuda_device_jit
def _load_moments(first, moments, tile, begin, step):
    """Moments of the block's atoms and their four dependent components; atoms beyond the last are zero."""
    thread, n_threads = _thread()
    n_atoms, n, _ = moments.shape
    for atom in range(cuda.blockDim.x):
        for e in range(thread, n * N_COMPONENTS, n_threads):
            s, c = e // N_COMPONENTS, e % N_COMPONENTS
            packed = c if c < 9 else (c + 1 if c < 14 else c + 2)
            value = moments[first + atom, s, c] if first + atom < n_atoms else real(tile[0], 0.0)
            tile[index(begin + (s * N_PACKED + packed) * step + atom)] = value
    cuda.syncthreads()
    o, k = index(begin + cuda.threadIdx.y * N_PACKED * step + cuda.threadIdx.x), index(step)
    tile[o + 9 * k] = tile[o] - tile[o + 4 * k] - tile[o + 7 * k]
    tile[o + 15 * k] = tile[o + k] - tile[o + 10 * k] - tile[o + 13 * k]
    tile[o + 18 * k] = tile[o + 2 * k] - tile[o + 11 * k] - tile[o + 16 * k]
    tile[o + 19 * k] = tile[o + 3 * k] - tile[o + 12 * k] - tile[o + 17 * k]
    cuda.syncthreads()


@cuda_device_jit
def _store_cotangent(first, w0, w1, w2, w3, tile, step, moments):
    """Fold the cotangents of all channels to the sixteen independent components and write them out."""
    thread, n_threads = _thread()
    n_atoms, n, _ = moments.shape
    cuda.syncthreads()  # nobody reads the moments in shared memory any more
    o, k = index(cuda.threadIdx.y * N_COMPONENTS * step + cuda.threadIdx.x), index(step)
    tile[o] = w0 + w2[5]
    tile[o + k], tile[o + 2 * k], tile[o + 3 * k] = w1[0] + w3[5], w1[1] + w3[8], w1[2] + w3[9]
    tile[o + 4 * k], tile[o + 5 * k], tile[o + 6 * k] = w2[0] - w2[5], w2[1], w2[2]
    tile[o + 7 * k], tile[o + 8 * k] = w2[3] - w2[5], w2[4]
    tile[o + 9 * k], tile[o + 10 * k], tile[o + 11 * k] = w3[0] - w3[5], w3[1] - w3[8], w3[2] - w3[9]
    tile[o + 12 * k], tile[o + 13 * k] = w3[3] - w3[5], w3[4]
    tile[o + 14 * k], tile[o + 15 * k] = w3[6] - w3[8], w3[7] - w3[9]
    cuda.syncthreads()
    for atom in range(min(cuda.blockDim.x, n_atoms - first)):
        for e in range(thread, n * N_COMPONENTS, n_threads):
            moments[first + atom, e // N_COMPONENTS, e % N_COMPONENTS] = tile[index(e * step + atom)]


@cuda_device_jit
def _load_features(first, features, tile, begin, step):
    """Features of the block's atoms; those beyond the last are zero."""
    thread, n_threads = _thread()
    cuda.syncthreads()
    for atom in range(cuda.blockDim.x):
        for f in range(thread, features.shape[1], n_threads):
            value = features[first + atom, f] if first + atom < features.shape[0] else real(tile[0], 0.0)
            tile[index(begin + f * step + atom)] = value
    cuda.syncthreads()


@cuda_device_jit
def _store_features(first, tile, begin, step, features):
    thread, n_threads = _thread()
    cuda.syncthreads()
    for atom in range(min(cuda.blockDim.x, features.shape[0] - first)):
        for f in range(thread, features.shape[1], n_threads):
            features[first + atom, f] = tile[index(begin + f * step + atom)]


# --- forward: i and g are where the moments and features of this lane begin, step leads to the next number ---------


@cuda_device_jit
def _contract(n, first, f, c, tile, i, step):
    """Feature f + t = c : M2_t for first <= t < n; f is a place in the tile."""
    for t in range(first, n):
        tile[index(f + t * step)] = dot6(c, _matrix(tile, i + (t * N_PACKED + MATRIX) * step, step))


@cuda_device_jit
def _pair_features(n, number, tile, i, g, step):
    """Features of blocks 1 to 6 of a pair r <= s."""
    fourth, fifth, sixth, _ = block_starts(n)
    n_pairs = n * (n + 1) // 2
    r, s = pair_of(n, number)
    o, q = i + r * N_PACKED * step, i + s * N_PACKED * step
    u, v = _vector(tile, o + VECTOR * step, step), _vector(tile, q + VECTOR * step, step)
    tile[index(g + (n + number) * step)] = dot3(u, v)
    _contract(n, 0, g + (fifth + number * n) * step, outer(u, v), tile, i, step)
    a, b = _matrix(tile, o + MATRIX * step, step), _matrix(tile, q + MATRIX * step, step)
    tile[index(g + (n + n_pairs + number) * step)] = dot6(weigh6(a), b)
    _contract(n, s, g + (fourth + triple_number(n, r, s, s) - s) * step, product(a, b), tile, i, step)
    k, l = _cubic(tile, o + CUBIC * step, step), _cubic(tile, q + CUBIC * step, step)
    tile[index(g + (n + 2 * n_pairs + number) * step)] = dot10(weigh10(k), l)
    _contract(n, 0, g + (sixth + number * n) * step, cubic_product(k, l), tile, i, step)


@cuda_device_jit
def _fill_features(first, moments, tile, begin, step):
    """Load the moments of the block's atoms and compute their features, from `begin` on."""
    n = moments.shape[1]
    lane, row = cuda.threadIdx.x, cuda.threadIdx.y
    g = begin + lane
    _load_moments(first, moments, tile, 0, step)
    _, _, _, seventh = block_starts(n)
    tile[index(g + row * step)] = tile[index(lane + row * N_PACKED * step)]
    for number in range(row, n * (n + 1) // 2, n):
        _pair_features(n, number, tile, lane, g, step)
    for r in range(n):
        v = cubic_on_matrix(
            _cubic(tile, lane + (r * N_PACKED + CUBIC) * step, step),
            _matrix(tile, lane + (row * N_PACKED + MATRIX) * step, step),
        )
        for t in range(n):
            f = seventh + (r * n + row) * n + t
            tile[index(g + f * step)] = dot3(v, _vector(tile, lane + (t * N_PACKED + VECTOR) * step, step))


@cuda_jit
def forward(moments, features):
    """Fill features (n_atoms, n_features) from moments (n_atoms, n_radial, 16)."""
    tile = cuda.shared.array(0, moments.dtype)
    step = cuda.blockDim.x + 1
    first = cuda.blockIdx.x * cuda.blockDim.x
    begin = moments.shape[1] * N_PACKED * step
    _fill_features(first, moments, tile, begin, step)
    _store_features(first, tile, begin, step, features)


@cuda_jit
def forward_centered(moments, mean, features):
    """As `forward`, less mean (n_members, n_features): what the network reads.

    The rows are the atoms of all members, one member after another, the same number of each.
    """
    tile = cuda.shared.array(0, moments.dtype)
    thread, n_threads = _thread()
    step = cuda.blockDim.x + 1
    first = cuda.blockIdx.x * cuda.blockDim.x
    begin = moments.shape[1] * N_PACKED * step
    _fill_features(first, moments, tile, begin, step)
    cuda.syncthreads()
    n_rows, n_features = features.shape
    of_member = n_rows // mean.shape[0]
    for atom in range(min(cuda.blockDim.x, n_rows - first)):
        m = (first + atom) // of_member
        for f in range(thread, n_features, n_threads):
            features[first + atom, f] = tile[index(begin + f * step + atom)] - mean[m, f]


# --- backward: all that arrives at channel r ----------------------------------------------------------------------


@cuda_device_jit
def _quadratic_cotangent(n, r, tile, i, g, step):
    """Cotangent of blocks 1 to 3 at channel r, linear in the moments at i."""
    n_pairs = n * (n + 1) // 2
    zero = real(tile[0], 0.0)
    w1, w2 = (zero, zero, zero), (zero, zero, zero, zero, zero, zero)
    w3 = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    for s in range(n):
        o = i + s * N_PACKED * step
        f = g + (n + pair_number(n, r, s)) * step
        g1, g2, g3 = tile[index(f)], tile[index(f + n_pairs * step)], tile[index(f + 2 * n_pairs * step)]
        if r == s:
            g1, g2, g3 = g1 + g1, g2 + g2, g3 + g3
        w1 = add3(g1, _vector(tile, o + VECTOR * step, step), w1)
        w2 = add6(g2, weigh6(_matrix(tile, o + MATRIX * step, step)), w2)
        w3 = add10(g3, weigh10(_cubic(tile, o + CUBIC * step, step)), w3)
    return w1, w2, w3


@cuda_device_jit
def _cotangent(n, r, tile, i, j, g, step, w1, w2, w3):
    """Add the cotangent of blocks 4 to 7 at channel r, bilinear in the moments at i and at j."""
    fourth, fifth, sixth, seventh = block_starts(n)
    one, zero = real(tile[0], 1.0), real(tile[0], 0.0)
    none3, none6 = (zero, zero, zero), (zero, zero, zero, zero, zero, zero)
    none10 = (zero, zero, zero, zero, zero, zero, zero, zero, zero, zero)
    for a in range(n):
        # sums over b of moments at j times features: c4, c5, c6 and z of matrices, u, v and v_here of vectors, k of M3
        c4 = c5 = c6 = z = none6
        u = v = v_here = none3
        k = none10
        number = pair_number(n, r, a)
        for b in range(n):
            q = j + b * N_PACKED * step
            matrix, vector = _matrix(tile, q + MATRIX * step, step), _vector(tile, q + VECTOR * step, step)
            c5 = add6(tile[index(g + (fifth + number * n + b) * step)], matrix, c5)
            c6 = add6(tile[index(g + (sixth + number * n + b) * step)], matrix, c6)
            z = add6(tile[index(g + (seventh + (a * n + b) * n + r) * step)], matrix, z)
            v = add3(tile[index(g + (seventh + (r * n + a) * n + b) * step)], vector, v)
            v_here = add3(tile[index(g + (seventh + (a * n + r) * n + b) * step)], vector, v_here)
            if b >= a:
                g4 = tile[index(g + (fourth + triple_number(n, r, a, b)) * step)]
                times = real(g4, 1 + (r == a) + (r == b))
                c4 = add6(times * g4, matrix, c4)
                f = pair_number(n, a, b) * n + r
                u = add3(tile[index(g + (fifth + f) * step)], vector, u)
                k = add10(tile[index(g + (sixth + f) * step)], _cubic(tile, q + CUBIC * step, step), k)
        o = i + a * N_PACKED * step
        times = real(one, 1 + (r == a))
        vector, matrix = _vector(tile, o + VECTOR * step, step), _matrix(tile, o + MATRIX * step, step)
        cubic = _cubic(tile, o + CUBIC * step, step)
        w1 = add3(times, matrix_vector(c5, vector), w1)
        w1 = add3(one, cubic_on_matrix(cubic, z), w1)
        w2 = add6(one, product(matrix, c4), w2)
        w2 = add6(one, outer(vector, u), w2)
        w2 = add6(one, cubic_product(cubic, k), w2)
        w2 = add6(one, cubic_on_vector(cubic, v_here), w2)
        w3 = add10(times, cubic_matrix(cubic, c6), w3)
        w3 = add10(one, matrix_times_vector(matrix, v), w3)
    return w1, w2, w3


@cuda_jit
def backward(moments, g_features, g_moments):
    """Fill g_moments = J^T g_features."""
    tile = cuda.shared.array(0, moments.dtype)
    n = moments.shape[1]
    lane, r = cuda.threadIdx.x, cuda.threadIdx.y
    step = cuda.blockDim.x + 1
    first = cuda.blockIdx.x * cuda.blockDim.x
    begin = n * N_PACKED * step
    g = begin + lane
    _load_moments(first, moments, tile, 0, step)
    _load_features(first, g_features, tile, begin, step)
    w1, w2, w3 = _quadratic_cotangent(n, r, tile, lane, g, step)
    w1, w2, w3 = _cotangent(n, r, tile, lane, lane, g, step, w1, w2, w3)
    _store_cotangent(first, tile[index(g + r * step)], w1, w2, w3, tile, step, g_moments)


# --- second derivative: i and j are where M and Md of this lane begin ------------------------------------------------


@cuda_device_jit
def _contract_along(n, first, f, c, dc, tile, i, j, step):
    """Feature f + t = dc : M2_t + c : Md2_t for first <= t < n."""
    for t in range(first, n):
        o = (t * N_PACKED + MATRIX) * step
        tile[index(f + t * step)] = dot6(dc, _matrix(tile, i + o, step)) + dot6(c, _matrix(tile, j + o, step))


@cuda_device_jit
def _pair_features_along(n, number, tile, i, j, g, step):
    """Derivative of the features of blocks 1 to 6 of a pair r <= s along Md."""
    fourth, fifth, sixth, _ = block_starts(n)
    n_pairs = n * (n + 1) // 2
    one = real(tile[0], 1.0)
    r, s = pair_of(n, number)
    o, q = r * N_PACKED * step, s * N_PACKED * step
    u, du = _vector(tile, i + o + VECTOR * step, step), _vector(tile, j + o + VECTOR * step, step)
    v, dv = _vector(tile, i + q + VECTOR * step, step), _vector(tile, j + q + VECTOR * step, step)
    tile[index(g + (n + number) * step)] = dot3(du, v) + dot3(u, dv)
    dc = add6(one, outer(du, v), outer(u, dv))
    _contract_along(n, 0, g + (fifth + number * n) * step, outer(u, v), dc, tile, i, j, step)
    a, da = _matrix(tile, i + o + MATRIX * step, step), _matrix(tile, j + o + MATRIX * step, step)
    b, db = _matrix(tile, i + q + MATRIX * step, step), _matrix(tile, j + q + MATRIX * step, step)
    tile[index(g + (n + n_pairs + number) * step)] = dot6(weigh6(da), b) + dot6(weigh6(a), db)
    dc = add6(one, product(da, b), product(a, db))
    f = g + (fourth + triple_number(n, r, s, s) - s) * step
    _contract_along(n, s, f, product(a, b), dc, tile, i, j, step)
    k, dk = _cubic(tile, i + o + CUBIC * step, step), _cubic(tile, j + o + CUBIC * step, step)
    l, dl = _cubic(tile, i + q + CUBIC * step, step), _cubic(tile, j + q + CUBIC * step, step)
    tile[index(g + (n + 2 * n_pairs + number) * step)] = dot10(weigh10(dk), l) + dot10(weigh10(k), dl)
    dc = add6(one, cubic_product(dk, l), cubic_product(k, dl))
    _contract_along(n, 0, g + (sixth + number * n) * step, cubic_product(k, l), dc, tile, i, j, step)


@cuda_jit
def double_backward(moments, g_features, gg_moments, gg_features, h_moments):
    """Derivatives of <g_moments, gg_moments>: gg_features = J gg_moments and h_moments."""
    tile = cuda.shared.array(0, moments.dtype)
    n = moments.shape[1]
    lane, row = cuda.threadIdx.x, cuda.threadIdx.y
    step = cuda.blockDim.x + 1
    first = cuda.blockIdx.x * cuda.blockDim.x
    size = n * N_PACKED * step
    i, j, g = lane, lane + size, lane + 2 * size
    _load_moments(first, moments, tile, 0, step)
    _load_moments(first, gg_moments, tile, size, step)
    one = real(tile[0], 1.0)
    _, _, _, seventh = block_starts(n)
    tile[index(g + row * step)] = tile[index(j + row * N_PACKED * step)]
    for number in range(row, n * (n + 1) // 2, n):
        _pair_features_along(n, number, tile, i, j, g, step)
    for r in range(n):
        o, q = (r * N_PACKED + CUBIC) * step, (row * N_PACKED + MATRIX) * step
        k, dk = _cubic(tile, i + o, step), _cubic(tile, j + o, step)
        a, da = _matrix(tile, i + q, step), _matrix(tile, j + q, step)
        v, dv = cubic_on_matrix(k, a), add3(one, cubic_on_matrix(dk, a), cubic_on_matrix(k, da))
        for t in range(n):
            p = (t * N_PACKED + VECTOR) * step
            u, du = _vector(tile, i + p, step), _vector(tile, j + p, step)
            tile[index(g + (seventh + (r * n + row) * n + t) * step)] = dot3(dv, u) + dot3(v, du)
    _store_features(first, tile, 2 * size, step, gg_features)
    _load_features(first, g_features, tile, 2 * size, step)
    w1, w2, w3 = _quadratic_cotangent(n, row, tile, j, g, step)
    w1, w2, w3 = _cotangent(n, row, tile, i, j, g, step, w1, w2, w3)
    w1, w2, w3 = _cotangent(n, row, tile, j, i, g, step, w1, w2, w3)
    _store_cotangent(first, real(tile[0], 0.0), w1, w2, w3, tile, step, h_moments)
