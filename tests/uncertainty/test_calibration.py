"""Calibrated errors cover what they promise, whatever the number of members, and grow outside of the data."""

import numpy as np
import pytest

from gmcore.errors import GMError
from gmcore.uncertainty.calibration import anisotropy_deviations, calibrate, pooled


def simulated(rng, n, n_members, n_components, blindness=2.5, spread=0.4):
    """Errors of different size in each row, of which the members show 1/blindness."""
    size = np.exp(rng.normal(0.0, spread, n))
    errors = size[:, None] * rng.normal(size=(n, n_components))
    members = size[:, None, None] / blindness * rng.normal(size=(n, n_members, n_components))
    deviation = members.std(axis=1)
    return deviation, errors


@pytest.mark.parametrize("n_members, n_components", [(3, 6), (3, 3), (3, 1), (16, 6)])
def test_intervals_cover_what_they_promise_on_other_data(n_members, n_components):
    rng = np.random.default_rng(n_members * n_components)
    raw, errors = simulated(rng, 600, n_members, n_components)
    found = calibrate("committee", pooled(raw, 1), errors, np.arange(600), raw)
    assert found.coverage_raw[0] < 0.45 and found.n_structures == 600
    raw, errors = simulated(rng, 4000, n_members, n_components)
    sizes = found.error(pooled(raw, 1))[:, None]
    assert 0.60 <= np.mean(np.abs(errors) < sizes) <= 0.76
    assert 0.90 <= np.mean(np.abs(errors) < 2.0 * sizes) <= 0.98


def test_the_factor_is_that_of_the_errors():
    rng = np.random.default_rng(1)
    raw, errors = simulated(rng, 2000, 200, 1, blindness=2.5)
    found = calibrate("committee", pooled(raw, 1), errors, np.arange(2000))
    assert found.floor == 0.0
    assert abs(found.factor - 2.5) < 3.0 * found.factor_error and found.factor_error < 0.1
    assert found.error(100.0) == pytest.approx(100.0 * found.factor)


def test_rows_of_one_structure_do_not_make_the_factor_certain():
    rng = np.random.default_rng(2)
    size = np.repeat(np.exp(rng.normal(0.0, 0.5, 20)), 500)  # each structure has errors of its own size
    errors, deviations = size[:, None] * rng.normal(size=(10000, 1)), np.ones(10000)
    together = calibrate("committee", deviations, errors, np.repeat(np.arange(20), 500))
    single = calibrate("committee", deviations, errors, np.arange(10000))
    assert together.factor == single.factor and together.factor_error > 4.0 * single.factor_error


def test_refuses_what_cannot_be_calibrated():
    with pytest.raises(GMError, match="not all zero"):
        calibrate("committee", np.zeros(5), np.ones((5, 1)), np.arange(5))


def test_the_axis_is_uncertain_where_eigenvalues_are_close():
    tensors = [np.diag([30.0, 30.0, -60.0]), np.diag([30.0, 1.0, -31.0]), np.diag([-10.0, -20.0, 30.0])]
    found = anisotropy_deviations(tensors, [1.0, 1.0, 1.0])
    np.testing.assert_allclose(found["axis"], np.degrees(np.arctan([1 / 90, 1 / 32, 1 / 40])))
    np.testing.assert_allclose(found["D"], 1.0)
