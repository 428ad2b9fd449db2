"""Burg's models: known processes, and lines narrower than any grid, whose power is known all the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from gmcore.analysis.autoregression import burg, integrated_density


@pytest.mark.parametrize("decay", [1e-1, 1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("omega", [0.3, 1.234567, 3.0])
def test_power_of_a_damped_oscillator_however_sharp(decay, omega):
    r = np.exp(-decay)
    filter_ = np.array([1.0, -2.0 * r * np.cos(omega), r * r])
    # variance of an AR(2) process, Box & Jenkins
    variance = (1 + r * r) / ((1 - r * r) * ((1 + r * r) ** 2 - filter_[1] ** 2))
    power = integrated_density(1.0, filter_, 4096)
    assert power.sum() == pytest.approx(variance, rel=2e-5)
    if decay < 1e-4:
        near = int(omega / np.pi * 4096)
        assert power[near - 1 : near + 2].sum() == pytest.approx(variance, rel=1e-2)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_lines_at_the_ends_count_their_half_inside(sign):
    phi = 1.0 - 1e-7
    power = integrated_density(1.0, np.array([1.0, -sign * phi]), 1024)
    assert power.sum() == pytest.approx(1.0 / (1.0 - phi**2), rel=2e-5)
    assert power.argmax() == (0 if sign > 0 else 1023)


def test_two_sharp_lines_keep_their_shares():
    roots = np.exp(np.array([-1e-6 + 0.5j, -1e-6 - 0.5j, -3e-6 + 0.6j, -3e-6 - 0.6j]))
    power = integrated_density(1.0, np.poly(roots).real, 4096)
    expected = integrated_density(1.0, np.poly(roots).real, 2**18)
    assert power.sum() == pytest.approx(expected.sum(), rel=1e-4)
    middle = int(0.55 / np.pi * 4096)
    assert power[:middle].sum() == pytest.approx(expected[: middle * 64].sum(), rel=1e-4)


def test_order_counts_coefficients(rng):
    series = lfilter([1.0], [1.0, -0.9], rng.normal(size=4000))
    noise, filter_ = burg(series - series.mean(), order=1)
    assert noise == pytest.approx(1.0, rel=0.05) and filter_[1] == pytest.approx(-0.9, abs=0.02)
    assert len(burg(series - series.mean(), order=7)[1]) == 8


@pytest.mark.parametrize("amplitudes", [(1.0,), (1.0, 0.3, 0.1)])
def test_series_without_any_noise_keep_their_variance(amplitudes):
    t = np.arange(3000)
    series = sum(a * np.cos((0.05 + 0.4 * k) * t + k) for k, a in enumerate(amplitudes))
    series -= series.mean()
    noise, filter_ = burg(series)
    power = integrated_density(noise, filter_, 2**14)
    assert power.sum() == pytest.approx(series.var(), rel=1e-3)
    for k, a in enumerate(amplitudes):
        near = int((0.05 + 0.4 * k) / np.pi * 2**14)
        assert power[near - 40 : near + 40].sum() == pytest.approx(a * a / 2, rel=0.01)
