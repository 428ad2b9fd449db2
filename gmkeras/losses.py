"""Losses, each a sum over the structures of a batch divided by their number (docs/method.md, section 8).

energy     dE_k^2                                                             eV^2
forces     sum_i |dF_i|^2; weight 4 A^2 is lambda_F = 12 N_k A^2 of P eq. 13  (eV/A)^2
stress     sum_ab (V_k dsigma_ab)^2; structures without a stress are skipped  eV^2
charges    sum_i dq_i^2                                                       e^2
dipole     |dmu_k|^2                                                          (e A)^2
d_tensor   six elements D11, D12, D13, D22, D23, D33, prediction with D33 := -(D11 + D22)   (P eq. 10, 11)
tensor     six elements
"""

from __future__ import annotations

import tensorflow as tf

from gmcore.quantities import BY_NAME
from gmkeras.heads import unique_elements


def errors(quantity: str, predicted: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Deviations of independent elements; 0 where there is no reference stress (NaN)."""
    if quantity == "stress":  # both branches of tf.where must be finite, or the gradient is not
        known = tf.math.is_finite(reference)
        return tf.where(known, predicted, tf.zeros_like(predicted)) - tf.where(
            known, reference, tf.zeros_like(reference)
        )
    if BY_NAME[quantity].is_tensor:
        predicted, reference = unique_elements(predicted), unique_elements(reference)
    if BY_NAME[quantity].traceless:
        last = -(predicted[:, 0] + predicted[:, 3])
        predicted = tf.concat([predicted[:, :5], last[:, None]], axis=1)
    return predicted - reference


def loss(quantity: str, deviations: tf.Tensor, volume: tf.Tensor) -> tf.Tensor:
    """Scalar loss of one quantity from its `errors`.

    Parameters
    ----------
    volume : (n_structures,) A^3; used for stress.
    """
    if quantity == "stress":
        deviations *= tf.where(tf.math.is_finite(volume), volume, tf.zeros_like(volume))[:, None, None]
    return tf.reduce_sum(tf.square(deviations)) / tf.cast(tf.shape(volume)[0], tf.float64)


def count(quantity: str, reference: tf.Tensor) -> tf.Tensor:
    """Number of elements that `errors` compares."""
    if quantity == "stress":
        return tf.reduce_sum(tf.cast(tf.math.is_finite(reference), tf.float64))
    elements = 6.0 / 9.0 if BY_NAME[quantity].is_tensor else 1.0
    return tf.cast(tf.size(reference), tf.float64) * elements
