"""Models that a training starts from: what is taken over from their files, and what must not contradict them.

Member k of the new committee starts from member k mod n of the n members in all files together. The file decides on
descriptor, network, heads and dtype: a configuration that states another one is refused, because a user who states a
cutoff wants it. Elements, units and the members that are repeated are checked here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from gmcore.config.presets import PRESETS
from gmcore.config.section import Section
from gmcore.config.training import TrainConfig
from gmcore.data.datasets import Dataset
from gmcore.engine.settings import DescriptorSettings, HeadOptions, HeadSettings, Member, ModelSettings
from gmcore.errors import GMError, excerpt
from gmcore.files import relative_path
from gmcore.model_file import model_identity, read_model
from gmcore.quantities import BY_NAME
from gmkeras.model import check_trainable

OPTIONS = {"charges": ("conserve", "origin"), "d_tensor": ("basis",), "tensor": ("basis",)}
"""Keys of a property that its head in the file decides."""


@dataclass(frozen=True)
class Start:
    """Trained members to start from.

    Attributes
    ----------
    files : model files.
    settings : of all of them.
    members : of all files one after another.
    identities : of each file, see `gmcore.model_file.model_identity`.
    """

    files: tuple[Path, ...]
    settings: ModelSettings
    members: tuple[Member, ...]
    identities: tuple[str, ...]

    def member(self, k: int) -> Member:
        """Member that member `k` of the new committee starts from."""
        return self.members[k % len(self.members)]

    def identity(self, k: int) -> str:
        """Hash of what decides the start of member `k`, whatever its file is called."""
        return model_identity(self.settings, [self.member(k)])

    def provenance(self, folder: Path, replayed: bool) -> dict[str, Any]:
        """For the model file: the files as seen from `folder`, and whether older structures were trained on again."""
        files = [relative_path(path, folder) for path in self.files]
        return {"files": files, "identities": list(self.identities), "replayed": replayed}


def read_start(files: Sequence[Path]) -> Start:
    """Read the models of `training.start_from`.

    Raises
    ------
    ModelFileError : a file is no usable model.
    GMError : the models differ in their settings, or cannot be trained on.
    """
    contents = [read_model(path) for path in files]
    settings = contents[0][0]
    for path, (own, own_members) in zip(files, contents):
        check_trainable(path, own)
        for name, value in _described(own, own_members).items():
            expected = _described(*contents[0])[name]
            if value != expected:
                raise GMError(
                    f"the models of training.start_from must be alike, but {name} is {excerpt(expected)} in {files[0]} "
                    f"and {excerpt(value)} in {path}: name files of one committee"
                )
    members = tuple(member for _, own in contents for member in own)
    identities = tuple(model_identity(*content) for content in contents)
    return Start(tuple(files), settings, members, identities)


def completed(config: TrainConfig, start: Start) -> TrainConfig:
    """Return the configuration with the settings of the models in it.

    Raises
    ------
    GMError : the configuration states another one.
    """
    file, member = start.files[0], start.members[0]
    descriptor = {key: value for key, value in asdict(start.settings.descriptor).items() if key != "species"}
    standardize = bool(np.any(member.feature_mean != 0.0) or np.any(member.feature_std != 1.0))
    network = {"hidden": [len(bias) for bias in member.biases[:-1]], "standardize": standardize}
    decorrelate = config.network.decorrelate
    if decorrelate and not standardize:
        raise GMError(
            f"network.decorrelate is true, but the features of {file} are not standardized: leave the key out"
        )
    preset = PRESETS[config.training.preset]
    if decorrelate is None:
        decorrelate = standardize and preset["decorrelate"][config.properties.energy is not None]
    properties: dict[str, Section] = {}
    for head in start.settings.heads:
        section = getattr(config.properties, head.kind)
        if section is not None and head.kind in OPTIONS:
            options = {key: getattr(head.options, key) for key in OPTIONS[head.kind]}
            properties[head.kind] = _taken_over(section, options, file)
    tensor = config.properties.d_tensor
    if tensor is not None and "d_tensor" not in properties:  # a new head
        properties["d_tensor"] = tensor.model_copy(update={"basis": tensor.basis or preset["basis"]})
    return config.model_copy(
        update={
            "descriptor": _taken_over(config.descriptor, descriptor, file),
            "network": _taken_over(config.network, network, file).model_copy(update={"decorrelate": decorrelate}),
            "training": _taken_over(config.training, {"dtype": start.settings.dtype}, file),
            "properties": config.properties.model_copy(update=properties),
        }
    )


def descriptor_of(start: Start, species: tuple[int, ...], new_species: bool) -> DescriptorSettings:
    """Descriptor of the models, with the species of the data appended if that is asked for.

    Raises
    ------
    GMError : the models do not know a species of the data, and it is not to be appended.
    """
    settings = start.settings.descriptor
    new = sorted(set(species) - set(settings.species))
    if new and not new_species:
        names, known = (", ".join(chemical_symbols[z] for z in values) for values in (new, settings.species))
        raise GMError(
            f"the data contain {names}, but {start.files[0]} knows only {known}: set training.new_species to true to "
            "append them, or start from another model"
        )
    merged = tuple(sorted({*settings.species, *species}))
    return DescriptorSettings(merged, settings.r_max, settings.r_min, settings.n_basis, settings.n_radial)


def checked_heads(start: Start, heads: Sequence[HeadSettings]) -> tuple[HeadSettings, ...]:
    """Heads of the configuration, with a total charge that the old and the new data share or none.

    Raises
    ------
    GMError : the unit of a head is another one than in the file.
    """
    found = []
    trained = {head.name: head for head in start.settings.heads}
    for head in heads:
        old = trained.get(head.name, head)
        unit = old.unit or BY_NAME[head.kind].unit
        if unit != head.unit:
            raise GMError(
                f"the labels of {head.name} are in {head.unit}, but those of {start.files[0]} were in {unit}: use "
                "labels of the same quantity, or start from another model"
            )
        if old.options.total_charge not in (None, head.options.total_charge):
            options = asdict(head.options) | {"total_charge": None}
            head = HeadSettings(head.name, head.kind, head.n_outputs, head.unit, HeadOptions(**options))
        found.append(head)
    return tuple(found)


def start_notes(start: Start, config: TrainConfig, data: Dataset) -> list[str]:
    """What a user should know of a start, in sentences."""
    n, wanted = len(start.members), config.training.members
    names, old = config.properties.names, [head.name for head in start.settings.heads]
    notes = [f"start: {', '.join(map(str, start.files))}, {n} member{'s' * (n > 1)}"]
    if wanted > n:
        notes.append(
            f"start: {wanted} members from {n}: some start from the same one and differ by the order of their data, so "
            "that they deviate less from each other than members of separate trainings"
        )
    dropped, added = [name for name in old if name not in names], [name for name in names if name not in old]
    if dropped:
        notes.append(f"start: the heads of {', '.join(dropped)} are dropped, because properties does not name them")
    if added:
        notes.append(f"start: the heads of {', '.join(added)} are new")
    new = [chemical_symbols[z] for z in data.species if z not in start.settings.descriptor.species]
    if new:
        notes.append(f"start: the elements {', '.join(new)} are appended")
    if config.data.added_only:
        notes.append(
            "start: errors and extrapolation grades are learned from the added structures only; those of older "
            "trainings count as outside"
        )
    return notes


def _taken_over(section: Section, values: dict[str, Any], file: Path) -> Any:
    """Section with the values of the file; one that states another value is refused."""
    for key, value in values.items():
        stated = getattr(section, key)
        if key in section.model_fields_set and stated is not None and stated != value:
            raise GMError(
                f"{section.section}.{key} is {excerpt(stated)}, but {excerpt(value)} in {file}, which the training "
                "starts from: leave the key out, or start from another model"
            )
    return section.model_copy(update=values)


def _described(settings: ModelSettings, members: Sequence[Member]) -> dict[str, Any]:
    """What all models to start from must have in common."""
    return {
        **asdict(settings.descriptor),
        "dtype": settings.dtype,
        "heads": [head.to_dict() for head in settings.heads],
        "hidden layers": [len(bias) for bias in members[0].biases[:-1]],
    }
