"""Averages of D: two kinds of mean, directors, errors of three kinds, and the rhombic limit, where nothing jumps."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gmcore.analysis.averages import AveragesError, ThermalAverages, thermal_averages
from gmcore.anisotropy import TensorError, axis_angle, zfs_parameters
from support.tolerances import relative_error

STATIC = np.diag([40.0, 30.0, -70.0])


def noise(rng, n: int, scale: float) -> np.ndarray:
    values = rng.normal(scale=scale, size=(n, 3, 3))
    return values + np.swapaxes(values, 1, 2)


def wobbling(rng, n: int, degrees: float) -> np.ndarray:
    turns = Rotation.from_rotvec(np.radians(degrees) * rng.normal(size=(n, 3))).as_matrix()
    return turns @ STATIC @ np.swapaxes(turns, 1, 2)


def numbers(averages: ThermalAverages) -> np.ndarray:
    """Every mean, width and block error."""
    parts = [averages.d, averages.e, averages.e_over_d, averages.eigenvalues, averages.j2, averages.elements]
    flat = [np.ravel(value) for part in parts for value in part[:3]]
    flat += [averages.axis.director, averages.axis[1:4], [averages.negative_fraction]]
    flat += [
        np.ravel(value)
        for part in (averages.d_of_mean, averages.e_of_mean, averages.axis_of_mean)
        for value in part[:2]
    ]
    return np.concatenate(flat)


def test_constant_tensor_has_no_width_and_no_error():
    result = thermal_averages(np.repeat(STATIC[None] + 7.0 * np.eye(3), 40, axis=0))
    assert result.d.mean == pytest.approx(-105.0) and result.e.mean == pytest.approx(5.0)
    assert result.d_of_mean.value == pytest.approx(-105.0) and result.e_of_mean.value == pytest.approx(5.0)
    np.testing.assert_allclose(result.eigenvalues.mean, [-70, 30, 40])
    np.testing.assert_allclose(result.elements.mean, STATIC, atol=1e-12)
    for part in (result.d, result.e, result.eigenvalues, result.j2, result.elements):
        assert np.max(part.width) < 1e-9 and np.max(part.error) < 1e-9 and np.isnan(part.committee).all()
    assert (result.axis.order, result.negative_fraction) == (pytest.approx(1.0), 1.0)
    assert result.axis.width == result.axis.error == 0.0 and np.isnan(result.axis.committee)


def test_the_two_means_differ_as_a_wobbling_axis_says(rng):
    result = thermal_averages(wobbling(rng, 4000, 10.0))
    assert result.d.mean == pytest.approx(-105.0) and result.d.width < 1e-9  # the molecule does not change
    expected = -105.0 * 0.5 * (3.0 * result.axis.order - 1.0)  # axial part shrinks by the order parameter <P2>
    assert result.d_of_mean.value == pytest.approx(expected, abs=0.5)
    assert -97.0 < result.d_of_mean.value < -94.0
    assert axis_angle(result.axis.director, [0, 0, 1]) < 1.0
    assert result.axis.width == pytest.approx(10.0 * np.sqrt(2), rel=0.05)
    assert 0.05 < result.axis.error < 0.5 and result.axis.error < 3 * result.axis_of_mean.error < 9 * result.axis.error


def test_block_errors_are_those_of_many_runs(rng):
    runs = [thermal_averages(wobbling(rng, 200, 10.0) + noise(rng, 200, 2.0)) for _ in range(60)]
    for name in ("d", "e", "j2"):
        scatter = np.std([getattr(run, name).mean for run in runs])
        assert np.sqrt(np.mean([getattr(run, name).error ** 2 for run in runs])) == pytest.approx(scatter, rel=0.35)
    for name in ("d_of_mean", "e_of_mean"):
        scatter = np.std([getattr(run, name).value for run in runs])
        assert np.sqrt(np.mean([getattr(run, name).error ** 2 for run in runs])) == pytest.approx(scatter, rel=0.35)
    angles = np.array([axis_angle(run.axis_of_mean.value, [0, 0, 1]) for run in runs])
    assert np.mean([run.axis_of_mean.error for run in runs]) == pytest.approx(np.sqrt(np.mean(angles**2)), rel=0.35)
    angles = np.array([axis_angle(run.axis.director, [0, 0, 1]) for run in runs])
    assert np.mean([run.axis.error for run in runs]) == pytest.approx(np.sqrt(np.mean(angles**2)), rel=0.35)


def test_members_are_carried_through_one_by_one(rng):
    tensors = wobbling(rng, 50, 5.0)
    members = np.stack([0.9 * tensors, 1.1 * tensors], axis=1)
    result = thermal_averages(tensors, members)
    assert result.d.committee == pytest.approx(10.5) and result.e.committee == pytest.approx(0.5)
    assert result.e_over_d.committee == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(result.eigenvalues.committee, [7, 3, 4], rtol=1e-9)
    assert result.d_of_mean.committee == pytest.approx(0.1 * abs(result.d_of_mean.value))
    assert result.axis.committee < 1e-5 and result.axis_of_mean.committee < 1e-5
    tilt = Rotation.from_rotvec([0.0, np.radians(2.0), 0.0]).as_matrix()
    tilted = np.stack([tilt @ tensors @ tilt.T, tilt.T @ tensors @ tilt], axis=1)
    result = thermal_averages(tilted.mean(axis=1), tilted)
    assert result.d.committee == pytest.approx(0.0, abs=1e-9)
    assert result.axis.committee == pytest.approx(2.0, rel=1e-3)
    assert result.axis_of_mean.committee == pytest.approx(2.0, rel=1e-3)


def test_nothing_depends_on_the_frame_but_elements_and_axes(rng):
    tensors = wobbling(rng, 60, 10.0)
    turn = Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix()
    here, there = thermal_averages(tensors), thermal_averages(turn @ tensors @ turn.T)
    for name in ("d", "e", "e_over_d", "eigenvalues", "j2"):
        assert getattr(there, name).mean == pytest.approx(getattr(here, name).mean)
    assert there.d_of_mean.value == pytest.approx(here.d_of_mean.value)
    assert there.d_of_mean.error == pytest.approx(here.d_of_mean.error)
    assert axis_angle(turn @ here.axis.director, there.axis.director) == pytest.approx(0.0, abs=1e-6)
    assert relative_error(there.elements.mean, turn @ here.elements.mean @ turn.T) < 1e-12


def test_through_the_rhombic_limit_the_invariants_do_not_jump():
    """-50, 0, 50 is crossed: sign and axis of the frames jump, and everything that should not, does not."""
    shift = np.linspace(-5.0, 5.0, 201)
    tensors = np.array([np.diag([-50.0, s, 50.0 - s]) for s in shift])
    assert (np.diff(np.sign(zfs_parameters(tensors).d)) != 0).sum() == 1
    below, across, above = (thermal_averages(tensors[part]) for part in (slice(0, 80), slice(60, 140), slice(120, 201)))
    assert (below.negative_fraction, above.negative_fraction) == (0.0, 1.0)
    assert 0.4 < across.negative_fraction < 0.6
    assert abs(across.d.mean) < 5.0 < 70.0 < across.d.width  # the mean of two signs says nothing, and shows it
    assert across.axis.order < 0.6 and across.axis.width > 40.0
    for name in ("eigenvalues", "j2", "elements"):
        mean = [getattr(part, name).mean for part in (below, across, above)]
        np.testing.assert_allclose(mean[1], 0.5 * (mean[0] + mean[2]), atol=0.02 * np.abs(mean[1]).max())
    assert across.e_over_d.mean > 0.3


def test_shared_complexes_through_the_rhombic_limit(shared_data):
    frames = ase.io.read(shared_data / "coh2ox_D" / "train.extxyz", ":")
    tensors = np.array([atoms.info["D_tensor"] for atoms in frames])
    rhombic = tensors[zfs_parameters(tensors).e_over_d > 0.3]
    assert len(rhombic) >= 20
    for series in (tensors, rhombic):
        result = thermal_averages(series, np.stack([series, 1.01 * series], axis=1))
        assert np.isfinite(numbers(result)).all()
        assert 0.0 < result.negative_fraction < 1.0 and result.e_over_d.mean <= 1 / 3
    # a path between neighbors of either sign: eigenvalues move no faster than the tensor (Weyl), D jumps
    d = zfs_parameters(rhombic).d
    first, second = rhombic[d < 0][0], rhombic[d > 0][0]
    path = first + np.linspace(0.0, 1.0, 2001)[:, None, None] * (second - first)
    along = zfs_parameters(path)
    step = np.linalg.norm(second - first, 2) / 2000
    assert np.abs(np.diff(along.eigenvalues, axis=0)).max() <= step * (1 + 1e-9)
    assert np.abs(np.diff(along.d)).max() > 100 * step
    result = thermal_averages(path)
    assert result.eigenvalues.width.max() < 2000 * step and np.isfinite(numbers(result)).all()


def test_zero_tensors_have_no_axis_and_no_ratio():
    tensors = np.concatenate([np.zeros((3, 3, 3)), np.repeat(STATIC[None], 7, axis=0)])
    result = thermal_averages(tensors, tensors[:, None], n_blocks=2)
    assert result.d.mean == pytest.approx(-73.5) and result.e_over_d.mean == pytest.approx(5 / 105)
    assert result.axis.order == pytest.approx(1.0) and result.axis.committee == 0.0
    nothing = thermal_averages(np.zeros((4, 3, 3)), np.zeros((4, 2, 3, 3)), n_blocks=2)
    assert nothing.d.mean == nothing.d_of_mean.value == 0.0
    for value in (nothing.e_over_d.mean, nothing.axis.order, *nothing.axis.director, nothing.axis_of_mean.committee):
        assert np.isnan(value)


@pytest.mark.parametrize(
    ("tensors", "members", "n_blocks", "error", "message"),
    [
        (STATIC, None, 2, AveragesError, r"tensors \(n, 3, 3\), got shape \(3, 3\)"),
        (np.zeros((0, 3, 3)), None, 2, AveragesError, r"got shape \(0, 3, 3\)"),
        (np.zeros((4, 3, 3)), np.zeros((4, 3, 3)), 2, AveragesError, r"members \(n, n_members, 3, 3\), got"),
        (np.zeros((4, 3, 3)), np.zeros((5, 2, 3, 3)), 2, AveragesError, "belong to the 4 frames, got 5"),
        (np.zeros((4, 3, 3)), None, 5, AveragesError, "between 2 and the 4 frames, got 5"),
        (np.full((4, 3, 3), np.nan), None, 2, TensorError, "must be finite"),
    ],
)
def test_other_tensors_are_refused(tensors, members, n_blocks, error, message):
    with pytest.raises(error, match=message):
        thermal_averages(tensors, members, n_blocks)
