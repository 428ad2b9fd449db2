"""Read data as the arguments of a command say: units, keys and charges, or parts of a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from gmcore.config.loading import load_config
from gmcore.data.datasets import Dataset, read_dataset
from gmcore.data.frames import IN_ANGSTROM, Frame
from gmcore.data.labels import label_array
from gmcore.data.reading import Source, read_frames
from gmcore.data.splits import PARTS, load_datasets
from gmcore.errors import DataError, GMError, excerpt
from gmcore.model import Model
from gmcore.quantities import BY_NAME
from gmcore.suggest import did_you_mean
from gmcore.units import UNITS

CONFIGURATIONS = (".yaml", ".yml")


def parts_of_config(model: Model, path: Path, part: str) -> dict[str, Dataset]:
    """Read parts of the data of a training, with the labels that the model predicts.

    Parameters
    ----------
    model : the model, which selects the labels.
    path : configuration of a training.
    part : "train", "validation", "test" or "all".

    Raises
    ------
    GMError : the part does not exist, or the model predicts none of the labels.
    """
    if part not in (*PARTS, "all"):
        raise GMError(f"--part must be one of {', '.join(PARTS)}, all, got {excerpt(part)}")
    config = load_config(path)
    labels = [label for label in config.labels if label in model.units]
    if not labels:
        raise GMError(
            f"the model predicts none of the labels in {path} ({', '.join(config.labels)}); "
            f"it predicts {', '.join(model.units)}"
        )
    parts = load_datasets(config, write=False, labels=labels)
    if part != "all" and part not in parts:
        raise GMError(f"the data of {path} have no {part} part; the parts are {', '.join(parts)}")
    return parts if part == "all" else {part: parts[part]}


def data_files(path: Path) -> list[Path]:
    """Return the data files that the configuration of a training names; none if the file is a data file itself."""
    if path.suffix.lower() not in CONFIGURATIONS:
        return []
    return list(load_config(path).reads)


def stated_units(source: Path | Source, format: str, given: list[str] | None) -> dict[str, str]:
    """Return the units given on the command line, quantity -> unit.

    In formats where lengths are usually in A they are, unless an option or the first structure of the file says
    otherwise.
    """
    source = source if isinstance(source, Source) else Source(source, format)
    stated = name_value_pairs("--unit", given, UNITS)
    if "length" not in stated and source.name in IN_ANGSTROM:
        return stated if "length" in next(read_frames(source)).units else {"length": "A", **stated}
    return stated


def source_of(path: Path, format: str, element: list[str] | None, topology: Path | None) -> Source:
    """Return a file of structures as the options --format, --element and --topology say.

    Raises
    ------
    GMError : an option has another form.
    """
    return Source(path, format, name_value_pairs("--element", element), topology)


def read_structures(
    path: Path, unit: list[str] | None, total_charge: str | None, pbc: bool | None, format: str
) -> Dataset:
    """Read structures without labels; the parameters are the options of a command, see `gmcore.commands.options`."""
    units, charge = stated_units(path, format, unit), charge_or_key(total_charge)
    return read_dataset(path, (), units=units, total_charge=charge, format=format, pbc=pbc)


def labels_in(path: Path, format: str, model: Model, keys: Mapping[str, str]) -> list[str]:
    """Return the labels in a data file that states their units, as far as the model predicts them.

    Parameters
    ----------
    keys : label -> its name in the file, where they differ.

    Raises
    ------
    GMError : there are none.
    """
    found: set[str] = set()
    for frame in read_frames(path, format):
        for label in model.units:
            names = [keys[label]] if label in keys else [label, *BY_NAME[label].aliases]
            if label not in found and any(_is_label(label, name, frame) for name in names):
                found.add(label)
    if not found:
        raise GMError(
            "give the unit of each label to compare, for example --unit energy=eV; "
            f"the model predicts {', '.join(model.units)}"
        )
    return [label for label in model.units if label in found]


def _is_label(label: str, name: str, frame: Frame) -> bool:
    """Whether a field states its unit and has values; a stress that is NaN, as for molecules, has none."""
    if name not in frame.units or name not in frame.fields:
        return False
    try:
        label_array(label, frame.fields[name], frame)
    except DataError:
        return False
    return True


def name_value_pairs(option: str, given: list[str] | None, known: Iterable[str] | None = None) -> dict[str, str]:
    """Parse a repeated option NAME=VALUE.

    Parameters
    ----------
    option : the option, for messages.
    given : its values.
    known : allowed names (default: any).

    Raises
    ------
    GMError : a value has another form, or a name is unknown.
    """
    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise GMError(f"{option} must have the form NAME=VALUE, got {excerpt(text)}")
        name = name.strip()
        if known is not None and name not in known:
            raise GMError(f"unknown name {excerpt(name)} in {option}{did_you_mean(name, known)}")
        pairs[name] = value.strip()
    return pairs


def charge_or_key(given: str | None) -> float | str | None:
    """Return the option --total-charge as a number if it is one, otherwise as the name of a key."""
    try:
        return None if given is None else float(given)
    except ValueError:
        return given
