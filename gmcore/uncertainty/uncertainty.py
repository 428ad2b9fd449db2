"""Everything that a model file says about the errors of its model, and how predictions get theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gmcore.engine.settings import HeadSettings
from gmcore.quantities import BY_NAME, PER_ATOM
from gmcore.uncertainty.calibration import Calibration, anisotropy_deviations, pooled
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

    def anisotropy_errors(
        self, tensors: np.ndarray, deviations: np.ndarray, grades: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Return the calibrated errors (n,) of D, E (unit of the tensor) and axis (degrees), as far as calibrated.

        Parameters
        ----------
        tensors, deviations : D tensors (n, 3, 3) and the raw deviations of their elements.
        grades : (n,) extrapolation grades, where known.
        """
        raw = anisotropy_deviations(tensors, pooled(deviations, 2))
        return {name: self.calibrations[name].error(raw[name], grades) for name in DERIVED if name in self.calibrations}


def component_axes(heads: tuple[HeadSettings, ...]) -> dict[str, int]:
    """Number of axes that the components of each output of a model take: forces 1, tensors 2."""
    axes = {name: len(quantity.shape) for name, quantity in BY_NAME.items()}
    return axes | {head.name: 2 for head in heads if head.kind in ("d_tensor", "tensor")}
