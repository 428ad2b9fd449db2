"""Errors with units: one set per quantity, six components per tensor, D, E and axis, committees, missing labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gmcore.anisotropy import axis_angle, zfs_parameters
from gmcore.evaluation.metrics import MetricsError, evaluate_arrays, unique_components


def symmetric(rng, n: int) -> np.ndarray:
    tensor = rng.normal(size=(n, 3, 3))
    return tensor + np.swapaxes(tensor, 1, 2)


def test_energy_forces_of_structures_of_different_sizes(rng):
    reference = {"energy": np.array([1.0, 2.0]), "forces": [rng.normal(size=(2, 3)), rng.normal(size=(5, 3))]}
    predicted = {
        "energy": np.array([1.2, 1.9]),
        "forces": [reference["forces"][0] + 0.1, reference["forces"][1] - 0.3],
        "energy_std": np.array([0.1, 0.3]),
        "forces_std": [np.full((2, 3), 0.2), np.full((5, 3), 0.9)],
    }
    metrics = evaluate_arrays(reference, predicted, n_atoms=[2, 5])
    errors = {"mae": 0.15, "rmse": np.sqrt((0.04 + 0.01) / 2), "unit": "eV", "n": 2, "committee_std": 0.2}
    mean = {"mean_mae": 0.5, "mean_rmse": 0.5, "r2": 1 - 0.025 / 0.25}
    assert metrics["energy"] == pytest.approx(errors | mean)
    assert metrics["energy_per_atom"]["mae"] == pytest.approx((0.1 + 0.02) / 2)
    assert metrics["energy_per_atom"]["unit"] == "eV/atom"
    # 6 numbers off by 0.1 and 15 by 0.3: structures do not count alike, numbers do
    assert metrics["forces"]["mae"] == pytest.approx((6 * 0.1 + 15 * 0.3) / 21)
    assert metrics["forces"]["rmse"] == pytest.approx(np.sqrt((6 * 0.01 + 15 * 0.09) / 21))
    assert metrics["forces"]["committee_std"] == pytest.approx((2 * 0.2 + 5 * 0.9) / 7)
    assert metrics["forces"]["n"] == 21
    assert json.loads(json.dumps(metrics)) == metrics


def test_tensor_counts_each_unique_component_once(rng):
    reference = symmetric(rng, 4)
    error = np.zeros((3, 3))
    error[0, 1] = error[1, 0] = 0.6
    for key, unit in (("stress", "eV/A^3"), ("tensor", ""), ("d_tensor", "cm^-1")):
        metrics = evaluate_arrays({key: list(reference)}, {key: reference + error})
        assert metrics[key]["n"] == 24
        assert metrics[key]["mae"] == pytest.approx(0.1)
        assert metrics[key]["rmse"] == pytest.approx(0.6 / np.sqrt(6))
        assert metrics[key]["unit"] == unit
    exact = evaluate_arrays({"tensor": reference}, {"tensor": reference}, units={"tensor": "A^3"})["tensor"]
    assert (exact["mae"], exact["rmse"], exact["unit"], exact["n"], exact["r2"]) == (0.0, 0.0, "A^3", 24, 1.0)


def test_anisotropy_is_that_of_the_conventions(rng):
    reference, predicted = symmetric(rng, 7), symmetric(rng, 7)
    metrics = evaluate_arrays({"d_tensor": reference}, {"d_tensor": predicted})
    before, after = zfs_parameters(reference), zfs_parameters(predicted)
    assert metrics["d_tensor_D"]["mae"] == pytest.approx(np.abs(before.d - after.d).mean())
    assert metrics["d_tensor_E"]["rmse"] == pytest.approx(np.sqrt(np.square(before.e - after.e).mean()))
    assert metrics["d_tensor_axis_angle"]["mae"] == pytest.approx(axis_angle(before.axis, after.axis).mean())
    assert metrics["d_tensor_axis_angle"]["unit"] == "deg"
    eigenvalues = metrics["d_tensor_eigenvalues"]
    assert eigenvalues["mae"] == pytest.approx(np.abs(before.eigenvalues - after.eigenvalues).mean())
    assert eigenvalues["n"] == 21 and eigenvalues["unit"] == "cm^-1"
    flipped = evaluate_arrays({"d_tensor": reference}, {"d_tensor": np.r_[-reference[:2], reference[2:]]})
    assert flipped["d_tensor_D"]["wrong_sign"] == 2


def test_errors_beside_predicting_the_mean(rng):
    """The mean of each element has R^2 = 0; what does not vary, and one structure alone, have none."""
    reference = symmetric(rng, 50) * np.array([[1.0, 1.0, 9.0], [1.0, 1.0, 1.0], [9.0, 1.0, 1.0]]) + np.diag([9, 0, 0])
    mean = np.broadcast_to(reference.mean(axis=0), reference.shape)
    metrics = evaluate_arrays({"tensor": reference}, {"tensor": mean})["tensor"]
    assert metrics["r2"] == pytest.approx(0.0)
    assert (metrics["mean_mae"], metrics["mean_rmse"]) == (metrics["mae"], metrics["rmse"])
    half = np.array(mean)
    half[:, 0, 2] = half[:, 2, 0] = 0.5 * (reference + mean)[:, 0, 2]
    elements = evaluate_arrays({"tensor": reference}, {"tensor": half})["tensor"]["r2_elements"]
    assert list(elements) == ["xx", "xy", "xz", "yy", "yz", "zz"]
    assert elements == pytest.approx({name: 0.75 if name == "xz" else 0.0 for name in elements})
    constant = evaluate_arrays({"energy": np.full(7, 0.1)}, {"energy": rng.normal(size=7)})["energy"]
    assert constant["r2"] is None and constant["mean_rmse"] == pytest.approx(0.0)


def test_zero_reference_tensor_has_no_axis_to_miss(rng):
    reference, predicted = symmetric(rng, 3), symmetric(rng, 3)
    reference[1] = 0.0
    metrics = evaluate_arrays({"d_tensor": reference}, {"d_tensor": predicted})
    assert metrics["d_tensor_axis_angle"]["n"] == 2
    assert metrics["d_tensor_D"]["n"] == 3


def test_structures_without_the_label_are_left_out(rng):
    reference, predicted = symmetric(rng, 3), symmetric(rng, 3)
    reference[1] = predicted[1] = np.nan
    metrics = evaluate_arrays({"stress": reference}, {"stress": predicted, "stress_std": np.abs(predicted)})
    difference = unique_components(predicted - reference)[[0, 2]]
    assert metrics["stress"]["mae"] == pytest.approx(np.abs(difference).mean())
    assert metrics["stress"]["n"] == 12
    assert np.isfinite(metrics["stress"]["committee_std"])


def test_nothing_in_common_and_nothing_labeled():
    assert evaluate_arrays({"energy": [1.0]}, {"forces": []}) == {}
    metrics = evaluate_arrays({"energy": [np.nan], "forces": []}, {"energy": [1.0], "forces": []}, n_atoms=[3])
    assert metrics["energy"]["n"] == metrics["forces"]["n"] == 0
    assert np.isnan(metrics["energy"]["mae"]) and np.isnan(metrics["forces"]["rmse"])


@pytest.mark.parametrize(
    ("reference", "predicted", "n_atoms", "message"),
    [
        ([1.0, 2.0], [1.0], None, "energy: the number of predictions must be that of the reference values, 2, got 1"),
        ([1.0, 2.0], [1.0, np.inf], None, "energy: predictions must be finite, got 1"),
        ([1.0, 2.0], [1.0, 2.0], [3], r"n_atoms must have shape \(2,\)"),
    ],
)
def test_what_does_not_belong_together_is_refused(reference, predicted, n_atoms, message):
    with pytest.raises(MetricsError, match=message):
        evaluate_arrays({"energy": reference}, {"energy": predicted}, n_atoms=n_atoms)
