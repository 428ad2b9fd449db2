"""How unsure a model is of every candidate: calibrated errors and extrapolation grades, from the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from gmcore.errors import GMError
from gmcore.model import Model
from gmcore.quantities import GRADE
from gmcore.uncertainty.calibration import pooled

D_TENSOR, FORCES = "d_tensor", "forces"
QUANTITIES = (D_TENSOR, FORCES)


@dataclass(frozen=True, eq=False)
class Scores:
    """Errors and grades of structures for one quantity.

    Attributes
    ----------
    quantity : "d_tensor" or "forces".
    unit : unit of the errors.
    errors : (n,) calibrated error of an element of D, or of a component of the force on the atom where it is largest;
        raw deviations if the model has no calibration. None if the model has no deviations either.
    calibrated : whether the errors are calibrated.
    grades : (n,) extrapolation grades; None if the model does not know its training data.
    """

    quantity: str
    unit: str
    errors: np.ndarray | None
    calibrated: bool
    grades: np.ndarray | None

    @property
    def relative(self) -> np.ndarray:
        """(n,) errors in units of their median; grades in units of theirs where there are no errors."""
        values = self.grades if self.errors is None else self.errors
        numbers = np.asarray(values, np.float64)
        typical = float(np.median(numbers))
        return numbers / typical if typical > 0.0 else np.ones(len(numbers))


@dataclass(frozen=True, eq=False)
class Judge:
    """A model, its file, and the quantity that it is asked for."""

    quantity: str
    model: Model
    path: Path

    @property
    def key(self) -> str:
        """Name of the quantity in the predictions of the model: heads may have names of their own."""
        return _output(self.model, self.quantity) or self.quantity

    def scores(self, frames: Sequence[Atoms]) -> Scores:
        """Predict the errors and grades of structures.

        Raises
        ------
        GMError : the model says nothing about its errors, or cannot be evaluated on a structure.
        """
        key, unit = self.key, self.model.units[self.key]
        predicted = self.model.predict(frames, [key], errors=True)
        errors, calibrated = None, f"{key}_error" in predicted
        if calibrated:
            errors = _largest(predicted[f"{key}_error"])
        elif f"{key}_std" in predicted:
            deviations = predicted[f"{key}_std"]
            axes = 2 if self.quantity == D_TENSOR else 1
            errors = _largest([pooled(one, axes) for one in deviations])
        grades = np.asarray(predicted[GRADE], np.float64) if GRADE in predicted else None
        if errors is None and grades is None:
            raise GMError(
                f"{self.path} must say how large its errors are, by a committee, draws of the last layer or its "
                "training data, but has none of these: train it again with this version"
            )
        return Scores(self.quantity, unit, errors, calibrated, grades)


def predicts(model: Model, quantity: str) -> bool:
    """Whether a model predicts "d_tensor" or "forces"."""
    return _output(model, quantity) is not None


def _output(model: Model, quantity: str) -> str | None:
    if quantity == FORCES:
        return FORCES if FORCES in model.units else None
    return next((head.name for head in model.settings.heads if head.kind == D_TENSOR), None)


def _largest(errors: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """(n,) largest error of each structure: its own, or that of its atoms."""
    return np.array([np.max(one, initial=0.0) for one in errors], np.float64)
