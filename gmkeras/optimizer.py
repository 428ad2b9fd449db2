"""Adam and Muon with a learning rate per group of parameters, all decaying linearly to zero (P, section 2.2.3).

Muon (K. Jordan and others, https://kellerjordan.github.io/posts/muon, 2024) replaces the step of a matrix by the
nearest orthogonal one, so that weak directions of a gradient count as much as strong ones. Keras has a Muon of its own;
here it is built on `GroupedAdam`, which has the rates of the groups and `restart`, and the products of its iteration
cost half as much for the wide first layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from gmcore.config.presets import PRESETS

GROUPS = ("network", "radial", "scale", "shift")
RMS = 0.2
"""Root mean square of a step of Muon, in units of its rate."""


def parameter_group(path: str) -> str:
    """Group of a trainable variable by its name.

    >>> parameter_group("gm_model/descriptor/beta"), parameter_group("gm_model/hidden_0/kernel")
    ('radial', 'network')
    """
    return {"beta": "radial", "scale": "scale", "shift": "shift"}.get(path.rsplit("/", 1)[-1], "network")


@keras.saving.register_keras_serializable("gmtensor")
class GroupedAdam(keras.optimizers.Adam):
    """Adam(0.9, 0.999, 1e-7) whose rate at `step` is rates[group of the variable] (1 - step/max_step).

    All state (step, moments, rates) is in `variables`: a restart that restores them goes on exactly.

    Parameters
    ----------
    max_step : step at which all rates are zero, batches of an epoch times epochs.
    rates : learning rate by group ("network", "radial", "scale", "shift"); those of the standard preset for energies if
        not given.
    kwargs : other arguments of `keras.optimizers.Adam`: clipnorm, use_ema, weight_decay, ...

    Raises
    ------
    ValueError : a group has no rate, or a learning rate is given as well.
    """

    def __init__(
        self, max_step: int, rates: Mapping[str, float] | None = None, name: str = "grouped_adam", **kwargs: Any
    ):
        rates = PRESETS["standard"]["learning_rates"][True] if rates is None else rates
        missing = [group for group in GROUPS if group not in rates]
        if missing:
            raise ValueError(f"rates must name every group of {', '.join(GROUPS)}, got none for {', '.join(missing)}")
        if kwargs.pop("learning_rate", None) is not None:
            raise ValueError("GroupedAdam has its learning rates in rates: leave learning_rate out")
        decay = keras.optimizers.schedules.PolynomialDecay(1.0, max_step, end_learning_rate=0.0, power=1.0)
        super().__init__(learning_rate=decay, name=name, **{"epsilon": 1e-7} | kwargs)
        self.rates = dict(rates)
        self.max_step = max_step

    def build(self, variables):
        super().build(variables)
        if not hasattr(self, "_paths"):
            self._paths = [variable.path for variable in variables]
            # by initializers, not by assignment: Keras may build inside the graph of the first step
            self._rate = [
                self.add_variable((), initializer=keras.initializers.Constant(rate), name=f"rate_{k}")
                for k, rate in enumerate(self._rate_of_each())
            ]

    def restart(self) -> None:
        """Forget every step and begin again; the graph of a training step stays valid."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))
        for variable, rate in zip(self._rate, self._rate_of_each()):
            variable.assign(rate)

    def _rate_of_each(self) -> list[float]:
        return [self.rates[parameter_group(path)] for path in self._paths]

    def update_step(self, gradient, variable, learning_rate):
        rate = self._rate[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * rate)

    def get_config(self):
        config = super().get_config()
        del config["learning_rate"]
        return config | {"rates": self.rates, "max_step": self.max_step}


@keras.saving.register_keras_serializable("gmtensor")
class GroupedMuon(GroupedAdam):
    """`GroupedAdam`, but Muon for the kernels of layers whose name begins with hidden_, as those of a `GMModel`.

    Biases, the output layer, and all that is not the network stay with Adam. The step of a matrix has the root mean
    square 0.2 times its rate, whatever its shape, as in Moonlight (arXiv:2502.16982): rates are of the size of Adam's.

    Parameters
    ----------
    momentum : of the gradients (Nesterov's).
    max_step, rates, kwargs, Raises : as for `GroupedAdam`.
    """

    def __init__(
        self,
        max_step: int,
        rates: Mapping[str, float] | None = None,
        momentum: float = 0.95,
        name: str = "grouped_muon",
        **kwargs: Any,
    ):
        super().__init__(max_step, rates, name=name, **kwargs)
        self.momentum = momentum

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        if not is_hidden_kernel(self._paths[index]):
            super().update_step(gradient, variable, learning_rate)
            return
        mean = self._momentums[index]
        self.assign(mean, self.momentum * mean + gradient)
        step = orthogonalized(self.momentum * mean + gradient) * (RMS * max(variable.shape) ** 0.5)
        self.assign_sub(variable, keras.ops.cast(learning_rate * self._rate[index], step.dtype) * step)

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum}


OPTIMIZERS: dict[str, type[GroupedAdam]] = {"adam": GroupedAdam, "muon": GroupedMuon}
"""By the names that `training.optimizer` has."""


def is_hidden_kernel(path: str) -> bool:
    """Whether a variable is the matrix of a hidden layer.

    >>> is_hidden_kernel("gm_model/hidden_0/kernel"), is_hidden_kernel("gm_model/output/kernel")
    (True, False)
    """
    layer, _, name = path.rpartition("/")
    return name == "kernel" and layer.rpartition("/")[2].startswith("hidden_")


def orthogonalized(matrix):
    """Return the matrix with all singular values near 1 (0.7 to 1.2), (n, m), by five Newton-Schulz iterations.

    An iteration is x <- (a + b x x^T + c (x x^T)^2) x. All of them are polynomials of one small matrix, x x^T, so that
    the wide one is multiplied twice only. Coefficients: K. Jordan.
    """
    n, m = matrix.shape
    wide = keras.ops.transpose(matrix) if n > m else matrix
    wide = wide / (keras.ops.norm(wide) + 1e-12)
    square = wide @ keras.ops.transpose(wide)
    one = keras.ops.eye(square.shape[0], dtype=square.dtype)
    factor = one
    for _ in range(5):
        step = 3.4445 * one - 4.7750 * square + 2.0315 * square @ square
        factor = step @ factor
        square = step @ step @ square
    found = factor @ wide
    return keras.ops.transpose(found) if n > m else found
