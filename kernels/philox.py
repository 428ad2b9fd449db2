"""Random numbers that need no state: Philox4x32-10, and normal deviates from it by Box and Muller.

A number is a function of a key and a counter. The key belongs to a replica; the counter says which step, which atom,
and what the number is for. So the noise of a step can be computed anywhere and again: it is the same on every machine
(the bits of Philox exactly, the deviates to rounding), does not depend on other replicas or on threads, and a restart
needs only the number of the step. Source: Salmon, Moraes, Dror, Shaw, SC'11 (2011), and their library Random123.

Words have 32 bits and are kept in 64: Numba makes a float of a product of signed and unsigned numbers.
"""

import math

import numpy as np

from gmcore.kernels import formulas
from gmcore.kernels.compile import exact_jit

ATOMS, CELL = 0, 1
"""What a number is for: the last word of the counter."""

N_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_WORD, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_QUARTER, _IN_QUARTER = np.uint64(30), np.uint64(0x3FFFFFFF)
_UNIT, _RIGHT_ANGLE = 2.0**-32, 0.5 * math.pi * 2.0**-30

# without fast-math, so that a vector and a scalar loop, and hence batches of any size, give the same bits
cosine_sine = exact_jit(formulas.cosine_sine.py_func)


@exact_jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four random words of a counter of four words and a key of two, all uint64 below 2^32."""
    for _ in range(N_ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _WORD, (p0 >> _HALF) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
    return c0, c1, c2, c3


@exact_jit
def box_muller(a, b):
    """Two independent normal deviates of two words, at most 6.8 in magnitude."""
    radius = math.sqrt(-2.0 * math.log((np.float64(a) + 0.5) * _UNIT))
    c, s = cosine_sine((np.float64(b & _IN_QUARTER) + 0.5) * _RIGHT_ANGLE)
    quarter = b >> _QUARTER
    if quarter & np.uint64(1):
        c, s = -s, c
    if quarter & np.uint64(2):
        c, s = -c, -s
    return radius * c, radius * s


@exact_jit
def three_normals(key0, key1, step, number, purpose):
    """Three independent normal deviates for atom (or row of the cell) `number` at `step`, which counts to 2^64."""
    step, number = np.uint64(step), np.uint64(number)
    words = philox(step & _WORD, step >> _HALF, number, np.uint64(purpose), np.uint64(key0), np.uint64(key1))
    x, y = box_muller(words[0], words[1])
    z, _ = box_muller(words[2], words[3])
    return x, y, z
