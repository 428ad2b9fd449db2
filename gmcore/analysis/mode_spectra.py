"""Spectra of velocities and mode coordinates: vibrational density of states, and which mode moves together with D.

Cross spectra are Welch's, with Hann windows that overlap by half (scipy.signal): P_xy one-sided, coherence
|P_xy|^2/(P_xx P_yy) from 0 to 1, near 1 at the frequencies of a mode that drives x. Between series that have nothing
to do with each other the coherence of K segments is about 1/K, not 0. The resolution is 1/(c T) of a segment of length
T: 33 cm^-1 for 1 ps. Spectra of one series with error bands are in `gmcore.analysis.spectra`.

In harmonic classical dynamics each mode holds kT/2 of kinetic energy, so the mass-weighted power of the velocities,
scaled so that its integral is the number of degrees of freedom, is the density of states.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import units
from numpy.typing import ArrayLike

from gmcore.analysis.modes import Modes
from gmcore.errors import GMError

WINDOW = "hann"


class ModeSpectraError(GMError):
    """Series that no spectrum can be had of."""


class CrossSpectra(NamedTuple):
    """Frequencies (n_f,) cm^-1; cross spectrum (n_f, n_x, n_y) complex, units of x y per cm^-1; coherence, 0 to 1."""

    frequencies: np.ndarray
    cross: np.ndarray
    coherence: np.ndarray
    n_segments: int


def cross_spectra(x: ArrayLike, y: ArrayLike, time_step: float, n_per_segment: int) -> CrossSpectra:
    """Cross spectra and coherence of every series of `x`, elements of D say, with every one of `y`, modes say.

    Parameters
    ----------
    x, y : (n, n_x) and (n, n_y), sampled together.
    time_step : fs between samples.
    n_per_segment : samples; the resolution is 1/(n_per_segment time_step), and segments overlap by half. At least two
        must fit: the coherence of a single one is 1, whatever the series.
    """
    from scipy import signal

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ModeSpectraError(f"series must have shapes (n, n_x) and (n, n_y), got {x.shape} and {y.shape}")
    n_segments = _n_segments(len(x), n_per_segment, time_step)
    if n_segments < 2:
        raise ModeSpectraError(
            f"a coherence needs at least two segments of {n_per_segment} samples, got {len(x)} samples"
        )
    options = {"fs": _samples_per_wavenumber(time_step), "window": WINDOW, "nperseg": n_per_segment, "axis": 0}
    frequencies, cross = signal.csd(x[:, :, None], y[:, None, :], **options)
    power_x, power_y = (signal.welch(series, **options)[1] for series in (x, y))
    product = power_x[:, :, None] * power_y[:, None, :]
    still = product <= 0.0  # a constant series moves with nothing
    coherence = np.where(still, 0.0, np.abs(cross) ** 2 / np.where(still, 1.0, product))
    return CrossSpectra(frequencies, cross, coherence, n_segments)


class DensityOfStates(NamedTuple):
    """Frequencies (n_f,) cm^-1; `total` and `by_element[symbol]` (n_f,), states per cm^-1."""

    frequencies: np.ndarray
    total: np.ndarray
    by_element: dict[str, np.ndarray]


def vibrational_density_of_states(
    velocities: ArrayLike,
    numbers: ArrayLike,
    time_step: float,
    n_per_segment: int,
    masses: ArrayLike | None = None,
    n_degrees: int | None = None,
) -> DensityOfStates:
    """Mass-weighted power spectrum of the velocities, whose integral is the number of degrees of freedom.

    A mode is a peak of area one; where equilibrium is poor, areas show how the kinetic energy is distributed. Overall
    translation and rotation are part of it, near zero frequency.

    Parameters
    ----------
    velocities : (n, n_atoms, 3), in any unit.
    numbers : (n_atoms,) atomic numbers.
    time_step : fs between samples.
    n_per_segment : samples; Welch segments overlap by half.
    masses : (n_atoms,) amu; standard ones if not given.
    n_degrees : 3 n_atoms if not given.
    """
    from ase.data import atomic_masses, chemical_symbols
    from scipy import signal

    velocities, numbers = np.asarray(velocities, np.float64), np.asarray(numbers)
    if velocities.ndim != 3 or velocities.shape[1:] != (len(numbers), 3):
        raise ModeSpectraError(f"velocities must have shape (n, {len(numbers)}, 3), got {velocities.shape}")
    masses = atomic_masses[numbers] if masses is None else np.asarray(masses, np.float64)
    _n_segments(len(velocities), n_per_segment, time_step)
    frequencies, power = signal.welch(
        velocities,
        fs=_samples_per_wavenumber(time_step),
        window=WINDOW,
        nperseg=n_per_segment,
        detrend=False,
        axis=0,
    )
    by_atom = (power * masses[:, None]).sum(axis=2)
    area = by_atom.sum() * (frequencies[1] - frequencies[0])
    if not area > 0.0:
        raise ModeSpectraError("velocities must not all be zero")
    by_atom *= (3 * len(numbers) if n_degrees is None else n_degrees) / area
    by_element = {chemical_symbols[z]: by_atom[:, numbers == z].sum(axis=1) for z in np.unique(numbers)}
    return DensityOfStates(frequencies, by_atom.sum(axis=1), by_element)


def element_shares(modes: Modes) -> dict[str, np.ndarray]:
    """Share of each element in the kinetic energy of each mode, symbol -> (n_modes,); the shares add up to 1.

    With the frequencies these are the sticks to set beside `vibrational_density_of_states`.
    """
    by_atom = (modes.vectors**2).sum(axis=2)
    symbols = np.array(modes.atoms.get_chemical_symbols())
    return {str(symbol): by_atom[:, symbols == symbol].sum(axis=1) for symbol in np.unique(symbols)}


def _samples_per_wavenumber(time_step: float) -> float:
    """Sampling rate in cm^-1: 1/(c dt)."""
    return 1.0 / (units._c * 1e2 * time_step * 1e-15)


def _n_segments(n: int, n_per_segment: int, time_step: float) -> int:
    if not time_step > 0.0:
        raise ModeSpectraError(f"the time between samples must be positive, got {time_step} fs")
    if not 2 <= n_per_segment <= n:
        raise ModeSpectraError(f"a segment must have between 2 and {n} samples, got {n_per_segment}")
    overlap = n_per_segment // 2
    return (n - overlap) // (n_per_segment - overlap)
