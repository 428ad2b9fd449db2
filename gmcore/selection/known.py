"""The structures that have labels already: those of given files, or of the data files that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.data.frames import default_length, in_angstrom
from gmcore.data.reading import read_frames
from gmcore.model import Model


def training_files(model: Model, path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the data files of a model's training, whether they exist or not, each with the section `data` for it.

    Parameters
    ----------
    path : the model file, to whose folder the paths in it are relative.
    """
    data = model.settings.provenance.get("config", {}).get("data", {})
    sections = {"files": data, "added_files": data | {"format": "auto"}}
    return [(Path(path).parent / str(name), own) for key, own in sections.items() for name in data.get(key, ())]


def known_files(model: Model, path: Path, given: Sequence[Path] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Return files with labeled structures, each with the section `data` of the training that it belongs to, or {}.

    Parameters
    ----------
    path : the model file, to whose folder the paths in it are relative.
    given : the files; those of the model's training, as far as they exist, if there are none.
    """
    files = [(file, data) for file, data in training_files(model, path) if file.is_file()]
    own = {file.resolve(): data for file, data in files}
    return [(file, own.get(file.resolve(), {})) for file in given] or files


def known_frames(files: Iterable[tuple[Path, dict[str, Any]]], model: Model) -> list[Atoms]:
    """Return the structures of files that consist of elements of the model.

    Parameters
    ----------
    files : each with the section `data` of the training that it belongs to, or an empty one.

    Raises
    ------
    DataError, UnitError : a file cannot be used.
    """
    found = []
    for file, data in files:
        declared = data.get("format", "auto")
        unit = data.get("units", {}).get("length") or default_length(file, declared)
        for frame in read_frames(file, declared):
            if len(frame.numbers) and np.isin(frame.numbers, model.species.numbers).all():
                if data.get("pbc") is not None:
                    frame.pbc = np.broadcast_to(data["pbc"], 3)
                found.append(in_angstrom(frame, file, unit))
    return found
