"""Training of Gaussian-moment models with TensorFlow and Keras: model, layers, losses, optimizer, data.

    from gmkeras import GMModel

Importing the package registers its classes, so that `keras.saving.load_model` finds them. Everything that computes a
feature lives in `gmcore`. What is trained here is written as plain arrays (`GMModel.to_file`) and evaluated without
TensorFlow by `gmcore`.
"""

from gmkeras.data import PreparedData, model_inputs, symbolic_inputs
from gmkeras.layers import (
    DecorrelatedDense,
    GaussianMomentsLayer,
    NTKDense,
    ScaleShift,
    Standardization,
    StructureSum,
)
from gmkeras.model import GMModel
from gmkeras.objective import MeanAbsoluteError
from gmkeras.optimizer import GroupedAdam, GroupedMuon

__all__ = [
    "DecorrelatedDense",
    "GMModel",
    "GaussianMomentsLayer",
    "GroupedAdam",
    "GroupedMuon",
    "MeanAbsoluteError",
    "NTKDense",
    "PreparedData",
    "ScaleShift",
    "Standardization",
    "StructureSum",
    "model_inputs",
    "symbolic_inputs",
]
