"""Log-log fits: exact laws, the band against the textbook and against sampling, points that no line fits."""

from __future__ import annotations

import numpy as np
import pytest

from gmcore.evaluation.power_law import PowerLawError, fit_power_law

SIZES = np.array([100, 200, 400, 800, 1600])


def test_exact_law_is_found_with_no_band():
    law = fit_power_law(SIZES, 30.0 * SIZES**-0.5)
    assert law.slope == pytest.approx(-0.5) and 10**law.intercept == pytest.approx(30.0)
    assert law.slope_std < 1e-12
    for bound in law.band(SIZES):
        np.testing.assert_allclose(bound, law(SIZES), rtol=1e-10)


def test_band_holds_the_true_line_in_95_of_100_fits(rng):
    truth = 30.0 * SIZES**-0.5
    hits = 0
    for _ in range(2000):
        law = fit_power_law(SIZES, truth * 10 ** rng.normal(scale=0.05, size=5))
        low, high = law.band(300.0)
        hits += low < 30.0 * 300.0**-0.5 < high
    assert 0.935 < hits / 2000 < 0.965


def test_band_is_narrowest_in_the_middle_and_agrees_with_scipy(rng):
    from scipy.stats import linregress

    errors = 30.0 * SIZES**-0.5 * 10 ** rng.normal(scale=0.05, size=5)
    law = fit_power_law(SIZES, errors)
    expected = linregress(np.log10(SIZES), np.log10(errors))
    assert law.slope == pytest.approx(expected.slope) and law.slope_std == pytest.approx(expected.stderr)
    low, high = law.band([50, 400, 3200])
    assert np.argmin(high / low) == 1


def test_two_points_give_a_line_without_band():
    law = fit_power_law([10, 100], [1.0, 0.1])
    assert law.slope == pytest.approx(-1.0) and np.isnan(law.slope_std)
    with pytest.raises(PowerLawError, match="at least 3 points, got 2"):
        law.band([10])


@pytest.mark.parametrize(
    ("sizes", "errors", "message"),
    [
        ([1, 2], [1.0], r"one shape \(n,\), got \(2,\) and \(1,\)"),
        ([1, 2], [1.0, 0.0], "positive and finite"),
        ([1, np.inf], [1.0, 1.0], "positive and finite"),
        ([2, 2], [1.0, 1.1], "at least 2 different sizes, got 1"),
        ([], [], "at least 2 different sizes, got 0"),
    ],
)
def test_points_without_a_line_are_refused(sizes, errors, message):
    with pytest.raises(PowerLawError, match=message):
        fit_power_law(sizes, errors)
