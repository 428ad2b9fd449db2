"""Training configurations: YAML in, a checked `TrainConfig` out, or one sentence that says what is wrong and where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError, ValidationInfo, model_validator

from gmcore.config.sections import (
    ConfigPath,
    Data,
    Descriptor,
    LearningRates,
    NetworkSection,
    Properties,
    Section,
    Training,
)
from gmcore.data.readers import file_format
from gmcore.errors import GMError
from gmcore.units import not_stated


class ConfigError(GMError):
    """A configuration that cannot be used."""


# Presets. The paper's rates: P, section 2.2.3, for D and for potentials. With standardized features the network needs
# smaller steps; docs/results.md compares the two recipes.
_PAPER_TENSOR = {"network": 0.02, "radial": 0.02, "scale": 0.025, "shift": 0.025}
_PAPER_ENERGY = {"network": 0.03, "radial": 0.02, "scale": 0.001, "shift": 0.05}
_STANDARD_TENSOR = {"network": 0.005, "radial": 0.005, "scale": 0.005, "shift": 0.005}
_STANDARD_ENERGY = {"network": 0.005, "radial": 0.005, "scale": 0.001, "shift": 0.05}
PRESETS: dict[str, dict[str, Any]] = {
    "standard": {
        "standardize": True,
        "decorrelate": {True: False, False: True},  # key: is an energy learned
        "initial_scale": "spread",
        "batch_size": 8,
        "learning_rates": {True: _STANDARD_ENERGY, False: _STANDARD_TENSOR},
    },
    "paper": {
        "standardize": False,
        "decorrelate": {True: False, False: False},
        "initial_scale": "reference",
        "batch_size": 32,
        "learning_rates": {True: _PAPER_ENERGY, False: _PAPER_TENSOR},
    },
}


class TrainConfig(Section):
    """One training, fully resolved: every default and preset filled in, paths relative to the configuration file."""

    section = "the configuration"

    output: ConfigPath = Field(description="folder for models, logs, metrics and figures; made where missing")
    seed: int = Field(1, ge=0, description="seed of the initial parameters and of the order of the batches")
    data: Data = Field(description="structures, labels and their units")
    descriptor: Descriptor = Field(default_factory=Descriptor, description="environment of an atom as numbers")
    network: NetworkSection = Field(default_factory=NetworkSection, description="from features to outputs")
    properties: Properties = Field(description="what is learned")
    training: Training = Field(default_factory=Training, description="how it is learned")

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> TrainConfig:
        if self.properties.charges and self.properties.charges.conserve and self.data.total_charge is None:
            raise ValueError(
                "properties.charges.conserve needs data.total_charge, the charge that is conserved, a number or a key"
            )
        for file in (*self.data.files, *self.data.test_files):
            if file_format(file, self.data.format) != "hdf5":  # our HDF5 data sets state their units themselves
                for quantity in ("length", *self.labels):
                    if quantity not in self.data.units:
                        raise not_stated(quantity)
        _fill_preset(self)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that the training needs, in the order of `LABELS`."""
        energy, charges = self.properties.energy, self.properties.charges
        needed = {
            "energy": energy and energy.energy_weight > 0,
            "forces": energy and energy.forces_weight > 0,
            "stress": energy and energy.stress_weight > 0,
            "charges": charges and charges.charges_weight > 0,
            "dipole": charges and charges.dipole_weight > 0,
            "d_tensor": self.properties.d_tensor is not None,
            "tensor": self.properties.tensor is not None,
        }
        return tuple(label for label, wanted in needed.items() if wanted)

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML that `load_config` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


Config = TypeVar("Config", bound=Section)


def load_config(path: str | os.PathLike, kind: type[Config] = TrainConfig) -> Config:
    """Read a YAML file as the `kind` of configuration; paths in it are relative to its folder.

    Errors
    ------
    ConfigError : not readable, not YAML (with the line), or a key or value that is wrong (with its place).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from error
    return parse_config(text, folder=path.resolve().parent, name=str(path), kind=kind)


def parse_config(
    text: str, folder: Path | None = None, name: str = "configuration", kind: type[Config] = TrainConfig
) -> Config:
    """Check the YAML `text`; relative paths in it are taken from `folder`, `name` stands in messages."""
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name}{place}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{name} must hold keys and values, got {'nothing' if raw is None else repr(raw)}")
    try:
        return kind.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(f"{name}: {_sentence(error)}") from error


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the plain loader keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                message = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _sentence(error: ValidationError) -> str:
    """Return the first thing that is wrong, with its place; further ones are counted."""
    errors = error.errors(include_url=False)
    # an unknown key is the likeliest cause of a missing one: say it first
    first = min(errors, key=lambda e: "unknown" not in e["msg"])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
    elif first["type"] == "missing":
        message = f"{place} is missing"
    else:
        got = first["input"]
        shown = f", got {got!r}" if isinstance(got, (str, int, float, bool)) else f", got a {type(got).__name__}"
        message = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}"
    rest = len(errors) - 1
    return message + (f" (and {rest} more)" if rest else "")


def _fill_preset(config: TrainConfig) -> None:
    """Fill what the preset decides; the sections are frozen for everyone else."""
    preset = PRESETS[config.training.preset]
    energy = config.properties.energy is not None
    rates = preset["learning_rates"][energy]
    given = config.training.learning_rates.model_dump(exclude_none=True)
    training = config.training.model_copy(
        update={
            "learning_rates": LearningRates(**(rates | given)),
            "initial_scale": config.training.initial_scale or preset["initial_scale"],
            "batch_size": config.training.batch_size or preset["batch_size"],
        }
    )
    standardize, decorrelate = config.network.standardize, config.network.decorrelate
    standardize = preset["standardize"] if standardize is None else standardize
    if decorrelate and not standardize:
        raise ValueError("network.decorrelate needs network.standardize, got features that are not standardized")
    decorrelate = standardize and preset["decorrelate"][energy] if decorrelate is None else decorrelate
    network = config.network.model_copy(update={"standardize": standardize, "decorrelate": decorrelate})
    object.__setattr__(config, "training", training)
    object.__setattr__(config, "network", network)
