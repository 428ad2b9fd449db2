"""Everything that a model file says about the errors of its model, and how predictions get theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gmcore.engine.settings import HeadSettings
from gmcore.quantities import BY_NAME, PER_ATOM
from gmcore.uncertainty.calibration import Calibration, pooled
from gmcore.uncertainty.environments import TrainingEnvironments

DERIVED = ("D", "E", "axis")
"""Functions of a D tensor that have a calibration of their own."""


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """What a model knows of its own errors.

    Attributes
    ----------
    calibrations : by output of the model ("energy", "forces", "d_tensor", ...) and by `DERIVED`.
    environments : the training data in the space of features; None if not known.
    """

    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    environments: TrainingEnvironments | None = None

    def errors(
        self,
        deviations: Mapping[str, np.ndarray],
        axes: Mapping[str, int],
        grades: np.ndarray | None = None,
        atom_grades: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the calibrated error of every output with a calibration, under its name with "_error".

        Parameters
        ----------
        deviations : raw, by output; one row per structure, or per atom, with `axes` trailing axes of components.
        grades, atom_grades : extrapolation grades of structures and atoms, where known.
        """
        found = {}
        for key, values in deviations.items():
            if key in self.calibrations:
                own = atom_grades if key in PER_ATOM else grades
                found[f"{key}_error"] = self.calibrations[key].error(pooled(values, axes[key]), own)
        return found


def component_axes(heads: tuple[HeadSettings, ...]) -> dict[str, int]:
    """Number of axes that the components of each output of a model take: forces 1, tensors 2."""
    axes = {name: len(quantity.shape) for name, quantity in BY_NAME.items()}
    return axes | {head.name: 2 for head in heads if head.kind in ("d_tensor", "tensor")}
