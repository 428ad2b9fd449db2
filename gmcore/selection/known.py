"""The structures that have labels already: those of given files, or of the data files that a model was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.data.reading import read_frames
from gmcore.errors import GMError
from gmcore.model import Model
from gmcore.selection.candidates import in_angstrom


def known_files(model: Model, path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the data files of a model's training, as far as they exist, each with the section `data` of its training.

    Parameters
    ----------
    path : the model file, to whose folder the paths in it are relative.
    """
    data = model.settings.provenance.get("config", {}).get("data", {})
    names = [*data.get("files", ()), *data.get("added_files", ())]
    files = [Path(path).parent / str(name) for name in names]
    return [(file, data) for file in files if file.is_file()]


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
        unit = data.get("units", {}).get("length", "A")
        for frame in read_frames(file, data.get("format", "auto")):
            if len(frame.atoms) and np.isin(frame.atoms.numbers, model.species.numbers).all():
                if data.get("pbc") is not None:
                    frame.atoms.pbc = data["pbc"]
                found.append(in_angstrom(frame, unit))
    return found


def frames_of_training(model: Model, path: Path) -> list[Atoms]:
    """Return the structures of the data files of a model's training; none if a file has been moved or changed."""
    try:
        return known_frames(known_files(model, path), model)
    except (GMError, OSError):
        return []
