"""Maximum entropy: an autoregressive model of a series, and the power it holds between frequencies.

The density of an AR(p) model, theta in radians per sample, is with A(theta) = sum_{k=0}^p a_k exp(-i k theta), a_0 = 1,

    S(theta) = P/(2 pi |A(theta)|^2),        integral over -pi ... pi = variance of the series.

P and a_k are found by Burg's recursion as implemented in `memspectrum` (Martini et al., arXiv:2106.09499), the program
of the paper. Three problems of that package are worked around here. Its default recursion ("Fast") overflows for series
whose spectrum ends below the Nyquist frequency, as that of every vibration does; the standard recursion is just as fast
and is used instead. It returns the filter one order below the minimum of its criterion; one more step with its own
reflection coefficient corrects this. Importing it changes the warning filters; they are restored.

A smooth series can be predicted to the last digit, and then rounding decides P, the order and the widths of lines.
Therefore white noise of 1e-3 of the standard deviation is added, the same for every series of one length: a floor six
decades below the variance.

Lines of long-lived vibrations are narrower than any grid: sums over the grid miss them or count them twice. Each line
has a zero z = x + i y of A close to the real axis, found by Newton's method from maxima of S on the grid, and its
contribution is known:

    1/|A|^2 = 2 Re sum_z C/(theta - z) + smooth,        C = 1/(A'(z) conj(A(conj z))),

whose integral is a logarithm. The difference between this exact integral and the trapezoidal rule is added to the
result, which is therefore exact however small y is.
"""

from __future__ import annotations

import warnings

import numpy as np

FLOOR = 1e-3
"""Standard deviation of the white noise that is added to a series, relative to its own."""

NEWTON_STEPS = 10
NARROW = 3
"""Zeros of A closer than this many intervals to the real axis are integrated exactly; farther ones cost e^-19."""

STARTS = np.array([-1.0, 0.0, 1.0, -1.0 + 1.5j, 1.5j, 1.0 + 1.5j])
"""Starting points of the search, in intervals from a maximum."""

SAME = 1e-6
"""Zeros closer to each other than this many intervals count as one."""

REACH = 32
"""Intervals on either side of a zero in which its contribution is integrated exactly."""


def burg(series: np.ndarray, order: int | None = None) -> tuple[float, np.ndarray]:
    """Return P, squared unit, and a_0 = 1 ... a_p of the model of a series (n,) that varies and whose mean is 0.

    order: p; if not given, the minimum of Akaike's final prediction error up to 2n/ln(2n), where the recursion ends
    when 100 more orders gain less than 1 %.
    """
    with warnings.catch_warnings():  # its source has escapes that new Pythons warn of, and it sets filters
        warnings.simplefilter("ignore")
        from memspectrum import MESA
    scale = series.std()
    noisy = series / scale + FLOOR * np.random.default_rng(0).standard_normal(len(series))
    model = MESA()
    criterion = "FPE" if order is None else "Fixed"
    noise, filter_, _ = model.solve(noisy - noisy.mean(), m=order, optimisation_method=criterion, method="Standard")
    reflection = model.ref_coefficients[len(filter_) - 1]
    filter_ = np.append(filter_, 0.0)
    return float(noise * (1.0 - reflection**2) * scale**2), filter_ + reflection * filter_[::-1]


def integrated_density(noise: float, filter_: np.ndarray, n_intervals: int) -> np.ndarray:
    """Return the one-sided power (n_intervals,), unit of P, in equal intervals of theta from 0 to pi.

    The sum is the variance.

    Parameters
    ----------
    noise : P, squared unit of the series.
    filter_ : (p + 1,), a_0 = 1 ... a_p.
    n_intervals : a power of two above 2p.
    """
    step = np.pi / n_intervals
    inverse = 1.0 / np.abs(np.fft.rfft(filter_, 2 * n_intervals)) ** 2
    integral = 0.5 * step * (inverse[1:] + inverse[:-1])
    zeros = _narrow_zeros(filter_, inverse, step)
    # S is even about 0 and pi: a line close to an end has a mirror image beyond it, a line at the end is its own
    single = np.minimum(zeros.real, np.pi - zeros.real) < SAME * step
    twins = -zeros[~single].conj()
    zeros = np.concatenate([zeros, twins, twins + 2 * np.pi])
    residues = 1.0 / (_response(filter_, zeros)[1] * _response(filter_, zeros.conj())[0].conj())
    for z, residue in zip(zeros, residues):
        middle = int(np.floor(z.real / step))
        first, last = max(middle - REACH, 0), min(middle + REACH + 1, n_intervals)
        if first >= last:
            continue
        distances = step * np.arange(first, last + 1) - z
        part = 2.0 * (residue / distances).real
        exact = 2.0 * (residue * np.diff(np.log(distances))).real
        integral[first:last] += exact - 0.5 * step * (part[1:] + part[:-1])
    # if a zero was not found, the contributions of its neighbors may overshoot
    return np.maximum(integral, 0.0) * noise / np.pi


def _narrow_zeros(filter_: np.ndarray, inverse: np.ndarray, step: float) -> np.ndarray:
    """Return the zeros of A with real part from 0 to pi that lie closer than NARROW intervals to the real axis."""
    sides = np.pad(inverse, NARROW, mode="reflect")
    left, right, far = sides[NARROW - 1 :], sides[NARROW + 1 :], sides[2 * NARROW :]
    n = len(inverse)
    sharp = inverse > 1.5 * np.minimum(sides[:n], far[:n])
    peaks = np.flatnonzero((inverse >= left[:n]) & (inverse >= right[:n]) & sharp)
    # several lines may share a maximum: start beside it as well
    start = step * (peaks[:, None] + STARTS).ravel()
    zeros, move = start, np.zeros(len(start))
    for _ in range(NEWTON_STEPS):
        value, derivative = _response(filter_, zeros)
        correction = value / np.where(derivative == 0.0, np.inf, derivative)
        move = np.abs(correction)
        zeros = zeros - correction
        zeros = np.where(np.abs(zeros - start) < 2 * NARROW * step, zeros, start)  # ran away
    found = (move < 0.1 * SAME * step) & (zeros.imag > 0.0) & (zeros.imag < NARROW * step)
    found &= (zeros.real > -0.5 * SAME * step) & (zeros.real < np.pi + 0.5 * SAME * step)
    _, first = np.unique(np.round(zeros[found] / (SAME * step)), return_index=True)
    return zeros[found][first]


def _response(filter_: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return A and its derivative at complex theta (n,)."""
    k = np.arange(len(filter_))
    terms = filter_ * np.exp(-1j * np.outer(theta, k))
    return terms.sum(axis=1), terms @ (-1j * k)
