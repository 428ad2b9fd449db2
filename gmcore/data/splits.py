"""Splits of the data into training, validation and test structures: seeded, recorded, never overlapping.

One shuffle decides: the test part is taken first, then validation, then training. A run with fewer training
structures therefore keeps the test and validation parts and uses a subset of the training part of a larger run.

Added structures (`data.added_files`) go to training or validation, each by a hash of its own content: files that are
added later move none of them. None goes to the test part, nor does one that is there already come back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ase import Atoms
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
    return _with_added(parts, config, labels, options) if data.added_files else parts


def _with_added(
    parts: dict[str, Dataset], config: TrainConfig, labels: Sequence[str], options: dict[str, Any]
) -> dict[str, Dataset]:
    """Return the parts with the structures of `data.added_files`, or those instead of training and validation."""
    data = config.data
    added = read_dataset(data.added_files, labels, **options | {"format": "auto"}, added=True)
    known = {part: {_content(frame) for frame in dataset.atoms} for part, dataset in parts.items()}
    taken = set().union(*(contents for part, contents in known.items() if part == "test" or not data.added_only))
    contents = [_content(frame) for frame in added.atoms]
    first = {content: k for k, content in reversed(list(enumerate(contents)))}
    fresh = [k for k, content in enumerate(contents) if content not in taken and first[content] == k]
    places = np.array([_place(contents[k], data.split.seed) for k in fresh])
    held_back = places < len(parts["validation"]) / (len(parts["train"]) + len(parts["validation"]))
    if data.added_only and len(fresh) > 1 and held_back.all() | (~held_back).all():  # both parts need a structure
        chosen = np.argmax(places) if held_back.all() else np.argmin(places)
        held_back[chosen] = not held_back[chosen]
    if data.added_only and len(fresh) < 2:
        raise SplitError(
            f"data.added_only needs at least 2 structures that are not in the test part, but data.added_files have "
            f"{len(fresh)}: add some, or set added_only to false"
        )
    notes = [f"added: {(~held_back).sum()} structures for training, {held_back.sum()} for validation"]
    if len(fresh) < len(added):
        notes.append(f"added: {len(added) - len(fresh)} structures left out, because they are in the data already")
    for part, rows in (("train", ~held_back), ("validation", held_back)):
        own = added.subset(np.array(fresh, np.int64)[rows])
        parts[part] = own if data.added_only else parts[part].joined(own)
    parts["train"] = replace(parts["train"], notes=(*parts["train"].notes, *notes))
    return parts


def _content(frame: Atoms) -> bytes:
    """Hash of elements, positions and cell, to 1e-5 A: the precision of text files."""
    lengths = np.rint(np.concatenate([frame.positions, frame.cell.array]) * 1e5).astype(np.int64)
    content = frame.numbers.astype(np.int64), lengths, frame.pbc
    return hashlib.sha256(b"".join(array.tobytes() for array in content)).digest()


def _place(content: bytes, seed: int) -> float:
    """Number in [0, 1) of a structure: below the share of validation it goes there."""
    return int.from_bytes(hashlib.sha256(content + str(seed).encode()).digest()[:6], "big") / 2.0**48


def describe_parts(parts: Mapping[str, Dataset]) -> list[str]:
    """Return lines of text: what is in each part, then what was changed when the data were read."""
    lines = []
    for part, dataset in parts.items():
        lines += [f"{part}:", *(f"  {line}" for line in dataset.summary())]
    return lines + list(dict.fromkeys(note for dataset in parts.values() for note in dataset.notes))
