"""The trainable model: the NumPy model's numbers, batch independence, loss gradients of every parameter, no XLA."""

from __future__ import annotations

import numpy as np
import pytest

from support.tolerances import TOLERANCE, relative_error

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import tensorflow as tf

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.settings import HeadSettings
from gmcore.engine.structures import Batch, SpeciesTable
from gmcore.model import Model
from gmkeras.data import tensors
from gmkeras.losses import errors, loss
from gmkeras.model import GMModel
from gmkeras.optimizer import GroupedAdam
from support.gradients import check_gradient
from support.keras_models import WEIGHTS, keras_model, make_head, mixed_frames, prepared
from support.systems import molecule, small_cell, triclinic

pytestmark = pytest.mark.slow

HEADS = {
    "energy": make_head("energy", 3),
    "charges": make_head("charges", 3, conserve=True, origin="center_of_mass"),
    "free charges": make_head("charges", 3),
    "d_tensor": make_head("d_tensor", 3),
    "d_tensor, moments": make_head("d_tensor", 3, basis="moments"),
    "tensor": make_head("tensor", 3),
    "tensor, moments": make_head("tensor", 3, basis="moments"),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_agree_with_the_model_without_tensorflow(name, rng):
    """Constants of the training, multiplied in on export, included."""
    model, settings, _ = keras_model([HEADS[name]], decorrelate=True)
    matrix, layer = model.dense_layers[0].decorrelation, model.scale_shift[HEADS[name].name]
    matrix.assign(np.eye(len(matrix.numpy())) + 0.01 * rng.normal(size=matrix.shape))
    layer.unit.assign(rng.uniform(0.5, 2.0, layer.unit.shape))
    layer.base.assign(rng.normal(size=layer.base.shape))
    frames = mixed_frames()
    inputs, _ = prepared(settings, frames).batch(range(len(frames)))
    outputs = model.quantities(tensors(inputs), derivatives=HEADS[name].kind == "energy")
    expected = Model(settings, [model.member()]).predict(frames, total_charge=inputs["total_charge"])
    assert outputs.keys() == expected.keys()
    for key, values in expected.items():
        found = outputs[key].numpy()
        if key in ("forces", "charges"):
            values = np.concatenate(list(values))
        assert np.array_equal(np.isfinite(found), np.isfinite(values))
        finite = np.isfinite(values)
        assert relative_error(found[finite], values[finite]) < TOLERANCE["value", "float64"]


def test_conserved_charges_sum_to_the_total_charge():
    model, settings, _ = keras_model([HEADS["charges"]], dtype="float32")
    inputs, _ = prepared(settings, mixed_frames()).batch(range(4))
    charges = model(tensors(inputs))["charges"].numpy()
    total = np.add.reduceat(charges, np.searchsorted(inputs["structure"], range(4)))
    assert np.abs(total - inputs["total_charge"]).max() < 1e-12


def test_a_batch_gives_what_its_structures_give_one_by_one():
    model, settings, _ = keras_model(["energy", HEADS["charges"], HEADS["d_tensor, moments"], HEADS["tensor"]])
    data = prepared(settings, mixed_frames())
    together = model.quantities(tensors(data.batch([2, 0, 3, 1])[0]), derivatives=True)
    alone = [model.quantities(tensors(data.batch([k])[0]), derivatives=True) for k in (2, 0, 3, 1)]
    for key, values in together.items():
        expected = np.concatenate([part[key].numpy() for part in alone])
        finite = np.isfinite(expected)
        assert relative_error(values.numpy()[finite], expected[finite]) < TOLERANCE["identity", "float64"]


@pytest.mark.parametrize("name", ["energy", "charges", "d_tensor", "d_tensor, moments", "tensor", "tensor, moments"])
def test_loss_gradients_of_every_parameter(name, rng):
    """Energy, force and stress errors, or those of the other heads, against differences in every kind of parameter."""
    head = HEADS[name]
    model, settings, _ = keras_model([head], WEIGHTS[head.kind], hidden=(6, 5))
    frames = [molecule(), small_cell(), triclinic()]
    inputs, labels = (tensors(part) for part in prepared(settings, frames, WEIGHTS[head.kind]).batch(range(3)))
    compiled = tf.function(lambda: model.compute_loss(inputs, labels, model(inputs)))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            value = model.compute_loss(inputs, labels, model(inputs))
        return tape.gradient(value, [v.value for v in model.trainable_variables])

    kinds = []
    for variable, gradient in zip(model.trainable_variables, gradients()):
        start = variable.numpy()

        def value_at(x, variable=variable):
            variable.assign(x)
            return float(compiled())

        check_gradient(value_at, start, gradient, rng, TOLERANCE["difference", "float64"])
        variable.assign(start)
        kinds.append(variable.path.rsplit("/")[-1])
    assert set(kinds) == {"beta", "kernel", "bias", "scale", "shift"}


@pytest.mark.parametrize("kind", ["energy", "d_tensor"])
def test_loss_gradients_are_those_of_plain_tensorflow(kind):
    from perf.plain_tensorflow import PlainModel, plain_inputs

    weights = {"energy": 1.0, "forces": 4.0} if kind == "energy" else {"d_tensor": 1.0}
    model, settings, member = keras_model([kind], weights)
    frames = [molecule(), small_cell(), triclinic()]
    inputs, labels = (tensors(part) for part in prepared(settings, frames, weights).batch(range(3)))
    with tf.GradientTape() as tape:
        value = model.compute_loss(inputs, labels, model(inputs))
    found = tape.gradient(value, [v.value for v in model.trainable_variables])

    batch = Batch.from_atoms(frames)
    species = SpeciesTable(settings.descriptor.species).index(batch.numbers)
    plain = PlainModel(settings.descriptor, member, kind)
    expected_value, expected = plain.gradients(
        plain_inputs(batch, species, build_pairs(batch, settings.descriptor.r_max)), labels
    )
    expected = dict(zip(plain.parameters, expected))
    assert relative_error(value, expected_value) < 1e-11
    names = {"kernel": "weights", "bias": "biases"}
    for variable, gradient in zip(model.trainable_variables, found):
        layer, name = variable.path.split("/")
        if name in names:
            layers = [dense.name for dense in model.dense_layers]
            name = f"{names[name]}_{layers.index(layer)}"
        assert relative_error(gradient, tf.convert_to_tensor(expected[name])) < 1e-10


def test_gradients_are_the_same_bits_every_time():
    """With all heads, whose cotangents meet in the moments."""
    heads = ["energy", HEADS["charges"], HEADS["d_tensor, moments"], HEADS["tensor, moments"]]
    weights = {quantity: weight for head in WEIGHTS.values() for quantity, weight in head.items()}
    model, settings, _ = keras_model(heads, weights, dtype="float32")
    data = prepared(settings, mixed_frames(), weights)
    inputs, labels = (tensors(part) for part in data.batch(range(4)))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            value = model.compute_loss(inputs, labels, model(inputs))
        return [value, *tape.gradient(value, [v.value for v in model.trainable_variables])]

    first = [gradient.numpy() for gradient in gradients()]
    for _ in range(50):
        assert all(np.array_equal(a, b) for a, b in zip(first, gradients()))


def test_d_loss_takes_the_last_diagonal_element_from_the_other_two():
    predicted = tf.constant(np.diag([1.0, 2.0, 77.0])[None])
    reference = tf.constant(np.diag([1.0, 3.0, -4.0])[None])
    deviations = errors("d_tensor", predicted, reference)
    assert deviations.numpy().tolist() == [[0.0, 0.0, 0.0, -1.0, 0.0, 1.0]]
    assert float(loss("d_tensor", deviations, tf.constant([np.nan], tf.float64))) == 2.0


def test_structures_without_a_stress_do_not_count():
    reference = tf.constant(np.stack([np.full((3, 3), np.nan), np.ones((3, 3))]))
    predicted = tf.constant(np.stack([np.full((3, 3), np.nan), np.zeros((3, 3))]))
    deviations = errors("stress", predicted, reference)
    assert float(loss("stress", deviations, tf.constant([np.nan, 2.0], tf.float64))) == 9 * 4.0 / 2


def test_xla_is_refused():
    """jit_compile=True would fail at the first step: the engine is not XLA."""
    model, _, _ = keras_model()
    with pytest.raises(ValueError, match="jit_compile=True is not possible: the descriptor runs outside XLA"):
        model.compile(optimizer="sgd", jit_compile=True)


def test_fit_learns():
    """With the optimizer built by Keras itself, inside the graph of the first step."""
    model, settings, _ = keras_model(weights={"energy": 1.0, "forces": 1.0}, dtype="float32")
    rates = dict.fromkeys(("network", "radial", "scale", "shift"), 0.02)
    model.compile(optimizer=GroupedAdam(100, rates), loss_weights={"energy": 1.0, "forces": 1.0})
    data = prepared(settings, [molecule(), triclinic()], ["energy", "forces"])
    before = [variable.numpy() for variable in model.trainable_variables]
    losses = model.fit(data.dataset(2), epochs=20, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert int(model.optimizer.iterations.numpy()) == 20
    assert not any(np.array_equal(a, b.numpy()) for a, b in zip(before, model.trainable_variables))


def test_predict_and_evaluate_of_keras():
    model, settings, _ = keras_model(weights={"energy": 1.0, "forces": 1.0})
    frames = [molecule(), triclinic(), molecule()]
    data = prepared(settings, frames, ["energy", "forces"])
    metrics = model.evaluate(data.dataset(2), verbose=0, return_dict=True)
    outputs = model(tensors(data.batch(range(3))[0]))
    assert metrics["energy_mae"] == pytest.approx(np.abs(outputs["energy"] - data.label("energy")).mean())
    assert metrics["forces_mae"] == pytest.approx(np.abs(outputs["forces"] - data.label("forces")).mean())
    first, _ = data.batch([0])
    assert model.predict_on_batch(tensors(first))["forces"].shape == (len(frames[0]), 3)


def test_configuration_makes_the_same_model_again():
    model = GMModel(["O", 1], [HEADS["tensor, moments"]], n_radial=3, hidden=(5,), seed=3)
    again = GMModel.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(model.weights, again.weights))
    other = GMModel.from_config(model.get_config() | {"seed": 4})
    assert not np.array_equal(other.moments_layer.beta.numpy(), model.moments_layer.beta.numpy())


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="a head must be one of energy, charges, d_tensor, tensor, got 'torque'"):
        GMModel(["H"], ["torque"])
    renamed = HeadSettings("polarizability", "tensor", 1, "", {"basis": "positions"})
    with pytest.raises(ValueError, match="a head that is trained must be named after its kind, tensor, got 'polarizab"):
        GMModel(["H"], [renamed])
    with pytest.raises(ValueError, match="each head can be there once only, got energy, energy"):
        GMModel(["H"], ["energy", "energy"])
    with pytest.raises(ValueError, match="species must be symbols or atomic numbers of elements, got 'Xx'"):
        GMModel(["Xx"], ["energy"])
