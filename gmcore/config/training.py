"""Configuration of a training: every key with its default, bounds and description.

Each class is one section of the YAML file. The descriptions are the documentation: `gmtensor schema` prints them, and
a test compares docs/configuration.md with them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from gmcore.config.callbacks import Callbacks
from gmcore.config.presets import FINE_TUNING, PRESETS
from gmcore.config.section import ConfigPath, ConfigPaths, Rate, Section, Weight, listed
from gmcore.errors import excerpt
from gmcore.formats import file_format
from gmcore.kernels.arguments import MAX_RADIAL
from gmcore.quantities import BY_NAME, predicted_by
from gmcore.suggest import did_you_mean
from gmcore.units import UNITS, conversion

FREEZABLE = ("radial", "network", "hidden_0", "hidden_1", "output", "scale", "shift")
"""Names for `training.freeze`; there is a hidden_K for every hidden layer."""


class Split(Section):
    """Division of the structures into parts, which never share a structure."""

    section = "data.split"

    train: int | None = Field(None, ge=1, description="number of structures to train on (default: all that remain)")
    validation: int = Field(0, ge=0, description="number of structures that select the best epoch; at least 1")
    test: int = Field(0, ge=0, description="number of structures for the final metrics")
    seed: int = Field(1, ge=0, description="random seed of the division; test and validation do not depend on train")
    file: ConfigPath | None = Field(
        None, description="splits.json of another training to reuse; train then shortens its training part"
    )

    @model_validator(mode="after")
    def _either(self) -> Split:
        if self.file is not None and self.model_fields_set - {"file", "train"}:
            raise ValueError("data.split.file already defines validation, test and seed: remove these keys")
        if self.file is None and self.validation < 1:
            raise ValueError(
                f"data.split.validation must be at least 1, because it selects the best epoch, got {self.validation}"
            )
        return self


class Data(Section):
    """The structures and their labels."""

    section = "data"

    files: ConfigPaths = Field(min_length=1, description="data files, relative to the configuration file")
    format: Literal["auto", "extxyz", "ase", "npz", "hdf5"] = Field(
        "auto", description="extxyz, ase, npz or hdf5; auto: from the suffix, see docs/data.md"
    )
    units: dict[str, str] = Field(
        default_factory=dict,
        description="units of length and of all labels in the files; may be left out where the files state them",
    )
    keys: dict[str, str] = Field(default_factory=dict, description="label: its name in the files, where they differ")
    total_charge: float | str | None = Field(
        None, description="total charge of each structure, e: a number, or the name of a key in the files"
    )
    pbc: bool | None = Field(None, description="overrides the periodicity of all structures")
    split: Split = Field(description="division into training, validation and test structures")
    test_files: ConfigPaths = Field(
        default_factory=list, description="files of a separate test set; split.test must then be 0"
    )
    added_files: ConfigPaths = Field(
        default_factory=list,
        description="files with more structures for training and validation; names and units as in files, or standard "
        "names and the units that the file states",
    )
    added_only: bool = Field(
        False,
        description="train and validate with the structures of added_files only; the test part stays that of files",
    )

    @field_validator("units")
    @classmethod
    def _known_units(cls, units: dict[str, str]) -> dict[str, str]:
        for quantity, unit in units.items():
            if quantity not in UNITS:
                raise ValueError(f"unknown quantity {excerpt(quantity)} in data.units{did_you_mean(quantity, UNITS)}")
            conversion(quantity, unit)
        return units

    @field_validator("keys")
    @classmethod
    def _known_labels(cls, keys: dict[str, str]) -> dict[str, str]:
        for label in keys:
            if label not in BY_NAME:
                raise ValueError(f"unknown label {excerpt(label)} in data.keys{did_you_mean(label, BY_NAME)}")
        return keys

    @model_validator(mode="after")
    def _one_test_set(self) -> Data:
        if self.test_files and self.split.test:
            raise ValueError("data.test_files and data.split.test cannot be used together: set split.test to 0")
        if self.added_only and not self.added_files:
            raise ValueError("data.added_only needs data.added_files: name the files, or set added_only to false")
        return self


class Descriptor(Section):
    """The Gaussian-moment descriptor (r_c, r_min, N_b, N_r in the paper)."""

    section = "descriptor"

    r_max: float | None = Field(
        None,
        gt=0.5,
        le=30.0,
        description="cutoff radius, A; in the paper 8.0 for D and 6.5 for energies (default: set by the preset)",
    )
    r_min: float | None = Field(
        None, ge=0.0, description="center of the first Gaussian, A; must be below r_max (default: set by the preset)"
    )
    n_basis: int | None = Field(
        None, ge=1, le=64, description="number of Gaussians per pair of species (default: set by the preset)"
    )
    n_radial: int | None = Field(
        None,
        ge=1,
        le=MAX_RADIAL,
        description="number of radial functions, at most 8 (1324 features); 5 give 360 (default: set by the preset)",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Descriptor:
        if self.r_min is not None and self.r_max is not None and self.r_min >= self.r_max:
            raise ValueError(f"descriptor.r_min must be below r_max, got r_min {self.r_min} and r_max {self.r_max}")
        return self


class NetworkSection(Section):
    """The fully connected neural network in NTK parametrization."""

    section = "network"

    hidden: list[Annotated[int, Field(ge=1, le=16384)]] | None = Field(
        None, min_length=1, max_length=16, description="sizes of the hidden layers (default: set by the preset)"
    )
    standardize: bool | None = Field(
        None,
        description="shift the features to mean 0 and divide them by the square root of their deviations, products of "
        "many moments by more (default: set by the preset)",
    )
    decorrelate: bool | None = Field(
        None,
        description="partly decorrelate the standardized features: faster training, but worse generalization for small "
        "data sets with forces (default: set by the preset)",
    )


class Energy(Section):
    """Potential energy, with forces and stress as its derivatives."""

    section = "properties.energy"
    energy_weight: Weight = Field(1.0, description="weight of the squared error of the energy of a structure")
    forces_weight: Weight = Field(4.0, description="weight of the squared force errors summed over atoms, A^2")
    stress_weight: Weight = Field(0.0, description="weight of the squared error of volume times stress")

    @model_validator(mode="after")
    def _something(self) -> Energy:
        if self.energy_weight == self.forces_weight == self.stress_weight == 0.0:
            raise ValueError("properties.energy needs a weight above zero for energy, forces or stress")
        return self


class Charges(Section):
    """Atomic charges and the dipole moment computed from them."""

    section = "properties.charges"
    conserve: bool = Field(True, description="make the charges add up exactly to data.total_charge")
    origin: Literal["coordinates", "center_of_mass"] = Field(
        "coordinates", description="reference point of the dipole; matters for ions"
    )
    charges_weight: Weight = Field(1.0, description="weight of the squared charge errors summed over atoms")
    dipole_weight: Weight = Field(1.0, description="weight of the squared dipole error, A^-2")

    @model_validator(mode="after")
    def _something(self) -> Charges:
        if self.charges_weight == self.dipole_weight == 0.0:
            raise ValueError("properties.charges needs a weight above zero for charges or dipole")
        return self


class DTensor(Section):
    """Magnetic anisotropy (zero-field splitting) tensor; symmetric and traceless."""

    section = "properties.d_tensor"
    basis: Literal["positions", "moments"] | None = Field(
        None,
        description="moments: local, smooth and without an origin; positions: as in the paper (default: set by the "
        "preset)",
    )
    weight: Weight = Field(1.0, gt=0.0, description="weight of the squared errors of the 6 unique elements")


class Tensor(Section):
    """Any symmetric 3x3 tensor with a trace, for example a polarizability."""

    section = "properties.tensor"
    basis: Literal["positions", "moments"] = Field("moments", description="as in properties.d_tensor")
    weight: Weight = Field(1.0, gt=0.0, description="weight of the squared errors of the 6 unique elements")


class Properties(Section):
    """The properties to learn. A property without keys uses the defaults."""

    section = "properties"
    energy: Energy | None = Field(None, description="potential energy, forces and stress")
    charges: Charges | None = Field(None, description="atomic charges and dipole moment")
    d_tensor: DTensor | None = Field(None, description="magnetic anisotropy tensor")
    tensor: Tensor | None = Field(None, description="another symmetric tensor")

    @model_validator(mode="before")
    @classmethod
    def _named_is_asked_for(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _something(self) -> Properties:
        if not self.names:
            raise ValueError(f"properties must contain at least one of {', '.join(type(self).model_fields)}, got none")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_asked_for(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the properties to learn, in the order of this class."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Quantity -> weight of its loss, for the quantities that are learned; weights of 0 are left out."""
        weights = {}
        for name in self.names:
            section, predicted = getattr(self, name), predicted_by(name)
            for quantity in predicted:
                key = "weight" if len(predicted) == 1 else f"{quantity.name}_weight"
                weights[quantity.name] = getattr(section, key)
        return {quantity: weight for quantity, weight in weights.items() if weight > 0}


class LearningRates(Section):
    """Initial learning rate of each group of parameters; all rates decay linearly to zero.

    With `training.start_from` the defaults for network and radial are 0.1 of those of the preset.
    """

    section = "training.learning_rates"
    network: Rate | None = Field(None, description="weights and biases of the network")
    radial: Rate | None = Field(None, description="radial coefficients beta")
    scale: Rate | None = Field(
        None, description="scale per species; with initial_scale spread, relative to that spread"
    )
    shift: Rate | None = Field(
        None, description="shift per species; with initial_scale spread, relative to that spread"
    )


class Training(Section):
    """The optimization of the parameters."""

    section = "training"
    preset: Literal["standard", "fast", "paper"] = Field(
        "standard",
        description="sets the defaults of descriptor, network, optimizer, learning_rates, batch_size, "
        "initial_scale, initial_radial and the basis of d_tensor",
    )
    epochs: int = Field(
        300, ge=1, le=1_000_000, description="number of passes over the training structures; 1000 in the paper"
    )
    batch_size: int | None = Field(None, ge=1, description="structures per step (default: set by the preset)")
    optimizer: Literal["muon", "adam"] | None = Field(
        None,
        description="muon: Adam, but orthogonalized steps for the hidden layers; adam: as in the paper (default: set "
        "by the preset)",
    )
    learning_rates: LearningRates = Field(
        default_factory=LearningRates, description="initial learning rates (default: set by the preset)"
    )
    initial_scale: Literal["spread", "reference"] | None = Field(
        None,
        description="spread: first predictions vary as much as the data; reference: from the labels, as in the paper",
    )
    initial_radial: Literal["smooth", "uniform"] | None = Field(
        None,
        description="smooth: the radial functions begin as smooth ones that decay with the distance; uniform: with "
        "coefficients drawn from (-1, 1), as in the paper (default: set by the preset)",
    )
    members: int = Field(3, ge=1, le=100, description="number of models in the committee")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of parameters and features")
    threads: int | None = Field(None, ge=1, le=1024, description="number of threads (default: all cores)")
    separate_models: bool = Field(
        False, description="train one model per property instead of one model with several heads"
    )
    start_from: ConfigPaths = Field(
        default_factory=list,
        description="model files whose members are trained on; descriptor, network, heads and dtype are theirs",
    )
    freeze: Annotated[list[str], BeforeValidator(listed)] = Field(
        default_factory=list,
        description="parameters that are not trained: radial, network, hidden_0, hidden_1, ..., output, scale, shift",
    )
    new_species: bool = Field(False, description="append elements that the models of start_from do not know")
    callbacks: Callbacks = Field(
        default_factory=list,
        description="callbacks of Keras: import paths such as keras.callbacks.TerminateOnNaN, or {class: path, "
        "arguments: {...}}",
    )

    @field_validator("freeze")
    @classmethod
    def _known_groups(cls, freeze: list[str]) -> list[str]:
        for name in freeze:
            if name not in FREEZABLE and not re.fullmatch(r"hidden_\d{1,2}", name):
                raise ValueError(f"unknown name {excerpt(name)} in training.freeze{did_you_mean(name, FREEZABLE)}")
        return freeze

    @model_validator(mode="after")
    def _together(self) -> Training:
        if self.start_from and self.separate_models:
            raise ValueError(
                "training.start_from and training.separate_models cannot be used together: train each property with a "
                "configuration of its own"
            )
        if self.new_species and not self.start_from:
            raise ValueError(
                "training.new_species needs training.start_from: a new model knows all elements of its data"
            )
        return self


class TrainConfig(Section):
    """The configuration of a training with all defaults and presets filled in and paths resolved."""

    section = "the configuration"

    output: ConfigPath = Field(description="folder for models, logs, metrics and figures; created if it does not exist")
    seed: int = Field(1, ge=0, description="random seed of the initial parameters and of the order of the batches")
    data: Data = Field(description="structures, labels and their units")
    descriptor: Descriptor = Field(default_factory=Descriptor, description="descriptor of the environment of an atom")
    network: NetworkSection = Field(
        default_factory=NetworkSection, description="neural network from features to outputs"
    )
    properties: Properties = Field(description="properties to learn")
    training: Training = Field(default_factory=Training, description="optimization of the parameters")

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> TrainConfig:
        if self.properties.charges and self.properties.charges.conserve and self.data.total_charge is None:
            raise ValueError(
                "properties.charges.conserve needs data.total_charge: give a number or the name of a key in the files, "
                "or set conserve to false"
            )
        for file in self.data.added_files:
            file_format(file)
        for file in (*self.data.files, *self.data.test_files):
            file_format(file, self.data.format)  # must be known; units may be in the file and are checked with the data
        _fill_preset(self)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that the training needs, in the order of `gmcore.quantities`."""
        return tuple(self.properties.loss_weights)

    @property
    def reads(self) -> tuple[Path, ...]:
        """Files that the training reads, beside `data.split.file`."""
        data = self.data
        return (*data.files, *data.test_files, *data.added_files, *self.training.start_from)

    @property
    def batch_size(self) -> int:
        """Structures per step, those of the preset if none are given."""
        return self.training.batch_size or PRESETS[self.training.preset]["batch_size"]

    def to_yaml(self) -> str:
        """Return the configuration as YAML; `load_config` reads it back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _fill_preset(config: TrainConfig) -> None:
    """Fill in the values that the preset sets; nothing else changes the frozen sections.

    What a model to start from decides stays open.
    """
    preset = PRESETS[config.training.preset]
    energy = config.properties.energy is not None
    rates = preset["learning_rates"][energy]
    if config.training.start_from:
        rates = {group: rate * FINE_TUNING[group] for group, rate in rates.items()}
    given = config.training.learning_rates.model_dump(exclude_none=True)
    training = config.training.model_copy(
        update={
            "learning_rates": LearningRates(**(rates | given)),
            "initial_scale": config.training.initial_scale or preset["initial_scale"],
            "initial_radial": config.training.initial_radial or preset["initial_radial"],
            "batch_size": config.training.batch_size or preset["batch_size"],
            "optimizer": config.training.optimizer or preset["optimizer"],
        }
    )
    object.__setattr__(config, "training", training)
    standardize, decorrelate = config.network.standardize, config.network.decorrelate
    if training.start_from:
        return
    descriptor = config.descriptor.model_copy(
        update={**preset["descriptor"], **config.descriptor.model_dump(exclude_none=True)}
    )
    if float(descriptor.r_min or 0.0) >= float(descriptor.r_max or 0.0):
        raise ValueError(
            f"descriptor.r_min must be below r_max, got r_min {descriptor.r_min} and r_max {descriptor.r_max}"
        )
    object.__setattr__(config, "descriptor", descriptor)
    standardize = preset["standardize"] if standardize is None else standardize
    if decorrelate and not standardize:
        raise ValueError("network.decorrelate needs network.standardize: true, got standardize: false")
    decorrelate = standardize and preset["decorrelate"][energy] if decorrelate is None else decorrelate
    hidden = config.network.hidden or list(preset["hidden"])
    network = config.network.model_copy(
        update={"hidden": hidden, "standardize": standardize, "decorrelate": decorrelate}
    )
    object.__setattr__(config, "network", network)
    tensor = config.properties.d_tensor
    if tensor is not None:
        tensor = tensor.model_copy(update={"basis": tensor.basis or preset["basis"]})
        object.__setattr__(config, "properties", config.properties.model_copy(update={"d_tensor": tensor}))
