"""One training step, float32: gmkeras and plain TensorFlow on one batch, same loss, Adam; and the bare GEMMs of it.

32 molecules of 63 atoms with 44 neighbors within 8 A; a loss on the D tensor, and one on energy and forces. Batches
lie ready as tensors, so that the steps are compared, not the ways of feeding them.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.structures import Batch, SpeciesTable
from perf.gemms import BareGemms
from perf.harness import compare
from perf.peers import installed
from perf.report import Row
from perf.systems import HIDDEN, SPECIES, model_parts, molecules

CUTOFF = 8.0
LOSSES = {"d_tensor": {"d_tensor": 1.0}, "energy": {"energy": 1.0, "forces": 4.0}}
PASSES = {"d_tensor": {"up": 1, "down": 1, "weights": 1}, "energy": {"up": 2, "down": 2, "weights": 2}}
TITLES = {"d_tensor": "D", "energy": "energy + forces"}


def run() -> list[Row]:
    if not installed("tensorflow"):
        return [Row("gmtensor", title, "ms", note="TensorFlow is not installed") for title in TITLES.values()]
    frames = molecules(32, 63, 44.0, CUTOFF)
    pairs = build_pairs(Batch.from_atoms(frames), CUTOFF)
    rows = []
    for kind, title in TITLES.items():
        labels = _labels(kind, frames)
        functions = {
            "bare GEMMs": BareGemms(sum(map(len, frames)), **PASSES[kind]),
            "gmtensor": _gmkeras(kind, frames, labels),
            "plain TensorFlow": _plain(kind, frames, pairs, labels),
        }
        timed = compare(functions, sample_s=0.1, budget_s=10.0)
        n_neighbors = pairs.n_pairs / sum(map(len, frames))
        system = f"{title}: 32 x 63 atoms, {n_neighbors:.0f} neighbors, 8 A"
        rows.append(Row.timed(timed, "bare GEMMs", system, "ms"))
        rows.append(Row.timed(timed, "gmtensor", system, "ms", to="bare GEMMs"))
        rows.append(Row.timed(timed, "plain TensorFlow", system, "ms", to="gmtensor", target=">= 4"))
    return rows


def _labels(kind, frames):
    rng = np.random.default_rng(2)
    if kind == "d_tensor":
        d = rng.normal(size=(len(frames), 3, 3))
        d += d.swapaxes(1, 2)
        return {"d_tensor": d - np.trace(d, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)}
    return {"energy": rng.normal(size=len(frames)), "forces": rng.normal(size=(sum(map(len, frames)), 3))}


def _gmkeras(kind, frames, labels):
    import tensorflow as tf

    from gmkeras.data import model_inputs
    from gmkeras.model import GMModel
    from gmkeras.optimizer import GROUPS, GroupedAdam

    settings, _ = model_parts(kind, CUTOFF)
    model = GMModel(heads=settings.heads, hidden=HIDDEN, decorrelate=False, **asdict(settings.descriptor))
    model.compile(optimizer=GroupedAdam(10**6, dict.fromkeys(GROUPS, 1e-3)), loss_weights=LOSSES[kind])
    model.optimizer.build(model.trainable_variables)
    inputs = model_inputs(frames, settings.descriptor)
    targets = {name: tf.constant(value) for name, value in labels.items()}

    def specs(tensors):
        return {name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for name, tensor in tensors.items()}

    step = tf.function(model.train_step, input_signature=[(specs(inputs), specs(targets))])
    return lambda: step((inputs, targets))["loss"].numpy()


def _plain(kind, frames, pairs, labels):
    from perf.plain_tensorflow import PlainModel, plain_inputs

    settings, member = model_parts(kind, CUTOFF)
    model = PlainModel(settings.descriptor, member, kind, "float32")
    batch = Batch.from_atoms(frames)
    inputs = plain_inputs(batch, SpeciesTable(SPECIES).index(batch.numbers), pairs)
    return lambda: model.train_step(inputs, labels).numpy()
