"""The spectra of one temperature: velocities and D, by maximum entropy and Fourier transform, with bands.

Velocities are weighted by the square roots of the masses and divided by the mean kinetic energy of a degree of freedom:
the density of states, which integrates to their number, in modes per cm^-1. Elements of D are taken in one frame, those
off the diagonal weighted by sqrt(2), so that the sum is the one over all nine elements and does not depend on the
choice of axes. Each block is taken about its own mean: what is slower than a block, the drift of a free molecule say,
is missing from the integrals. Bands are 95 % intervals of the mean over blocks of all replicas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gmcore.analysis.records import axis, curve, quantity
from gmcore.analysis.samples import Samples
from gmcore.analysis.spectra import (
    HANN_WIDTH,
    MIN_SAMPLES,
    SpectrumError,
    nyquist,
    spectrum_with_band,
    wavenumber_grid,
)
from gmcore.config.analysis import Analysis
from gmcore.evaluation.metrics import unique_components
from gmcore.quantities import UNIQUE
from gmcore.units import BOLTZMANN, PER_FS

POINTS = 1000
"""Points of a spectrum."""

PROJECTIONS = 8
"""Random sums of velocities that stand for all of them in a maximum-entropy spectrum, for each block anew."""

FEWEST_SPECTRA = 4
"""A band rests on so many spectra at least, even if their lines become broader than the resolution asked for."""

METHODS = {"maximum_entropy": "maximum entropy", "fft": "Fourier transform"}
ALL_NINE = np.array([1.0 if i == j else np.sqrt(2.0) for i, j in UNIQUE])


def velocity_spectra(samples: Samples, settings: Analysis) -> dict[str, Any]:
    """Return the vibrational density of states by both methods."""
    velocities = samples.series("velocity")
    moving = np.ptp(velocities, axis=(0, 1)).any(axis=1)  # fixed atoms do not count
    if not moving.any():
        raise SpectrumError("a density of states needs atoms that move, got none")
    if not moving.all():
        velocities = velocities[:, :, moving]
    velocities *= np.sqrt(samples.trajectory.masses[moving])[:, None]
    velocities = velocities.reshape(*velocities.shape[:2], -1)
    flat = velocities.ravel()
    n_degrees = _n_degrees(samples) or velocities.shape[2]
    velocities *= np.sqrt(n_degrees * velocities.shape[0] * velocities.shape[1] / (flat @ flat))
    about = "vibrational density of states, mass-weighted velocities"
    options = {"maximum_entropy": {"projections": PROJECTIONS, "seed": settings.seed}}
    return _both(velocities, samples.interval("velocity"), settings, "modes", about, options)


def tensor_spectra(samples: Samples, tensors: np.ndarray, settings: Analysis, unit: str) -> dict[str, Any]:
    """Return the spectrum of D by both methods; tensors (n_series, n, 3, 3) in one frame, in `unit`."""
    elements = unique_components(tensors) * ALL_NINE
    about = "power spectral density of D, summed over its nine elements"
    return _both(elements, samples.interval("d_tensor"), settings, f"({unit})^2", about, {})


def _n_degrees(samples: Samples) -> int | None:
    """Degrees of freedom that share the kinetic energy, which the kinetic temperature tells; None without it."""
    if "kinetic_energy" not in samples or "temperature" not in samples:
        return None
    thermal = BOLTZMANN * samples.series("temperature").mean()
    return round(2.0 * samples.series("kinetic_energy").mean() / thermal) if thermal > 0.0 else None


def _both(
    series: np.ndarray,
    interval: float,
    settings: Analysis,
    unit: str,
    about: str,
    options: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    maximum, blocks = min(settings.max_wavenumber, nyquist(interval)), _n_blocks(series, interval, settings)
    spacing = maximum / POINTS
    finest = PER_FS / (interval * (series.shape[1] // blocks))  # a transform knows nothing between its points
    resolution = max(settings.resolution, HANN_WIDTH * finest)
    own = {
        "fft": {"width": resolution},
        "maximum_entropy": {"order": settings.mesa_order} | options.get("maximum_entropy", {}),
    }
    spacings = {"fft": max(spacing, resolution / HANN_WIDTH), "maximum_entropy": spacing}
    result = {}
    for method, words in METHODS.items():
        grid = wavenumber_grid(interval, maximum, spacing=spacings[method])
        band = spectrum_with_band(series, interval, grid, method, blocks, **own[method])
        result[method] = curve(
            axis("wavenumber", "cm^-1", band.wavenumbers, 6),
            axis("density", f"{unit}/cm^-1", band.mean, 4),
            f"{about}; {words}",
            low=band.low,
            high=band.high,
        )
        result[method]["n_spectra"] = band.n_spectra
        if method == "fft":
            result[method]["resolution"] = quantity(resolution, "cm^-1", "full width at half maximum of a line")
        if band.orders:
            result[method]["orders"] = [min(band.orders), max(band.orders)]
    return result


def _n_blocks(series: np.ndarray, interval: float, settings: Analysis) -> int:
    """Blocks of each series (n_series, n, n_columns): as many as are asked for and leave the resolution, but enough for
    a band.
    """
    n_series, n = series.shape[:2]
    fewest = -(-FEWEST_SPECTRA // n_series)
    if n < 4 * MIN_SAMPLES * fewest:
        raise SpectrumError(f"a spectrum with a band needs at least {4 * MIN_SAMPLES * fewest} samples, got {n}")
    with_resolution = int(n * interval * settings.resolution / (HANN_WIDTH * PER_FS))
    return max(fewest, min(settings.blocks, with_resolution))
