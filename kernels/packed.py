"""Arithmetic of packed tensors, and where each invariant stands among the features; scalar formulas.

Packed orders as in `trilinear`: vector x y z; matrix xx xy xz yy yz zz; cubic tensor xxx xxy xxz xyy xyz xzz yyy yyz
yzz zzz. Features come in the blocks 0 to 7 (docs/method.md, section 3), within a block in the order of their channels,
the last channel fastest.
"""

from gmcore.kernels.compile import jit


@jit
def add3(a, x, y):
    """a x + y for vectors."""
    return a * x[0] + y[0], a * x[1] + y[1], a * x[2] + y[2]


@jit
def add6(a, x, y):
    """a x + y for packed matrices."""
    return (
        a * x[0] + y[0], a * x[1] + y[1], a * x[2] + y[2], a * x[3] + y[3], a * x[4] + y[4], a * x[5] + y[5],
    )  # fmt: skip


@jit
def add10(a, x, y):
    """a x + y for packed cubic tensors."""
    return (
        a * x[0] + y[0], a * x[1] + y[1], a * x[2] + y[2], a * x[3] + y[3], a * x[4] + y[4],
        a * x[5] + y[5], a * x[6] + y[6], a * x[7] + y[7], a * x[8] + y[8], a * x[9] + y[9],
    )  # fmt: skip


@jit
def dot3(x, y):
    """Sum over packed components, for vectors."""
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2]


@jit
def dot6(x, y):
    """Sum over packed components of a derivative and a matrix."""
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3] + x[4] * y[4] + x[5] * y[5]


@jit
def weigh6(x):
    """A packed matrix times the multiplicities of its components."""
    return x[0], x[1] + x[1], x[2] + x[2], x[3], x[4] + x[4], x[5]


@jit
def weigh10(x):
    """A packed cubic tensor times the multiplicities of its components."""
    xyz = x[4] + x[4] + x[4]
    return (
        x[0], x[1] + x[1] + x[1], x[2] + x[2] + x[2], x[3] + x[3] + x[3], xyz + xyz, x[5] + x[5] + x[5],
        x[6], x[7] + x[7] + x[7], x[8] + x[8] + x[8], x[9],
    )  # fmt: skip


@jit
def dot10(x, y):
    """Sum over packed components of a derivative and a cubic tensor."""
    return (
        x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3] + x[4] * y[4]
        + x[5] * y[5] + x[6] * y[6] + x[7] * y[7] + x[8] * y[8] + x[9] * y[9]
    )  # fmt: skip


@jit
def pair_number(n, r, s):
    """Number of the unordered pair of channels r, s among those with first <= second."""
    low, high = min(r, s), max(r, s)
    return low * n - low * (low - 1) // 2 + high - low


@jit
def pair_of(n, number):
    """The pair of channels r <= s with this number."""
    r = 0
    while number >= n - r:
        number -= n - r
        r += 1
    return r, r + number


@jit
def triple_number(n, r, s, t):
    """Number of the unordered triple r, s, t among those with first <= second <= third."""
    low, high = min(r, s, t), max(r, s, t)
    middle = r + s + t - low - high
    rest = n - low
    before = (n * (n + 1) * (n + 2) - rest * (rest + 1) * (rest + 2)) // 6
    within = (rest * (rest + 1) - (n - middle) * (n - middle + 1)) // 2
    return before + within + high - middle


@jit
def block_starts(n):
    """First feature of the blocks 4, 5, 6 and 7."""
    n_pairs = n * (n + 1) // 2
    fourth = n + 3 * n_pairs
    fifth = fourth + n * (n + 1) * (n + 2) // 6
    return fourth, fifth, fifth + n * n_pairs, fifth + 2 * n * n_pairs
