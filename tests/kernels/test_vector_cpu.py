"""The vector routines against the plain loops that stand in their docstrings.

Products are fused and added in the order of the loop, so that results agree to a few epsilon of the sum of magnitudes:
measured up to 1.3, and 2 are allowed. What lies beyond the given lengths must stay as it is.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest

from gmcore.kernels import vector_cpu
from gmcore.kernels.compile import FLAGS
from gmcore.kernels.vector_cpu import LANES, WIDTH

DTYPES = ("float32", "float64")
EPSILONS = 2.0


@numba.njit(**FLAGS)
def beta_times_basis(n_pairs, n_basis, basis, beta, species, out):
    vector_cpu.beta_times_basis(n_pairs, n_basis, basis, beta, species, out)


@numba.njit(**FLAGS)
def add_outer(n_pairs, n_basis, basis, amplitudes, species, g_beta):
    vector_cpu.add_outer(n_pairs, n_basis, basis, amplitudes, species, g_beta)


@numba.njit(**FLAGS)
def add_dot(n, g, f, q, i, t, o):
    vector_cpu.add_dot(n, g, f, q, i, t, o)


@numba.njit(**FLAGS)
def add_scaled(n, t, o, g, f, q, i):
    vector_cpu.add_scaled(n, t, o, g, f, q, i)


@numba.njit(**FLAGS)
def transpose_square(target, target_start, target_row, source, source_start, source_row):
    vector_cpu.transpose_square(target, target_start, target_row, source, source_start, source_row)


@numba.njit(**FLAGS)
def gaussian_rows(order, n_pairs, distance, cutoff, scalars, centers, out):
    if order == 0:
        vector_cpu.gaussian_values(n_pairs, distance, cutoff, scalars, centers, out)
    elif order == 1:
        vector_cpu.gaussian_slopes(n_pairs, distance, cutoff, scalars, centers, out)
    else:
        vector_cpu.gaussian_curvatures(n_pairs, distance, cutoff, scalars, centers, out)


def assert_close(value, expected, magnitude) -> None:
    """Errors in units of epsilon times the sum of the magnitudes of all terms."""
    allowed = EPSILONS * np.finfo(value.dtype).eps * magnitude
    np.testing.assert_array_less(np.abs(value - expected), allowed + np.finfo(value.dtype).tiny)


class Rows:
    """Rows of pairs in a scratch area with more rows and longer ones than are used, as the kernels have it."""

    def __init__(self, rng, dtype, n_basis, n_pairs, n_species=3):
        capacity = n_pairs + 2 * WIDTH
        self.area = rng.normal(size=(2 + n_basis + WIDTH, capacity)).astype(dtype)
        self.species = rng.integers(0, n_species, capacity).astype(np.int32)
        self.basis = self.area[1:]
        self.channels = self.area[1 + n_basis :]
        self.beta = rng.normal(size=(n_species, n_basis, WIDTH)).astype(dtype)


SIZES = [(1, 0), (1, 8), (5, 8), (7, 24), (7, 40), (12, 16)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_basis", "n_pairs"), SIZES)
def test_beta_times_basis(rng, dtype, n_basis, n_pairs):
    """Any number of Gaussians; pairs in multiples of eight."""
    rows = Rows(rng, dtype, n_basis, n_pairs)
    before = rows.area.astype(np.float64)
    beta_times_basis(n_pairs, n_basis, rows.basis, rows.beta, rows.species, rows.channels)
    expected, magnitude = before.copy(), np.zeros_like(before)
    for p in range(n_pairs):
        for s in range(WIDTH):
            terms = [float(rows.beta[rows.species[p], b, s]) * before[1 + b, p] for b in range(n_basis)]
            expected[1 + n_basis + s, p] = sum(terms)
            magnitude[1 + n_basis + s, p] = sum(map(abs, terms))
    assert_close(rows.area, expected, magnitude)
    assert n_pairs == 0 or (rows.area != before).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_basis", "n_pairs"), SIZES)
def test_add_outer(rng, dtype, n_basis, n_pairs):
    """Pairs of one species add to the same numbers, also within one vector of eight."""
    rows = Rows(rng, dtype, n_basis, n_pairs)
    rows.species[: n_pairs // 2] = 1
    before, g_beta = rows.area.copy(), rows.beta.copy()
    expected, magnitude = g_beta.astype(np.float64), np.abs(g_beta.astype(np.float64))
    add_outer(n_pairs, n_basis, rows.basis, rows.channels, rows.species, g_beta)
    for p in range(n_pairs):
        for b in range(n_basis):
            for s in range(WIDTH):
                term = float(rows.basis[b, p]) * float(rows.channels[s, p])
                expected[rows.species[p], b, s] += term
                magnitude[rows.species[p], b, s] += abs(term)
    assert_close(g_beta, expected, magnitude)
    np.testing.assert_array_equal(rows.area, before)


COMPONENTS = [(0, 0, 0, 0), (1, 0, 16, 0), (3, 16, 64, 16), (6, 5, 3, 1), (10, 0, 160, 32)]  # n and three offsets


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "f", "i", "o"), COMPONENTS)
def test_add_dot(rng, dtype, n, f, i, o):
    """Any number of components, and tiles that begin anywhere."""
    g, q, t = (rng.normal(size=400).astype(dtype) for _ in range(3))
    expected, magnitude = g.astype(np.float64), np.zeros(400)
    magnitude[f : f + LANES] = np.abs(g[f : f + LANES])
    for k in range(LANES):
        for c in range(n):
            term = float(q[i + 16 * c + k]) * float(t[o + 16 * c + k])
            expected[f + k] += term
            magnitude[f + k] += abs(term)
    add_dot(n, g, f, q, i, t, o)
    assert_close(g, expected, magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "f", "i", "o"), COMPONENTS)
def test_add_scaled(rng, dtype, n, f, i, o):
    g, q, t = (rng.normal(size=400).astype(dtype) for _ in range(3))
    expected, magnitude = t.astype(np.float64), np.zeros(400)
    for k in range(LANES):
        for c in range(n):
            term = float(g[f + k]) * float(q[i + 16 * c + k])
            magnitude[o + 16 * c + k] = abs(term) + abs(expected[o + 16 * c + k])
            expected[o + 16 * c + k] += term
    add_scaled(n, t, o, g, f, q, i)
    assert_close(t, expected, magnitude)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiles_of_one_array(rng, dtype):
    """The contractions keep all moments of a tile in one array, and pass it as both factors."""
    t = rng.normal(size=640).astype(dtype)
    g = np.zeros(LANES, dtype)
    add_dot(6, g, 0, t, 64, t, 384)
    first, second = (t[k : k + 96].astype(np.float64).reshape(6, LANES) for k in (64, 384))
    assert_close(g, (first * second).sum(0), np.abs(first * second).sum(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_square(rng, dtype):
    """Rows of any distance, beginning anywhere; what lies between them stays as it is."""
    source, target = (rng.normal(size=600).astype(dtype) for _ in range(2))
    expected = target.copy()
    for i in range(LANES):
        for k in range(LANES):
            expected[5 + 19 * i + k] = source[3 + 33 * k + i]
    transpose_square(target, 5, 19, source, 3, 33)
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_gaussian_rows(rng, dtype, order):
    """Also where the exponential vanishes; rows of higher derivatives stay as they are."""
    n_basis, n_pairs = 5, 32
    distance = rng.uniform(0.1, 40.0, n_pairs).astype(dtype)
    cutoff, out = rng.normal(size=(3, n_pairs)).astype(dtype), rng.normal(size=(16, n_pairs)).astype(dtype)
    scalars, centers = np.array([6.0, 1.7, 0.8], dtype), np.linspace(0.5, 5.0, n_basis).astype(dtype)
    before = out.copy()
    gaussian_rows(order, n_pairs, distance, cutoff, scalars, centers, out)
    (_, gamma, height), f = scalars.astype(np.float64), cutoff.astype(np.float64)
    x = distance.astype(np.float64) - centers.astype(np.float64)[:, None]
    g = height * np.exp(-gamma * x**2)
    dg, d2g = -2 * gamma * x * g, (4 * gamma**2 * x**2 - 2 * gamma) * g
    terms = [[f[0] * g], [f[1] * g, f[0] * dg], [f[2] * g, 2 * f[1] * dg, f[0] * d2g]][: order + 1]
    expected = np.concatenate([sum(parts) for parts in terms])
    # a rounded exponent -gamma x^2 costs as many epsilons as it is large
    magnitude = np.concatenate([(20 + 4 * gamma * x**2) * sum(map(np.abs, parts)) for parts in terms])
    assert np.all(
        np.abs(out[: len(expected)] - expected) <= np.finfo(dtype).eps * magnitude + 1e5 * np.finfo(dtype).tiny
    )
    np.testing.assert_array_equal(out[len(expected) :], before[len(expected) :])
