"""From the deviation between members to an error: one factor for each quantity, measured on data not trained on.

The members of a committee agree more closely with each other than with the truth, because they share data, descriptor
and architecture. The deviation says where errors are large, and a factor says how large:

    error = factor sqrt(deviation^2 + floor^2)

The deviation of a row (a structure, or an atom for forces and charges) is the root mean square over the components of
its standard deviations. Pooled like this it does not depend on the orientation, and it is less noisy. The deviation of
few members is a noisy number all the same, often far too small by chance. The floor, whose size the validation data
choose, keeps the error from following it. It loses its influence where deviations are large.

Outside of the training data the factor was not measured, and members extrapolate alike. There, where the extrapolation
grade is above 1, the error is multiplied by the grade. The grade is a distance in units of the extent of the data; a
smooth function departs from what was learned at least in proportion to it (docs/results.md has what comes of it).

D, E and the axis are functions of the tensor, and so are their deviations: those of D and E are that of the tensor,
that of the axis is divided by the distance of the eigenvalues that the axis would have to cross.

Source of the idea of one factor: F. Musil, M. J. Willatt, M. A. Langovoy, M. Ceriotti, J. Chem. Theory Comput. 2019,
15, 906.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gmcore.anisotropy import zfs_parameters
from gmcore.errors import GMError

SHARES = (0.0, 0.25, 0.5, 1.0)
"""Squared floors that are tried, in units of the mean squared deviation."""
RESAMPLES = 200
GAUSSIAN = (0.6827, 0.9545)
"""Share of a normal distribution within one and two standard deviations."""


@dataclass(frozen=True)
class Calibration:
    """How the deviation of one quantity becomes an error.

    Attributes
    ----------
    source : "committee", or "last_layer" for the draws of a single model.
    factor, factor_error : no unit; the error of the factor from resampled structures.
    floor : unit of the quantity.
    n_structures : structures that it was measured on.
    coverage_raw : share of the errors within 1 and within 2 raw deviations; 0.68 and 0.95 would be right.
    coverage : the same for the calibrated error.
    """

    source: str
    factor: float
    factor_error: float
    floor: float
    n_structures: int
    coverage_raw: tuple[float, float]
    coverage: tuple[float, float]

    def error(self, deviation: ArrayLike, grade: ArrayLike | None = None) -> np.ndarray:
        """Return the standard errors of pooled deviations (n,), in the unit of the quantity.

        Parameters
        ----------
        grade : (n,) extrapolation grades, where known.
        """
        errors = self.factor * np.hypot(deviation, self.floor)
        return errors if grade is None else errors * np.maximum(grade, 1.0)


def pooled(deviations: ArrayLike, n_components: int) -> np.ndarray:
    """Root mean square of deviations (n, ...) over their components: (n,) for n_components > 0 trailing axes."""
    values = np.asarray(deviations, np.float64)
    return np.sqrt(np.mean(values**2, axis=tuple(range(values.ndim - n_components, values.ndim))))


def calibrate(
    source: str, deviations: np.ndarray, errors: np.ndarray, groups: np.ndarray, raw: np.ndarray | None = None
) -> Calibration:
    """Return the calibration that makes `deviations` agree with `errors`.

    Parameters
    ----------
    source : see `Calibration`.
    deviations : (n_rows,) pooled.
    errors : (n_rows, n_components) prediction less reference.
    groups : (n_rows,) structure of each row; rows of one structure are not independent.
    raw : (n_rows, n_components) deviations for `coverage_raw`; the pooled ones if not given.

    Raises
    ------
    GMError : there is no row, or every deviation is zero.
    """
    errors = np.asarray(errors, np.float64).reshape(len(deviations), -1)
    if not len(errors) or not np.any(deviations > 0.0):
        raise GMError("a calibration needs deviations that are not all zero, got none")
    mean_square = float(np.mean(deviations**2))
    raw = np.broadcast_to(deviations[:, None] if raw is None else raw, errors.shape)
    tried = []
    for share in SHARES:
        floor = float(np.sqrt(share * mean_square))
        scaled = np.abs(errors) / np.maximum(np.hypot(deviations, floor), 1e-12 * np.sqrt(mean_square))[:, None]
        factor = _factor(scaled)
        sizes = factor * np.hypot(deviations, floor)[:, None]
        likelihood = float(np.mean(np.log(sizes) + 0.5 * (errors / sizes) ** 2)) if np.all(sizes > 0.0) else np.inf
        tried.append((likelihood, floor, factor, scaled))
    _, floor, factor, scaled = min(tried, key=lambda entry: entry[0])
    return Calibration(
        source,
        factor,
        _factor_error(scaled, groups),
        floor,
        len(np.unique(groups)),
        _coverage(np.abs(errors), raw),
        _coverage(scaled, np.full(scaled.shape, factor)),
    )


def _factor(scaled: np.ndarray) -> float:
    """The factor for errors in units of their deviations: between those that are right for one and two deviations."""
    one, two = np.quantile(scaled, GAUSSIAN)
    return float(max(np.sqrt(one * two / 2.0), 1e-12))


def _factor_error(scaled: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the factor, by drawing structures with replacement."""
    rng = np.random.default_rng(0)
    order = np.argsort(groups, kind="stable")
    parts = np.split(scaled[order], np.flatnonzero(np.diff(groups[order])) + 1)
    drawn = rng.integers(0, len(parts), (RESAMPLES, len(parts)))
    return float(np.std([_factor(np.concatenate([parts[k] for k in rows])) for rows in drawn]))


def _coverage(errors: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    return float(np.mean(errors <= sizes)), float(np.mean(errors <= 2.0 * sizes))


def anisotropy_deviations(tensors: ArrayLike, deviations: ArrayLike) -> dict[str, np.ndarray]:
    """Return the deviations of D, E (unit of the tensor) and axis (degrees), (n,) each.

    Parameters
    ----------
    tensors : (n, 3, 3).
    deviations : (n,) pooled deviation of the elements of each.
    """
    found, deviations = zfs_parameters(tensors), np.asarray(deviations, np.float64)
    low, middle, high = np.moveaxis(found.eigenvalues, -1, 0)
    gap = np.where(found.d < 0.0, middle - low, high - middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.degrees(np.arctan(np.where(deviations > 0.0, deviations / gap, 0.0)))
    return {"D": deviations, "E": deviations, "axis": angle}
