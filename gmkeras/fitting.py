"""What users hand to `fit`, `evaluate` and `predict`, as data that Keras takes.

`fit` takes data sets, batches of them, and structures of ASE, beside the `tf.data.Dataset` of `PreparedData.dataset`.
The order in epoch e is a function of (seed, e) alone: a training that is restored at epoch e sees the batches that it
would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf
from ase import Atoms

from gmcore.data.datasets import Batches, Dataset
from gmcore.engine.settings import DescriptorSettings
from gmcore.errors import GMError, excerpt
from gmkeras.data import PreparedData

BATCH_SIZE = 8
"""Structures of a batch where none is stated."""


class Epochs(keras.callbacks.Callback):
    """Batches of a data set as a `tf.data.Dataset` that knows which epoch it is asked for.

    Attributes
    ----------
    data : tf.data.Dataset of one epoch.
    """

    def __init__(self, batches: Batches, prepared: PreparedData):
        super().__init__()
        self._epoch = 0
        self.data = prepared.stream(lambda: batches.epoch(self._epoch), len(batches))

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch


def as_batches(data: Any, batch_size: int | None, seed: int | None) -> Batches | None:
    """Data sets, batches of them and structures as batches; None for anything else, which is Keras's business.

    Parameters
    ----------
    batch_size, seed : where `data` does not state them itself.

    Raises
    ------
    GMError : batches with another batch size than `batch_size`.
    """
    if isinstance(data, Atoms):
        data = [data]
    if isinstance(data, Sequence) and data and all(isinstance(structure, Atoms) for structure in data):
        data = Dataset.from_atoms(data)
    if isinstance(data, Dataset):
        return data.batches(BATCH_SIZE if batch_size is None else batch_size, seed=seed)
    if isinstance(data, Batches) and batch_size not in (None, data.batch_size):
        raise GMError(f"the batches have {data.batch_size} structures, not {batch_size}: leave batch_size out")
    return data if isinstance(data, Batches) else None


def prepare(descriptor: DescriptorSettings, dataset: Dataset, labels: Sequence[str]) -> PreparedData:
    """Structures with neighbor lists and those of the labels that they have."""
    values = {label: dataset.labels[label] for label in labels if label in dataset.labels}
    return PreparedData(dataset.atoms, descriptor, values, dataset.total_charge)


def in_order(descriptor: DescriptorSettings, batches: Batches, labels: Sequence[str]) -> tf.data.Dataset:
    """All structures once, in their order."""
    data = replace(batches, seed=None)
    return Epochs(data, prepare(descriptor, data.dataset, labels)).data


def refuse(method: str, **arguments: Any) -> None:
    """Refuse arguments of Keras that mean nothing here, where they are given.

    Raises
    ------
    ValueError : the first that is not None, 0 or empty.
    """
    reasons = {
        "y": "labels are part of the data set",
        "class_weight": "there are no classes",
        "sample_weight": "structures have no weights; use loss_weights in compile or a loss of your own",
        "validation_split": "use Dataset.split and validation_data",
    }
    for name, value in arguments.items():
        if value is not None and not (isinstance(value, (int, float)) and value == 0):
            raise ValueError(f"{method} cannot use {name}={excerpt(value)}: {reasons[name]}")
