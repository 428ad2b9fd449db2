"""From arguments of the command line to data: units, keys and charges as options, parts of a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gmcore.config.loading import load_config
from gmcore.data.datasets import Dataset, read_dataset
from gmcore.data.reading import read_frames
from gmcore.data.splits import PARTS, load_datasets
from gmcore.errors import GMError
from gmcore.formats import file_format
from gmcore.model import Model
from gmcore.suggest import did_you_mean
from gmcore.units import UNITS


def parts_of_config(model: Model, path: Path, part: str) -> dict[str, Dataset]:
    """Return the parts asked for, with the labels that the model predicts."""
    if part not in (*PARTS, "all"):
        raise GMError(f"--part must be one of {', '.join(PARTS)}, all, got {part!r}")
    config = load_config(path)
    labels = [label for label in config.labels if label in model.units]
    if not labels:
        raise GMError(f"{path} asks for {', '.join(config.labels)}, the model predicts {', '.join(model.units)}")
    parts = load_datasets(config, write=False, labels=labels)
    if part != "all" and part not in parts:
        raise GMError(f"{path} has no {part} part; it has {', '.join(parts)}")
    return parts if part == "all" else {part: parts[part]}


def stated_units(path: Path, format: str, given: list[str] | None) -> dict[str, str]:
    """Return the units stated on the command line; formats of ASE have their lengths in A by definition."""
    default = {"length": "A"} if file_format(path, format) in ("extxyz", "ase") else {}
    return default | name_value_pairs("--unit", given, UNITS)


def read_structures(
    path: Path, unit: list[str] | None, total_charge: str | None, pbc: bool | None, format: str
) -> Dataset:
    """Return the structures of a file, without labels, as the options of a command say to read it."""
    units, charge = stated_units(path, format, unit), charge_or_key(total_charge)
    return read_dataset(path, (), units=units, total_charge=charge, format=format, pbc=pbc)


def labels_in(path: Path, format: str, model: Model) -> list[str]:
    """Return the labels of an HDF5 data set, which states its units, that the model predicts."""
    found = {}  # a stress of molecules alone is NaN throughout and no label
    for frame in read_frames(path, format):
        for label in model.units:
            if label in frame.units and label in frame.fields and np.isfinite(frame.fields[label]).all():
                found[label] = None
    if not found:
        raise GMError(
            "say what to compare by stating its unit, as in --unit energy=eV; "
            f"the model predicts {', '.join(model.units)}"
        )
    return [label for label in model.units if label in found]


def name_value_pairs(option: str, given: list[str] | None, known: Iterable[str]) -> dict[str, str]:
    """Return the pairs of a repeated option NAME=VALUE, whose names must be among `known`."""
    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise GMError(f"{option} must be of the form NAME=VALUE, got {text!r}")
        name = name.strip()
        if name not in known:
            raise GMError(f"unknown name {name!r} in {option}{did_you_mean(name, known)}")
        pairs[name] = value.strip()
    return pairs


def charge_or_key(given: str | None) -> float | str | None:
    """Return a number where the option holds one, else the name of a key."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given
