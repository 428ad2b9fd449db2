"""Error bars of correlated series: coverage on processes with a known answer, exact small cases, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.signal import lfilter

from gmcore.analysis.statistics import (
    StatisticsError,
    block_average,
    bootstrap_interval,
    correlation_coefficient,
    distribution,
    statistical_inefficiency,
)

PHI = 0.9
INEFFICIENCY = (1 + PHI) / (1 - PHI)


def processes(rng, n: int, n_series: int) -> np.ndarray:
    """(n_series, n) stationary AR(1) with variance 1 and mean 0."""
    noise = np.sqrt(1 - PHI**2) * rng.normal(size=(n_series, n + 100))
    return lfilter([1.0], [1.0, -PHI], noise, axis=1)[:, 100:]


def test_block_average_by_hand():
    mean, error = block_average([100.0, 1.0, 3.0, 5.0, 7.0], n_blocks=2)
    assert mean == pytest.approx(23.2)  # of all samples
    assert error == pytest.approx(np.std([2.0, 6.0], ddof=1) / np.sqrt(2))  # the first sample fills no block
    several = block_average(np.arange(24.0).reshape(6, 2, 2), 3)
    assert several.mean.shape == several.error.shape == (2, 2)


def test_errors_of_correlated_means_are_those_of_many_runs(rng):
    series = processes(rng, 5000, 200)
    truth = series.mean(axis=1).std()
    errors = np.array([block_average(x, 10).error for x in series])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(truth, rel=0.15)
    naive = series.std() / np.sqrt(5000)
    assert truth > 3.5 * naive


def test_inefficiency_of_known_processes(rng):
    values = [statistical_inefficiency(x) for x in processes(rng, 20000, 20)]
    assert np.mean(values) == pytest.approx(INEFFICIENCY, rel=0.1)
    assert statistical_inefficiency(rng.normal(size=20000)) == pytest.approx(1.0, abs=0.1)
    assert statistical_inefficiency(np.full(10, 1 / 3)) == 1.0


def test_bootstrap_interval_holds_the_true_mean_as_often_as_it_says(rng):
    hits = 0
    for k, x in enumerate(processes(rng, 2000, 150)):
        value, low, high = bootstrap_interval(lambda mean: mean, x, n_resamples=200, seed=k)
        assert low < value < high
        hits += low < 0.0 < high
    assert 0.87 <= hits / 150 <= 0.99  # short of 0.95 by the block length, far above the 0.35 of single samples


def test_bootstrap_is_seeded_and_chunks_leave_no_trace(rng, monkeypatch):
    x = rng.normal(size=50)
    first, again, other = (bootstrap_interval(np.exp, x, seed=seed) for seed in (1, 1, 2))
    assert first == again and first != other
    monkeypatch.setattr("gmcore.analysis.statistics.CHUNK", 50 * 7)
    chunked = bootstrap_interval(np.exp, x, block_length=1, seed=1)
    assert chunked.low == pytest.approx(first.low, abs=0.1) and chunked.value == first.value


def test_means_from_partial_sums_are_those_of_the_resampled_series(rng):
    x, y = rng.normal(5.0, 1.0, size=23), rng.normal(size=23)
    seen = {}

    def recording(a, b):
        seen.setdefault("means", (a, b))
        return a * b

    bootstrap_interval(recording, x, y, block_length=5, n_resamples=40, seed=3)
    first = np.random.default_rng(3).integers(0, 23 - 5 + 1, size=(40, 5))
    index = (first[:, :, None] + np.arange(5)).reshape(40, -1)[:, :23]
    for found, series in zip(seen["means"], (x, y)):
        np.testing.assert_allclose(found, series[index].mean(axis=1), rtol=1e-13)


def test_correlation_coefficient_with_interval(rng):
    x, noise = processes(rng, 3000, 2)
    y = -2.0 * x + noise
    value, low, high = correlation_coefficient(x, y)
    assert value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    assert low < -2 / np.sqrt(5) < high and high - low < 0.1
    narrow = correlation_coefficient(x, y, block_length=1)
    assert narrow.high - narrow.low < 0.5 * (high - low)  # what taking frames for independent would pretend
    wide = correlation_coefficient(x, y, level=0.99)
    assert wide.high - wide.low > high - low
    value, low, high = correlation_coefficient([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0])
    assert value == pytest.approx(1.0) and low == pytest.approx(1.0)


def test_density_integrates_to_one_and_finds_the_gaussian(rng):
    series = -100.0 + 3.0 * rng.normal(size=5000)
    grid, density = distribution(series)
    assert trapezoid(density, grid) == pytest.approx(1.0, abs=2e-3)
    expected = np.exp(-0.5 * ((grid + 100) / 3.0) ** 2) / (3.0 * np.sqrt(2 * np.pi))
    assert np.abs(density - expected).max() < 0.1 * expected.max()
    slow = distribution(processes(rng, 5000, 1)[0])  # fewer independent samples: wider kernel
    assert trapezoid(slow.density, slow.grid) == pytest.approx(1.0, abs=2e-3)


def test_density_is_mirrored_at_a_bound(rng):
    series = np.abs(rng.normal(size=4000))
    grid, density = distribution(series, lower=0.0)
    assert grid[0] == 0.0 and trapezoid(density, grid) == pytest.approx(1.0, abs=2e-3)
    assert density[0] == pytest.approx(2 / np.sqrt(2 * np.pi), rel=0.1)
    with pytest.raises(StatisticsError, match=r"below the lower bound 0\.5"):
        distribution(series, lower=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_average([1.0, np.inf]), "must be finite, got 1 values"),
        (lambda: block_average([]), "must hold samples"),
        (lambda: block_average([1.0, 2.0], 3), "between 2 and the 2 samples, got 3"),
        (lambda: block_average([1.0, 2.0], 1), "between 2 and the 2 samples, got 1"),
        (lambda: statistical_inefficiency(np.ones((3, 2))), r"shape \(n,\), got \(3, 2\)"),
        (
            lambda: correlation_coefficient([1.0, 2.0, 3.0], [1.0, 2.0]),
            r"one length of at least 3 samples, got lengths \[2, 3\]",
        ),
        (lambda: correlation_coefficient([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]), "the second is constant"),
        (lambda: bootstrap_interval(np.exp, [1.0, 2.0, 3.0], level=95), "between 0 and 1, got 95"),
        (lambda: bootstrap_interval(np.exp, [1.0, 2.0, 3.0], n_resamples=1), "at least 2 resamples, got 1"),
        (lambda: bootstrap_interval(np.exp, [1.0, 2.0, 3.0], block_length=4), "between 1 and the 3 samples, got 4"),
        (
            lambda: bootstrap_interval(lambda mean: np.full(len(mean), np.nan), [1.0, 2.0, 3.0]),
            "must be finite for some resampled series, it is finite for none",
        ),
        (lambda: distribution(np.full(5, 2.0)), "needs a series that varies, got 5 times 2"),
        (lambda: distribution([1.0, 2.0], n_points=1), "at least 2 points, got 1"),
    ],
)
def test_other_input_is_refused(call, message):
    with pytest.raises(StatisticsError, match=message):
        call()
