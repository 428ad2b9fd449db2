"""What is known about frames: a folder with one file for each labeled frame, and a list of the refused ones.

    frames/KEY.json        labels of a frame; it is written last, so that a frame is labeled or not, never in part
    frames/KEY.NAME        a file that the method keeps for later frames
    refused.json           KEY -> reason and scratch folder
    scratch/               folders of frames that are being computed, of refused ones, and of those to be kept

KEY is a hash of the geometry, charge, multiplicity, settings and program version. One process at a time may use the
folder; its threads may share a `Store`.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from gmcore.errors import GMError
from gmcore.files import atomic_path, read_json, remove_parts

KEYS = "[0-9a-f]*.json"
"""Names of the files of frames; temporary files begin with a dot, and files that are kept have one in their stem."""
FILE_NAME = re.compile(r"\w[\w.-]*")
ADVICE = "remove it, and the frame is labeled again"
_RECORD: dict[str, tuple[type, ...]] = {
    "values": (dict,),
    "extras": (dict,),
    "files": (list,),
    "geometry": (dict, type(None)),
    "seconds": (int, float),
    "scratch": (str, type(None)),
}


class StoreError(GMError):
    """A file of the work folder cannot be used."""


class Store:
    """The folder of labels of one output.

    Parameters
    ----------
    folder : it must be locked.

    Raises
    ------
    StoreError : a file in it is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self._frames, self._scratch = self.folder / "frames", self.folder / "scratch"
        self._refused_file = self.folder / "refused.json"
        self._lock = Lock()
        for path in (self._frames, self._scratch):
            path.mkdir(parents=True, exist_ok=True)
        remove_parts(self._frames)
        records = [path for path in sorted(self._frames.glob(KEYS)) if "." not in path.stem]
        self._records = {path.stem: _record(path) for path in records}
        self._refused: dict[str, dict[str, str]] = {}
        if self._refused_file.is_file():
            advice = "remove it, and refused frames are tried again"
            self._refused = read_json(self._refused_file, dict[str, dict[str, str]], StoreError, advice)
        self._remove_what_was_interrupted()

    def record(self, key: str) -> dict[str, Any] | None:
        """Return values, extras and seconds of a labeled frame; None if it is not labeled."""
        return self._records.get(key)

    def path(self, key: str) -> Path:
        """Return the file of a labeled frame."""
        return self._frames / f"{key}.json"

    def refusal(self, key: str) -> str | None:
        """Return why a frame was refused; None if it was not."""
        found = self._refused.get(key)
        return None if found is None else found.get("reason", "")

    def new_scratch(self, key: str) -> Path:
        """Make an empty folder for a frame."""
        return Path(tempfile.mkdtemp(prefix=f"{key[:16]}-", dir=self._scratch))

    def add(
        self,
        key: str,
        values: Mapping[str, Any],
        extras: Mapping[str, Any],
        files: Mapping[str, Path],
        geometry: Mapping[str, Any],
        seconds: float,
        scratch: Path | None,
    ) -> None:
        """Write down the labels of a frame.

        Parameters
        ----------
        values, extras : numbers, texts and nested lists of numbers.
        files : name -> file that is copied.
        geometry : numbers, positions, charge, multiplicity and identity, for `nearest`.
        scratch : folder that stays, if any.

        Raises
        ------
        WriteError : the disk is full.
        """
        for name, source in files.items():
            with atomic_path(self._frames / f"{key}.{name}") as temporary:
                shutil.copyfile(source, temporary)
        record = {
            "values": dict(values),
            "extras": dict(extras),
            "files": sorted(files),
            "geometry": dict(geometry) if files else None,
            "seconds": seconds,
            "scratch": None if scratch is None else scratch.name,
        }
        with atomic_path(self.path(key)) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")
        with self._lock:
            self._records[key] = record
            if self._refused.pop(key, None) is not None:
                self._write_refused()

    def refuse(self, key: str, reason: str, origin: str, scratch: Path) -> None:
        """Write down that a frame was refused; its folder stays.

        Raises
        ------
        WriteError : the disk is full.
        """
        with self._lock:
            before = self._refused.get(key, {}).get("scratch")
            self._refused[key] = {"frame": origin, "reason": reason, "scratch": scratch.name}
            self._write_refused()
        if before:
            remove_folder(self._scratch / before)

    def nearest(self, name: str, geometry: Mapping[str, Any]) -> Path | None:
        """Return the file `name` of the frame with the nearest positions, all else in `geometry` being equal."""
        with self._lock:
            known = list(self._records.items())
        best, found = np.inf, None
        for key, record in known:
            if name not in record["files"] or not record.get("geometry"):
                continue
            other = record["geometry"]
            if any(other.get(item) != geometry[item] for item in geometry if item != "positions"):
                continue
            distance = _distance(other["positions"], geometry["positions"])
            if distance < best:
                best, found = distance, self._frames / f"{key}.{name}"
        return found

    def _write_refused(self) -> None:
        with atomic_path(self._refused_file) as temporary:
            temporary.write_text(json.dumps(self._refused, indent=2) + "\n", encoding="utf-8")

    def _remove_what_was_interrupted(self) -> None:
        """Remove the folders of frames that were neither labeled nor refused when a process was killed."""
        kept = {entry.get("scratch") for entry in self._refused.values()}
        kept |= {record["scratch"] for record in self._records.values()}
        _remove(path for path in self._scratch.iterdir() if path.name not in kept)


def remove_folder(path: Path) -> None:
    """Remove a folder; what cannot be removed stays for the next time."""
    shutil.rmtree(path, ignore_errors=True)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        remove_folder(path)


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path, dict[str, Any], StoreError, ADVICE)
    for name, kinds in _RECORD.items():
        if name not in record or not isinstance(record[name], kinds):
            raise _damaged(path, name)
    if any(not isinstance(value, (int, float, str)) for value in record["extras"].values()):
        raise _damaged(path, "extras")
    if any(not isinstance(name, str) or not FILE_NAME.fullmatch(name) for name in record["files"]):
        raise _damaged(path, "files")
    if record["geometry"] is not None:
        try:
            shape = np.asarray(record["geometry"]["positions"], dtype=np.float64).shape
            numbers = len(record["geometry"]["numbers"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise _damaged(path, "geometry") from None
        if shape != (numbers, 3):
            raise _damaged(path, "geometry")
    return record


def _damaged(path: Path, name: str) -> StoreError:
    return StoreError(f"{path} does not hold what it should: {name} is missing or of another kind; {ADVICE}")


def _distance(one: Any, other: Any) -> float:
    """Root mean square distance, A, of two sets of positions (n_atoms, 3) with their centers on one another."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    difference = (one - one.mean(axis=0)) - (other - other.mean(axis=0))
    return float(np.sqrt(np.mean(np.sum(difference**2, axis=1))))
