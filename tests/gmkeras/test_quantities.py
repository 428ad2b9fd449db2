"""A row added to a copy of the table of quantities is seen by the frontend: in labels of batches and in losses."""

from __future__ import annotations

from support.more_quantities import copy_with_more_quantities, run_in

SCRIPT = """
import json
import numpy as np
import tensorflow as tf
from ase import Atoms
from gmcore.engine.settings import DescriptorSettings
from gmkeras import losses
from gmkeras.data import PreparedData

frames = [Atoms("HO", [[0, 0, 0], [0, 0, 1.0]]), Atoms("OH2", [[0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]])]
rng = np.random.default_rng(1)
torques = [rng.normal(size=(len(frame), 3)) for frame in frames]
xx, xy, xz, yy, yz = rng.normal(size=(5, 2))
tensors = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, -xx - yy], axis=1).reshape(2, 3, 3)
data = PreparedData(frames, DescriptorSettings((1, 8), 3.0), {"torques": torques, "quadrupole": tensors})
_, labels = data.batch([1, 0])
deviations = losses.errors("quadrupole", tf.constant(tensors + 0.5), tf.constant(tensors))
print(json.dumps({
    "shapes": {name: list(values.shape) for name, values in labels.items()},
    "order": bool(np.array_equal(labels["torques"], np.concatenate(torques[::-1]))),
    "deviations": np.round(deviations.numpy(), 12).tolist(),
    "count": float(losses.count("quadrupole", tf.constant(tensors))),
}))
"""


def test_a_new_quantity_is_batched_and_has_a_loss(tmp_path):
    found = run_in(copy_with_more_quantities(tmp_path), SCRIPT)
    assert found["shapes"] == {"torques": [5, 3], "quadrupole": [2, 3, 3]} and found["order"]
    assert found["deviations"] == [[0.5, 0.5, 0.5, 0.5, 0.5, -1.0]] * 2  # zz from xx and yy
    assert found["count"] == 12.0
