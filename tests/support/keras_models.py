"""Small trainable models and labeled data for the tests of gmkeras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from ase import Atoms

from gmcore.engine.settings import HeadSettings, Member, ModelSettings
from gmkeras.data import PreparedData
from gmkeras.model import GMModel
from support.models import SPECIES, make_head, random_parts
from support.systems import molecule, small_cell, triclinic, water_molecule

WEIGHTS = {
    "energy": {"energy": 1.0, "forces": 4.0, "stress": 0.3},
    "charges": {"charges": 1.0, "dipole": 0.5},
    "d_tensor": {"d_tensor": 1.0},
    "tensor": {"tensor": 1.0},
}


def mixed_frames() -> list[Atoms]:
    """Molecules and crystals of several sizes."""
    return [molecule(), small_cell(), triclinic(), water_molecule()]


def random_labels(frames: Sequence[Atoms], seed: int = 0) -> dict[str, list[np.ndarray]]:
    """A value of every label for every structure; the stress of a molecule is NaN."""
    rng = np.random.default_rng(seed)
    tensors = rng.normal(size=(3, len(frames), 3, 3))
    tensors += tensors.swapaxes(-1, -2)
    tensors[1] -= np.trace(tensors[1], axis1=1, axis2=2)[:, None, None] * np.eye(3) / 3
    periodic = np.array([frame.pbc.any() for frame in frames])
    return {
        "energy": list(rng.normal(size=len(frames))),
        "forces": [rng.normal(size=(len(frame), 3)) for frame in frames],
        "stress": list(np.where(periodic[:, None, None], 0.1 * tensors[0], np.nan)),
        "charges": [rng.normal(size=len(frame)) for frame in frames],
        "dipole": list(rng.normal(size=(len(frames), 3))),
        "d_tensor": list(tensors[1]),
        "tensor": list(tensors[2]),
    }


def prepared(
    settings: ModelSettings, frames: Sequence[Atoms], labels: Sequence[str] = (), seed: int = 0
) -> PreparedData:
    """The structures with random labels and a total charge of 1, 2, 3, ..."""
    values = random_labels(frames, seed)
    charge = 1.0 + np.arange(len(frames))
    return PreparedData(frames, settings.descriptor, {label: values[label] for label in labels}, charge)


def keras_model(
    heads: Sequence[str | HeadSettings] = ("energy",),
    weights: Mapping[str, float] | None = None,
    decorrelate: bool = False,
    **options,
) -> tuple[GMModel, ModelSettings, Member]:
    """A model with the random parameters of `models.random_parts`, float64 unless said; compiled if it has weights."""
    settings, (member,) = random_parts(heads, **options)
    hidden = [len(bias) for bias in member.biases[:-1]]
    descriptor = asdict(settings.descriptor)
    model = GMModel(heads=settings.heads, hidden=hidden, decorrelate=decorrelate, dtype=settings.dtype, **descriptor)
    if weights:
        model.compile("sgd", loss_weights=weights)
    model.moments_layer.beta.assign(member.beta)
    model.standardization.set_constants(member.feature_mean, member.feature_std)
    for layer, kernel, bias in zip(model.dense_layers, member.weights, member.biases):
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
    for head in settings.heads:
        layer = model.scale_shift[head.name]
        layer.set_effective(member.scale[head.name], np.zeros_like(member.shift[head.name]), relative=False)
        layer.shift.assign(member.shift[head.name])
    return model, settings, member


__all__ = ["SPECIES", "WEIGHTS", "keras_model", "make_head", "mixed_frames", "prepared", "random_labels"]
