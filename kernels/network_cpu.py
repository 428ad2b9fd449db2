"""The network on blocks of atoms: serial matrix products and fused element-wise loops, parallel over the blocks.

phi(z) = SWISH z sigmoid(z),  phi'(z) = SWISH (sigmoid(z) + z sigmoid(z) (1 - sigmoid(z)));  sigmoid from e^(-|z|),
which never overflows. `starts` (n_blocks + 1,) are the rows where blocks begin; `sizes` (n_layers + 1,) the widths
from features to outputs; `weights`, `biases`, `hidden`, `slopes` hold all layers in one flat array, so that one
compilation serves every depth. `hidden` and `slopes` have room for n_atoms x sum(sizes[1:-1]).

Numba turns `np.dot` into BLAS calls. The blocks already use every core, so the caller keeps BLAS at one thread.
"""

import numpy as np
from numba import prange

from gmcore.jit import jit, parallel_jit, routine_jit
from gmcore.kernels.formulas import exp, real

SWISH = 1.6765324703310907  # E[phi(x)^2] = 1 for x ~ N(0, 1)


@jit
def swish(z):
    """phi(z) and phi'(z)."""
    one = real(z, 1.0)
    e = exp(-abs(z))
    larger = one / (one + e)
    sigmoid = larger if z > real(z, 0.0) else e * larger
    scaled = real(z, SWISH) * sigmoid
    return z * scaled, scaled * (one + z * (one - sigmoid))


@jit
def matrix(flat, start, rows, columns):
    """View of a flat array from `start` on as a matrix."""
    return flat[start : start + rows * columns].reshape(rows, columns)


@routine_jit
def subtract(features, mean, centered):
    """centered = features - mean, row by row."""
    for i in range(features.shape[0]):
        for k in range(features.shape[1]):
            centered[i, k] = features[i, k] - mean[k]


@routine_jit
def activate(z, bias, slope):
    """z = phi(z + bias) in place, slope = phi'(z + bias)."""
    for i in range(z.shape[0]):
        for k in range(z.shape[1]):
            z[i, k], slope[i, k] = swish(z[i, k] + bias[k])


@routine_jit
def multiply(slope, g_hidden):
    """g_hidden *= slope."""
    for i in range(slope.shape[0]):
        for k in range(slope.shape[1]):
            g_hidden[i, k] *= slope[i, k]


@routine_jit
def multiply_outer(g_outputs, weight, slope, g_hidden):
    """g_hidden = (g_outputs weight^T) slope for a single output: BLAS would write the product only to be read again."""
    for i in range(slope.shape[0]):
        for k in range(slope.shape[1]):
            g_hidden[i, k] = g_outputs[i, 0] * weight[k, 0] * slope[i, k]


@jit
def block_forward(features, mean, weights, biases, sizes, centered, hidden, slopes, outputs):
    """`forward` for the rows of one block; hidden and slopes are flat and hold this block only."""
    rows, n_layers = len(features), len(sizes) - 1
    subtract(features, mean, centered)
    h, w, b, a = centered, 0, 0, 0
    for l in range(n_layers - 1):
        n_in, n_out = sizes[l], sizes[l + 1]
        z, slope = matrix(hidden, a, rows, n_out), matrix(slopes, a, rows, n_out)
        np.dot(h, matrix(weights, w, n_in, n_out), z)
        activate(z, biases[b : b + n_out], slope)
        h = z
        w += n_in * n_out
        b += n_out
        a += rows * n_out
    np.dot(h, matrix(weights, w, sizes[-2], sizes[-1]), outputs)
    for i in range(rows):
        for k in range(sizes[-1]):
            outputs[i, k] += biases[b + k]


@jit
def block_backward(weights, sizes, hidden, slopes, g_outputs, g_features):
    """`backward` for the rows of one block."""
    rows, n_layers = len(g_outputs), len(sizes) - 1
    g, w, a = g_outputs, len(weights), len(slopes)
    for l in range(n_layers - 1, 0, -1):
        n_in, n_out = sizes[l], sizes[l + 1]
        w -= n_in * n_out
        a -= rows * n_in
        weight, slope = matrix(weights, w, n_in, n_out), matrix(slopes, a, rows, n_in)
        g_h = matrix(hidden, a, rows, n_in)
        if n_out == 1:
            multiply_outer(g, weight, slope, g_h)
        else:
            np.dot(g, weight.T, g_h)
            multiply(slope, g_h)
        g = g_h
    np.dot(g, matrix(weights, 0, sizes[0], sizes[1]).T, g_features)


@parallel_jit
def forward(features, mean, weights, biases, sizes, starts, centered, hidden, slopes, outputs):
    """outputs (n_atoms, n_outputs) of features (n_atoms, n_features); fills centered, hidden and slopes too."""
    width = np.sum(sizes[1:-1])
    for block in prange(len(starts) - 1):
        i, j = starts[block], starts[block + 1]
        block_forward(
            features[i:j], mean, weights, biases, sizes,
            centered[i:j], hidden[i * width : j * width], slopes[i * width : j * width], outputs[i:j],
        )  # fmt: skip


@parallel_jit
def backward(weights, sizes, starts, hidden, slopes, g_outputs, g_features):
    """g_features from g_outputs and the slopes that `forward` left; `hidden` is overwritten with cotangents."""
    width = np.sum(sizes[1:-1])
    for block in prange(len(starts) - 1):
        i, j = starts[block], starts[block + 1]
        block_backward(
            weights,
            sizes,
            hidden[i * width : j * width],
            slopes[i * width : j * width],
            g_outputs[i:j],
            g_features[i:j],
        )
