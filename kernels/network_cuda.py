"""What stands between the matrix products of the network, for stacks (n_members, n_atoms, width) of matrices.

The products are cuBLAS (`gmcore.engine.network_cuda`); phi and phi' are those of `network_cpu`. One launch serves all
members. In `activate` and `multiply` each thread owns one column of `ROWS` rows, so that the integer divisions that say
which are paid for eight elements; the threads of a warp own adjacent columns, which lie side by side in memory. Both
are bound by memory: four rows are read before the first is written, which keeps four loads of a thread on their way.
`output_layer` takes the last hidden layer up to the outputs and down again, in one pass over it.

Formulas: docs/method.md, sections 4 and 6.1.
"""

from numba import cuda

from gmcore.kernels.compile import cuda_device_jit, cuda_jit
from gmcore.kernels.formulas import real
from gmcore.kernels.network_cpu import swish

ROWS = 8
MAX_LANES = 128  # threads that share an atom in `output_layer`
SHARED_LIMIT = 48 * 1024  # bytes that every block may have


def n_threads(shape):
    """Threads that `activate` and `multiply` need for a stack of this shape."""
    return shape[0] * -(-shape[1] // ROWS) * shape[2]


def max_width(itemsize):
    """Columns of the last hidden layer for which `output_layer` has room."""
    return SHARED_LIMIT // itemsize - MAX_LANES


def output_block(width):
    """Lanes and rows of a block of `output_layer`: a power of two of lanes, at most one per column."""
    lanes = MAX_LANES
    while lanes > 32 and lanes > width:
        lanes //= 2
    return lanes, MAX_LANES // lanes


@cuda_device_jit
def own_rows(shape):
    """Member, first and one past the last row, and column of this thread; no rows where there is nothing to do."""
    thread = cuda.grid(1)
    groups = (shape[1] + ROWS - 1) // ROWS
    group = thread // shape[2]
    m = group // groups
    begin = (group - m * groups) * ROWS
    end = min(begin + ROWS, shape[1]) if m < shape[0] else 0
    return m, begin, end, thread - group * shape[2]


@cuda_jit
def activate(z, bias, slope):
    """z = phi(z + bias) in place, slope = phi'(z + bias); bias (n_members, width)."""
    m, i, end, k = own_rows(z.shape)
    while i + 4 <= end:
        b = bias[m, k]
        z0, z1, z2, z3 = z[m, i, k], z[m, i + 1, k], z[m, i + 2, k], z[m, i + 3, k]
        z[m, i, k], slope[m, i, k] = swish(z0 + b)
        z[m, i + 1, k], slope[m, i + 1, k] = swish(z1 + b)
        z[m, i + 2, k], slope[m, i + 2, k] = swish(z2 + b)
        z[m, i + 3, k], slope[m, i + 3, k] = swish(z3 + b)
        i += 4
    while i < end:
        z[m, i, k], slope[m, i, k] = swish(z[m, i, k] + bias[m, k])
        i += 1


@cuda_jit
def multiply(slope, g_hidden):
    """g_hidden *= slope."""
    m, i, end, k = own_rows(slope.shape)
    while i + 4 <= end:
        s0, s1, s2, s3 = slope[m, i, k], slope[m, i + 1, k], slope[m, i + 2, k], slope[m, i + 3, k]
        g0, g1, g2, g3 = g_hidden[m, i, k], g_hidden[m, i + 1, k], g_hidden[m, i + 2, k], g_hidden[m, i + 3, k]
        g_hidden[m, i, k], g_hidden[m, i + 1, k] = s0 * g0, s1 * g1
        g_hidden[m, i + 2, k], g_hidden[m, i + 3, k] = s2 * g2, s3 * g3
        i += 4
    while i < end:
        g_hidden[m, i, k] *= slope[m, i, k]
        i += 1


@cuda_device_jit
def _down(m, k, species, weight, energy_scale):
    """dE/dh of column k: what arrives through all outputs, the same for all atoms of an element."""
    g = real(weight[m, k, 0], 0.0)
    for o in range(weight.shape[2]):
        g += energy_scale[m, species, o] * weight[m, k, o]
    return g


@cuda_jit
def output_layer(
    z, bias, weight, output_bias, species, scale, shift, energy_scale, first, want_cotangent, outputs
):  # fmt: skip
    """From the last hidden layer to the outputs of the atoms from `first` on, and back.

    outputs = scale (phi(z + bias) weight + output_bias) + shift;  if wanted, z = (energy_scale weight^T) phi'(z + bias)
    in place: dE/dz. outputs (n_members, n_all_atoms, n_outputs), scale and shift (n_members, n_species, n_outputs) are
    float64; bias (n_members, width), weight (n_members, width, n_outputs), output_bias (n_members, n_outputs) and
    energy_scale, which is dE/dy, have the working type.

    Launch ceil(n_rows / rows) x n_members blocks of `output_block` threads with rows (width + lanes) numbers of dynamic
    shared memory.
    """
    shared = cuda.shared.array(0, z.dtype)
    n_rows, width, n_outputs = z.shape[1], z.shape[2], weight.shape[2]
    lane, row, lanes = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.x
    i, m = cuda.blockIdx.x * cuda.blockDim.y + row, cuda.blockIdx.y
    own = row * (width + lanes)
    sums = own + width
    s = species[first + i] if i < n_rows else 0
    k = lane if i < n_rows else width
    while k < width:  # two columns at a time, so that two loads are on their way
        other = k + lanes
        z0 = z[m, i, k] + bias[m, k]
        z1 = z[m, i, other] + bias[m, other] if other < width else z0
        shared[own + k], slope = swish(z0)
        if want_cotangent:
            z[m, i, k] = _down(m, k, s, weight, energy_scale) * slope
        if other < width:
            shared[own + other], slope = swish(z1)
            if want_cotangent:
                z[m, i, other] = _down(m, other, s, weight, energy_scale) * slope
        k += 2 * lanes
    for o in range(n_outputs):
        total = real(z[0, 0, 0], 0.0)
        k = lane if i < n_rows else width
        while k < width:
            total += shared[own + k] * weight[m, k, o]
            k += lanes
        shared[sums + lane] = total
        half = lanes // 2
        while half > 0:
            cuda.syncthreads()
            if lane < half:
                shared[sums + lane] += shared[sums + lane + half]
            half //= 2
        if lane == 0 and i < n_rows:
            y = shared[sums] + output_bias[m, o]
            outputs[m, first + i, o] = scale[m, s, o] * y + shift[m, s, o]
        cuda.syncthreads()
