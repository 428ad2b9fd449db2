"""Heads: from the outputs m (n_atoms, n_outputs) of the network to energies, charges, dipoles and tensors.

Formulas: docs/method.md, section 5.

Everything here is float64 and linear in m (but for a constant where the
total charge is conserved), so that a head has no weights of its own. The twin without TensorFlow, with more to read, is
`gmcore.engine.heads`. Symmetric tensors are carried as the six elements xx, xy, xz, yy, yz, zz.

    energy                E_k = sum_i m_i
    charges               q_i = m_i, conserved: + (Q_k - sum_j m_j) / N_k;  dipole = sum_i q_i (r_i - o)       (P eq. 2)
    d_tensor, positions   D = sum_i m_i (3 rhat_i rhat_i^T - 1), rhat_i = (r_i - rbar)/|r_i - rbar|            (P eq. 7)
    tensor, positions     P = sum_i m_i rhat_i rhat_i^T
    moments               sum_i sum_c m_ic A_ic, A_ic = traceless part of M2_s, then of sym(M1_s M1_t), s <= t; a
                          tensor that is not traceless has one output more, times the identity
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from ase.data import atomic_masses

from gmcore.engine.heads import COINCIDENT, count_outputs
from gmcore.engine.settings import DescriptorSettings, HeadSettings
from gmcore.errors import excerpt
from gmcore.quantities import HEAD_KINDS, predicted_by

ROWS, COLUMNS = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)
"""Indices of the six elements of a symmetric tensor."""
IDENTITY = (1.0, 0.0, 0.0, 1.0, 0.0, 1.0)
"""The identity matrix as six elements."""

Inputs = Mapping[str, tf.Tensor]

_DEFAULTS: dict[str, dict[str, Any]] = {
    "charges": {"conserve": True},
    "d_tensor": {"basis": "moments"},
    "tensor": {"basis": "moments"},
}
"""Options of heads that state none, as in a configuration."""


def as_head(head: str | Mapping[str, Any] | HeadSettings, n_radial: int) -> HeadSettings:
    """Settings of a head.

    Parameters
    ----------
    head : its kind; a dict with "kind", maybe "unit", and options of `HeadOptions`; or the settings.

    Raises
    ------
    ValueError : no such kind.
    GMError : an option that the kind does not have.
    """
    if isinstance(head, HeadSettings):
        return head
    if isinstance(head, Mapping) and "name" in head:
        return HeadSettings.from_dict(head)
    named: dict[str, Any] = {"kind": head} if isinstance(head, str) else dict(head)
    kind = named.pop("kind", None)
    if kind not in HEAD_KINDS:
        raise ValueError(f"a head must be one of {', '.join(HEAD_KINDS)}, got {excerpt(kind)}")
    unit = named.pop("unit", "") or predicted_by(kind)[0].unit
    given = {"name": kind, "kind": kind, "width": 1, "unit": unit, "options": _DEFAULTS.get(kind, {}) | named}
    settings = HeadSettings.from_dict(given)
    settings.options.check(kind, kind)
    return replace(settings, n_outputs=count_outputs(kind, settings.options, n_radial))


def head_outputs(
    head: HeadSettings, descriptor: DescriptorSettings, m: tf.Tensor, moments: tf.Tensor, inputs: Inputs
) -> dict[str, tf.Tensor]:
    """Quantities that a head predicts.

    Parameters
    ----------
    m : (n_atoms, n_outputs) float64, after scale and shift.
    moments : (n_atoms, n_radial, 16).
    inputs : as in `gmkeras.data`.

    Returns
    -------
    energy (n_structures,) | charges (n_atoms,) and dipole (n_structures, 3) | d_tensor or tensor (n_structures, 3, 3).
    """
    if head.kind == "energy":
        return {"energy": structure_sum(m[:, 0], inputs)}
    if head.kind == "charges":
        charges = m[:, 0]
        if head.options.conserve:
            excess = structure_sum(charges, inputs) - inputs["total_charge"]
            charges -= tf.gather(tf.math.divide_no_nan(excess, _n_atoms(inputs)), inputs["structure"])
        away = inputs["positions"] - _origin(head, descriptor, inputs)
        return {"charges": charges, "dipole": structure_sum(charges[:, None] * away, inputs)}
    contributions = tf.einsum("ic,ice->ie", m, tensor_basis(head, moments, inputs))
    return {head.kind: full_tensor(structure_sum(contributions, inputs))}


def tensor_basis(head: HeadSettings, moments: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """A_ic of a tensor head: (n_atoms, n_outputs, 6) float64."""
    traceless = head.kind == "d_tensor"
    if head.options.basis == "positions":
        return _direction_tensors(inputs, traceless)[:, None, :]
    channels = moment_channels(moments)
    if traceless:
        return channels
    identity = tf.tile(tf.constant(IDENTITY, tf.float64, shape=(1, 1, 6)), [tf.shape(channels)[0], 1, 1])
    return tf.concat([channels, identity], axis=1)


def moment_channels(moments: tf.Tensor) -> tf.Tensor:
    """Symmetric traceless tensors made of the moments of each atom, not normalized: (n_atoms, n_channels, 6)."""
    moments = tf.cast(moments, tf.float64)
    n_radial = moments.shape[1]
    trace = moments[:, :, 0]
    xx, xy, xz, yy, yz = (moments[:, :, c] for c in range(4, 9))
    second = tf.stack([xx, xy, xz, yy, yz, trace - xx - yy], axis=-1)  # zz follows from |u| = 1
    # A product with 0 and 1 picks the pairs: its gradient is dense and adds up in a fixed order.
    s, t = np.triu_indices(n_radial)
    one = np.eye(n_radial)
    a = tf.einsum("cs,isx->icx", one[s], moments[:, :, 1:4])
    b = tf.einsum("cs,isx->icx", one[t], moments[:, :, 1:4])
    first = [0.5 * (a[:, :, x] * b[:, :, y] + a[:, :, y] * b[:, :, x]) for x, y in zip(ROWS, COLUMNS)]
    product = tf.stack(first, axis=-1)
    trace = tf.concat([trace, tf.reduce_sum(a * b, axis=-1)], axis=1)
    return tf.concat([second, product], axis=1) - trace[:, :, None] * (tf.constant(IDENTITY, tf.float64) / 3.0)


def full_tensor(elements: tf.Tensor) -> tf.Tensor:
    """(n, 6) elements to (n, 3, 3) symmetric tensors."""
    return tf.reshape(tf.gather(elements, [0, 1, 2, 1, 3, 4, 2, 4, 5], axis=1), (-1, 3, 3))


def unique_elements(tensors: tf.Tensor) -> tf.Tensor:
    """(n, 3, 3) to the six elements (n, 6)."""
    return tf.gather(tf.reshape(tensors, (-1, 9)), [0, 1, 2, 4, 5, 8], axis=1)


def structure_sum(values: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """(n_atoms, ...) to (n_structures, ...); a structure without atoms gives 0."""
    return tf.math.unsorted_segment_sum(values, inputs["structure"], tf.shape(inputs["strain"])[0])


def _n_atoms(inputs: Inputs) -> tf.Tensor:
    return structure_sum(tf.ones_like(inputs["positions"][:, 0]), inputs)


def centers(weights: tf.Tensor, inputs: Inputs) -> tf.Tensor:
    """Weighted mean position of the structure of each atom, (n_atoms, 3)."""
    total = structure_sum(weights, inputs)[:, None]
    mean = tf.math.divide_no_nan(structure_sum(weights[:, None] * inputs["positions"], inputs), total)
    return tf.gather(mean, inputs["structure"])


def _origin(head: HeadSettings, descriptor: DescriptorSettings, inputs: Inputs) -> tf.Tensor | float:
    if head.options.origin == "coordinates":
        return 0.0
    masses = tf.constant(atomic_masses[list(descriptor.species)], tf.float64)
    return centers(tf.gather(masses, inputs["species"]), inputs)


def _direction_tensors(inputs: Inputs, traceless: bool) -> tf.Tensor:
    """3 rhat rhat^T - 1, or rhat rhat^T: (n_atoms, 6)."""
    away = inputs["positions"] - centers(tf.ones_like(inputs["positions"][:, 0]), inputs)
    distance = tf.norm(away, axis=1, keepdims=True)
    at_center = distance < COINCIDENT
    rhat = away / tf.where(at_center, tf.ones_like(distance), distance)
    products = tf.gather(rhat, ROWS, axis=1) * tf.gather(rhat, COLUMNS, axis=1)
    if traceless:
        products = 3.0 * products - tf.constant(IDENTITY, tf.float64)
    return tf.where(at_center, tf.zeros_like(products), products)
