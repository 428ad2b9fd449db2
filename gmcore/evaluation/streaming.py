"""Predictions for files of any length: part by part, in a memory that does not grow, and safe from interruptions.

    OUTPUT.parts/job.json            what is predicted: the settings, and hashes of the model and the structures
    OUTPUT.parts/000000.extxyz       a part of the output (.npz if the output is a file of arrays)
    OUTPUT.parts/000000.json         its facts; written last, so that a part is there or not, never in part

At the end the parts become the output, in one piece, and the folder is removed. Where parts begin and end depends on
the structures alone, so an interrupted prediction gives the same file as one that ran through.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gmcore.data.frames import Frame
from gmcore.data.reading import Source, count_frames, read_frames
from gmcore.data.structures import structures_of
from gmcore.errors import GMError
from gmcore.evaluation.outside import Outside
from gmcore.evaluation.predictions import (
    OF_TEXT,
    Part,
    Predicted,
    join_arrays,
    join_text,
    left_out,
    write_text_part,
)
from gmcore.files import atomic_path, lock_folder, read_json, remove_parts
from gmcore.inputs.npz import NpzArrays
from gmcore.model import Model
from gmcore.quantities import unit_of
from gmcore.running.interruption import Interruption
from gmcore.running.progress import Reporter
from gmcore.version import __version__

FRAMES, ATOMS = 4096, 65536
"""A part ends after this many structures, or when it has this many atoms."""
LAYOUT = 1


class PredictionError(GMError):
    """A prediction that cannot be made or continued."""


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of a file: number 3 of 16, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of a text such as "3/16".

        Raises
        ------
        PredictionError : it has another form.
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise PredictionError(f"a shard must have the form 3/16, the third of 16, counted from 1, got {text!r}")

    def range(self, n: int) -> tuple[int, int]:
        """Return the first of n structures, and one past the last, that belong to the shard.

        Raises
        ------
        PredictionError : there are fewer structures than shards.
        """
        if n < self.count:
            raise PredictionError(f"there are {n} structures for {self.count} shards: use fewer shards")
        return n * (self.number - 1) // self.count, n * self.number // self.count


@dataclass(frozen=True)
class Task:
    """What is predicted.

    Attributes
    ----------
    source : file of structures, and how it is read.
    units, total_charge, pbc : as for `gmcore.data.datasets.read_dataset`.
    properties, errors : as for `Model.predict`.
    shard : the share of the structures.
    device : of the model.
    """

    source: Source
    units: Mapping[str, str]
    total_charge: float | str | None = None
    pbc: bool | None = None
    properties: tuple[str, ...] | None = None
    errors: bool | None = None
    shard: Shard = Shard()
    device: str = "cpu"


@dataclass(frozen=True)
class Summary:
    """What has been written.

    Attributes
    ----------
    n_structures : number of structures.
    names : what was predicted.
    left_out : what the format of the output cannot hold.
    outside : what lies outside the training data.
    """

    n_structures: int
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    outside: Outside


def parts_folder(output: Path) -> Path:
    """Return the folder of the parts of an output."""
    return output.with_name(f"{output.name}.parts")


def predict_file(
    model: Model,
    model_file: Path,
    task: Task,
    output: Path,
    *,
    resume: bool = True,
    interruption: Interruption | None = None,
    progress: Callable[[int, int], Reporter] | None = None,
) -> Summary:
    """Predict for all structures of a file, or a share of them, and write the predictions.

    Parameters
    ----------
    model, model_file : the model, and the file that it was read from.
    output : file to write; its suffix chooses the format, see `gmcore.evaluation.predictions`.
    resume : go on with the parts of an earlier call that did not end; otherwise remove them.
    interruption : is asked after each part whether the work should end.
    progress : makes what shows the progress, of the numbers of all structures and of those done.

    Raises
    ------
    EndedEarly : the interruption said so; the same call goes on.
    PredictionError : the folder of the parts belongs to another prediction, or there are fewer structures than shards.
    LockError : another process predicts for the same output.
    DataError, UnitError, StructureError, UnknownElementError : a structure cannot be used.
    WriteError : the disk is full or the folder cannot be written to.
    """
    start, stop = task.shard.range(count_frames(task.source))
    folder = parts_folder(output)
    with lock_folder(folder):
        parts = _Parts(folder, output, _job(model_file, task, output), resume)
        done = parts.last(start)
        try:
            with progress(stop - start, done - start) if progress else nullcontext() as shown:
                if interruption is not None:
                    interruption.begin()
                for group in _groups(_all_frames(task, done, stop)):
                    parts.add(_predicted(model, task, group, done), model)
                    done += len(group)
                    if shown is not None:
                        shown.update(done - start)
                    if interruption is not None and done < stop:
                        interruption.check()
            summary = parts.join()
        except BaseException:
            if not parts.n_parts:  # nothing is worth keeping
                parts.remove()
            raise
        parts.remove()
    with suppress(OSError):  # something else was put into it
        folder.rmdir()
    return summary


def _all_frames(task: Task, start: int, stop: int) -> Iterator[Frame]:
    for frame in read_frames(task.source, start=start, stop=stop):
        if task.pbc is not None:
            frame.pbc = np.full(3, task.pbc)
        yield frame


def _groups(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """Yield the frames of each part."""
    group: list[Frame] = []
    n_atoms = 0
    for frame in frames:
        group.append(frame)
        n_atoms += len(frame.numbers)
        if len(group) == FRAMES or n_atoms >= ATOMS:
            yield group
            group, n_atoms = [], 0
    if group:
        yield group


def _predicted(model: Model, task: Task, frames: list[Frame], first: int) -> Predicted:
    structures = structures_of(frames, task.units, task.total_charge)
    batch = structures.batch
    values = model.predict_arrays(
        batch.numbers,
        batch.positions,
        batch.cells,
        batch.pbc,
        batch.offsets,
        properties=task.properties,
        total_charge=structures.total_charge,
        errors=task.errors,
    )
    units = {key: unit_of(key, model.units) for key in values}
    return Predicted(batch, [structures.info(k) for k in range(len(structures))], values, units, first)


def _job(model_file: Path, task: Task, output: Path) -> dict[str, Any]:
    """Return what decides the numbers and the format of a prediction."""
    return {
        "layout": LAYOUT,
        "gmtensor": __version__,
        "model": file_hash(model_file),
        "structures": [file_hash(path) for path in task.source.files],
        "reading": [task.source.name, dict(task.source.elements)],
        "units": dict(task.units),
        "total_charge": task.total_charge,
        "pbc": task.pbc,
        "properties": None if task.properties is None else list(task.properties),
        "errors": task.errors,
        "shard": f"{task.shard.number}/{task.shard.count}",
        "format": output.suffix.lower(),
        "device": task.device,
    }


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file of any length."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Parts:
    """The folder of the parts, which must be locked."""

    def __init__(self, folder: Path, output: Path, job: dict[str, Any], resume: bool):
        self._folder, self._output = folder, output
        self._is_text = output.suffix.lower() in OF_TEXT
        self._suffix = output.suffix if self._is_text else ".npz"
        self._facts: list[dict[str, Any]] = []
        remove_parts(folder)
        advice = "remove the folder, or start over with --no-resume"
        try:
            earlier = read_json(folder / "job.json", dict[str, Any], PredictionError, advice) if resume else None
        except FileNotFoundError:
            earlier = None
        if earlier is None:
            self._clear()
            with atomic_path(folder / "job.json") as temporary:
                temporary.write_text(_json(job), encoding="utf-8")
            return
        changed = [key for key in job if earlier.get(key) != job[key]]
        if changed:
            raise PredictionError(
                f"{folder} holds parts of a prediction with other settings ({', '.join(changed)}): {advice}"
            )
        while (path := self._path(len(self._facts), ".json")).is_file():
            self._facts.append(read_json(path, dict[str, Any], PredictionError, advice))

    @property
    def n_parts(self) -> int:
        """Number of parts that are written."""
        return len(self._facts)

    def last(self, start: int) -> int:
        """Return one past the last structure that is predicted."""
        return self._facts[-1]["last"] if self._facts else start

    def add(self, predicted: Predicted, model: Model) -> None:
        """Write a part down."""
        number, batch = len(self._facts), predicted.batch
        path = self._path(number, self._suffix)
        if self._is_text:
            write_text_part(path, predicted, model.uncertainty)
        else:
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, **predicted.arrays())  # type: ignore[arg-type]
        facts = {
            "last": predicted.first + batch.n_structures,
            "n_structures": batch.n_structures,
            "n_atoms": batch.n_atoms,
            "without_charge": predicted.without_charge,
            "units": dict(predicted.units),
            "outside": Outside.count(batch, predicted.info, predicted.values).plain(),
        }
        with atomic_path(self._path(number, ".json")) as temporary:
            temporary.write_text(_json(facts), encoding="utf-8")
        self._facts.append(facts)

    def join(self) -> Summary:
        """Write the output from all parts."""
        facts, units = self._facts, self._facts[0]["units"]
        paths = [self._path(number, self._suffix) for number in range(len(facts))]
        if self._is_text:
            join_text(self._output, paths)
        else:
            parts = [
                Part(fact["n_structures"], fact["n_atoms"], partial(NpzArrays, path))
                for fact, path in zip(facts, paths)
            ]
            known = not any(fact["without_charge"] for fact in facts)
            join_arrays(self._output, parts, units, total_charge=known)
        outside = sum((Outside.from_plain(fact["outside"]) for fact in facts), Outside())
        names = tuple(units)
        return Summary(outside.total, names, left_out(self._output, names), outside)

    def remove(self) -> None:
        """Remove the parts; the lock removes the folder."""
        self._clear()

    def _path(self, number: int, suffix: str) -> Path:
        return self._folder / f"{number:06d}{suffix}"

    def _clear(self) -> None:
        """Remove parts and job, the facts first: without them a part does not count."""
        for pattern in ("[0-9]*.json", "job.json", "[0-9]*"):
            for path in self._folder.glob(pattern):
                path.unlink()


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"
