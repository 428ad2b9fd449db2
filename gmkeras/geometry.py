"""The geometry of a batch on its way through TensorFlow, whose operations take flat lists of tensors.

`Geometry` says who neighbors whom. A batch carries it as named inputs (`gmkeras.data`); an operation takes them as a
list and hands the arrays to the engine, which wants a `Geometry` again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from gmcore.kernels.arguments import Geometry

NAMES = ("species", "structure", "row_start", "neighbor", "shift", "displacement")
"""Inputs of a batch that are fields of `Geometry`, in its order; `strain` tells the number of structures."""


def geometry_inputs(inputs: Mapping[str, Any]) -> list[Any]:
    """The geometry of a batch as a list of tensors, the number of structures last."""
    return [*(inputs[name] for name in NAMES), tf.shape(inputs["strain"])[0]]


def geometry_from(arrays: Sequence[Any]) -> Geometry:
    """The `Geometry` for the engine from the arrays of `geometry_inputs`.

    `reverse` is empty: the CPU does not need it, and on the GPU the stage finds it where it does.
    """
    *fields, n_structures = arrays
    return Geometry(*fields, reverse=fields[0][:0], n_structures=int(n_structures))
