"""Errors of predictions: MAE and RMSE of every quantity, with units.

All numbers of a quantity in all structures form one set. For symmetric tensors the six unique components count once
each. For a D tensor the errors of D, E, the eigenvalues and the angle between the easy axes are given as well, because
errors of elements say little about them, and the number of structures with the wrong sign of D.

An error is small or large beside that of a model without any knowledge of the structure, which predicts the mean of the
reference values, each component its own: `mean_mae` and `mean_rmse`. R^2 = 1 - (RMSE / mean RMSE)^2 is 1 for a perfect
model, 0 for that mean, and negative below it.

Committees give `<key>_std`, the population deviation over the members; its mean is reported as `committee_std` and can
be compared with the RMSE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gmcore.anisotropy import axis_angle, zfs_parameters
from gmcore.errors import GMError
from gmcore.quantities import BY_NAME, ELEMENTS, QUANTITIES, UNIQUE

ROUNDING = 1e-12
"""Reference values that vary by less than this, relative to the largest, do not vary: their R^2 is undefined."""


class MetricsError(GMError):
    """Reference and prediction that do not fit each other."""


def unique_components(tensor: ArrayLike) -> np.ndarray:
    """Return xx, xy, xz, yy, yz, zz of the symmetric part: (n_leading, 3, 3) -> (n_leading, 6)."""
    elements = np.asarray(tensor, dtype=np.float64)
    rows, columns = np.transpose(UNIQUE)
    return 0.5 * (elements[..., rows, columns] + elements[..., columns, rows])


def flat_values(key: str, values: np.ndarray | Sequence[ArrayLike]) -> np.ndarray:
    """Return every independent number of a quantity, one row for each structure or atom.

    Parameters
    ----------
    key : the quantity.
    values : an array with one entry per structure, or a list with one array per structure (sizes may differ).

    Returns
    -------
    energy (n, 1), charges (n_atoms, 1), dipole (n, 3), forces (n_atoms, 3), tensors (n, 6).
    """
    shape = BY_NAME[key].shape
    arrays = [np.asarray(value, dtype=np.float64).reshape(-1, *shape) for value in values]
    rows = np.concatenate([np.zeros((0, *shape)), *arrays])
    return unique_components(rows) if BY_NAME[key].is_tensor else rows.reshape(-1, prod(shape))


def error_measures(differences: ArrayLike, unit: str) -> dict[str, Any]:
    """Return {"mae", "rmse", "unit", "n"} of differences of any shape; the errors are NaN if there are none."""
    flat = np.ravel(np.asarray(differences, dtype=np.float64))
    n = len(flat)
    mae = float(np.abs(flat).mean()) if n else float("nan")
    rmse = float(np.sqrt(np.square(flat).mean())) if n else float("nan")
    return {"mae": mae, "rmse": rmse, "unit": unit, "n": n}


def errors_beside_mean(expected: np.ndarray, value: np.ndarray, unit: str) -> dict[str, Any]:
    """Return the measures of `value`, and those of predicting the mean of each column.

    Parameters
    ----------
    expected, value : (n_rows, n_components).

    Returns
    -------
    {"mae", "rmse", "unit", "n", "mean_mae", "mean_rmse", "r2"}; "r2" is None where the reference does not vary.
    """
    if not len(expected):
        return {**error_measures([], unit), "mean_mae": float("nan"), "mean_rmse": float("nan"), "r2": None}
    found, mean = error_measures(value - expected, unit), error_measures(expected - expected.mean(axis=0), unit)
    varies = mean["rmse"] > ROUNDING * np.abs(expected).max()
    r2 = 1.0 - (found["rmse"] / mean["rmse"]) ** 2 if varies else None
    return {**found, "mean_mae": mean["mae"], "mean_rmse": mean["rmse"], "r2": r2}


def compared(key: str, reference: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the labeled rows of reference and prediction, and which rows of the whole they are.

    Rows whose reference is NaN have no label (for example the stress of a molecule) and are left out.

    Returns
    -------
    reference, predicted : (n_labeled, n_components), rows of `flat_values`.
    labeled : (n_rows,) bool.

    Raises
    ------
    MetricsError : if the sizes differ, or a prediction is not finite although there is a reference.
    """
    expected, value = flat_values(key, reference), flat_values(key, predicted)
    if expected.shape != value.shape:
        raise MetricsError(
            f"{key}: the number of predictions must be that of the reference values, {len(expected)}, got {len(value)}"
        )
    labeled = ~np.isnan(expected).any(axis=1)
    if not np.isfinite(value[labeled]).all():
        bad = int(np.count_nonzero(~np.isfinite(value[labeled]).all(axis=1)))
        raise MetricsError(f"{key}: predictions must be finite, got {bad} that are not")
    return expected[labeled], value[labeled], labeled


def evaluate_arrays(
    reference: Mapping[str, Any],
    predicted: Mapping[str, Any],
    n_atoms: ArrayLike | None = None,
    units: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the errors of every quantity that is in both, as plain numbers ready for JSON.

    Parameters
    ----------
    reference, predicted : arrays (or lists of one array per structure) keyed energy (n_structures,), forces, stress,
        charges, dipole, d_tensor, tensor in internal units; predicted may hold `<key>_std` of a committee.
    n_atoms : (n_structures,) number of atoms of each structure; with it the error of the energy per atom is returned.
    units : units that differ from the internal ones, for example that of a tensor.

    Returns
    -------
    {quantity: {"mae", "rmse", "unit", "n", "mean_mae", "mean_rmse", "r2"[, "committee_std"]}}; symmetric tensors have
    "r2_elements" {element: R^2}. Besides the keys above energy_per_atom, d_tensor_D (with "wrong_sign", the number of
    structures whose D has the wrong sign), d_tensor_E, d_tensor_eigenvalues and d_tensor_axis_angle (mae: mean angle,
    rmse: root of the mean square; nothing about the mean).

    Raises
    ------
    MetricsError : if reference, predictions and n_atoms do not fit each other, or a prediction is not finite.

    Examples
    --------
    >>> evaluate_arrays({"energy": [1.0, 3.0]}, {"energy": [1.5, 3.5]})
    {'energy': {'mae': 0.5, 'rmse': 0.5, 'unit': 'eV', 'n': 2, 'mean_mae': 1.0, 'mean_rmse': 1.0, 'r2': 0.75}}
    """
    units = {quantity.name: quantity.unit for quantity in QUANTITIES} | dict(units or {})
    metrics: dict[str, dict[str, Any]] = {}
    for key in BY_NAME:
        if key not in reference or key not in predicted:
            continue
        expected, value, labeled = compared(key, reference[key], predicted[key])
        metrics[key] = errors_beside_mean(expected, value, units[key])
        if BY_NAME[key].is_tensor:
            columns = zip(ELEMENTS, expected.T[:, :, None], value.T[:, :, None])
            metrics[key]["r2_elements"] = {
                name: errors_beside_mean(one, other, units[key])["r2"] for name, one, other in columns
            }
        deviation = predicted.get(f"{key}_std")
        if deviation is not None:
            deviation = flat_values(key, deviation)[labeled]
            metrics[key]["committee_std"] = float(deviation.mean()) if deviation.size else float("nan")
        if key == "energy" and n_atoms is not None:
            metrics["energy_per_atom"] = _per_atom(expected, value, labeled, n_atoms, units[key])
        if key == "d_tensor":
            metrics |= _anisotropy_errors(expected, value, units[key])
    return metrics


def _per_atom(expected: np.ndarray, value: np.ndarray, labeled: np.ndarray, n_atoms: ArrayLike, unit: str) -> dict:
    """Return the errors of the energy per atom; an empty structure has none."""
    counts = np.asarray(n_atoms)
    if counts.shape != labeled.shape:
        raise MetricsError(f"n_atoms must have shape {labeled.shape}, one entry per structure, got {counts.shape}")
    counts = counts[labeled]
    filled = counts > 0
    counts = counts[filled, None]
    return errors_beside_mean(expected[filled] / counts, value[filled] / counts, f"{unit}/atom")


def _anisotropy_errors(expected: np.ndarray, value: np.ndarray, unit: str) -> dict[str, dict]:
    """Return the errors of D, E, eigenvalues and axis from unique components (n, 6)."""
    before, after = (zfs_parameters(_symmetric(components)) for components in (expected, value))
    angles = axis_angle(before.axis, after.axis)
    of_d = errors_beside_mean(before.d[:, None], after.d[:, None], unit)
    return {
        "d_tensor_D": {**of_d, "wrong_sign": int(np.count_nonzero(before.d * after.d < 0))},
        "d_tensor_E": errors_beside_mean(before.e[:, None], after.e[:, None], unit),
        "d_tensor_eigenvalues": errors_beside_mean(before.eigenvalues, after.eigenvalues, unit),
        "d_tensor_axis_angle": error_measures(angles[~np.isnan(angles)], "deg"),
    }


def _symmetric(components: np.ndarray) -> np.ndarray:
    """Return tensors (n, 3, 3) of unique components (n, 6)."""
    return components[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
