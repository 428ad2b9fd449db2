"""Training, evaluation and prediction of models whose outputs are quantities of structures, as ordinary Keras.

Steps and losses run through Keras's own trainer. What is here instead of there: `compute_loss` and `compute_metrics`,
because labels of atoms and of structures have different lengths in one batch; `predict_step`, which gives forces
although no loss asks for them; and the translation of data sets in `fit`, `evaluate` and `predict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import keras
import tensorflow as tf

from gmcore.engine.settings import DescriptorSettings, HeadSettings, Member
from gmcore.quantities import predicted_by
from gmkeras import fitting
from gmkeras.distribution import check_split, reducible
from gmkeras.layers import GaussianMomentsLayer, NTKDense, ScaleShift, Standardization
from gmkeras.objective import Objective


class StructureModel(keras.Model):
    """Base of `GMModel`: what Keras is told about structures, quantities and their derivatives.

    Attributes
    ----------
    descriptor, head_settings : settings.
    decorrelate : whether the first dense layer is a `DecorrelatedDense`.
    moments_layer, standardization, dense_layers, scale_shift : layers; the last ones by the names of the heads.
    objective : losses and metrics, None before `compile`.
    """

    descriptor: DescriptorSettings
    head_settings: tuple[HeadSettings, ...]
    decorrelate: bool
    moments_layer: GaussianMomentsLayer
    standardization: Standardization
    dense_layers: list[NTKDense]
    scale_shift: dict[str, ScaleShift]
    objective: Objective | None = None

    def quantities(self, inputs: Mapping[str, tf.Tensor], derivatives: bool) -> dict[str, tf.Tensor]:
        """All quantities; with `derivatives` also forces and stress."""
        raise NotImplementedError

    @property
    def predicted(self) -> tuple[str, ...]:
        """Names of the quantities that the heads predict."""
        return tuple(quantity.name for head in self.head_settings for quantity in predicted_by(head.kind))

    def member(self) -> Member:
        """Return the parameters as plain arrays; constants of the training are multiplied in."""
        scale, shift = {}, {}
        for name, layer in self.scale_shift.items():
            scale[name], shift[name] = layer.effective()
        return Member(
            beta=self.moments_layer.beta.numpy(),
            feature_mean=self.standardization.mean.numpy(),
            feature_std=self.standardization.std.numpy(),
            weights=[layer.effective_kernel().numpy() for layer in self.dense_layers],
            biases=[layer.bias.numpy() for layer in self.dense_layers],
            scale=scale,
            shift=shift,
        )

    def set_member(self, member: Member, relative: bool = True) -> None:
        """Set all parameters, the inverse of `member`; the constant `decorrelation` stays what it is.

        Parameters
        ----------
        relative : whether steps of scales and shifts count in units of the scales, see `ScaleShift.set_effective`.
        """
        self.moments_layer.beta.assign(member.beta)
        self.standardization.set_constants(member.feature_mean, member.feature_std)
        for layer, kernel, bias in zip(self.dense_layers, member.weights, member.biases, strict=True):
            layer.set_effective_kernel(kernel)
            layer.bias.assign(bias)
        for name, layer in self.scale_shift.items():
            layer.set_effective(member.scale[name], member.shift[name], relative)

    def call(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self.quantities(inputs, derivatives=self.objective is not None and self.objective.derivatives)

    def compile(
        self,
        optimizer="adam",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """As in Keras; what `loss`, `loss_weights` and `metrics` mean says `gmkeras.objective.Objective`.

        Raises
        ------
        ValueError : `weighted_metrics`, XLA, or something that the model does not predict.
        """
        if jit_compile is True:
            raise ValueError("jit_compile=True is not possible: the descriptor runs outside XLA; leave it out")
        if weighted_metrics:
            raise ValueError("weighted_metrics is not possible, because structures have no weights: use metrics")
        self.objective = Objective(self.head_settings, loss, loss_weights, metrics)
        super().compile(
            optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False,
            auto_scale_loss=auto_scale_loss,
        )
        self._compile_arguments = partial(  # no dict: Keras would track what is in it
            dict,
            optimizer=self.optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
        )

    def get_compile_config(self):
        """What `load_model` compiles the model with again."""
        return keras.saving.serialize_keras_object(self._compile_arguments()) if self.compiled else None

    def compile_from_config(self, config):
        """Compile with what `get_compile_config` gave, and make the variables of the optimizer."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Total loss of a batch, see `Objective.loss`."""
        fitting.refuse("the training", sample_weight=sample_weight)
        return self._compiled().loss(x, y, y_pred, self.losses)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Metrics so far, this batch included."""
        self._compiled().measure(y, y_pred)
        return self.get_metrics_result()

    def get_metrics_result(self):
        """Metrics so far."""
        return self._compiled().results()

    @property
    def metrics(self):
        """All metrics of a compiled model."""
        return [] if self.objective is None else self.objective.metrics

    def _compiled(self) -> Objective:
        if self.objective is None:
            raise ValueError("the model must be compiled before it is trained or evaluated: call model.compile")
        return self.objective

    def train_step(self, data):
        """As in Keras, see `gmkeras.distribution.reducible`."""
        return reducible(super().train_step(data))

    def test_step(self, data):
        """As in Keras, see `gmkeras.distribution.reducible`."""
        return reducible(super().test_step(data))

    def predict_step(self, data):
        """All quantities, forces and stress included."""
        inputs = data[0] if isinstance(data, tuple) else data
        return self.quantities(inputs, derivatives="energy" in self.predicted)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        validation_batch_size=None,
        **kwargs,
    ):
        """As in Keras; `x` and `validation_data` may be data sets, their batches or structures with labels.

        A data set is shuffled with the seed of the model if `shuffle`; batches have an order of their own.
        """
        fitting.refuse(
            "fit", y=y, class_weight=class_weight, sample_weight=sample_weight, validation_split=validation_split
        )
        check_split(self.distribute_strategy, "fit", x, validation_data)
        labels = self._compiled().labels
        batches = fitting.as_batches(x, batch_size, self.seed if shuffle else None)
        if batches is not None:
            epochs_data = fitting.Epochs(batches, fitting.prepare(self.descriptor, batches.dataset, labels))
            x, batch_size = epochs_data.data, None
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.append(epochs_data)
            else:
                listed = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
                callbacks = [*listed, epochs_data]
        held_back = fitting.as_batches(validation_data, validation_batch_size, None)
        if held_back is not None:
            validation_data, validation_batch_size = fitting.in_order(self.descriptor, held_back, labels), None
        return super().fit(
            x,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=False,  # the data come shuffled
            validation_batch_size=validation_batch_size,
            **kwargs,
        )

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, **kwargs):
        """As in Keras; `x` may be a data set, its batches or structures with labels."""
        fitting.refuse("evaluate", y=y, sample_weight=sample_weight)
        check_split(self.distribute_strategy, "evaluate", x)
        batches = fitting.as_batches(x, batch_size, None)
        if batches is not None:
            x, batch_size = fitting.in_order(self.descriptor, batches, self._compiled().labels), None
        return super().evaluate(x, batch_size=batch_size, verbose=verbose, **kwargs)

    def predict(self, x, batch_size=None, **kwargs):
        """As in Keras; `x` may be a data set, its batches, a structure of ASE or a list of them.

        Quantities per atom are laid end to end, in the order of the structures.

        Raises
        ------
        ValueError : the model was made for several workers.
        """
        if self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "predict is not possible with several workers: write the model with to_file and load it with load_model"
            )
        batches = fitting.as_batches(x, batch_size, None)
        if batches is not None:
            x, batch_size = fitting.in_order(self.descriptor, batches, ()), None
        return super().predict(x, batch_size=batch_size, **kwargs)

    def export(self, *args, **kwargs):
        """Refused.

        Raises
        ------
        NotImplementedError : always; `to_file` writes a model that needs no TensorFlow.
        """
        raise NotImplementedError(
            "a GMModel cannot be exported as a TensorFlow graph, because its descriptor runs outside of it: write a "
            "model file with to_file, which needs no TensorFlow"
        )

    def _maybe_symbolic_build(self, *_, **__) -> None:
        """Build the optimizer, the only part that is not built yet.

        Under a strategy Keras would average the batches of the replicas, whose structures differ, to build the model.
        """
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync > 1 and self.optimizer is not None and not self.optimizer.built:
            with strategy.scope():
                self.optimizer.build(self.trainable_variables)
