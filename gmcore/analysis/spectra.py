"""Power spectral densities of time series: Fourier transform and maximum entropy, with bands from replicas and blocks.

All densities are one-sided in the wavenumber nu (cm^-1) = f/c and summed over the components of a series, unit^2 per
cm^-1, so that (Parseval)

    integral_0^nu_N S(nu) dnu = sum over components of the variance,        nu_N = 33356.41/(2 dt/fs) cm^-1.

Fourier: mean over windowed segments after Welch (scipy.signal.welch), a single segment for the finest resolution.
Maximum entropy: the density of an autoregressive model of order p (`gmcore.analysis.autoregression`),

    S(nu) = 2 P dt c / |sum_{k=0}^p a_k exp(-2 pi i nu c k dt)|^2.

On a given grid the density is the mean over the cell of each point, so that no line is missed and the integral is
kept.

Not supported: cross spectra, unequal intervals, and series with drift (only the mean is subtracted).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gmcore.analysis.autoregression import burg, integrated_density
from gmcore.errors import GMError, excerpt
from gmcore.units import PER_FS

MIN_SAMPLES = 16
"""Minimum number of samples for a spectrum."""

HANN_FWHM = 1.44
"""Full width at half maximum of a line after a Hann window, in units of 1/length."""

INTERVALS, MIN_INTERVALS = 4, 2**14
"""Intervals per sample, and minimum number, in which the power of a maximum entropy model is integrated."""


class SpectrumError(GMError):
    """A series without a spectrum, or a setting that does not fit it."""


class Spectrum(NamedTuple):
    """Wavenumbers (n_points,) cm^-1, density (n_points,) unit^2/cm^-1, orders of the fitted models (Fourier: none)."""

    wavenumbers: np.ndarray
    density: np.ndarray
    orders: tuple[int, ...] = ()


class SpectrumBand(NamedTuple):
    """Mean of n_spectra densities and the bounds of its confidence interval, each (n_points,) unit^2/cm^-1."""

    wavenumbers: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_spectra: int
    orders: tuple[int, ...]


def nyquist(dt: float) -> float:
    """Return the largest wavenumber, cm^-1, that samples every dt fs can resolve.

    Raises
    ------
    SpectrumError : if dt is not positive.
    """
    if not (math.isfinite(dt) and dt > 0.0):
        raise SpectrumError(f"the interval of a series must be positive, got {dt} fs")
    return 0.5 * PER_FS / dt


def wavenumber_grid(dt: float, maximum: float | None = None, spacing: float = 1.0) -> np.ndarray:
    """Return the wavenumbers 0, spacing, 2 spacing ... cm^-1.

    Parameters
    ----------
    dt : fs, interval of the samples.
    maximum : cm^-1, largest wavenumber; nyquist(dt) if not given.
    spacing : cm^-1.

    Raises
    ------
    SpectrumError : if the maximum exceeds the Nyquist wavenumber, or the spacing is not positive or exceeds the
        maximum.
    """
    limit = nyquist(dt)
    maximum = limit if maximum is None else maximum
    if not 0.0 < maximum <= limit * (1 + 1e-9):
        raise SpectrumError(
            f"the largest wavenumber must lie between 0 and {limit:.6g} cm^-1, the limit of samples every {dt:g} fs, "
            f"got {maximum:g}"
        )
    if not 0.0 < spacing <= maximum:
        raise SpectrumError(f"the spacing of wavenumbers must lie between 0 and {maximum:g} cm^-1, got {spacing:g}")
    return spacing * np.arange(int(maximum / spacing * (1 + 1e-12)) + 1)


def fft_spectrum(
    series: ArrayLike,
    dt: float,
    wavenumbers: ArrayLike | None = None,
    resolution: float | None = None,
    window: str = "hann",
) -> Spectrum:
    """Return the Fourier spectrum of a series (n, ...) sampled every dt fs, summed over its components.

    Parameters
    ----------
    series : (n, ...) samples.
    dt : fs, interval of the samples.
    wavenumbers : (n_points,) ascending, cm^-1; the density is averaged over the cell of each. If not given, those of
        the transform.
    resolution : cm^-1, full width at half maximum of a line: segments of 1.44 * 33356.41/(dt resolution) samples, half
        overlapping, are averaged (Welch). It cannot be finer than the whole series allows, which is also the default.
    window : name of a window of scipy.signal.get_window.

    Raises
    ------
    SpectrumError : if there are fewer than 16 samples, a value is not finite, or a setting is outside its range.
    """
    from scipy.signal import welch  # a slow import

    columns = _columns(series)
    limit = nyquist(dt)
    n_segment = len(columns)
    if resolution is not None:
        if not resolution > 0.0:
            raise SpectrumError(f"the resolution of a spectrum must be positive, got {resolution} cm^-1")
        n_segment = max(MIN_SAMPLES, min(n_segment, math.ceil(HANN_FWHM * 2.0 * limit / resolution)))
    try:
        # the mean is subtracted already; subtracting it from each segment would remove slow motion
        own, density = welch(columns, 2.0 * limit, window, n_segment, detrend=False, axis=0)
    except ValueError as error:
        raise SpectrumError(
            f"the window must be one of those that scipy.signal knows, got {excerpt(window)}"
        ) from error
    density = density.sum(axis=1)
    if wavenumbers is None:
        return Spectrum(own, density)
    grid = _checked_grid(wavenumbers, limit)
    edges = np.concatenate([[0.0], 0.5 * (own[1:] + own[:-1]), [limit]])
    return Spectrum(grid, _averaged(edges, density * own[1], grid))


def maximum_entropy_spectrum(
    series: ArrayLike,
    dt: float,
    wavenumbers: ArrayLike | None = None,
    order: int | None = None,
    projections: int | None = None,
    seed: int = 0,
) -> Spectrum:
    """Return the maximum entropy spectrum of a series (n, ...) sampled every dt fs, summed over its components.

    One model is fitted to each component; components that do not vary add nothing.

    Parameters
    ----------
    series : (n, ...) samples.
    dt : fs, interval of the samples.
    wavenumbers : (n_points,) ascending, cm^-1; steps of 1 cm^-1 up to the Nyquist wavenumber if not given. The density
        is averaged over the cell of each.
    order : order of the models, 1 ... n/2. If not given, the one of least final prediction error (Akaike) up to
        2n/ln(2n); the recursion ends when 100 more orders gain less than 1 %.
    projections : for series of many components, such as hundreds of velocities: this number of sums of all components
        with random signs is fitted instead. The mean of their spectra is that of the components (Hutchinson, Commun.
        Stat. Simul. 18, 1059 (1989)), scaled to their variance. The intensity of a line scatters by up to
        sqrt(2/projections), its position does not.
    seed : seed of the random signs.

    Raises
    ------
    SpectrumError : if there are fewer than 16 samples, a value is not finite, nothing varies, or a setting is outside
        its range.
    """
    columns = _columns(series)
    limit = nyquist(dt)
    grid = wavenumber_grid(dt) if wavenumbers is None else _checked_grid(wavenumbers, limit)
    n = len(columns)
    if order is not None and not 1 <= order <= n // 2:
        raise SpectrumError(f"the order of a maximum entropy spectrum must lie between 1 and {n // 2}, got {order}")
    if projections is not None and projections < 1:
        raise SpectrumError(f"the number of projections must be at least 1, got {projections}")
    columns = columns[:, np.ptp(columns, axis=0) > 0.0]
    if not columns.shape[1]:
        raise SpectrumError("a maximum entropy spectrum needs a component that varies, got none")
    if projections is not None and projections < columns.shape[1]:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(columns.shape[1], projections))
        total = np.vdot(columns, columns)
        columns = columns @ signs
        columns *= math.sqrt(
            total / np.vdot(columns, columns)
        )  # removes cross terms from the variance, so that Parseval holds
    n_intervals = 2 ** math.ceil(math.log2(max(INTERVALS * n, MIN_INTERVALS)))
    power = np.zeros(n_intervals)
    orders: list[int] = []
    for column in columns.T:
        noise, filter_ = burg(column, order)
        power += integrated_density(noise, filter_, n_intervals)
        orders.append(len(filter_) - 1)
    edges = np.linspace(0.0, limit, n_intervals + 1)
    return Spectrum(grid, _averaged(edges, power, grid), tuple(orders))


def spectrum_with_band(
    replicas: Sequence[ArrayLike] | np.ndarray,
    dt: float,
    wavenumbers: ArrayLike,
    method: str = "fft",
    n_blocks: int = 4,
    level: float = 0.95,
    **options: Any,
) -> SpectrumBand:
    """Return the mean spectrum of replicas cut into blocks, and its confidence interval.

    Parameters
    ----------
    replicas : series (n, ...) sampled every dt fs under the same conditions; lengths may differ.
    dt : fs, interval of the samples.
    wavenumbers : (n_points,) ascending, cm^-1.
    method : "fft" or "maximum_entropy".
    n_blocks : blocks of the shortest replica; longer replicas give more blocks of the same length. More blocks make
        the band more reliable and the resolution coarser: lines are at least 33356.41/(block length/fs) cm^-1 wide.
    level : confidence, 0 to 1.
    **options : those of `fft_spectrum` or `maximum_entropy_spectrum` (with projections, each block has its own random
        signs).

    Raises
    ------
    SpectrumError : if there are fewer than two spectra, the method is unknown, or the method raises one.

    Notes
    -----
    The M spectra are treated as independent. With their mean m and its standard error s the bounds are
    m exp(-+ t s/m), t being Student's t for M - 1 degrees of freedom: an interval of ln m, because densities are
    positive and span decades.
    """
    from scipy.stats import t  # a slow import

    if method not in ("fft", "maximum_entropy"):
        raise SpectrumError(f"the method of a spectrum must be fft or maximum_entropy, got {method!r}")
    if not 0.0 < level < 1.0:
        raise SpectrumError(f"the level of a band must lie between 0 and 1, got {level}")
    blocks = _blocks(replicas, n_blocks)
    if len(blocks) < 2:
        raise SpectrumError(f"a band needs at least 2 spectra, from replicas or blocks, got {len(blocks)}")
    densities: list[np.ndarray] = []
    orders: list[int] = []
    for k, block in enumerate(blocks):
        if method == "fft":
            spectrum = fft_spectrum(block, dt, wavenumbers, **options)
        else:
            seeded = {**options, "seed": options.get("seed", 0) + k}
            spectrum = maximum_entropy_spectrum(block, dt, wavenumbers, **seeded)
        densities.append(spectrum.density)
        orders.extend(spectrum.orders)
    mean = np.mean(densities, axis=0)
    error = np.std(densities, axis=0, ddof=1) / math.sqrt(len(blocks))
    exponent = float(t.ppf(0.5 + level / 2.0, len(blocks) - 1)) * error / np.where(mean > 0.0, mean, 1.0)
    return SpectrumBand(
        spectrum.wavenumbers, mean, mean * np.exp(-exponent), mean * np.exp(exponent), len(blocks), tuple(orders)
    )


def _averaged(edges: np.ndarray, power: np.ndarray, wavenumbers: np.ndarray) -> np.ndarray:
    """Return the mean density in the cell of each wavenumber, for a power (n,) spread evenly between edges (n + 1,).

    Cells end halfway between neighbors and do not extend beyond the edges.
    """
    integral = np.concatenate([[0.0], np.cumsum(power)])
    inner = 0.5 * (wavenumbers[1:] + wavenumbers[:-1])
    first = max(edges[0], 2.0 * wavenumbers[0] - inner[0])
    last = min(edges[-1], 2.0 * wavenumbers[-1] - inner[-1])
    ends = np.concatenate([[first], inner, [last]])
    return np.diff(np.interp(ends, edges, integral)) / np.diff(ends)


def _blocks(replicas: Sequence[ArrayLike] | np.ndarray, n_blocks: int) -> list[np.ndarray]:
    """Return blocks of equal length; surplus samples at the beginning of a replica are left out."""
    arrays = [np.asarray(replica, dtype=np.float64) for replica in replicas]
    if not arrays or any(array.ndim == 0 for array in arrays):
        raise SpectrumError("a spectrum needs at least one series of samples, got none")
    shortest = min(len(array) for array in arrays)
    if not 1 <= n_blocks <= max(shortest // MIN_SAMPLES, 1):
        raise SpectrumError(
            f"each block must have at least {MIN_SAMPLES} of the {shortest} samples, got {n_blocks} blocks"
        )
    length = shortest // n_blocks
    return [
        array[start : start + length] for array in arrays for start in range(len(array) % length, len(array), length)
    ]


def _columns(series: ArrayLike) -> np.ndarray:
    """Return the components (n, n_columns) of a series (n, ...) without their means."""
    samples = np.asarray(series, dtype=np.float64)
    if samples.ndim == 0 or len(samples) < MIN_SAMPLES:
        raise SpectrumError(f"a spectrum needs at least {MIN_SAMPLES} samples, got shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise SpectrumError(
            f"a series must be finite, got {np.count_nonzero(~np.isfinite(samples))} values that are not"
        )
    columns = samples.reshape(len(samples), -1)
    constant = np.ptp(columns, axis=0) <= 1e-12 * np.abs(columns).max(axis=0)  # only rounding varies
    columns = columns - columns.mean(axis=0)
    columns[:, constant] = 0.0
    return columns


def _checked_grid(wavenumbers: ArrayLike, limit: float) -> np.ndarray:
    grid = np.asarray(wavenumbers, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not np.all(np.diff(grid) > 0.0):
        raise SpectrumError(f"a spectrum needs at least 2 wavenumbers in ascending order, got shape {grid.shape}")
    if not (grid[0] >= 0.0 and grid[-1] <= limit * (1 + 1e-9)):
        raise SpectrumError(
            f"wavenumbers must lie between 0 and {limit:.6g} cm^-1, the limit of these samples, "
            f"got {grid[0]:g} to {grid[-1]:g}"
        )
    return grid
