"""Splits of the data into training, validation and test structures: seeded, recorded, never overlapping.

One shuffle decides: the test part is taken first, then validation, then training. A run with fewer training
structures therefore keeps the test and validation parts and uses a subset of the training part of a larger run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from gmcore.config.training import Split, TrainConfig
from gmcore.data.datasets import Dataset, read_dataset
from gmcore.errors import GMError
from gmcore.files import atomic_path, read_json

PARTS = ("train", "validation", "test")
FILE_NAME = "splits.json"


class SplitError(GMError):
    """A split of the data that is impossible, or that contradicts the recorded one."""


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
    SplitError : there are fewer structures than requested, or the split file does not fit the data.
    """
    if split.file is not None:
        indices = read_splits(split.file)
        if indices.n_structures != n_structures:
            raise SplitError(
                f"{split.file} is a split of {indices.n_structures} structures, but the data have {n_structures}: "
                "use the data files that it was made for, or another split file"
            )
        train = indices.train
    else:
        held_back = split.test + split.validation
        order = [int(i) for i in np.random.default_rng(split.seed).permutation(n_structures)]
        train = tuple(order[held_back:])
        if not train:
            raise SplitError(
                f"the split leaves nothing to train on: {split.validation} validation and {split.test} test "
                f"structures of {n_structures}: lower these numbers"
            )
        indices = Indices(n_structures, train, tuple(order[split.test : held_back]), tuple(order[: split.test]))
    if split.train is not None and split.train > len(train):
        raise SplitError(
            f"data.split.train asks for {split.train} structures, but only {len(train)} of {n_structures} are left "
            f"after {len(indices.validation)} validation and {len(indices.test)} test structures: ask for fewer"
        )
    return Indices(n_structures, train[: split.train], indices.validation, indices.test)


def write_splits(path: str | Path, indices: Indices, seed: int | None = None) -> None:
    """Write the parts and the seed as JSON."""
    parts = {part: list(getattr(indices, part)) for part in PARTS}
    content = {"n_structures": indices.n_structures, "seed": seed, **parts}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_splits(path: str | Path) -> Indices:
    """Read what `write_splits` wrote.

    Raises
    ------
    SplitError : the file is missing, is not JSON, or has invalid or repeated indices.
    """
    try:
        content = read_json(path, _Content, SplitError, "it must be a file that a training has written")
    except FileNotFoundError:
        raise SplitError(f"split file {path} does not exist") from None
    n_structures = content.n_structures
    parts = {part: tuple(getattr(content, part)) for part in PARTS}
    every = [i for part in parts.values() for i in part]
    if len(set(every)) != len(every):
        raise SplitError(f"{path} lists a structure twice: each structure may belong to one part only")
    if every and not 0 <= min(every) <= max(every) < n_structures:
        raise SplitError(f"{path}: indices must lie between 0 and {n_structures - 1}, got {min(every)} to {max(every)}")
    return Indices(n_structures, **parts)


def load_datasets(
    config: TrainConfig, *, write: bool = True, labels: Sequence[str] | None = None
) -> dict[str, Dataset]:
    """Read the data of a training and split them: keys "train", "validation" and, if there is one, "test".

    The split is written to `splits.json` in the output folder. If the file exists already, it must be the same split:
    otherwise a changed configuration could test a model on the structures that it was trained on.

    Parameters
    ----------
    write : whether `splits.json` is written.
    labels : the labels to read; all labels of the configuration if not given.

    Raises
    ------
    DataError, UnitError : the data cannot be used.
    SplitError : the split is impossible, or differs from the recorded one.
    """
    data = config.data
    options: dict[str, Any] = {
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
            raise SplitError(
                f"{path} splits the data differently from this configuration: choose another output folder, or restore "
                "the data and split settings of the earlier run"
            )
    elif write:
        write_splits(path, indices, None if data.split.file else data.split.seed)
    parts = {part: dataset.subset(getattr(indices, part)) for part in PARTS if getattr(indices, part)}
    if data.test_files:
        parts["test"] = read_dataset(data.test_files, labels, **options)
    return parts


def describe_parts(parts: Mapping[str, Dataset]) -> list[str]:
    """Return lines of text: what is in each part, then what was changed when the data were read."""
    lines = []
    for part, dataset in parts.items():
        lines += [f"{part}:", *(f"  {line}" for line in dataset.summary())]
    return lines + list(dict.fromkeys(note for dataset in parts.values() for note in dataset.notes))
