"""The trainable model: descriptor, network, heads, and a training step whose force loss is differentiated twice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike

import keras
import numpy as np
import tensorflow as tf

from gmcore.config.training import Properties
from gmcore.engine.settings import DescriptorSettings, HeadSettings, Member, ModelSettings
from gmcore.errors import GMError, excerpt
from gmcore.model_file import read_model
from gmcore.quantities import BY_NAME, predicted_by
from gmcore.suggest import did_you_mean
from gmkeras import losses
from gmkeras.distribution import global_share
from gmkeras.heads import head_outputs
from gmkeras.layers import DecorrelatedDense, GaussianMomentsLayer, NTKDense, ScaleShift, Standardization


@keras.saving.register_keras_serializable("gmtensor")
class GMModel(keras.Model):
    """Gaussian-moment network with one or several heads, trained with `model.fit`.

    Input and labels are the dicts of `gmkeras.data`; the output is a dict of the quantities below, float64.

    ==========  ======================================  ====================
    head        quantities                              unit
    ==========  ======================================  ====================
    energy      energy, forces*, stress*                eV, eV/A, eV/A^3
    charges     charges, dipole                         e, e A
    d_tensor    d_tensor                                cm^-1
    tensor      tensor                                  that of the labels
    ==========  ======================================  ====================

    `*` only from `quantities(..., derivatives=True)`, which the training, test and prediction steps call when a loss on
    forces or stress is asked for: F = -dE/dr, stress = (dE/dstrain)/V.

    Parameters
    ----------
    descriptor : settings of the descriptor.
    heads : outputs, in this order.
    hidden : sizes of the hidden layers.
    loss_weights : quantity -> weight of its loss (`gmkeras.losses`); only these quantities are trained and measured.
    seed : of beta and of the weights of the network.
    decorrelate : whether the first layer sees the features partly decorrelated (`DecorrelatedDense`).

    Keras would compile with XLA where it finds a GPU; the engine runs outside XLA, so `jit_compile=True` is set aside
    with a warning.
    """

    def __init__(
        self,
        descriptor: DescriptorSettings,
        heads: Sequence[HeadSettings],
        hidden: Sequence[int] = (512, 512),
        loss_weights: Mapping[str, float] | None = None,
        seed: int = 0,
        decorrelate: bool = False,
        dtype: str = "float32",
        name: str = "gm_model",
    ):
        super().__init__(name=name, dtype=dtype, autocast=False)
        self.supports_jit = False
        weights = {quantity: float(weight) for quantity, weight in (loss_weights or {}).items() if weight > 0}
        _check(heads, weights)
        self.descriptor, self.head_settings = descriptor, tuple(heads)
        self.hidden, self.loss_weights, self.seed, self.decorrelate = tuple(hidden), weights, seed, decorrelate
        self.needs_derivatives = "forces" in weights or "stress" in weights
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(self.hidden) + 2) >> 1]
        self.moments_layer = GaussianMomentsLayer(
            **_layer_arguments(descriptor), seed=seeds[0], dtype=dtype, name="descriptor"
        )
        self.standardization = Standardization(dtype=dtype, name="standardization")
        self.dense_layers = [
            (DecorrelatedDense if decorrelate and k == 0 else NTKDense)(
                size, "scaled_swish", seed=s, dtype=dtype, name=f"hidden_{k}"
            )
            for k, (size, s) in enumerate(zip(self.hidden, seeds[1:]))
        ]
        n_outputs = sum(head.n_outputs for head in self.head_settings)
        self.dense_layers.append(NTKDense(n_outputs, seed=seeds[-1], dtype=dtype, name="output"))
        self.scale_shift = {
            head.name: ScaleShift(len(descriptor.species), head.n_outputs, dtype=dtype, name=head.name)
            for head in self.head_settings
        }
        self._loss_metric = keras.metrics.Mean(name="loss", dtype="float64")
        self._mae_metrics = {
            quantity: keras.metrics.Mean(name=f"{quantity}_mae", dtype="float64") for quantity in weights
        }
        self._build_layers()

    def _build_layers(self) -> None:
        """Make all variables now: initial values, restarts and optimizers need them before the first batch."""
        self.moments_layer.build()
        shape = (None, self.moments_layer.n_features)
        self.standardization.build(shape)
        for layer in self.dense_layers:
            layer.build(shape)
            shape = (None, layer.n_outputs)
        for layer in self.scale_shift.values():
            layer.build()
        self.built = True

    @classmethod
    def from_file(
        cls, path: str | PathLike, member: int = 0, loss_weights: Mapping[str, float] | None = None
    ) -> GMModel:
        """Return a member of a model file as a model that can be trained on.

        Parameters
        ----------
        path : model file of `gmtensor train`.
        member : which member of the committee, from 0.
        loss_weights : as for the class; those of a configuration that states none if not given.

        Raises
        ------
        GMError : the file is no usable model, has no such member, or has a head that cannot be trained.

        Examples
        --------
        Freeze the radial functions, then train as usual::

            model = GMModel.from_file("model.h5", loss_weights={"d_tensor": 1.0})
            model.moments_layer.trainable = False
            model.compile(optimizer=GroupedAdam(rates, max_step))
            model.fit(data)
        """
        settings, members = read_model(path)
        if not 0 <= member < len(members):
            raise GMError(f"{path} has the members 0 to {len(members) - 1}, got {member}")
        check_trainable(path, settings)
        if loss_weights is None:
            loss_weights = Properties(**{head.kind: {} for head in settings.heads}).loss_weights
        chosen = members[member]
        hidden = [len(bias) for bias in chosen.biases[:-1]]
        model = cls(settings.descriptor, settings.heads, hidden, loss_weights, dtype=settings.dtype)
        model.set_member(chosen)
        return model

    def set_member(self, member: Member) -> None:
        """Set all parameters; the constants `decorrelation` and `output_factor` stay what they are.

        The inverse of `gmkeras.export.member_of`.
        """
        self.moments_layer.beta.assign(member.beta)
        self.standardization.set_constants(member.feature_mean, member.feature_std)
        for layer, kernel, bias in zip(self.dense_layers, member.weights, member.biases, strict=True):
            layer.set_effective_kernel(kernel)
            layer.bias.assign(bias)
        for name, layer in self.scale_shift.items():
            factor = layer.output_factor.numpy()
            layer.scale.assign(member.scale[name] / factor)
            layer.shift.assign(member.shift[name] / factor)

    def groups(self) -> dict[str, list[keras.Variable]]:
        """Trainable parameters by the names that `freeze` knows, but for "network": all layers of it."""
        groups = {"radial": [self.moments_layer.beta]}
        groups |= {layer.name: [layer.kernel, layer.bias] for layer in self.dense_layers}
        for name in ("scale", "shift"):
            groups[name] = [getattr(layer, name) for layer in self.scale_shift.values()]
        return groups

    def freeze(self, names: Sequence[str]) -> None:
        """Leave parameters out of the training, before the optimizer is built.

        Parameters
        ----------
        names : of "radial", "network", its layers "hidden_0", "hidden_1", ..., "output", and "scale", "shift".

        Raises
        ------
        GMError : an unknown name, or nothing is left to train.
        """
        groups = self.groups()
        layers = [layer.name for layer in self.dense_layers]
        for name in names:
            if name != "network" and name not in groups:
                raise GMError(f"training.freeze: the model has no {excerpt(name)}{did_you_mean(name, groups)}")
        frozen = {*names, *(layers if "network" in names else [])}
        if frozen >= groups.keys():
            raise GMError("training.freeze leaves nothing to train: remove a name from it")
        for name in frozen:
            for variable in groups[name]:
                variable.trainable = False

    def call(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        features, moments = self.moments_layer(inputs)
        h = self.standardization(features)
        for layer in self.dense_layers:
            h = layer(h)
        outputs: dict[str, tf.Tensor] = {}
        columns = tf.split(h, [head.n_outputs for head in self.head_settings], axis=1)
        for head, y in zip(self.head_settings, columns):
            m = self.scale_shift[head.name](y, species=inputs["species"])
            moments = tf.identity(moments)  # cotangents of several heads are added two at a time, see the layer
            outputs |= head_outputs(head, self.descriptor, m, tf.identity(moments), inputs)
        return outputs

    def quantities(self, inputs: Mapping[str, tf.Tensor], derivatives: bool | None = None) -> dict[str, tf.Tensor]:
        """All quantities; with `derivatives` (default: if a loss needs them) also forces and stress.

        Without a cell the stress is NaN.
        """
        if not (self.needs_derivatives if derivatives is None else derivatives):
            return self(inputs)
        positions, strain = inputs["positions"], inputs["strain"]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([positions, strain])
            outputs = self(inputs)
        g_positions, g_strain = tape.gradient(outputs["energy"], [positions, strain])
        return outputs | {"forces": -g_positions, "stress": _stress(g_strain, inputs["volume"])}

    def losses_and_errors(
        self, inputs: Mapping[str, tf.Tensor], labels: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Total loss and the deviations of each trained quantity."""
        outputs = self.quantities(inputs)
        deviations = {name: losses.errors(name, outputs[name], labels[name]) for name in self.loss_weights}
        terms = [w * losses.loss(name, deviations[name], inputs["volume"]) for name, w in self.loss_weights.items()]
        return sum(terms[1:], terms[0]), deviations

    def train_step(self, data):
        inputs, labels = data
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            loss, deviations = self.losses_and_errors(inputs, labels)
            own_loss = loss * global_share(tf.shape(inputs["volume"])[0])  # gradients are summed over replicas
        # ZERO: a shift of the energy has no gradient where only forces are trained
        unconnected = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(own_loss, [v.value for v in variables], unconnected_gradients=unconnected)
        self.optimizer.apply_gradients(zip(gradients, variables))
        return self._measure(inputs, labels, loss, deviations)

    def test_step(self, data):
        inputs, labels = data
        return self._measure(inputs, labels, *self.losses_and_errors(inputs, labels))

    def predict_step(self, data):
        inputs = data[0] if isinstance(data, tuple) else data
        return self.quantities(inputs)

    def _measure(self, inputs, labels, loss, deviations):
        self._loss_metric.update_state(loss, sample_weight=tf.shape(inputs["volume"])[0])
        for name, metric in self._mae_metrics.items():
            n = losses.count(name, labels[name])
            mean = tf.math.divide_no_nan(tf.reduce_sum(tf.abs(deviations[name])), n)
            metric.update_state(mean, sample_weight=n)
        return {metric.name: metric.result() for metric in self.metrics}

    def compile(self, *args, jit_compile="auto", **kwargs):
        """As in Keras, but XLA is never used."""
        if jit_compile is True:
            warnings.warn("jit_compile=True is set aside: the descriptor runs outside XLA", stacklevel=2)
        super().compile(*args, jit_compile=False, **kwargs)

    def _maybe_symbolic_build(self, *_, **__) -> None:
        """Build the optimizer, the only part that is not built yet.

        Under a strategy Keras would average the batches of the replicas, whose structures differ, to build the model.
        """
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1 and self.optimizer is not None and not self.optimizer.built:
            with strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def get_config(self):
        return {
            "descriptor": asdict(self.descriptor),
            "heads": [head.to_dict() for head in self.head_settings],
            "hidden": list(self.hidden),
            "loss_weights": dict(self.loss_weights),
            "seed": self.seed,
            "decorrelate": self.decorrelate,
            "dtype": self.dtype_policy.name,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        settings = dict(config["descriptor"], species=tuple(config["descriptor"]["species"]))
        heads = [HeadSettings.from_dict(head) for head in config["heads"]]
        return cls(**config | {"descriptor": DescriptorSettings(**settings), "heads": heads})


def check_trainable(path: str | PathLike, settings: ModelSettings) -> None:
    """Refuse the model of a file that has a head that cannot be trained.

    Raises
    ------
    GMError : a head with another name than its kind, or with a core radius.
    """
    for head in settings.heads:
        if head.name != head.kind or head.options.core_radius is not None:
            raise GMError(
                f"head {head.name} of {path} cannot be trained on: its name must be {head.kind} and it must not have a "
                "core_radius; start from another model"
            )


def _stress(g_strain: tf.Tensor, volume: tf.Tensor) -> tf.Tensor:
    """g_strain/V; NaN where there is no volume, but with a gradient that is finite (zero) there."""
    volume = volume[:, None, None]
    periodic = tf.math.is_finite(volume)
    stress = g_strain / tf.where(periodic, volume, tf.ones_like(volume))
    return tf.where(periodic, stress, tf.fill(tf.shape(stress), tf.constant(np.nan, stress.dtype)))


def _check(heads: Sequence[HeadSettings], weights: Mapping[str, float]) -> None:
    """Refuse heads and weights that do not belong together."""
    available = [quantity.name for head in heads for quantity in predicted_by(head.kind)]
    for head in heads:
        if head.name != head.kind:
            raise ValueError(f"a head that is trained must be named after its kind, {head.kind}, got {head.name!r}")
    for quantity in weights:
        if quantity not in BY_NAME:
            raise ValueError(f"loss_weights must name quantities of {', '.join(BY_NAME)}, got {quantity!r}")
        if quantity not in available:
            raise ValueError(f"no head predicts {quantity}, for which loss_weights ask")


def _layer_arguments(descriptor: DescriptorSettings) -> dict:
    return asdict(descriptor) | {"species": descriptor.species}
