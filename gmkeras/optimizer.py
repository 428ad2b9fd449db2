"""Adam with a learning rate per group of parameters, all decaying linearly to zero (P, section 2.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from gmcore.config.presets import PRESETS

GROUPS = ("network", "radial", "scale", "shift")


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
