"""What `compile` asks of a model: for each trained quantity a loss and a weight, and the metrics that are reported.

The standard loss of a quantity (`gmkeras.losses`) is a sum over the structures of a batch divided by their number, and
needs their volumes; losses and metrics of Keras see the labels and the predictions of one quantity, as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from gmcore.config.training import Properties
from gmcore.engine.settings import HeadSettings
from gmcore.errors import excerpt
from gmcore.quantities import BY_NAME, predicted_by
from gmcore.suggest import did_you_mean
from gmkeras import losses
from gmkeras.distribution import global_share

DERIVATIVES = ("forces", "stress")
"""Quantities that are derivatives of the energy."""

Loss: TypeAlias = str | Callable[..., Any] | keras.losses.Loss
Metric: TypeAlias = str | Callable[..., Any] | keras.metrics.Metric


@keras.saving.register_keras_serializable("gmtensor")
class MeanAbsoluteError(keras.metrics.Mean):
    """Mean absolute error of the independent elements of a quantity, float64; unknown stresses do not count.

    Parameters
    ----------
    quantity : a name of `gmcore.quantities`.
    """

    def __init__(self, quantity: str, name: str = "mae", dtype: str = "float64"):
        super().__init__(name=name, dtype=dtype)
        self.quantity = quantity

    def update_state(self, y_true, y_pred, sample_weight=None):
        deviations = losses.errors(self.quantity, y_pred, y_true)
        n = losses.count(self.quantity, y_true)
        super().update_state(tf.math.divide_no_nan(tf.reduce_sum(tf.abs(deviations)), n), sample_weight=n)

    def get_config(self):
        return super().get_config() | {"quantity": self.quantity}


class Objective:
    """Losses, weights and metrics of a compiled model.

    Parameters
    ----------
    heads : of the model.
    loss : None, the standard loss of every quantity; a loss of Keras for all of them; or quantity -> loss, None being
        the standard one.
    loss_weights : quantity -> weight, 0 to leave it out; those of a configuration that states none if neither these nor
        a dict of losses are given; 1 for a quantity that only `loss` names.
    metrics : quantity -> metric or list of metrics; a list is meant for every trained quantity; the mean absolute
        error of every trained quantity if not given.

    Raises
    ------
    ValueError : something that the model does not predict, or that is no loss, weight or metric.
    """

    def __init__(
        self,
        heads: Sequence[HeadSettings],
        loss: Loss | Mapping[str, Loss | None] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        metrics: Sequence[Metric] | Mapping[str, Metric | Sequence[Metric]] | None = None,
    ):
        self._available = [quantity.name for head in heads for quantity in predicted_by(head.kind)]
        self._first = [predicted_by(head.kind)[0].name for head in heads]
        named = loss if isinstance(loss, Mapping) else {}
        self.weights = self._weights(heads, named, loss_weights)
        self._losses = {
            quantity: _loss(named.get(quantity) if isinstance(loss, Mapping) else loss) for quantity in self.weights
        }
        self._metrics = self._resolved(metrics)
        self._total = keras.metrics.Mean(name="loss", dtype="float64")
        parts = self.weights if len(self.weights) > 1 else ()
        self._parts = {quantity: keras.metrics.Mean(name=f"{quantity}_loss", dtype="float64") for quantity in parts}

    def _weights(self, heads: Sequence[HeadSettings], named: Mapping, stated: Any) -> dict[str, float]:
        if stated is None:
            stated = {} if named else Properties(**{head.kind: {} for head in heads}).loss_weights
        if not isinstance(stated, Mapping):
            raise ValueError(f"loss_weights must be a dict such as {{'energy': 1.0}}, got {excerpt(stated)}")
        for quantity in (*stated, *named):
            self._check("loss_weights" if quantity in stated else "loss", quantity)
        weights = {**dict.fromkeys(named, 1.0), **stated}
        for quantity, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0.0 <= weight < float("inf"):
                raise ValueError(f"the loss weight of {quantity} must be a number, 0 or more, got {excerpt(weight)}")
        weights = {quantity: float(weights[quantity]) for quantity in self._available if weights.get(quantity)}
        if not weights:
            raise ValueError("loss_weights must be above 0 for at least one quantity: otherwise nothing is trained")
        return weights

    def _check(self, argument: str, quantity: Any) -> None:
        if quantity not in BY_NAME:
            raise ValueError(f"{argument} has an unknown quantity {excerpt(quantity)}{did_you_mean(quantity, BY_NAME)}")
        if quantity not in self._available:
            raise ValueError(
                f"{argument} asks for {quantity}, but the heads of the model predict {', '.join(self._available)}: "
                f"add the head {BY_NAME[quantity].head}, or leave {quantity} out"
            )

    def _resolved(self, metrics: Any) -> dict[str, list[keras.metrics.Metric]]:
        if metrics is None:
            return {quantity: [MeanAbsoluteError(quantity)] for quantity in self.weights}
        if not isinstance(metrics, Mapping):
            metrics = dict.fromkeys(self.weights, metrics)
        for quantity in metrics:
            self._check("metrics", quantity)
        found = {}
        for quantity, given in metrics.items():
            listed = given if isinstance(given, (list, tuple)) else [given]
            shared = len(metrics) > 1 and any(given is other for name, other in metrics.items() if name != quantity)
            found[quantity] = [_metric(metric, copy=shared) for metric in listed]
            names = [metric.name for metric in found[quantity]]
            if len(set(names)) < len(names):
                raise ValueError(f"the metrics of {quantity} must have different names, got {', '.join(names)}")
        return found

    @property
    def derivatives(self) -> bool:
        """Whether a loss or a metric needs forces or stresses."""
        return any(quantity in DERIVATIVES for quantity in (*self.weights, *self._metrics))

    @property
    def labels(self) -> tuple[str, ...]:
        """Quantities whose labels are needed."""
        return tuple(dict.fromkeys((*self.weights, *self._metrics)))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All metrics, to be reset at the beginning of an epoch."""
        own = [metric for listed in self._metrics.values() for metric in listed]
        return [self._total, *self._parts.values(), *own]

    def loss(self, x: Mapping, y: Mapping, y_pred: Mapping, extra: Sequence[tf.Tensor]) -> tf.Tensor:
        """Total loss of a batch, float64; under a strategy the share of this replica.

        Parameters
        ----------
        extra : losses that layers have added, regularizers for example.
        """
        missing = [quantity for quantity in self.labels if quantity not in y]
        if missing:
            raise ValueError(
                f"the data have no labels {', '.join(missing)}, which losses or metrics ask for: name them in units of "
                "Dataset.from_atoms, or leave them out in compile"
            )
        n_structures = tf.shape(x["volume"])[0]
        n_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        total = shared = tf.zeros((), tf.float64)
        for quantity, weight in self.weights.items():
            function = self._losses[quantity]
            if function is None:
                deviations = losses.errors(quantity, y_pred[quantity], y[quantity])
                value = losses.loss(quantity, deviations, x["volume"])
                share = value * global_share(n_structures)  # gradients are summed over replicas
            else:
                share = tf.cast(function(y[quantity], y_pred[quantity]), tf.float64)  # Keras has divided by replicas
                if share.shape.rank:
                    raise ValueError(f"the loss of {quantity} must be a number, got shape {share.shape}: reduce it")
                value = share * n_replicas
            if quantity in self._parts:
                self._parts[quantity].update_state(value, sample_weight=n_structures)
            total, shared = total + weight * value, shared + weight * share
        for value in extra:
            total, shared = total + tf.cast(value, tf.float64), shared + tf.cast(value, tf.float64) / n_replicas
        self._total.update_state(total, sample_weight=n_structures)
        for quantity in self._first:  # a head that no loss looks at, or a shift of the energy under forces alone:
            if quantity not in self.weights:  # gradients are 0 then, not missing
                shared += 0.0 * tf.reduce_sum(y_pred[quantity])
        return shared

    def measure(self, y: Mapping, y_pred: Mapping) -> None:
        """Update the metrics with a batch."""
        for quantity, listed in self._metrics.items():
            for metric in listed:
                metric.update_state(y[quantity], y_pred[quantity])

    def results(self) -> dict[str, tf.Tensor]:
        """Results so far: "loss", "energy_loss", ..., "energy_mae", ..."""
        found = {metric.name: metric.result() for metric in (self._total, *self._parts.values())}
        for quantity, listed in self._metrics.items():
            for metric in listed:
                found[f"{quantity}_{metric.name}"] = metric.result()
        return found


def _loss(given: Loss | None) -> keras.losses.Loss | None:
    """A loss of Keras; those that are given by name or as a function compute in float64, as energies need."""
    if given is None or isinstance(given, keras.losses.Loss):
        return given
    function = keras.losses.get(given)
    if isinstance(function, keras.losses.Loss):
        return type(function).from_config(function.get_config() | {"dtype": "float64"})
    return _FunctionLoss(function, name=getattr(function, "__name__", "loss"), dtype="float64")


class _FunctionLoss(keras.losses.Loss):
    """Mean over all values of a function of labels and predictions."""

    def __init__(self, function: Callable, **kwargs):
        super().__init__(**kwargs)
        self._function = function

    def call(self, y_true, y_pred):
        return self._function(y_true, y_pred)


def _metric(given: Metric, copy: bool) -> keras.metrics.Metric:
    """A metric of Keras; one that is used for several quantities is copied, because each has its own state."""
    if isinstance(given, keras.metrics.Metric):
        return type(given).from_config(given.get_config()) if copy else given
    found = keras.metrics.get(given)
    if isinstance(found, type):
        found = found()
    if isinstance(found, keras.metrics.Metric):
        settings = found.get_config() | {"dtype": "float64"}
        return type(found).from_config(settings | ({"name": given} if isinstance(given, str) else {}))
    if not callable(found):
        raise ValueError(f"a metric must be a name, a function or a metric of Keras, got {excerpt(given)}")
    name = given if isinstance(given, str) else getattr(found, "__name__", "metric")
    return keras.metrics.MeanMetricWrapper(found, name=name, dtype="float64")
