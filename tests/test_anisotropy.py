"""Conventions of D, E and the axis; the rhombic limit; the zero tensor; tensors that are none."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmcore.anisotropy import TensorError, axis_angle, detrace, mean_axis, zfs_parameters


def rotation(rng) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


@pytest.mark.parametrize(
    ("diagonal", "d", "e", "axis"),
    [
        ((20.0, 40.0, -60.0), -90.0, 10.0, 2),
        ((60.0, -20.0, -40.0), 90.0, 10.0, 0),
        ((-60.0, 30.0, 30.0), -90.0, 0.0, 0),
        ((-1.0, 2.0, -1.0), 3.0, 0.0, 1),
    ],
)
def test_convention(rng, diagonal, d, e, axis):
    r = rotation(rng)
    result = zfs_parameters(r @ np.diag(diagonal) @ r.T)
    assert result.d == pytest.approx(d, rel=1e-12)
    assert result.e == pytest.approx(e, abs=1e-12)
    assert result.e_over_d == pytest.approx(e / abs(d), abs=1e-12)
    np.testing.assert_allclose(result.eigenvalues, np.sort(diagonal), atol=1e-12)
    assert result.j2 == pytest.approx(np.sum(np.square(diagonal)) / 2.0, rel=1e-12)
    assert axis_angle(result.axis, r[:, axis]) < 1e-6
    assert result.axis[np.abs(result.axis).argmax()] > 0


def test_trace_is_removed_and_reported(rng):
    traceless = np.diag([20.0, 40.0, -60.0])
    part, trace = detrace(traceless + 26.5 * np.eye(3))
    np.testing.assert_allclose(part, traceless, atol=1e-12)
    assert trace == pytest.approx(79.5)
    assert zfs_parameters(traceless + 26.5 * np.eye(3)).d == pytest.approx(-90.0)


def test_leading_axes_equal_one_by_one(rng):
    tensors = rng.normal(size=(4, 5, 3, 3))
    tensors += np.swapaxes(tensors, -1, -2)
    together = zfs_parameters(tensors)
    for i, j in np.ndindex(4, 5):
        for one, many in zip(zfs_parameters(tensors[i, j]), together):
            np.testing.assert_array_equal(one, many[i, j])
    assert np.all(together.e >= 0) and np.all(together.e_over_d <= 1 / 3 + 1e-12)
    assert zfs_parameters(np.zeros((0, 3, 3))).axis.shape == (0, 3)


def test_rhombic_limit_has_ratio_one_third_and_continuous_eigenvalues():
    low, high = (zfs_parameters(np.diag([-50.0, shift, 50.0 - shift])) for shift in (-1e-9, 1e-9))
    assert low.d == pytest.approx(75.0) and high.d == pytest.approx(-75.0)  # the sign is decided by a breath
    for result in (low, high):
        assert result.e_over_d == pytest.approx(1 / 3, abs=1e-9)
    np.testing.assert_allclose(low.eigenvalues, high.eigenvalues, atol=1e-8)
    assert low.j2 == pytest.approx(high.j2)


def test_zero_tensor_has_no_axis_and_no_ratio():
    result = zfs_parameters(np.stack([np.zeros((3, 3)), np.diag([1.0, 1.0, -2.0])]))
    assert result.d[0] == result.e[0] == result.j2[0] == 0.0
    assert np.isnan(result.e_over_d[0]) and np.isnan(result.axis[0]).all()
    np.testing.assert_allclose(result.axis[1], [0, 0, 1])
    assert np.isnan(axis_angle(result.axis[0], result.axis[1]))


@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6))
def test_bounds_hold_for_any_symmetric_tensor(elements):
    tensor = np.zeros((3, 3))
    tensor[np.triu_indices(3)] = elements
    tensor += np.triu(tensor, 1).T
    result = zfs_parameters(tensor)
    size = np.abs(elements).max()
    assert result.e >= 0
    assert result.e <= abs(result.d) / 3 + 1e-12 * size
    # tr D^2/2 = D^2/3 + E^2
    assert result.j2 == pytest.approx(result.d**2 / 3 + result.e**2, rel=1e-9, abs=1e-12 * size**2)


def test_angles_between_directors():
    assert axis_angle([0, 0, 1], [0, 0, -5]) == 0.0
    assert axis_angle([1, 0, 0], [0, 2, 0]) == pytest.approx(90.0)
    np.testing.assert_allclose(axis_angle([[1, 0, 0], [1, 1, 0]], [1, 0, 0]), [0.0, 45.0], atol=1e-12)
    assert axis_angle([1, 0, 0], [1, 1e-9, 0]) == pytest.approx(np.degrees(1e-9), rel=1e-9)


def test_mean_axis_knows_no_sign(rng):
    axes = np.array([0.0, 0.0, 1.0]) + 0.05 * rng.normal(size=(200, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    axes *= rng.choice([-1.0, 1.0], size=(200, 1))
    axis, order = mean_axis(np.concatenate([axes, np.full((1, 3), np.nan)]))
    assert axis_angle(axis, [0, 0, 1]) < 1.0
    assert 0.99 < order < 1.0
    with pytest.raises(TensorError, match="at least one axis"):
        mean_axis(np.full((2, 3), np.nan))
    with pytest.raises(TensorError, match=r"shape \(n_axes, 3\), got \(3,\)"):
        mean_axis(np.ones(3))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (np.zeros((3, 2)), r"shape \(\.\.\., 3, 3\), got \(3, 2\)"),
        (np.diag([1.0, np.nan, 1.0]), "must be finite, got 1 values"),
        (np.diag([1.0, np.inf, 1.0]), "must be finite"),
        ([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], "must be symmetric, got elements that differ by 1 "),
    ],
)
def test_other_tensors_are_refused(tensor, message):
    for function in (detrace, zfs_parameters):
        with pytest.raises(TensorError, match=message):
            function(tensor)


def test_other_axes_are_refused():
    with pytest.raises(TensorError, match="zero vector"):
        axis_angle([0, 0, 0], [0, 0, 1])
    with pytest.raises(TensorError, match=r"shape \(\.\.\., 3\), got \(2,\)"):
        axis_angle([0, 1], [0, 0, 1])


def test_digits_lost_in_a_file_are_forgiven():
    tensor = np.array([[20.0, 1.0, 0.0], [1.001, 40.0, 0.0], [0.0, 0.0, -60.0]])
    part, _ = detrace(tensor)
    np.testing.assert_array_equal(part, part.T)


def test_published_cobalt_complex(shared_data):
    raw = np.array([a.info["D_raw"] for a in ase.io.read(shared_data / "co_pdms_D" / "train.extxyz", ":")])
    _, trace = detrace(raw)
    result = zfs_parameters(raw)
    assert trace.mean() == pytest.approx(79.5, abs=0.1)
    assert result.d.mean() == pytest.approx(-99.3, abs=0.1) and result.d.std() == pytest.approx(8.2, abs=0.1)


def test_both_signs_up_to_the_rhombic_limit(shared_data):
    frames = ase.io.read(shared_data / "coh2ox_D" / "train.extxyz", ":")
    result = zfs_parameters([a.info["D_tensor"] for a in frames])
    assert result.d.min() < 0 < result.d.max()
    assert 0.33 < result.e_over_d.max() <= 1 / 3 + 1e-9


def test_the_old_name_warns():
    with pytest.warns(DeprecationWarning, match=r"gmcore\.zfs_parameters"):
        from gmcore import invariants
    assert invariants is zfs_parameters
