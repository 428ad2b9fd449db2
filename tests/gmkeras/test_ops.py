"""The TensorFlow operations: values, derivatives of both orders, refusal of a third, and what a graph leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from support.gradients import check_gradient
from support.tolerances import TOLERANCE, relative_error

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import tensorflow as tf

from gmcore.engine.stages import Contractions, Moments
from gmkeras.activation import scaled_swish
from gmkeras.data import model_inputs, tensors
from gmkeras.ops import ContractionsOp
from support.keras_models import keras_model, mixed_frames, prepared
from support.systems import molecule


def test_the_checker_rejects_a_wrong_derivative(rng):
    x = rng.normal(size=5)
    check_gradient(lambda x: np.sum(x**3), x, 3 * x**2, rng, 1e-9)
    with pytest.raises(AssertionError, match="differs from differences"):
        check_gradient(lambda x: np.sum(x**3), x, 3 * x**2 * (1 + 1e-6), rng, 1e-9)
    with pytest.raises(AssertionError, match="differs from differences"):
        check_gradient(lambda x: np.sum(x**3), x, 0 * x, rng, 1e-9)


@pytest.fixture(scope="module")
def moments_case():
    model, settings, member = keras_model()
    inputs, _ = prepared(settings, mixed_frames()).batch(range(4))
    return model.moments_layer, tensors(inputs), inputs, member


def scalar(layer, inputs, positions=None, strain=None, beta=None):
    """A smooth scalar of features and moments, through the operations."""
    if beta is not None:
        layer.beta.assign(beta)
    inputs = dict(inputs)
    if positions is not None:
        inputs["positions"] = positions
    if strain is not None:
        inputs["strain"] = strain
    features, moments = layer(inputs)
    return tf.reduce_sum(tf.sin(0.1 * features)) + tf.reduce_sum(moments**2)


def test_first_derivatives(moments_case, rng):
    layer, inputs, arrays, member = moments_case
    layer.beta.assign(member.beta)
    with tf.GradientTape() as tape:
        tape.watch([inputs["positions"], inputs["strain"]])
        value = scalar(layer, inputs)
    g_positions, g_strain, g_beta = tape.gradient(value, [inputs["positions"], inputs["strain"], layer.beta.value])
    tolerance = TOLERANCE["difference", "float64"]
    check_gradient(
        lambda r: float(scalar(layer, inputs, positions=tf.constant(r))),
        arrays["positions"],
        g_positions,
        rng,
        tolerance,
    )
    check_gradient(lambda b: float(scalar(layer, inputs, beta=b)), member.beta, g_beta, rng, tolerance)
    layer.beta.assign(member.beta)

    # the strain is a derivative at zero: compare with structures that are strained
    def strained(eps):
        moved = dict(inputs)
        moved["positions"] = inputs["positions"] + tf.einsum(
            "iab,ib->ia", tf.gather(eps, inputs["structure"]), inputs["positions"]
        )
        owner = np.concatenate([np.full(n, k) for k, n in enumerate(shifts_per_structure)])
        moved["displacement"] = inputs["displacement"] + tf.einsum(
            "sab,sb->sa", tf.gather(eps, owner), inputs["displacement"]
        )
        return float(scalar(layer, moved))

    _, settings, _ = keras_model()
    shifts_per_structure = [len(prepared(settings, [frame]).batch([0])[0]["displacement"]) for frame in mixed_frames()]
    check_gradient(strained, np.zeros((4, 3, 3)), g_strain, rng, tolerance)


def test_second_derivatives(moments_case, rng):
    layer, inputs, arrays, member = moments_case
    layer.beta.assign(member.beta)
    v = tf.constant(rng.normal(size=arrays["positions"].shape))
    s = tf.constant(rng.normal(size=(4, 3, 3)))

    def slope(positions=None, beta=None):
        """<dE/dr, v> + <dE/dstrain, s>."""
        if beta is not None:
            layer.beta.assign(beta)
        r = inputs["positions"] if positions is None else tf.constant(positions)
        with tf.GradientTape() as tape:
            tape.watch([r, inputs["strain"]])
            value = scalar(layer, inputs, positions=r)
        g_positions, g_strain = tape.gradient(value, [r, inputs["strain"]])
        return tf.reduce_sum(g_positions * v) + tf.reduce_sum(g_strain * s)

    r = inputs["positions"]
    with tf.GradientTape() as outer:
        outer.watch(r)
        value = slope()
    h_positions, h_beta = outer.gradient(value, [r, layer.beta.value])
    tolerance = TOLERANCE["difference", "float64"]
    check_gradient(lambda b: float(slope(beta=b)), member.beta, h_beta, rng, tolerance)
    layer.beta.assign(member.beta)
    # d/dr of the strain part is taken at fixed displacements, as everywhere
    check_gradient(lambda r: float(slope(positions=r)), arrays["positions"], h_positions, rng, tolerance)


def test_a_third_derivative_is_refused(moments_case):
    layer, inputs, _, _ = moments_case
    r = inputs["positions"]
    with tf.GradientTape() as third:
        third.watch(r)
        with tf.GradientTape() as second:
            second.watch(r)
            with tf.GradientTape() as first:
                first.watch(r)
                value = scalar(layer, inputs, positions=r)
            gradient = first.gradient(value, r)
        hessian = second.gradient(gradient, r)
    with pytest.raises(NotImplementedError, match="differentiated twice at most, got a third derivative"):
        third.gradient(hessian, r)


def test_a_second_derivative_in_beta_is_refused(moments_case):
    layer, inputs, _, _ = moments_case
    beta = layer.beta.value
    with tf.GradientTape() as second:
        with tf.GradientTape() as first:
            value = scalar(layer, inputs)
        gradient = first.gradient(value, beta)
    with pytest.raises(NotImplementedError, match="differentiated once only, got a second derivative"):
        second.gradient(gradient, beta)


def test_a_third_derivative_of_contractions_and_swish_is_refused(rng):
    for function, x in (
        (ContractionsOp(2, "float64"), tf.constant(rng.normal(size=(3, 2, 16)))),
        (scaled_swish, tf.constant(rng.normal(size=4))),
    ):
        with tf.GradientTape() as third:
            third.watch(x)
            with tf.GradientTape() as second:
                second.watch(x)
                with tf.GradientTape() as first:
                    first.watch(x)
                    value = tf.reduce_sum(tf.sin(function(x)))
                gradient = first.gradient(value, x)
            hessian = second.gradient(gradient, x)
        with pytest.raises(NotImplementedError, match="differentiated twice at most"):
            third.gradient(hessian, x)


def test_swish_and_its_derivatives_are_those_of_tensorflow(rng):
    z = tf.constant(5.0 * rng.normal(size=50))

    def derivatives(function):
        with tf.GradientTape() as second:
            second.watch(z)
            with tf.GradientTape() as first:
                first.watch(z)
                value = function(z)
            slope = first.gradient(value, z)
        return value, slope, second.gradient(slope, z)

    expected = derivatives(lambda z: 1.6765324703310907 * z * tf.sigmoid(z))
    for found, wanted in zip(derivatives(scaled_swish), expected):
        assert relative_error(found, wanted) < TOLERANCE["identity", "float64"]


def test_float32_agrees_with_float64(rng):
    model, settings, _ = keras_model(dtype="float32")
    twice, _, _ = keras_model(dtype="float64")
    inputs = model_inputs(mixed_frames(), settings.descriptor)
    single, _ = model.moments_layer(inputs)
    double, _ = twice.moments_layer(inputs)
    assert single.dtype == tf.float32
    assert relative_error(single, double) < TOLERANCE["value", "float32"]


def test_only_what_is_used_is_computed(monkeypatch):
    """A training on D never computes a position gradient, one on forces never a Hessian in the positions."""
    calls = []
    for stage, name in [
        (stage, name) for stage in (Moments, Contractions) for name in ("forward", "backward", "double_backward")
    ]:
        original = getattr(stage, name)

        def recorded(self, *args, _original=original, _name=f"{stage.__name__}.{name}", **kwargs):
            calls.append((_name, kwargs.get("want_positions", True), kwargs.get("want_beta", True)))
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(stage, name, recorded)

    def steps(kind, weights):
        model, settings, _ = keras_model([kind], weights)
        model.compile(optimizer="sgd")
        batch = prepared(settings, [molecule()], list(weights)).batch([0])
        step = tf.function(model.train_step)
        data = tuple(tensors(part) for part in batch)
        step(data)
        calls.clear()
        step(data)
        return sorted(calls)

    assert steps("d_tensor", {"d_tensor": 1.0}) == [
        ("Contractions.backward", True, True),
        ("Contractions.forward", True, True),
        ("Moments.backward", False, True),
        ("Moments.forward", True, True),
    ]
    assert steps("energy", {"energy": 1.0, "forces": 1.0}) == [
        ("Contractions.backward", True, True),
        ("Contractions.backward", True, True),
        ("Contractions.double_backward", True, True),
        ("Contractions.forward", True, True),
        ("Moments.backward", False, True),
        ("Moments.backward", True, False),
        ("Moments.double_backward", False, True),
        ("Moments.forward", True, True),
    ]
