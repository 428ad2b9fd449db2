"""A training step whose descriptor computes on the device, against the same step on the CPU; run as a script.

In a process of its own with the CUDA simulator, or on a machine whose GPU TensorFlow sees. Prints the largest relative
deviations as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorflow as tf
from ase import Atoms

from gmkeras import backends
from gmkeras.data import tensors
from support.keras_models import keras_model, prepared
from support.simulator import prepare


def step(on_device: bool) -> dict[str, list[np.ndarray]]:
    """Loss and gradients of all parameters, for energies and forces and for D, in a graph as `fit` makes it."""
    backends.tensorflow_has_gpu = lambda: on_device
    results = {}
    for kinds, labels in ((("energy",), ("energy", "forces")), (("d_tensor",), ("d_tensor",))):
        model, settings, _ = keras_model(kinds, dict.fromkeys(labels, 1.0), n_radial=1, r_max=2.0)
        frames = [Atoms("OH", [[0, 0, 0], [0.6, 0.5, 0.6]]), Atoms("HCN", [[0, 0, 0], [1.0, 0, 0.1], [1.2, 1.1, 0]])]
        inputs, given = (tensors(part) for part in prepared(settings, frames, labels).batch([0, 1]))

        @tf.function
        def compute(inputs, given, model=model):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(inputs, given, model(inputs))
            variables = [v.value for v in model.trainable_variables]
            return loss, tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        loss, gradients = compute(inputs, given)
        results[kinds[0]] = [loss.numpy(), *(g.numpy() for g in gradients)]
    return results


def main() -> None:
    prepare()
    expected, found = step(False), step(True)
    worst = {}
    for name, arrays in expected.items():
        errors = [np.abs(x - y).max() / max(np.abs(y).max(), 1e-6) for x, y in zip(found[name], arrays)]
        worst[name] = float(max(errors))
    sys.stdout.write(json.dumps(worst) + "\n")


if __name__ == "__main__":
    main()
