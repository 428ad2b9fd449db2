"""Layers: documented numbers, configurations, seeds; and the optimizer's learning rates."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from support.tolerances import TOLERANCE, relative_error

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import keras

from gmcore.engine import reference
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.structures import SpeciesTable
from gmcore.kernels.contractions_cpu import n_features
from gmkeras import activation, data, heads, initial, layers, optimizer
from gmkeras.data import model_inputs
from gmkeras.layers import DecorrelatedDense, GaussianMomentsLayer, NTKDense, ScaleShift, SmoothRadial, Standardization
from gmkeras.optimizer import RMS, GroupedAdam, GroupedMuon, orthogonalized
from support.keras_models import SPECIES
from support.systems import molecule


@pytest.mark.parametrize("module", [activation, data, heads, initial, layers, optimizer])
def test_documented_numbers(module):
    assert doctest.testmod(module).failed == 0


def test_features_are_those_of_the_slow_twin():
    settings = DescriptorSettings(SPECIES, 4.2, 0.5, 5, 3)
    layer = GaussianMomentsLayer(SPECIES, 4.2, n_basis=5, n_radial=3, seed=5, dtype="float64")
    atoms = molecule()
    features, moments = layer(model_inputs(atoms, settings))
    assert moments.shape == (len(atoms), 3, 16)
    pairs = reference.find_pairs(atoms.positions, np.zeros((3, 3)), False, 4.2)
    species = SpeciesTable(SPECIES).index(atoms.numbers)
    expected = reference.features(atoms.positions, species, *pairs, layer.beta.numpy(), settings)
    assert relative_error(features, expected) < TOLERANCE["value", "float64"]


def test_initial_values():
    layer = GaussianMomentsLayer(SPECIES, 4.2, seed=1)
    layer.build()
    beta = layer.beta.numpy()
    assert beta.shape == (4, 4, 5, 7) and layer.n_features == n_features(5) == 360
    assert -1.0 < beta.min() < -0.95 and 0.95 < beta.max() < 1.0 and abs(beta.mean()) < 0.1
    dense = NTKDense(64, seed=1)
    dense.build((None, 100))
    assert abs(dense.kernel.numpy().std() - 1.0) < 0.05 and not dense.bias.numpy().any()
    assert not layer.supports_jit


@pytest.mark.parametrize(
    "layer",
    [
        GaussianMomentsLayer(SPECIES, 4.2, 0.4, 6, 2, seed=3),
        NTKDense(3, "scaled_swish", seed=3),
        DecorrelatedDense(3, seed=3),
        ScaleShift(4, 2),
        Standardization(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_is_made_again_from_its_configuration(layer):
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    shape = (None, 4)
    layer.build(shape), again.build(shape)
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    for a, b in zip(layer.weights, again.weights):
        assert np.array_equal(a.numpy(), b.numpy())


def test_ntk_layer_is_the_formula(rng):
    dense = NTKDense(4, "scaled_swish", dtype="float64")
    x = rng.normal(size=(3, 9))
    dense.build(x.shape)
    dense.bias.assign(rng.normal(size=4))
    z = x @ dense.kernel.numpy() / 3.0 + 0.1 * dense.bias.numpy()
    assert relative_error(dense(x), 1.6765324703310907 * z / (1.0 + np.exp(-z))) < TOLERANCE["identity", "float64"]


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation must be None or 'scaled_swish', got 'relu'"):
        NTKDense(4, "relu")


def test_energies_of_heavy_elements_keep_their_digits():
    layer = ScaleShift(1, 1, dtype="float32")
    layer.build()
    layer.set_effective([[1.0]], [[-37885.123456]])
    m = layer(np.array([[0.25]], np.float32), species=np.zeros(1, np.int32))
    assert float(m[0, 0]) == -37885.123456 + 0.25


def test_each_group_has_its_rate_and_all_decay_to_zero():
    """Adam's first steps have the length of the rate, whatever the gradient."""
    variables = [keras.Variable(np.zeros(1), name=name) for name in ("kernel", "beta", "scale", "shift", "bias")]
    rates = {"network": 0.1, "radial": 0.2, "scale": 0.4, "shift": 0.8}
    adam = GroupedAdam(4, rates)
    adam.build(variables)
    assert not {id(v) for v in adam.variables} & {id(v) for v in variables}  # a restart zeroes the former only
    lengths = []
    for _ in range(5):
        before = [float(v.numpy()[0]) for v in variables]
        adam.apply([np.full(1, 100.0, np.float32)] * 5, variables)
        lengths.append([b - float(v.numpy()[0]) for b, v in zip(before, variables)])
    decay = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
    assert relative_error(lengths, decay[:, None] * [0.1, 0.2, 0.4, 0.8, 0.1]) < 1e-5
    assert GroupedAdam.from_config(adam.get_config()).get_config() == adam.get_config()


def test_a_group_without_a_rate_is_refused():
    with pytest.raises(
        ValueError, match="rates must name every group of network, radial, scale, shift, got none for shift"
    ):
        GroupedAdam(10, {"network": 1.0, "radial": 1.0, "scale": 1.0})


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (9, 9), (1, 5)])
def test_orthogonalized_is_the_iteration_of_newton_and_schulz(shape):
    x = np.random.default_rng(3).normal(size=shape) * np.logspace(0.0, -2.0, shape[1])
    plain = (x / np.linalg.norm(x)).T if shape[0] > shape[1] else x / np.linalg.norm(x)
    for _ in range(5):
        square = plain @ plain.T
        plain = 3.4445 * plain + (-4.7750 * square + 2.0315 * square @ square) @ plain
    found = orthogonalized(keras.ops.convert_to_tensor(x, "float64")).numpy()
    assert relative_error(found, plain.T if shape[0] > shape[1] else plain) < 1e-10
    left, _, right = np.linalg.svd(np.random.default_rng(4).normal(size=shape), full_matrices=False)
    spread = left * np.logspace(0.0, -1.5, min(shape)) @ right
    one = orthogonalized(keras.ops.convert_to_tensor(spread, "float64")).numpy()
    assert np.all(np.abs(np.linalg.svd(one, compute_uv=False) - 1.0) < 0.35)


def test_muon_is_that_of_keras_for_hidden_layers_and_adam_elsewhere():
    """Steps of Keras's own Muon and Adam with the rates of the groups; a step to the next, so that momenta count."""
    rates, n_steps = {"network": 0.1, "radial": 0.2, "scale": 0.4, "shift": 0.8}, 4
    rng = np.random.default_rng(5)
    paths = {"hidden_0/kernel": (30, 8), "hidden_0/bias": (8,), "output/kernel": (8, 3), "beta": (2, 2, 3, 4)}
    start = {path: rng.normal(size=shape) for path, shape in paths.items()}
    gradients = [{path: rng.normal(size=shape) for path, shape in paths.items()} for _ in range(n_steps)]

    def moved(optimizer, names):
        variables = [keras.Variable(start[path], name=path.rsplit("/", 1)[-1], dtype="float32") for path in names]
        optimizer.build(variables)
        optimizer._paths = names
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient[path], "float32") for path in names], variables)
        return {path: variable.numpy() for path, variable in zip(names, variables)}

    muon = GroupedMuon(100, rates)
    found = moved(muon, list(paths))
    adam = moved(GroupedAdam(100, rates), list(paths))
    for path in ("hidden_0/bias", "output/kernel", "beta"):
        assert relative_error(found[path], adam[path]) < 1e-6, path
    own = keras.optimizers.Muon(keras.optimizers.schedules.PolynomialDecay(0.1, 100, 0.0), weight_decay=None)
    own.lr_adjust = lambda step: step * (RMS * 30**0.5)  # versions of Keras differ in it
    expected = moved(own, ["hidden_0/kernel"])["hidden_0/kernel"]
    assert relative_error(found["hidden_0/kernel"], expected) < 1e-4
    assert GroupedMuon.from_config(muon.get_config()).get_config() == muon.get_config()


def test_radial_functions_begin_smooth_and_decay():
    """Mean square 1/3 as of uniform ones; coefficients of near centers are alike, those of far centers small."""
    initializer = SmoothRadial(0.5, 5.0, seed=3)
    beta = initializer((20, 20, 10, 16), "float64").numpy()
    assert np.mean(beta**2) == pytest.approx(1.0 / 3.0, rel=0.06)
    sizes = np.sqrt(np.mean(beta**2, axis=(0, 1, 2)))
    centers = np.linspace(0.5, 5.0, 16)
    assert relative_error(np.log(sizes[-1] / sizes[3]), 1.0 * (centers[3] - centers[-1])) < 0.03
    correlation = np.corrcoef(beta.reshape(-1, 16).T)
    assert correlation[4, 5] == pytest.approx(np.exp(-0.5 * (0.3 / 0.7) ** 2), abs=0.02) and correlation[4, 14] < 0.05
    again = SmoothRadial.from_config(initializer.get_config())((20, 20, 10, 16), "float64")
    assert np.array_equal(beta, again)
