"""Training on two replicas against training on one; run as a script.

Alone it is a process with two logical CPUs; with TF_CONFIG in its environment it is one of the workers named there.
Prints as JSON the largest deviation of any weight after an epoch, relative to how far training has moved it.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import tensorflow as tf

from gmkeras.distribution import distributed_batches
from gmkeras.optimizer import GroupedAdam, GroupedMuon
from support.keras_models import keras_model, mixed_frames, prepared
from support.systems import molecule

RATES = {"network": 0.01, "radial": 0.01, "scale": 0.02, "shift": 0.02}
WEIGHTS = {"energy": 1.0, "forces": 4.0}
EPOCHS, BATCH_SIZE = 1, 3


def trained(
    strategy: tf.distribute.Strategy | None, optimizer: type[GroupedAdam]
) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
    """Weights before and after, the losses of each epoch and its validation, and that of an evaluation."""
    frames = [*mixed_frames(), molecule()]
    with strategy.scope() if strategy else tf.device("CPU:0"):
        model, settings, _ = keras_model(("energy",), WEIGHTS, n_radial=1)
        model.compile(optimizer=optimizer(100, RATES), loss_weights=WEIGHTS)
    data = prepared(settings, frames, tuple(WEIGHTS))
    steps = -(-data.n_structures // BATCH_SIZE)
    before = [np.array(w) for w in model.get_weights()]
    batches = distributed_batches(strategy, data, BATCH_SIZE, seed=1) if strategy else data.dataset(BATCH_SIZE, seed=1)
    in_order = distributed_batches(strategy, data, BATCH_SIZE) if strategy else data.dataset(BATCH_SIZE)
    fit = {"steps_per_epoch": steps, "epochs": EPOCHS, "validation_data": in_order, "validation_steps": steps}
    history = model.fit(batches, **fit, shuffle=False, verbose=0).history
    after = [np.array(w) for w in model.get_weights()]
    losses = [*history["loss"], *history["val_loss"], model.evaluate(in_order, steps=steps, verbose=0)[0]]
    return before, after, losses


def main() -> None:
    if "TF_CONFIG" in os.environ:
        strategy, optimizer = tf.distribute.MultiWorkerMirroredStrategy(), GroupedMuon
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy, optimizer = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), GroupedAdam
    two = trained(strategy, optimizer)
    start, one, losses = trained(None, optimizer)
    errors = [
        float(np.abs(a - b).max() / max(np.abs(a - s).max(), 1e-12))
        for s, a, b in zip(start, one, two[1])
        if np.abs(a - s).max(initial=0.0) > 0.0
    ]
    result = {"weights": max(errors), "n_moved": len(errors), "losses": [losses, two[2]]}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
