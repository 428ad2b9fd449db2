"""Constants taken from the training data before the first step: feature statistics and sizes of the tensor channels.

Features of atoms in similar surroundings are almost linearly dependent: of 360 standardized features along molecular
dynamics most directions vary a hundred times less than the leading ones, and gradient descent learns what lies in them
last. The first layer therefore sees the features *partly decorrelated*, x -> x P,

    P ~ U (Lambda + eps lambda_max)^(-1/4) U^T,    C = U Lambda U^T the correlation matrix of the features,

which takes the square root of the range of deviations; full decorrelation, exponent -1/2, blows up noise and
generalizes worse. Validation RMSE in cm^-1 of D of [Co(pdms)2]2- (900 frames, 12 epochs) with exponents 0, -0.17,
-1/4, -0.3, -1/2: 3.2, 1.9, 1.7, 2.4, 6.8. Where forces are learned
training errors fall faster too, but test errors end higher (ethanol, 950 structures, MAE of forces 17.5 meV/A after 250
epochs, without it 13.4 after 400; not compared at equal length), so that the presets leave it out there. P is constant
and is multiplied into the weights when a model is written. Formulas: docs/method.md, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gmcore.engine.heads import moment_channels
from gmcore.engine.stages import Contractions, Moments
from gmcore.errors import GMError
from gmcore.kernels import contractions_cpu
from gmkeras.data import PreparedData
from gmkeras.geometry import geometry_from, geometry_inputs
from gmkeras.layers import GaussianMomentsLayer

SMALL_DEVIATION = 1e-4
"""A feature that varies less than this fraction of its size is rounding noise, and is not blown up."""
SMALL_VARIANCE = 1e-4
"""eps: directions that vary less than this, in units of the largest variance, are stretched no further."""
SAMPLE = 2000
"""Structures that statistics are taken over."""
BATCH_SIZE = 32


SCALE_POWER = 0.5
"""Power of its deviation that a feature is divided by; 1 would make all features equally large."""
PRODUCT_FACTORS = {1: 1.0, 2: 0.7, 3: 0.4}
"""Factor of a feature that is a product of so many moments."""


class FeatureStatistics(NamedTuple):
    """Over the atoms of a sample.

    mean, scale : (n_features,), what features are shifted and divided by.
    decorrelation : (n_features, n_features), P above.
    """

    mean: np.ndarray
    scale: np.ndarray
    decorrelation: np.ndarray


def feature_statistics(
    layer: GaussianMomentsLayer, data: PreparedData, scale: np.ndarray | None = None
) -> FeatureStatistics:
    """Statistics of the features over the atoms of at most `SAMPLE` structures.

    Parameters
    ----------
    scale : (n_features,) what the features are divided by, if that is not to be found from the sample.
    """
    contractions = Contractions(layer.settings.n_radial, layer.variable_dtype)
    n = 0
    total = square = np.zeros(())
    origin: np.ndarray | None = None
    for inputs, _ in data.sample(SAMPLE, BATCH_SIZE):
        features = contractions.forward(batch_moments(layer, inputs)).astype(np.float64)
        origin = features.mean(axis=0) if origin is None else origin  # sums about a point near the mean keep digits
        features -= origin
        n += len(features)
        total = total + features.sum(axis=0)
        square = square + features.T @ features
    if origin is None:
        raise GMError("the training data must hold at least one structure to measure its features, got none")
    covariance = square / n - np.outer(total, total) / n**2
    mean = origin + total / n
    if scale is None:
        std = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        std = np.maximum(std, SMALL_DEVIATION * np.sqrt(np.square(mean) + np.square(std)))
        scale = _scale(np.where(std > 0.0, std, 1.0), layer.settings.n_radial)
    return FeatureStatistics(mean, scale, _decorrelation(covariance / np.outer(scale, scale)))


def _scale(std: np.ndarray, n_radial: int) -> np.ndarray:
    """Divisors of the features from their deviations; the mean variance of the scaled features is 1 but for factors."""
    scale = std**SCALE_POWER
    scale *= np.sqrt(np.mean(np.square(std / scale)))
    return scale / [PRODUCT_FACTORS[n] for n in n_moments(n_radial)]


def n_moments(n_radial: int) -> np.ndarray:
    """How many moments are multiplied in each feature, (n_features,): 1, 2 or 3 (P, table 1).

    >>> n_moments(1).tolist()
    [1, 2, 2, 2, 3, 3, 3, 3]
    """
    pairs = n_radial * (n_radial + 1) // 2
    counts = [n_radial, 3 * pairs]
    return np.repeat([1, 2, 3], [*counts, contractions_cpu.n_features(n_radial) - sum(counts)])


def _decorrelation(correlation: np.ndarray) -> np.ndarray:
    """P of the module's docstring, scaled such that the mean variance of the features stays what it was."""
    variances, directions = np.linalg.eigh(correlation)
    variances = np.maximum(variances, 0.0)
    if variances[-1] == 0.0:
        return np.eye(len(variances))
    stretch = (variances + SMALL_VARIANCE * variances[-1]) ** -0.25
    stretch *= np.sqrt(variances.sum() / np.sum(variances * stretch**2))
    return (directions * stretch) @ directions.T


def channel_norms(layer: GaussianMomentsLayer, data: PreparedData) -> np.ndarray:
    """Root mean square Frobenius norm of each tensor channel over all atoms, (n_channels,); 1 where it is nil."""
    square, n = 0.0, 0
    for inputs, _ in data.sample(SAMPLE, BATCH_SIZE):
        channels = moment_channels(batch_moments(layer, inputs))
        square, n = square + np.square(channels).sum(axis=(0, 2, 3)), n + len(channels)
    norms = np.sqrt(square / n)
    return np.where(norms > 0.0, norms, 1.0)


def batch_moments(layer: GaussianMomentsLayer, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Moments (n_atoms, n_radial, 16) of a batch with the layer's coefficients."""
    stage = Moments(layer.settings, layer.variable_dtype)
    return stage.forward(geometry_from(geometry_inputs(inputs)), inputs["positions"], layer.beta.numpy())
