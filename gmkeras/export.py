"""From a trained Keras model to the plain arrays that `gmcore` stores and evaluates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gmcore.config.training import Properties
from gmcore.data.datasets import Dataset
from gmcore.engine.heads import count_outputs
from gmcore.engine.settings import HeadOptions, HeadSettings, Member
from gmcore.quantities import BY_NAME
from gmkeras.model import GMModel


def head_settings(properties: Properties, n_radial: int, data: Dataset) -> tuple[HeadSettings, ...]:
    """Heads for the properties of a configuration; units and a total charge that never changes come from the data."""
    heads = []
    for name in properties.names:
        section, options = getattr(properties, name), HeadOptions()
        unit = BY_NAME[name].unit or data.units[name]
        if name == "charges":
            constant = section.conserve and np.ptp(data.total_charge) == 0.0
            total_charge = float(data.total_charge[0]) if constant else None
            options = HeadOptions(conserve=section.conserve, origin=section.origin, total_charge=total_charge)
        elif name != "energy":
            options = HeadOptions(basis=section.basis)
        heads.append(HeadSettings(name, name, count_outputs(name, options, n_radial), unit, options))
    return tuple(heads)


def member_of(model: GMModel) -> Member:
    """Parameters of a model as they are now.

    Constants of training (output factors, decorrelation of the features) are multiplied in.
    """
    scale, shift = {}, {}
    for head in model.head_settings:
        layer = model.scale_shift[head.name]
        factor = layer.output_factor.numpy()
        scale[head.name], shift[head.name] = layer.scale.numpy() * factor, layer.shift.numpy() * factor
    return Member(
        beta=model.moments_layer.beta.numpy(),
        feature_mean=model.standardization.mean.numpy(),
        feature_std=model.standardization.std.numpy(),
        weights=[layer.effective_kernel().numpy() for layer in model.dense_layers],
        biases=[layer.bias.numpy() for layer in model.dense_layers],
        scale=scale,
        shift=shift,
    )


def set_weights(model: GMModel, weights: Sequence[np.ndarray]) -> None:
    """Give a model the weights of `TrainingState.best_weights`."""
    for variable, value in zip(model.weights, weights, strict=True):
        variable.assign(value)
