"""Spectra: Parseval, densities of known processes, lines of synthetic signals inside their bands, refusals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.signal import lfilter

from gmcore.analysis.spectra import (
    SpectrumError,
    fft_spectrum,
    maximum_entropy_spectrum,
    nyquist,
    spectrum_with_band,
    wavenumber_grid,
)
from gmcore.units import PER_FS
from support.tolerances import relative_error

DT = 4.0
LINES = {60.0: 1.0, 300.0: 0.5, 320.0: 0.5, 1500.0: 0.2}
METHODS = {"fft": fft_spectrum, "maximum_entropy": maximum_entropy_spectrum}


def signal(rng, n: int, noise: float = 0.02) -> np.ndarray:
    """Cosines of random phase on noise, about a mean far from zero."""
    t = DT * np.arange(n)
    lines = (a * np.cos(2 * np.pi * nu / PER_FS * t + rng.uniform(0, 2 * np.pi)) for nu, a in LINES.items())
    return -100.0 + sum(lines) + noise * rng.normal(size=n)


def autoregressive(rng, coefficients, shape) -> np.ndarray:
    return lfilter([1.0], coefficients, rng.normal(size=(shape[0] + 500, *shape[1:])), axis=0)[500:]


def density_of(coefficients, wavenumbers) -> np.ndarray:
    phase = np.exp(-2j * np.pi * np.outer(wavenumbers / PER_FS * DT, np.arange(len(coefficients))))
    return 2.0 * DT / PER_FS / np.abs(phase @ coefficients) ** 2


def oscillator(nu: float, r: float) -> list[float]:
    return [1.0, -2.0 * r * np.cos(2 * np.pi * nu / PER_FS * DT), r * r]


def test_units_and_grid():
    assert nyquist(0.5) == pytest.approx(33356.4095)
    grid = wavenumber_grid(DT, 100.0, spacing=0.1)
    assert len(grid) == 1001 and grid[-1] == pytest.approx(100.0)
    assert wavenumber_grid(DT)[-1] == np.floor(nyquist(DT))


@pytest.mark.parametrize("n", [1000, 1001])
def test_integral_is_the_variance(rng, n):
    series = 5.0 + autoregressive(rng, [1.0, -0.7], (n, 2, 3))
    variance = series.var(axis=0).sum()
    own, density, _ = fft_spectrum(series, DT, window="boxcar")
    assert density.sum() * own[1] == pytest.approx(variance, rel=1e-12)
    grid = wavenumber_grid(DT, spacing=7.3)
    ends = np.append(0.5 * (grid[1:] + grid[:-1]), min(grid[-1] + 3.65, nyquist(DT)))
    cells = np.diff(ends, prepend=0.0)
    for method, bound in (("fft", 0.03), ("maximum_entropy", 2e-3)):
        spectrum = METHODS[method](series, DT, grid)
        assert spectrum.density @ cells == pytest.approx(variance, rel=bound)


def test_known_density_within_the_error_of_the_estimate(rng):
    coefficients = oscillator(800.0, 0.95)
    replicas = [autoregressive(rng, coefficients, (2000, 2)) for _ in range(10)]
    grid = wavenumber_grid(DT, 4000.0, spacing=20.0)
    expected = 2 * density_of(coefficients, grid)  # two components
    for method in METHODS:
        band = spectrum_with_band(replicas, DT, grid, method, n_blocks=2)
        assert band.n_spectra == 20
        inside = (band.low <= expected) & (expected <= band.high)
        assert 0.85 < inside.mean(), method
        assert np.all(band.high / band.low < 4.0)
        assert grid[band.mean.argmax()] == pytest.approx(800.0, abs=20.0)


def test_order_of_a_known_process_is_found_and_can_be_set(rng):
    coefficients = oscillator(800.0, 0.95)
    series = autoregressive(rng, coefficients, (5000,))
    found = maximum_entropy_spectrum(series, DT)
    assert 2 <= found.orders[0] <= 12
    fixed = maximum_entropy_spectrum(series, DT, order=2)
    assert fixed.orders == (2,)
    inner = slice(1, -1)
    expected = density_of(coefficients, fixed.wavenumbers)
    np.testing.assert_allclose(fixed.density[inner], expected[inner], rtol=0.25)
    # one order less, which the library alone would return, has no line at all
    assert maximum_entropy_spectrum(series, DT, order=1).density.argmax() == 0


@pytest.mark.parametrize("method", METHODS)
def test_lines_are_found_with_their_intensities(rng, method):
    grid = wavenumber_grid(DT, 2000.0, spacing=1.0)
    band = spectrum_with_band([signal(rng, 6000) for _ in range(2)], DT, grid, method, n_blocks=2)
    assert np.all((band.low <= band.mean) & (band.mean <= band.high)) and np.all(band.low > 0)
    for nu, amplitude in LINES.items():
        near = np.abs(grid - nu) < 8.0
        assert grid[near][band.mean[near].argmax()] == pytest.approx(nu, abs=1.5)
        assert band.mean[near].sum() == pytest.approx(amplitude**2 / 2, rel=0.25)
    between = band.mean[np.abs(grid - 310.0) < 1.5].max()
    assert between < 0.1 * band.mean[np.abs(grid - 320.0) < 8.0].max()  # 20 cm^-1 apart are two lines


def test_series_that_end_below_nyquist_are_no_trouble(rng):
    """Vibrations end long before the Nyquist wavenumber; the library's default recursion overflows there."""
    transform = np.fft.rfft(signal(rng, 4096))
    transform[np.fft.rfftfreq(4096, DT) * PER_FS > 1700.0] = 0.0
    series = np.fft.irfft(transform)
    spectrum = maximum_entropy_spectrum(series, DT, wavenumber_grid(DT, 4000.0))
    assert spectrum.density.sum() == pytest.approx(series.var(), rel=0.05)
    assert spectrum.density[1800:].max() < 1e-4 * spectrum.density.max()


def test_width_trades_resolution_for_certainty(rng):
    series = rng.normal(size=8192)
    fine, coarse = fft_spectrum(series, DT), fft_spectrum(series, DT, resolution=50.0)
    assert len(coarse.wavenumbers) < len(fine.wavenumbers) / 20
    assert coarse.density[2:-2].std() < 0.3 * fine.density[2:-2].std()
    assert coarse.density[2:-2].mean() == pytest.approx(1.0 / nyquist(DT), rel=0.05)
    np.testing.assert_allclose(fft_spectrum(series, DT, resolution=1e-3).density, fine.density)


def test_components_add_and_constant_ones_add_nothing(rng):
    grid = wavenumber_grid(DT, 2000.0)
    series = np.stack([signal(rng, 500), 3.0 * signal(rng, 500), np.full(500, 1 / 3)], axis=1)
    for method in METHODS.values():
        single = sum(method(column, DT, grid).density for column in series.T[:2])
        assert relative_error(method(series, DT, grid).density, single) < 1e-9
    assert fft_spectrum(series[:, 2], DT, grid).density.max() == 0.0
    assert len(maximum_entropy_spectrum(series, DT, grid).orders) == 2


def test_projections_stand_for_many_components(rng):
    coefficients = oscillator(800.0, 0.95)
    series = autoregressive(rng, coefficients, (1000, 40))
    grid = wavenumber_grid(DT, 2000.0, spacing=20.0)
    band = spectrum_with_band([series], DT, grid, "maximum_entropy", n_blocks=4, projections=8)
    assert len(band.orders) == 4 * 8
    expected = 40 * density_of(coefficients, grid)
    assert np.mean((band.low <= expected) & (expected <= band.high)) > 0.8
    whole = wavenumber_grid(DT, spacing=5.0)
    few = maximum_entropy_spectrum(series, DT, whole, projections=2)  # the integral holds for any number of them
    assert np.sum(few.density) * 5.0 == pytest.approx(series.var(axis=0).sum(), rel=0.01)
    again = spectrum_with_band([series], DT, grid, "maximum_entropy", n_blocks=4, projections=8)
    np.testing.assert_array_equal(again.mean, band.mean)
    other = spectrum_with_band([series], DT, grid, "maximum_entropy", n_blocks=4, projections=8, seed=9)
    assert not np.array_equal(other.mean, band.mean)


def test_longer_replicas_give_more_blocks(rng):
    grid = wavenumber_grid(DT, 2000.0)
    band = spectrum_with_band([rng.normal(size=200), rng.normal(size=450)], DT, grid, n_blocks=2)
    assert band.n_spectra == 2 + 4


def test_scale_of_the_series_does_not_matter(rng):
    series = signal(rng, 400)
    plain = maximum_entropy_spectrum(series, DT)
    tiny = maximum_entropy_spectrum(1e-120 * series, DT)
    assert tiny.orders == plain.orders and relative_error(tiny.density * 1e240, plain.density) < 1e-6


def test_filters_of_warnings_are_left_alone(rng):
    before = list(warnings.filters)
    maximum_entropy_spectrum(rng.normal(size=50), DT)
    assert warnings.filters == before


NOISE = np.sin(np.arange(64.0) ** 2)
GRID = wavenumber_grid(DT, 100.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nyquist(0.0), "must be positive, got 0"),
        (lambda: wavenumber_grid(DT, 5000.0), "between 0 and 4169.55 .* every 4 fs, got 5000"),
        (lambda: wavenumber_grid(DT, 100.0, spacing=0.0), "between 0 and 100 cm"),
        (lambda: fft_spectrum(NOISE[:15], DT), r"at least 16 samples, got shape \(15,\)"),
        (lambda: fft_spectrum(np.append(NOISE, np.nan), DT), "must be finite, got 1 values"),
        (lambda: fft_spectrum(NOISE, DT, resolution=-1.0), "resolution of a spectrum must be positive, got -1"),
        (lambda: fft_spectrum(NOISE, DT, window="glass"), "scipy.signal knows, got 'glass'"),
        (lambda: fft_spectrum(NOISE, DT, [0.0, 9000.0]), "limit of these samples, got 0 to 9000"),
        (lambda: fft_spectrum(NOISE, DT, [5.0]), r"at least 2 wavenumbers in ascending order, got shape \(1,\)"),
        (lambda: fft_spectrum(NOISE, DT, [5.0, 4.0]), "at least 2 wavenumbers in ascending order"),
        (lambda: maximum_entropy_spectrum(np.append(NOISE, np.inf), DT), "must be finite"),
        (lambda: maximum_entropy_spectrum(np.full(64, 0.1), DT), "a component that varies, got none"),
        (lambda: maximum_entropy_spectrum(NOISE, DT, order=33), "between 1 and 32, got 33"),
        (lambda: maximum_entropy_spectrum(NOISE, DT, projections=0), "at least 1, got 0"),
        (lambda: spectrum_with_band([], DT, GRID), "at least one series of samples, got none"),
        (lambda: spectrum_with_band([NOISE], DT, GRID, n_blocks=1), "at least 2 spectra, .* got 1"),
        (lambda: spectrum_with_band([NOISE], DT, GRID, n_blocks=5), "at least 16 of the 64 samples, got 5 blocks"),
        (lambda: spectrum_with_band([NOISE], DT, GRID, method="lomb"), "got 'lomb'"),
        (lambda: spectrum_with_band([NOISE], DT, GRID, level=95), "between 0 and 1, got 95"),
    ],
)
def test_other_input_is_refused(call, message):
    with pytest.raises(SpectrumError, match=message):
        call()
