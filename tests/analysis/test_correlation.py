"""Autocorrelations: the transform against the sum, processes with a known answer, P eq. 15 written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from gmcore.analysis.correlation import (
    CorrelationError,
    autocorrelation,
    tensor_autocorrelation,
    velocity_autocorrelation,
)
from support.tolerances import TOLERANCE, relative_error

N = 4000


def symmetric(values: np.ndarray) -> np.ndarray:
    tensor = values + np.swapaxes(values, -1, -2)
    return tensor - np.trace(tensor, axis1=-2, axis2=-1)[..., None, None] / 3 * np.eye(3)


@pytest.mark.parametrize("shape", [(50,), (51, 3), (37, 40, 2)])
@pytest.mark.parametrize("fluctuation", [False, True])
def test_transform_equals_the_sum(rng, shape, fluctuation):
    series = 3.0 + rng.normal(size=shape)
    fast, slow = (
        autocorrelation(series, n_lags=shape[0], method=method, fluctuation=fluctuation) for method in ("fft", "direct")
    )
    assert fast.shape == shape
    assert relative_error(fast, slow) < TOLERANCE["value", "float64"]
    assert autocorrelation(series).shape == (shape[0] // 2, *shape[1:])


def test_autoregressive_process_decays_as_its_power(rng):
    phi = 0.9
    series = lfilter([1.0], [1.0, -phi], rng.normal(size=(N + 200, 100)), axis=0)[200:]
    correlation = autocorrelation(series, n_lags=30)
    rho = correlation / correlation[0]
    error = rho.std(axis=1, ddof=1) / 10.0
    assert np.all(np.abs(rho.mean(axis=1) - phi ** np.arange(30))[1:] < 4.0 * error[1:])
    assert error[1:].max() < 0.02
    assert correlation[0].mean() == pytest.approx(1.0 / (1.0 - phi**2), rel=0.02)


def test_damped_oscillator_oscillates_and_decays(rng):
    # discrete process with rho(t) = r^t (cos wt + (1 - r^2)/(1 + r^2) cot w sin wt), Box & Jenkins, AR(2)
    omega, r = 0.3, 0.97
    series = lfilter([1.0], [1.0, -2 * r * np.cos(omega), r * r], rng.normal(size=(N + 500, 100)), axis=0)[500:]
    correlation = autocorrelation(series, n_lags=60)
    rho = correlation / correlation[0]
    t = np.arange(60)
    shift = (1 - r * r) / (1 + r * r) / np.tan(omega)
    expected = r**t * (np.cos(omega * t) + shift * np.sin(omega * t))
    error = rho.std(axis=1, ddof=1) / 10.0
    assert np.all(np.abs(rho.mean(axis=1) - expected)[1:] < 4.0 * error[1:])
    assert expected.min() < -0.5 and error.max() < 0.02


@pytest.mark.parametrize("fluctuation", [False, True])
def test_tensors_follow_equation_15_over_replicas(rng, fluctuation):
    tensors = symmetric(np.diag([1.0, 2.0, -3.0]) * 5 + rng.normal(size=(2, 40, 3, 3)))
    deviations = tensors - tensors.mean(axis=(0, 1)) if fluctuation else tensors
    expected = np.zeros(10)
    for i in range(3):
        for j in range(i, 3):
            x = deviations[:, :, i, j]
            for t in range(10):
                expected[t] += np.mean(x[:, : 40 - t] * x[:, t:]) / np.mean(x * x) / 6
    value = tensor_autocorrelation(tensors + 7.0 * np.eye(3), n_lags=10, fluctuation=fluctuation)  # no trace matters
    assert relative_error(value, expected) < 1e-11
    one = tensor_autocorrelation(tensors[0], n_lags=10, fluctuation=fluctuation)
    assert one[0] == pytest.approx(1.0) and not np.allclose(one, value)


def test_raw_correlation_stays_and_fluctuations_decay(rng):
    tensors = symmetric(50.0 * np.diag([1.0, 1.0, -2.0]) + rng.normal(size=(N, 3, 3)))
    raw, fluctuation = (tensor_autocorrelation(tensors, 5, fluctuation=choice) for choice in (False, True))
    assert np.all(raw[1:] > 0.45)  # three of six elements have a mean
    assert np.all(np.abs(fluctuation[1:]) < 0.05)


def test_elements_without_ratio_are_left_out(rng):
    diagonal = rng.normal(size=(30, 1, 1)) * np.diag([1.0, 1.0, -2.0])
    expected = autocorrelation(diagonal[:, 0, 0], n_lags=5)
    np.testing.assert_allclose(tensor_autocorrelation(diagonal, 5), expected / expected[0])
    # a constant element has no fluctuation, only rounding
    diagonal[:, 0, 1] = diagonal[:, 1, 0] = 1.0 / 3.0
    series = autocorrelation(diagonal[:, 0, 0], n_lags=5, fluctuation=True)
    np.testing.assert_allclose(tensor_autocorrelation(diagonal, 5, fluctuation=True), series / series[0])


def test_velocities_alone_and_weighted_by_mass(rng):
    velocities = rng.normal(size=(2, 60, 2, 3)) * [[[[1.0] * 3, [10.0] * 3]]]
    correlation = np.mean([autocorrelation(v, n_lags=8) for v in velocities], axis=0)
    np.testing.assert_allclose(
        velocity_autocorrelation(velocities, 8), np.mean(correlation / correlation[0], axis=(1, 2)), rtol=1e-12
    )
    masses = np.array([59.0, 1.0])
    weighted = np.einsum("tac,a->t", correlation, masses)
    np.testing.assert_allclose(velocity_autocorrelation(velocities, 8, masses), weighted / weighted[0], rtol=1e-12)
    velocities[:, :, 1] = 0.0  # a fixed atom
    fixed = velocity_autocorrelation(velocities, 8)
    np.testing.assert_allclose(fixed, np.mean(correlation[:, 0] / correlation[0, 0], axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: autocorrelation([]), "must hold samples, got shape"),
        (lambda: autocorrelation([1.0, np.nan]), "must be finite, got 1 values"),
        (lambda: autocorrelation([1.0, 2.0], n_lags=3), "between 1 and the 2 samples, got 3"),
        (lambda: autocorrelation([1.0, 2.0], method="slow"), "fft or direct, got 'slow'"),
        (lambda: tensor_autocorrelation(np.eye(3)), r"\(n_replicas, n, 3, 3\), got \(3, 3\)"),
        (lambda: tensor_autocorrelation(np.zeros((5, 3, 3))), "a component that varies, got none"),
        (lambda: tensor_autocorrelation(np.zeros((0, 5, 3, 3))), "at least one replica, got none"),
        (lambda: velocity_autocorrelation(np.ones((5, 3))), r"n_atoms, 3\), got \(5, 3\)"),
        (lambda: velocity_autocorrelation(np.ones((5, 2, 3)), masses=[1.0]), r"2 positive numbers, got shape \(1,\)"),
        (lambda: velocity_autocorrelation(np.ones((5, 1, 3)), masses=[-1.0]), "1 positive numbers"),
    ],
)
def test_other_series_are_refused(call, message):
    with pytest.raises(CorrelationError, match=message):
        call()
