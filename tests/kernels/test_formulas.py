"""The hand-written exponential, cosine and sine over their whole input range, against extended precision.

Errors are in units of the last place (ulp) of the exact result, or, where the result passes through zero, in units of
the machine epsilon. Measured on two million random points for each type:

    ====================================  =======  =======
    largest error                         float32  float64
    ====================================  =======  =======
    exp, ulp                              0.59     0.89
    sine, ulp                             2.21     2.28
    cosine, epsilon                       0.75     0.76
    cosine below pi/4, ulp                0.86     0.85
    cutoff f, epsilon                     1.29     1.34
    cutoff f', epsilon k                  3.2      3.3
    cutoff f'', epsilon 2 k^2             3.1      3.5
    ====================================  =======  =======

The tests use fewer points and allow a little more.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from gmcore.kernels import formulas
from gmcore.kernels.compile import FLAGS

EXTENDED = np.longdouble
pytestmark = pytest.mark.skipif(
    np.finfo(EXTENDED).nmant < 63, reason="the long double of this platform is no more precise than its double"
)
DTYPES = (np.float32, np.float64)
LOWEST = {np.float32: -87.0, np.float64: -708.0}
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in DTYPES}
R_MAX = 6.5
PI = 4 * np.arctan(EXTENDED(1))


@numba.njit(**FLAGS)
def exp_loop(x, out):
    for k in range(x.size):
        out[k] = formulas.exp(x[k])


@numba.njit(**FLAGS)
def cosine_sine_loop(h, cosine, sine):
    for k in range(h.size):
        cosine[k], sine[k] = formulas.cosine_sine(h[k])


@numba.njit(**FLAGS)
def cutoff_loop(rho, r_max, f, df, d2f):
    for k in range(rho.size):
        f[k], df[k], d2f[k] = formulas.cutoff(rho[k], r_max)


def exponential(x) -> np.ndarray:
    out = np.empty_like(x)
    exp_loop(x, out)
    return out


def cosine_and_sine(h) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.empty_like(h), np.empty_like(h)
    cosine_sine_loop(h, cosine, sine)
    return cosine, sine


def ulps(values, exact) -> float:
    """Largest error in units of the last place of the exact result."""
    spacing = np.spacing(np.abs(exact).astype(values.dtype))
    return float((np.abs(values - exact) / spacing).max())


def epsilons(values, exact) -> float:
    return float(np.abs(values - exact).max() / np.finfo(values.dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_over_its_whole_range(dtype, rng):
    """Evenly over the arguments and evenly over their logarithms: below 1 ulp from 0 to the smallest normal number."""
    lowest = LOWEST[dtype]
    x = [rng.uniform(lowest, 0.0, 100_000), -np.exp(rng.uniform(-40.0, math.log(-lowest), 100_000))]
    steps = math.log(2) * np.arange(-0.5, lowest / math.log(2), -0.5)  # where the range reduction changes its integer
    x = np.concatenate([*x, steps]).astype(dtype)
    x = x[x > lowest]
    assert ulps(exponential(x), np.exp(x.astype(EXTENDED))) < 1.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_at_its_edges(dtype):
    lowest = dtype(LOWEST[dtype])
    assert exponential(np.array([0.0, -0.0, -1e-30], dtype)).tolist() == [1.0, 1.0, 1.0]
    last = np.nextafter(lowest, dtype(0.0))
    (value,) = exponential(np.array([last], dtype))
    assert np.finfo(dtype).tiny < value == pytest.approx(math.exp(float(last)), rel=2 * EPS[dtype])
    below = np.array([lowest, np.nextafter(lowest, dtype(-1e9)), 2 * lowest, -1e30, -math.inf], dtype)
    assert exponential(below).tolist() == [0.0] * 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_and_sine_over_their_whole_range(dtype, rng):
    """0 to pi/2. The sine keeps its relative precision; the cosine vanishes at pi/2 and keeps an absolute one."""
    h = np.concatenate([rng.uniform(0.0, math.pi / 2, 200_000), math.pi / 2 - np.logspace(-16, 0, 1000)]).astype(dtype)
    cosine, sine = cosine_and_sine(h)
    exact = np.cos(h.astype(EXTENDED))
    assert ulps(sine, np.sin(h.astype(EXTENDED))) < 2.5
    assert epsilons(cosine, exact) < 1.0
    small = h < math.pi / 4
    assert small.any() and ulps(cosine[small], exact[small]) < 1.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_and_sine_at_their_edges(dtype):
    cosine, sine = cosine_and_sine(np.array([0.0, math.pi / 2], dtype))
    assert (cosine[0], sine[0]) == (1.0, 0.0)
    assert abs(cosine[1]) < 2 * EPS[dtype] and sine[1] == 1.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_cutoff_and_its_derivatives_up_to_the_cutoff(dtype):
    r_max = dtype(R_MAX)
    rho = np.concatenate([np.linspace(0.0, R_MAX, 100_000), R_MAX - np.logspace(-7, 0, 1000)]).astype(dtype)
    rho = np.clip(rho, 0, r_max)
    f, df, d2f = (np.empty_like(rho) for _ in range(3))
    cutoff_loop(rho, r_max, f, df, d2f)
    k = PI / (2 * EXTENDED(r_max))
    h = k * rho
    assert epsilons(f, np.cos(h) ** 2) < 2.0
    assert epsilons(df, -k * np.sin(2 * h)) / float(k) < 4.0
    assert epsilons(d2f, -2 * k * k * np.cos(2 * h)) / float(2 * k * k) < 4.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_cutoff_at_its_ends(dtype):
    """f = 1 and f' = 0 at zero; both vanish at the cutoff, where f'' jumps from 2 k^2 to zero."""
    rho = np.array([0.0, R_MAX], dtype)
    f, df, d2f = (np.empty_like(rho) for _ in range(3))
    cutoff_loop(rho, dtype(R_MAX), f, df, d2f)
    k, eps = math.pi / (2 * R_MAX), EPS[dtype]
    assert f[0] == 1.0 and df[0] == 0.0
    assert 0.0 <= f[1] < eps**2 and abs(df[1]) < eps
    assert d2f.tolist() == pytest.approx([-2 * k * k, 2 * k * k], rel=4 * eps)


@pytest.mark.parametrize("wrong", [1 + 4e-16, 1 - 4e-16])
def test_the_measure_sees_a_few_units_of_the_last_place(wrong):
    x = np.linspace(-3.0, -0.1, 1000)
    assert ulps(wrong * exponential(x), np.exp(x.astype(EXTENDED))) > 1.0
