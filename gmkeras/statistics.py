"""Constants taken from the training data before the first step: feature statistics and sizes of the tensor channels."""

from __future__ import annotations

import numpy as np

from gmcore.heads import moment_channels
from gmcore.stages import Contractions, Moments

from .data import PreparedData, geometry
from .layers import GaussianMomentsLayer

SMALL_DEVIATION = 1e-4
"""A feature that varies less than this fraction of its size is rounding noise, and is not blown up."""
BATCH_SIZE = 32


def feature_statistics(layer: GaussianMomentsLayer, data: PreparedData) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (n_features,) of each feature over all atoms of the data; deviations that are nil become 1."""
    contractions = Contractions(layer.settings.n_radial, layer.variable_dtype)
    n, total, square, origin = 0, 0.0, 0.0, None
    for inputs, _ in data.batches(BATCH_SIZE):
        features = contractions.forward(batch_moments(layer, inputs)).astype(np.float64)
        origin = features.mean(axis=0) if origin is None else origin  # sums about a point near the mean keep digits
        n += len(features)
        total += (features - origin).sum(axis=0)
        square += np.square(features - origin).sum(axis=0)
    mean = origin + total / n
    std = np.sqrt(np.maximum(square / n - np.square(total / n), 0.0))
    std = np.maximum(std, SMALL_DEVIATION * np.sqrt(np.square(mean) + np.square(std)))
    return mean, np.where(std > 0.0, std, 1.0)


def channel_norms(layer: GaussianMomentsLayer, data: PreparedData) -> np.ndarray:
    """Root mean square Frobenius norm of each tensor channel over all atoms, (n_channels,); 1 where it is nil."""
    square, n = 0.0, 0
    for inputs, _ in data.batches(BATCH_SIZE):
        channels = moment_channels(batch_moments(layer, inputs))
        square, n = square + np.square(channels).sum(axis=(0, 2, 3)), n + len(channels)
    norms = np.sqrt(square / n)
    return np.where(norms > 0.0, norms, 1.0)


def batch_moments(layer: GaussianMomentsLayer, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Moments (n_atoms, n_radial, 16) of a batch with the layer's coefficients."""
    stage = Moments(layer.settings, layer.variable_dtype)
    return stage.forward(geometry(inputs), inputs["positions"], layer.beta.numpy())
