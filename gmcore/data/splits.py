"""Which structure is trained on, which validates, which tests: seeded, written down, never overlapping.

One shuffle decides: the test part is taken first, then validation, then training. A run with fewer training
structures therefore keeps the test and validation parts and uses a subset of the training part of a larger run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field

from gmcore.config.training import Split, TrainConfig
from gmcore.data.datasets import Dataset, read_dataset
from gmcore.errors import GMError
from gmcore.files import atomic_path, read_json

PARTS = ("train", "validation", "test")
FILE_NAME = "splits.json"


class SplitError(GMError):
    """A division of the data that is impossible or contradicts one that stands on the disk."""


@dataclass(frozen=True)
class Indices:
    """Indices of the structures of each part, in the order of the data files."""

    n_structures: int
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


class _Content(BaseModel):
    """What a file of splits holds."""

    n_structures: Annotated[int, Field(ge=0, lt=2**63)]
    train: list[int]
    validation: list[int]
    test: list[int]


def split_indices(n_structures: int, split: Split) -> Indices:
    """Return the parts that `split` asks for out of `n_structures`.

    Raises
    ------
    SplitError : more structures asked for than there are, or a file of splits that does not fit.
    """
    if split.file is not None:
        indices = read_splits(split.file)
        if indices.n_structures != n_structures:
            raise SplitError(f"{split.file} divides {indices.n_structures} structures, the data have {n_structures}")
        train = indices.train
    else:
        held_back = split.test + split.validation
        order = [int(i) for i in np.random.default_rng(split.seed).permutation(n_structures)]
        train = tuple(order[held_back:])
        if not train:
            raise SplitError(
                f"the split leaves nothing to train on: {split.validation} validation and {split.test} test "
                f"structures of {n_structures}"
            )
        indices = Indices(n_structures, train, tuple(order[split.test : held_back]), tuple(order[: split.test]))
    if split.train is not None and split.train > len(train):
        raise SplitError(
            f"data.split.train asks for {split.train} structures, {len(train)} of {n_structures} remain beside "
            f"{len(indices.validation)} validation and {len(indices.test)} test structures"
        )
    return Indices(n_structures, train[: split.train], indices.validation, indices.test)


def write_splits(path: str | Path, indices: Indices, seed: int | None = None) -> None:
    """Write the parts as JSON; `seed` is written down beside them."""
    content = {"n_structures": indices.n_structures, "seed": seed}
    content |= {part: list(getattr(indices, part)) for part in PARTS}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_splits(path: str | Path) -> Indices:
    """Read what `write_splits` wrote.

    Raises
    ------
    SplitError : missing, not JSON, indices that are no indices or stand in two parts.
    """
    try:
        content = read_json(path, _Content, SplitError, "it must be a file that a training has written")
    except FileNotFoundError:
        raise SplitError(f"file of splits {path} does not exist") from None
    n_structures = content.n_structures
    parts = {part: tuple(getattr(content, part)) for part in PARTS}
    every = [i for part in parts.values() for i in part]
    if len(set(every)) != len(every):
        raise SplitError(f"{path}: a structure stands twice in the splits")
    if every and not 0 <= min(every) <= max(every) < n_structures:
        raise SplitError(f"{path}: indices must lie between 0 and {n_structures - 1}, got {min(every)} to {max(every)}")
    return Indices(n_structures, **parts)


def load_datasets(
    config: TrainConfig, *, write: bool = True, labels: Sequence[str] | None = None
) -> dict[str, Dataset]:
    """Read the data of a training, divided: keys "train", "validation" and, where there is one, "test".

    labels : those of the configuration, or fewer.

    The division is written to `splits.json` in the output folder. One that stands there already must be the same:
    a model never meets its training structures again as test structures of a changed configuration.
    """
    data = config.data
    options = {
        "units": data.units,
        "keys": data.keys,
        "format": data.format,
        "total_charge": data.total_charge,
        "pbc": data.pbc,
    }
    labels = config.labels if labels is None else labels
    dataset = read_dataset(data.files, labels, **options)
    indices = split_indices(len(dataset), data.split)
    path = config.output / FILE_NAME
    if path.is_file():
        if read_splits(path) != indices:
            raise SplitError(f"{path} divides the data in another way than the configuration; choose another output")
    elif write:
        write_splits(path, indices, None if data.split.file else data.split.seed)
    parts = {part: dataset.subset(getattr(indices, part)) for part in PARTS if getattr(indices, part)}
    if data.test_files:
        parts["test"] = read_dataset(data.test_files, labels, **options)
    return parts


def describe_parts(parts: Mapping[str, Dataset]) -> list[str]:
    """Return lines for the output of a program: what is in each part, then what reading the data changed."""
    lines = []
    for part, dataset in parts.items():
        lines += [f"{part}:", *(f"  {line}" for line in dataset.summary())]
    return lines + list(dict.fromkeys(note for dataset in parts.values() for note in dataset.notes))
