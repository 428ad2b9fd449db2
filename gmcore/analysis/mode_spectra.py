"""Cross spectra of D with mode coordinates: which mode moves together with D, and which elements move in it.

Cross spectra follow Welch, with Hann windows that overlap by half: P_xy is one-sided, the coherence
|P_xy|^2/(P_xx P_yy) lies between 0 and 1 and is near 1 at the frequency of a mode that drives x. The coherence of
unrelated series is about 1/K for K segments, not 0. The resolution of segments of length T is 1/(c T): 33 cm^-1 for
1 ps. Spectra of one series with error bands are in `gmcore.analysis.spectra`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gmcore.analysis.modes import Modes
from gmcore.errors import GMError
from gmcore.units import PER_FS

WINDOW = "hann"


class ModeSpectraError(GMError):
    """Series that have no cross spectrum."""


class CrossSpectra(NamedTuple):
    """Frequencies (n_f,) cm^-1; cross spectrum (n_f, n_x, n_y), complex, units of x y per cm^-1; coherence, 0 to 1."""

    frequencies: np.ndarray
    cross: np.ndarray
    coherence: np.ndarray
    n_segments: int


def cross_spectra(x: ArrayLike, y: ArrayLike, time_step: float, n_per_segment: int) -> CrossSpectra:
    """Return cross spectra and coherence of every series of x (elements of D) with every series of y (modes).

    Parameters
    ----------
    x, y : (n, n_x) and (n, n_y), sampled together.
    time_step : fs between samples.
    n_per_segment : samples of a segment; the resolution is 1/(n_per_segment time_step), and segments overlap by half.
        At least two segments must fit, because the coherence of a single segment is always 1.

    Raises
    ------
    ModeSpectraError : if shapes do not fit, the time step is not positive, or fewer than two segments fit.
    """
    from scipy import signal

    left, right = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if left.ndim != 2 or right.ndim != 2 or len(left) != len(right):
        raise ModeSpectraError(f"series must have shapes (n, n_x) and (n, n_y), got {left.shape} and {right.shape}")
    n_segments = _n_segments(len(left), n_per_segment, time_step)
    if n_segments < 2:
        raise ModeSpectraError(
            f"a coherence needs at least two segments of {n_per_segment} samples, got {len(left)} samples"
        )
    window = signal.get_window(WINDOW, n_per_segment)[:, None]
    frequencies = np.fft.rfftfreq(n_per_segment, 1.0 / _samples_per_wavenumber(time_step))
    cross = np.zeros((len(frequencies), left.shape[1], right.shape[1]), complex)
    power_x, power_y = (np.zeros((len(frequencies), series.shape[1])) for series in (left, right))
    step = n_per_segment - n_per_segment // 2
    for start in range(0, n_segments * step, step):  # scipy.signal.csd would hold the products of all segments
        of_x, of_y = (_transform(series[start : start + n_per_segment], window) for series in (left, right))
        cross += of_x.conj()[:, :, None] * of_y[:, None, :]
        power_x += np.abs(of_x) ** 2
        power_y += np.abs(of_y) ** 2
    product = power_x[:, :, None] * power_y[:, None, :]
    still = product <= 0.0  # a constant series is coherent with nothing
    coherence = np.where(still, 0.0, np.abs(cross) ** 2 / np.where(still, 1.0, product))
    one_sided = np.full((len(frequencies), 1, 1), 2.0)
    one_sided[0] = 1.0
    if n_per_segment % 2 == 0:
        one_sided[-1] = 1.0
    cross *= one_sided / (n_segments * _samples_per_wavenumber(time_step) * np.sum(window**2))
    return CrossSpectra(frequencies, cross, coherence, n_segments)


def element_shares(modes: Modes) -> dict[str, np.ndarray]:
    """Return the share of each element in the kinetic energy of each mode, symbol -> (n_modes,); they add up to 1.

    Together with the frequencies they can be compared with the density of states from velocities.
    """
    by_atom = (modes.vectors**2).sum(axis=2)
    symbols = np.array(modes.atoms.get_chemical_symbols())
    return {str(symbol): by_atom[:, symbols == symbol].sum(axis=1) for symbol in np.unique(symbols)}


def _transform(segment: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Return the Fourier transform of a segment (n, n_series) without its mean."""
    return np.fft.rfft(window * (segment - segment.mean(axis=0)), axis=0)


def _samples_per_wavenumber(time_step: float) -> float:
    """Return the sampling rate in cm^-1: 1/(c dt)."""
    return PER_FS / time_step


def _n_segments(n: int, n_per_segment: int, time_step: float) -> int:
    if not time_step > 0.0:
        raise ModeSpectraError(f"the time between samples must be positive, got {time_step} fs")
    if not 2 <= n_per_segment <= n:
        raise ModeSpectraError(f"a segment must have between 2 and {n} samples, got {n_per_segment}")
    overlap = n_per_segment // 2
    return (n - overlap) // (n_per_segment - overlap)
