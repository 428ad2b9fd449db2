"""Where a training starts: scales and shifts of every head, and the features that the network sees."""

from __future__ import annotations

import numpy as np
import pytest

from support.tolerances import relative_error

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import tensorflow as tf

from gmkeras.data import PreparedData
from gmkeras.initial import START, initialize, ridge
from gmkeras.statistics import PRODUCT_FACTORS, n_moments
from support.keras_models import WEIGHTS, keras_model, make_head, mixed_frames, prepared, random_labels
from support.systems import molecule, single_atom, triclinic, water_molecule

pytestmark = pytest.mark.slow


def test_energies_start_from_the_elements(rng):
    """Two compositions, energies of thousands of eV: scale and shift of the paper, residuals of the noise."""
    model, settings, _ = keras_model(weights=WEIGHTS["energy"])
    frames = [molecule(), water_molecule(), triclinic()] * 4
    element = dict(zip(settings.descriptor.species, [-13.0, -1036.0, -1485.0, -2042.0]))
    noise = 0.01 * rng.normal(size=len(frames))
    energies = [sum(element[z] for z in frame.numbers) + e for frame, e in zip(frames, noise)]
    labels = random_labels(frames) | {"energy": energies}
    data = PreparedData(frames, settings.descriptor, {key: labels[key] for key in WEIGHTS["energy"]})
    initialize(model, data, standardize=False, initial_scale="reference")
    scale, shift = (values[:, 0] for values in model.scale_shift["energy"].effective())
    counts = np.array([[np.sum(frame.numbers == z) for z in element] for frame in frames])
    n_atoms = counts.sum(1)
    left = energies - counts @ shift
    assert np.abs(left).max() < 0.05
    assert scale.min() == scale.max() == pytest.approx(np.sqrt(np.sum(left**2 / n_atoms) / n_atoms.sum()), rel=1e-3)


def test_d_starts_from_the_elements_without_one_diagonal():
    model, settings, _ = keras_model(["d_tensor"], WEIGHTS["d_tensor"])
    data = prepared(settings, mixed_frames(), ["d_tensor"])
    initialize(model, data, standardize=False, initial_scale="reference")
    elements = data.label("d_tensor")[:, [0, 0, 0, 1, 1], [0, 1, 2, 1, 2]]
    scale, shift = model.scale_shift["d_tensor"].effective()
    assert relative_error(scale, np.full((4, 1), elements.std())) < 1e-12
    assert relative_error(shift, np.full((4, 1), elements.mean())) < 1e-12


@pytest.mark.parametrize(
    ("head", "quantity"),
    [
        (make_head("energy", 3), "energy"),
        (make_head("energy", 3), "forces"),
        (make_head("charges", 3, conserve=True), "charges"),
        (make_head("charges", 3), "dipole"),
        (make_head("d_tensor", 3), "d_tensor"),
        (make_head("tensor", 3, basis="moments"), "tensor"),
    ],
)
def test_first_predictions_have_the_spread_of_the_data(head, quantity, rng):
    model, settings, _ = keras_model([head], {quantity: 1.0}, hidden=(20,), decorrelate=True)
    frames = [molecule() for _ in range(30)]
    for frame in frames:
        frame.rattle(0.05, rng=rng)
    labels = {key: [10.0 * np.asarray(value) for value in values] for key, values in random_labels(frames).items()}
    data = PreparedData(frames, settings.descriptor, {quantity: labels[quantity]}, np.ones(30))
    initialize(model, data, standardize=True, initial_scale="spread")
    inputs, reference = data.batch(range(30))
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
    predicted = model(inputs)[quantity].numpy()
    assert 0.5 < predicted.std() / (START * reference[quantity].std()) < 2.0


def test_standardized_features_are_divided_by_the_root_of_their_deviation():
    """And by more, the more moments they are made of; apart from that their mean variance is 1."""
    model, settings, _ = keras_model(["d_tensor"], WEIGHTS["d_tensor"], decorrelate=True)
    data = prepared(settings, mixed_frames(), ["d_tensor"])
    initialize(model, data, standardize=True, initial_scale="spread")
    inputs = {name: tf.constant(value) for name, value in data.batch(range(4))[0].items()}
    raw = model.moments_layer(inputs)[0].numpy()
    features = model.standardization(model.moments_layer(inputs)[0]).numpy()
    assert np.abs(features.mean(axis=0)).max() < 1e-12
    factors = np.array([PRODUCT_FACTORS[n] for n in n_moments(settings.descriptor.n_radial)])
    ratio = features.std(axis=0) / factors / np.sqrt(raw.std(axis=0))
    assert np.ptp(ratio) / ratio.mean() < 1e-9
    assert np.mean(np.square(features.std(axis=0) / factors)) == pytest.approx(1.0, rel=1e-9)

    decorrelated = features @ model.dense_layers[0].decorrelation.numpy()
    before, after = (np.linalg.eigvalsh(np.cov(x.T, bias=True)) for x in (features, decorrelated))
    assert after.sum() == pytest.approx(before.sum(), rel=1e-9)
    assert after[-1] / after[-10] == pytest.approx(np.sqrt(before[-1] / before[-10]), rel=0.05)


def test_data_without_neighbors_can_be_standardized():
    model, settings, _ = keras_model(["energy"], {"energy": 1.0}, decorrelate=True)
    data = prepared(settings, [single_atom(), single_atom()], ["energy"])
    initialize(model, data, standardize=True, initial_scale="spread")
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)


def test_ridge_is_scaled_to_the_data(rng):
    design = rng.integers(1, 9, (20, 3)).astype(float)
    mu = np.array([-13.0, -1036.0, -37885.0])
    assert relative_error(ridge(design, design @ mu), mu) < 1e-6
    assert not ridge(np.zeros((4, 2)), np.ones(4)).any()


def test_an_unknown_initial_scale_is_refused():
    model, settings, _ = keras_model(weights={"energy": 1.0})
    data = prepared(settings, mixed_frames(), ["energy"])
    with pytest.raises(ValueError, match="initial_scale must be 'spread' or 'reference', got 'unit'"):
        initialize(model, data, standardize=False, initial_scale="unit")
