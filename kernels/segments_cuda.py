"""Sums over the atoms of structures, without atomics: one thread per segment of rows, level upon level."""

from numba import cuda

from gmcore.kernels.compile import cuda_jit


@cuda_jit
def sum_segments(first, last, values, total):
    """total[t, c] = sum of values[i, c] over first[t] <= i < last[t], in this order; one thread per element."""
    thread = cuda.grid(1)
    width = values.shape[1]
    t = thread // width
    if t >= first.shape[0]:
        return
    c = thread - t * width
    total_of_segment = 0.0
    for i in range(first[t], last[t]):
        total_of_segment += values[i, c]
    total[t, c] = total_of_segment
