"""The network: serial matrix products and fused element-wise loops, layer by layer.

Formulas: docs/method.md, sections 4 and 6.1.

phi(z) = SWISH z sigmoid(z),  phi'(z) = SWISH (sigmoid(z) + z sigmoid(z) (1 - sigmoid(z)));  sigmoid from e^(-|z|),
which never overflows. `starts` (n_blocks + 1,) are the atoms where blocks begin. With enough atoms for every thread, a
thread takes a block through all layers, in place (`forward_rows`, `backward_rows`). With few, a task is a block of
atoms times one of `n_columns` blocks of a layer's columns (`forward`, `backward`): BLAS copies its share of the weights
into an order of its own in each product, which costs as much as a product of few atoms, and sharing the columns shares
it.

`sizes` (n_layers + 1,) are the widths from features to outputs; `weights` and `transposed`, the same matrices row by
row and column by column, `biases`, `hidden` and `slopes` hold all layers in one flat array, so that one compilation
serves every depth. `hidden` and `slopes` have room for n_atoms x sum(sizes[1:-1]), `products` for n_atoms x max(sizes).

Numba turns `np.dot` into BLAS calls. The tasks already use every core, so the caller keeps BLAS at one thread.
"""

import numpy as np
from numba import prange

from gmcore.kernels.compile import jit, parallel_jit, routine_jit
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
def activate(product, bias, first, h, slope):
    """h = phi(product + bias), slope = phi'(product + bias) in the columns from `first` on.

    Here and below columns are cut out row by row: only of a row does the compiler know that they lie side by side.
    """
    last = first + product.shape[1]
    b = bias[first:last]
    for i in range(product.shape[0]):
        z, h_row, slope_row = product[i], h[i, first:last], slope[i, first:last]
        for k in range(z.size):
            h_row[k], slope_row[k] = swish(z[k] + b[k])


@routine_jit
def activate_in_place(h, bias, slope):
    """h = phi(h + bias), slope = phi'(h + bias). Not `activate` on one array: the compiler would fear the overlap."""
    for i in range(h.shape[0]):
        h_row, slope_row = h[i], slope[i]
        for k in range(h_row.size):
            h_row[k], slope_row[k] = swish(h_row[k] + bias[k])


@routine_jit
def add(bias, outputs):
    """outputs += bias, row by row."""
    for i in range(outputs.shape[0]):
        for k in range(outputs.shape[1]):
            outputs[i, k] += bias[k]


@routine_jit
def multiply(product, first, slope, g_hidden):
    """g_hidden = product slope in the columns from `first` on."""
    last = first + product.shape[1]
    for i in range(product.shape[0]):
        g, g_row, slope_row = product[i], g_hidden[i, first:last], slope[i, first:last]
        for k in range(g.size):
            g_row[k] = g[k] * slope_row[k]


@routine_jit
def multiply_in_place(g_hidden, slope):
    """g_hidden = g_hidden slope."""
    for i in range(g_hidden.shape[0]):
        g_row, slope_row = g_hidden[i], slope[i]
        for k in range(g_row.size):
            g_row[k] *= slope_row[k]


@routine_jit
def copy(product, first, g_features):
    """g_features = product in the columns from `first` on."""
    for i in range(product.shape[0]):
        g_features[i, first : first + product.shape[1]] = product[i]


@routine_jit
def multiply_outer(g_outputs, weight, first, last, slope, g_hidden):
    """g_hidden = (g_outputs weight^T) slope for a single output: BLAS would write the product only to be read again."""
    w = weight[first:last, 0]
    for i in range(slope.shape[0]):
        g, g_row, slope_row = g_outputs[i, 0], g_hidden[i, first:last], slope[i, first:last]
        for k in range(w.size):
            g_row[k] = g * w[k] * slope_row[k]


@jit
def task_rows(task, starts, n_columns):
    """First and one past the last atom of a task."""
    return starts[task // n_columns], starts[task // n_columns + 1]


@jit
def task_columns(task, n_columns, width):
    """First and one past the last column of a task in a layer of this width."""
    k = task % n_columns
    return k * width // n_columns, (k + 1) * width // n_columns


@jit
def task_product(products, i, j, first, last, width):
    """Contiguous array (j - i, last - first) of a task in `products`; those of different tasks do not overlap."""
    return matrix(products, i * width + (j - i) * first, j - i, last - first)


@routine_jit
def up(i, j, features, mean, transposed, biases, sizes, centered, hidden, slopes, outputs):
    """The atoms from i to j through all layers."""
    n_atoms, n_layers = len(features), len(sizes) - 1
    h, w, b, a = centered[i:j], 0, 0, 0
    subtract(features[i:j], mean, h)
    for l in range(n_layers - 1):
        n_in, n_out = sizes[l], sizes[l + 1]
        z = matrix(hidden, a, n_atoms, n_out)[i:j]
        np.dot(h, matrix(transposed, w, n_out, n_in).T, z)
        activate_in_place(z, biases[b : b + n_out], matrix(slopes, a, n_atoms, n_out)[i:j])
        h = z
        w += n_in * n_out
        b += n_out
        a += n_atoms * n_out
    np.dot(h, matrix(transposed, w, sizes[-1], sizes[-2]).T, outputs[i:j])
    add(biases[b:], outputs[i:j])


@routine_jit
def down(i, j, weights, sizes, hidden, slopes, g_outputs, g_features):
    """The atoms from i to j back through all layers."""
    n_atoms, n_layers = len(g_outputs), len(sizes) - 1
    g, w, a = g_outputs[i:j], len(weights), n_atoms * np.sum(sizes[1:-1])
    for l in range(n_layers - 1, 0, -1):
        n_in, n_out = sizes[l], sizes[l + 1]
        w -= n_in * n_out
        a -= n_atoms * n_in
        weight, g_h = matrix(weights, w, n_in, n_out), matrix(hidden, a, n_atoms, n_in)[i:j]
        slope = matrix(slopes, a, n_atoms, n_in)[i:j]
        if n_out == 1:
            multiply_outer(g, weight, 0, n_in, slope, g_h)
        else:
            np.dot(g, weight.T, g_h)
            multiply_in_place(g_h, slope)
        g = g_h
    np.dot(g, matrix(weights, 0, sizes[0], sizes[1]).T, g_features[i:j])


@parallel_jit
def forward_rows(features, mean, transposed, biases, sizes, starts, centered, hidden, slopes, outputs):
    """As `forward`, with whole rows for each thread."""
    for block in prange(len(starts) - 1):
        i, j = starts[block], starts[block + 1]
        up(i, j, features, mean, transposed, biases, sizes, centered, hidden, slopes, outputs)


@parallel_jit
def backward_rows(weights, sizes, starts, hidden, slopes, g_outputs, g_features):
    """As `backward`, with whole rows for each thread."""
    for block in prange(len(starts) - 1):
        down(starts[block], starts[block + 1], weights, sizes, hidden, slopes, g_outputs, g_features)


@parallel_jit
def forward(features, mean, transposed, biases, sizes, starts, n_columns, centered, hidden, slopes, products, outputs):
    """outputs (n_atoms, n_outputs) of features (n_atoms, n_features); fills centered, hidden and slopes too."""
    n_atoms, n_layers, n_blocks = len(features), len(sizes) - 1, len(starts) - 1
    for block in prange(n_blocks):
        i, j = starts[block], starts[block + 1]
        subtract(features[i:j], mean, centered[i:j])
    h, w, b, a = centered, 0, 0, 0
    for l in range(n_layers - 1):
        n_in, n_out = sizes[l], sizes[l + 1]
        weight = matrix(transposed, w, n_out, n_in)
        bias = biases[b : b + n_out]
        z, slope = matrix(hidden, a, n_atoms, n_out), matrix(slopes, a, n_atoms, n_out)
        for task in prange(n_blocks * n_columns):
            i, j = task_rows(task, starts, n_columns)
            first, last = task_columns(task, n_columns, n_out)
            product = task_product(products, i, j, first, last, n_out)
            np.dot(h[i:j], weight[first:last].T, product)
            activate(product, bias, first, z[i:j], slope[i:j])
        h = z
        w += n_in * n_out
        b += n_out
        a += n_atoms * n_out
    weight = matrix(transposed, w, sizes[-1], sizes[-2])
    for block in prange(n_blocks):
        i, j = starts[block], starts[block + 1]
        np.dot(h[i:j], weight.T, outputs[i:j])
        add(biases[b:], outputs[i:j])


@parallel_jit
def backward(weights, sizes, starts, n_columns, hidden, slopes, products, g_outputs, g_features):
    """g_features from g_outputs and the slopes that `forward` left; `hidden` is overwritten with cotangents."""
    n_atoms, n_layers, n_blocks = len(g_outputs), len(sizes) - 1, len(starts) - 1
    g, w, a = g_outputs, len(weights), n_atoms * np.sum(sizes[1:-1])
    for l in range(n_layers - 1, 0, -1):
        n_in, n_out = sizes[l], sizes[l + 1]
        w -= n_in * n_out
        a -= n_atoms * n_in
        weight, slope = matrix(weights, w, n_in, n_out), matrix(slopes, a, n_atoms, n_in)
        g_h = matrix(hidden, a, n_atoms, n_in)
        for task in prange(n_blocks * n_columns):
            i, j = task_rows(task, starts, n_columns)
            first, last = task_columns(task, n_columns, n_in)
            if n_out == 1:
                multiply_outer(g[i:j], weight, first, last, slope[i:j], g_h[i:j])
            else:
                product = task_product(products, i, j, first, last, n_in)
                np.dot(g[i:j], weight[first:last].T, product)
                multiply(product, first, slope[i:j], g_h[i:j])
        g = g_h
    weight = matrix(weights, 0, sizes[0], sizes[1])
    for task in prange(n_blocks * n_columns):
        i, j = task_rows(task, starts, n_columns)
        first, last = task_columns(task, n_columns, sizes[0])
        product = task_product(products, i, j, first, last, sizes[0])
        np.dot(g[i:j], weight[first:last].T, product)
        copy(product, first, g_features[i:j])
