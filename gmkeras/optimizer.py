"""Adam with a learning rate per group of parameters, all decaying linearly to zero (P, section 2.2.3)."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

GROUPS = ("network", "radial", "scale", "shift")


def parameter_group(path: str) -> str:
    """Group of a trainable variable by its name.

    >>> parameter_group("gm_model/descriptor/beta"), parameter_group("gm_model/hidden_0/kernel")
    ('radial', 'network')
    """
    return {"beta": "radial", "scale": "scale", "shift": "shift"}.get(path.rsplit("/", 1)[-1], "network")


@keras.saving.register_keras_serializable("gmtensor")
class GroupedAdam(keras.optimizers.Adam):
    """Adam(0.9, 0.999, 1e-7) whose rate at `step` is rates[variable or its group] (1 - step/max_step).

    All state (step, moments, rates) is in `variables`: a restart that restores them goes on exactly.

    Parameters
    ----------
    rates : learning rate by group ("network", "radial", "scale", "shift"), or by the path of a variable, which wins.
    max_step : step at which all rates are zero.

    Raises
    ------
    ValueError : a group has no rate.
    """

    def __init__(self, rates: Mapping[str, float], max_step: int, name: str = "grouped_adam", **kwargs):
        missing = [group for group in GROUPS if group not in rates]
        if missing:
            raise ValueError(f"rates must name every group of {', '.join(GROUPS)}, got none for {', '.join(missing)}")
        decay = keras.optimizers.schedules.PolynomialDecay(1.0, max_step, end_learning_rate=0.0, power=1.0)
        super().__init__(learning_rate=decay, beta_1=0.9, beta_2=0.999, epsilon=1e-7, name=name)
        self.rates = dict(rates)
        self.max_step = max_step

    def build(self, variables):
        super().build(variables)
        if not hasattr(self, "_paths"):
            self._paths = [variable.path for variable in variables]
            # by initializers, not by assignment: Keras may build inside the graph of the first step
            self._rate = [
                self.add_variable((), initializer=keras.initializers.Constant(rate), name=f"rate_{k}")
                for k, rate in enumerate(self._rate_of_each(self.rates))
            ]

    def restart(self, rates: Mapping[str, float]) -> None:
        """Forget every step and begin again with `rates`; the graph of a training step stays valid."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))
        for variable, rate in zip(self._rate, self._rate_of_each(rates)):
            variable.assign(rate)
        self.rates = dict(rates)

    def _rate_of_each(self, rates: Mapping[str, float]) -> list[float]:
        return [rates.get(path, rates[parameter_group(path)]) for path in self._paths]

    def update_step(self, gradient, variable, learning_rate):
        rate = self._rate[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * rate)

    def get_config(self):
        return {"rates": self.rates, "max_step": self.max_step, "name": self.name}
