"""Errors of the model in averages along a run: how calibrated errors of frames become errors of what is made of them.

The D model states a calibrated error for each frame (`gmcore.uncertainty.calibration`), from the deviation between its
members or draws. An average over frames has a smaller one, because part of the deviation differs from frame to frame,
and it does not vanish for a long run, because part of it is the same in all frames. The members tell the two apart:

    error of an average = calibrated error of its frames x deviation of the average / deviation of the frames
                        = kappa x deviation of the average,    kappa = mean error of the frames / their mean deviation

Means, because the error of an average is at most the mean size of the errors: a few frames far outside of the
training data count by their number. The deviation of a frame is the root mean square over the nine elements of its
tensor, that of an average the same of the tensors of the members, each averaged over the frames: three members alone
would give a noisy number for a single element or for D. How much of it the frames share is still uncertain with few
members, which may agree by chance where all are wrong. If the average deviates by less than half of the mean square
of its frames, it is therefore taken part of the way there, as one more member would do that says so: a third of the
way for three members, less for more. This serves <D>, <E>, eigenvalues and elements, and D and E of the averaged
tensor; kappa is that of each quantity. For the axis it is divided by the distance of the eigenvalues, as for a frame.

Other numbers (widths, E/|D|, J2, spectra, correlation with the structure, dD/dq) are computed with every member, and
kappa multiplies the deviation of the results. Members of a committee deviate from their mean, the draws of a single
model from the model itself.

Not included: errors of the potential, whose dynamics visits the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmcore.analysis.records import plain
from gmcore.uncertainty.calibration import Calibration, anisotropy_deviations

KEY = "d_tensor"
AXIS = "axis"
SHARED = 0.5
"""Share of the mean squared deviation of frames that they have in common, where members do not know better."""


def are_draws(tensors: np.ndarray, members: np.ndarray) -> bool:
    """Whether members (n, n_members, 3, 3) are draws of a single model: tensors (n, 3, 3) are not their mean."""
    return not np.allclose(members.mean(axis=1), tensors, rtol=0.0, atol=1e-6 * float(np.abs(tensors).max(initial=0.0)))


def deviation(values: np.ndarray, own: np.ndarray, draws: bool) -> np.ndarray:
    """Return the deviation of results (n_members, ...) from their mean, or for draws from `own` (...) of the model."""
    about = own if draws else values.mean(axis=0)
    return np.sqrt(np.mean((values - about) ** 2, axis=0))


@dataclass(frozen=True, eq=False)
class ModelErrors:
    """Errors of the D model at one temperature.

    Attributes
    ----------
    kappa : by "d_tensor", "D", "E" and "axis", no unit: what a deviation is multiplied by.
    averaged : deviation of the averaged tensor, unit of the tensors; with few members taken towards that of frames.
    axis_averaged : deviation of its axis, degrees.
    draws : whether the members are draws of a single model.
    """

    kappa: Mapping[str, float]
    averaged: float
    axis_averaged: float
    draws: bool

    def of_average(self, name: str) -> float | None:
        """Error of an average of "d_tensor" elements, "D", "E" or "axis"; None if it is not calibrated."""
        return self.scaled(name, self.axis_averaged if name == AXIS else self.averaged)

    def scaled(self, name: str, deviations: Any) -> Any:
        """Error of a result that deviates by so much between members; None if `name` is not calibrated."""
        return self.kappa[name] * deviations if name in self.kappa else None


UNKNOWN = ModelErrors({}, np.nan, np.nan, False)
"""Errors of a model that is not calibrated: all None."""


def model_errors(
    tensors: np.ndarray,
    members: np.ndarray,
    calibrations: Mapping[str, Calibration],
    grades: np.ndarray | None = None,
    factor: float = 1.0,
) -> ModelErrors:
    """Return the errors of the D model for the frames of one temperature.

    Parameters
    ----------
    tensors : (n, 3, 3), in the frame of the molecule.
    members : (n, n_members, 3, 3), members or draws.
    calibrations : of the D model, for cm^-1.
    grades : (n,) extrapolation grades of the frames, where known.
    factor : value of a tensor in its unit / value in cm^-1.
    """
    draws = are_draws(tensors, members)
    frames = _pooled(members.swapaxes(0, 1), tensors, draws) / factor
    mean = tensors.mean(axis=0)
    averaged = _pooled(members.mean(axis=0), mean, draws)
    missing = max(SHARED * _mean(frames * factor) ** 2 - averaged**2, 0.0)
    averaged = np.sqrt(averaged**2 + missing / (members.shape[1] + draws))
    of_axis = anisotropy_deviations(tensors / factor, frames)[AXIS]
    kappa = {}
    for name, calibration in calibrations.items():
        own = of_axis if name == AXIS else frames
        if name in (KEY, "D", "E", AXIS) and np.any(own > 0.0):
            kappa[name] = _mean(calibration.error(own, grades)) / _mean(own)
    axis = anisotropy_deviations(mean[None], averaged[None])[AXIS][0]
    return ModelErrors(kappa, float(averaged), float(axis), draws)


def _pooled(members: np.ndarray, own: np.ndarray, draws: bool) -> np.ndarray:
    """Root mean square over the elements of the deviation of tensors (n_members, ..., 3, 3)."""
    return np.sqrt(np.mean(deviation(members, own, draws) ** 2, axis=(-2, -1)))


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values[np.isfinite(values)]))


def add_coupling_errors(coupling: dict[str, Any], errors: ModelErrors) -> None:
    """Add "model" to dD/dq: kappa times the deviation between members, that of all elements as stated by "strength".

    Parameters
    ----------
    coupling : the entry of the analysis, changed in place.
    errors : those of the coldest state, which is nearest to the minimum.
    """
    strength = coupling["strength"]
    # strength is the norm of nine elements, dD/dq and dE/dq deviate like one
    own = np.array([np.nan if value is None else value for value in strength["committee"]])
    for name, of, size in (("strength", KEY, 1.0), ("dD", "D", 3.0), ("dE", "E", 3.0)):
        found = errors.scaled(of, own / size)
        if found is not None:
            coupling[name]["model"] = plain(found)
    found = errors.scaled(KEY, own / 3.0)
    if found is not None:
        coupling["elements"]["model"] = plain(found)
