"""Sums over the atoms of structures, without atomics: one block per segment of rows, level upon level."""

from numba import cuda

from gmcore.kernels.compile import cuda_jit

MAX_LANES = 128  # threads of a block


@cuda_jit
def sum_segments(first, last, values, total):
    """total[t, c] = sum of values[i, c] over first[t] <= i < last[t], always in the same order.

    Launch one block per segment, of at most 128 lanes, a power of two.
    """
    sums = cuda.shared.array(MAX_LANES, total.dtype)
    t, lane = cuda.blockIdx.x, cuda.threadIdx.x
    for c in range(values.shape[1]):
        own = 0.0
        for i in range(first[t] + lane, last[t], cuda.blockDim.x):
            own += values[i, c]
        sums[lane] = own
        half = cuda.blockDim.x // 2
        while half > 0:
            cuda.syncthreads()
            if lane < half:
                sums[lane] += sums[lane + half]
            half //= 2
        if lane == 0:
            total[t, c] = sums[0]
        cuda.syncthreads()
