"""Spectra of velocities and D at one temperature, by maximum entropy and Fourier transform, with bands.

Velocities are weighted by the square roots of the masses and divided by the mean kinetic energy of a degree of freedom:
the density of states, in modes per cm^-1, which integrates to the number of degrees of freedom. Elements of D are taken
in one frame; those off the diagonal are weighted by sqrt(2), so that the sum runs over all nine elements and does not
depend on the choice of axes. The mean of each block is subtracted: motion slower than a block, such as the drift of a
free molecule, is missing from the integrals. Bands are 95 % intervals of the mean over blocks of all replicas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gmcore.analysis.model_errors import KEY, ModelErrors, deviation
from gmcore.analysis.records import axis, curve, plain, quantity, rounded
from gmcore.analysis.samples import Samples
from gmcore.analysis.spectra import (
    HANN_FWHM,
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
"""Number of points of a spectrum."""

PROJECTIONS = 8
"""Number of random sums of velocities that are fitted for a maximum-entropy spectrum, new ones for each block."""

FEWEST_SPECTRA = 4
"""Minimum number of spectra behind a band, even if lines become broader than the requested resolution."""

MEMBERS = 4
"""Maximum number of members or draws whose spectra are computed."""

METHODS = {"maximum_entropy": "maximum entropy", "fft": "Fourier transform"}
ALL_NINE = np.array([1.0 if i == j else np.sqrt(2.0) for i, j in UNIQUE])


def velocity_spectra(samples: Samples, settings: Analysis) -> dict[str, Any]:
    """Return the vibrational density of states by both methods.

    Raises
    ------
    SpectrumError : if no atom moves, or the run is too short.
    """
    velocities = samples.series("velocity")
    moving = np.ptp(velocities, axis=(0, 1)).any(axis=1)  # fixed atoms do not count
    if not moving.any():
        raise SpectrumError("a density of states needs atoms that move, but all are fixed")
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


def tensor_spectra(
    samples: Samples,
    tensors: np.ndarray,
    settings: Analysis,
    unit: str,
    members: np.ndarray | None = None,
    errors: ModelErrors | None = None,
) -> dict[str, Any]:
    """Return the spectrum of D by both methods.

    Parameters
    ----------
    samples : the samples of a state.
    tensors : (n_series, n, 3, 3) in one frame, in `unit`.
    settings : resolution, range and order of the spectra.
    unit : unit of D.
    members, errors : members (n_series, n, n_members, 3, 3) and errors of the model of D, where it is calibrated: then
        the Fourier spectrum has its error under "model".

    Raises
    ------
    SpectrumError : if the run is too short.
    """
    elements, interval = unique_components(tensors) * ALL_NINE, samples.interval("d_tensor")
    about = "power spectral density of D, summed over its nine elements"
    result = _both(elements, interval, settings, f"({unit})^2", about, {})
    if members is not None and errors is not None and KEY in errors.kappa:
        blocks, resolution = _n_blocks(elements, interval, settings), result["fft"]["resolution"]["value"]
        grid = wavenumber_grid(
            interval, min(settings.max_wavenumber, nyquist(interval)), spacing=_spacing(interval, settings, resolution)
        )

        def spectrum(series: np.ndarray) -> np.ndarray:
            return spectrum_with_band(series, interval, grid, "fft", blocks, resolution=resolution).mean

        chosen = range(min(members.shape[2], MEMBERS))
        through = np.array([spectrum(unique_components(members[:, :, k]) * ALL_NINE) for k in chosen])
        found = errors.scaled(KEY, deviation(through, spectrum(elements), errors.draws))
        result["fft"]["model"] = plain(rounded(np.asarray(found), 4))
    return result


def _n_degrees(samples: Samples) -> int | None:
    """Return the degrees of freedom that follow from kinetic energy and temperature; None if not recorded."""
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
    finest = PER_FS / (interval * (series.shape[1] // blocks))  # spacing of the points of a transform
    resolution = max(settings.resolution, HANN_FWHM * finest)
    own: dict[str, dict[str, Any]] = {
        "fft": {"resolution": resolution},
        "maximum_entropy": {"order": settings.mesa_order} | options.get("maximum_entropy", {}),
    }
    spacings = {"fft": _spacing(interval, settings, resolution), "maximum_entropy": _spacing(interval, settings)}
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


def _spacing(interval: float, settings: Analysis, resolution: float = 0.0) -> float:
    """Return the distance of the points of a spectrum, cm^-1."""
    return max(min(settings.max_wavenumber, nyquist(interval)) / POINTS, resolution / HANN_FWHM)


def _n_blocks(series: np.ndarray, interval: float, settings: Analysis) -> int:
    """Return the number of blocks of each series (n_series, n, n_columns).

    At most the number in the settings, fewer if blocks would be too short for the resolution, but enough for a band.
    """
    n_series, n = series.shape[:2]
    fewest = -(-FEWEST_SPECTRA // n_series)
    if n < 4 * MIN_SAMPLES * fewest:
        raise SpectrumError(
            f"a spectrum with a band needs at least {4 * MIN_SAMPLES * fewest} samples in each replica, got {n}"
        )
    with_resolution = int(n * interval * settings.resolution / (HANN_FWHM * PER_FS))
    return max(fewest, min(settings.blocks, with_resolution))
