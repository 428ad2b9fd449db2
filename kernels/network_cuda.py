"""Element-wise parts of the network on the device, for stacks (n_members, n_atoms, width) of matrices.

Each thread owns one column of `ROWS` rows, so that the integer divisions that say which are paid for eight elements;
the threads of a warp own adjacent columns, which lie side by side in memory. The matrix products between these loops
are cuBLAS (`gmcore.engine.network_cuda`). phi and phi' are those of `network_cpu`.

Formulas: docs/method.md, sections 4 and 6.1.
"""

from numba import cuda

from gmcore.kernels.compile import cuda_device_jit, cuda_jit
from gmcore.kernels.network_cpu import swish

ROWS = 8


def n_threads(shape):
    """Threads that a stack of this shape needs."""
    return shape[0] * -(-shape[1] // ROWS) * shape[2]


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
def subtract(features, mean):
    """features -= mean (n_members, n_features), in place."""
    m, begin, end, k = own_rows(features.shape)
    for i in range(begin, end):
        features[m, i, k] -= mean[m, k]


@cuda_jit
def activate(z, bias, slope):
    """z = phi(z + bias) in place, slope = phi'(z + bias); bias (n_members, width)."""
    m, begin, end, k = own_rows(z.shape)
    for i in range(begin, end):
        z[m, i, k], slope[m, i, k] = swish(z[m, i, k] + bias[m, k])


@cuda_jit
def multiply(slope, g_hidden):
    """g_hidden *= slope."""
    m, begin, end, k = own_rows(slope.shape)
    for i in range(begin, end):
        g_hidden[m, i, k] *= slope[m, i, k]


@cuda_jit
def multiply_outer(slope, weight, g_outputs, g_hidden):
    """g_hidden = (g_outputs weight^T) slope for a single output: a product would write it only to be read again."""
    m, begin, end, k = own_rows(slope.shape)
    for i in range(begin, end):
        g_hidden[m, i, k] = g_outputs[m, i, 0] * weight[m, k, 0] * slope[m, i, k]


@cuda_jit
def scale_and_shift(outputs, bias, species, scale, shift, first, scaled):
    """scaled = scale (outputs + bias) + shift for the atoms from `first` on.

    scaled (n_members, n_all_atoms, width), scale and shift (n_members, n_species, width) are float64.
    """
    m, begin, end, k = own_rows(outputs.shape)
    for i in range(begin, end):
        z = species[first + i]
        scaled[m, first + i, k] = scale[m, z, k] * (outputs[m, i, k] + bias[m, k]) + shift[m, z, k]


@cuda_jit
def take_rows(values, table, species, first):
    """values (n_members, n_rows, width) = the row of table (n_members, n_species, width) of each atom's species."""
    m, begin, end, k = own_rows(values.shape)
    for i in range(begin, end):
        values[m, i, k] = table[m, species[first + i], k]
