"""The configuration of a training: every section and key, its default, its bounds and its meaning.

Each class is one section of the YAML file. The descriptions are the documentation: `gmtensor schema` prints them and
a test compares docs/configuration.md with them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from gmcore.config.section import ConfigPath, ConfigPaths, Rate, Section, Weight
from gmcore.formats import file_format
from gmcore.kernels.arguments import MAX_RADIAL
from gmcore.quantities import BY_NAME, predicted_by
from gmcore.suggest import did_you_mean
from gmcore.units import UNITS, conversion, not_stated

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


class Split(Section):
    """How the structures are divided; the parts never share a structure."""

    section = "data.split"

    train: int | None = Field(None, ge=1, description="structures to train on; without it: all that remain")
    validation: int = Field(0, ge=0, description="structures that choose the best epoch; at least 1")
    test: int = Field(0, ge=0, description="structures held back for the final metrics")
    seed: int = Field(1, ge=0, description="seed of the shuffle; test and validation do not depend on train")
    file: ConfigPath | None = Field(None, description="a splits.json to follow; train then shortens its first part")

    @model_validator(mode="after")
    def _either(self) -> Split:
        if self.file is not None and self.model_fields_set - {"file", "train"}:
            raise ValueError("data.split names a file: validation, test and seed come from it and must not be given")
        if self.file is None and self.validation < 1:
            raise ValueError("data.split.validation must be at least 1: the best epoch is chosen on it")
        return self


class Data(Section):
    """Where the structures and their labels come from."""

    section = "data"

    files: ConfigPaths = Field(min_length=1, description="data files, relative to the configuration file")
    format: Literal["auto", "extxyz", "ase", "npz", "hdf5"] = Field(
        "auto", description="extxyz, ase, npz, hdf5; auto takes it from the suffix (docs/data.md)"
    )
    units: dict[str, str] = Field(
        default_factory=dict,
        description="unit of length and of every label used, as the files have them",
    )
    keys: dict[str, str] = Field(default_factory=dict, description="name in the file of a label that has another name")
    total_charge: float | str | None = Field(
        None, description="total charge of each structure in e: a number, or the name of a key in the file"
    )
    pbc: bool | None = Field(None, description="overrides the periodicity that the file states, for all structures")
    split: Split = Field(description="numbers of structures to train on, to validate and to test with")
    test_files: ConfigPaths = Field(default_factory=list, description="a separate test set; split.test must then be 0")

    @field_validator("units")
    @classmethod
    def _known_units(cls, units: dict[str, str]) -> dict[str, str]:
        for quantity, unit in units.items():
            if quantity not in UNITS:
                raise ValueError(f"unknown quantity {quantity!r} in data.units{did_you_mean(quantity, UNITS)}")
            conversion(quantity, unit)
        return units

    @field_validator("keys")
    @classmethod
    def _known_labels(cls, keys: dict[str, str]) -> dict[str, str]:
        for label in keys:
            if label not in BY_NAME:
                raise ValueError(f"unknown label {label!r} in data.keys{did_you_mean(label, BY_NAME)}")
        return keys

    @model_validator(mode="after")
    def _one_test_set(self) -> Data:
        if self.test_files and self.split.test:
            raise ValueError("data.test_files and data.split.test exclude each other: set split.test to 0")
        return self


class Descriptor(Section):
    """The Gaussian-moment descriptor (r_c, r_min, N_b, N_r of the paper)."""

    section = "descriptor"

    r_max: float = Field(6.5, gt=0.5, le=30.0, description="cutoff radius, A; the paper: 8.0 for D, 6.5 for energies")
    r_min: float = Field(0.5, ge=0.0, description="center of the first Gaussian, A; below r_max")
    n_basis: int = Field(7, ge=1, le=64, description="Gaussians per pair of species")
    n_radial: int = Field(5, ge=1, le=MAX_RADIAL, description="radial functions; 5 give 360 features")

    @model_validator(mode="after")
    def _ordered(self) -> Descriptor:
        if self.r_min >= self.r_max:
            raise ValueError(f"descriptor.r_min must be below r_max, got r_min {self.r_min} and r_max {self.r_max}")
        return self


class NetworkSection(Section):
    """The fully connected network in NTK parametrization."""

    section = "network"

    hidden: list[Annotated[int, Field(ge=1, le=16384)]] = Field(
        [512, 512], min_length=1, max_length=16, description="sizes of the hidden layers"
    )
    standardize: bool | None = Field(
        None,
        description="features shifted and scaled to mean 0, deviation 1; the preset decides where not given",
    )
    decorrelate: bool | None = Field(
        None,
        description="standardized features partly decorrelated: trains faster, where few structures are labeled with "
        "forces it generalizes worse; the preset decides where not given",
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
    """Atomic charges and the dipole moment that they make."""

    section = "properties.charges"
    conserve: bool = Field(True, description="charges sum exactly to data.total_charge")
    origin: Literal["coordinates", "center_of_mass"] = Field(
        "coordinates", description="the point that the dipole refers to; matters for ions"
    )
    charges_weight: Weight = Field(1.0, description="weight of the squared charge errors summed over atoms")
    dipole_weight: Weight = Field(1.0, description="weight of the squared dipole error, A^-2")

    @model_validator(mode="after")
    def _something(self) -> Charges:
        if self.charges_weight == self.dipole_weight == 0.0:
            raise ValueError("properties.charges needs a weight above zero for charges or dipole")
        return self


class DTensor(Section):
    """Magnetic anisotropy (zero-field splitting) tensor, symmetric and traceless."""

    section = "properties.d_tensor"
    basis: Literal["positions", "moments"] = Field(
        "positions", description="positions: the head of the paper; moments: no origin, local and smooth"
    )
    weight: Weight = Field(1.0, gt=0.0, description="weight of the squared errors of the 6 unique elements")


class Tensor(Section):
    """Any symmetric 3x3 tensor that is not traceless, a polarizability for example."""

    section = "properties.tensor"
    basis: Literal["positions", "moments"] = Field("moments", description="as for d_tensor")
    weight: Weight = Field(1.0, gt=0.0, description="weight of the squared errors of the 6 unique elements")


class Properties(Section):
    """What is learned; a property that is named is learned, with defaults where nothing else is said."""

    section = "properties"
    energy: Energy | None = Field(None, description="potential energy, forces, stress")
    charges: Charges | None = Field(None, description="atomic charges and dipole")
    d_tensor: DTensor | None = Field(None, description="traceless magnetic anisotropy tensor")
    tensor: Tensor | None = Field(None, description="symmetric tensor")

    @model_validator(mode="before")
    @classmethod
    def _named_is_asked_for(cls, value: Any) -> Any:
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _something(self) -> Properties:
        if not self.names:
            raise ValueError(f"properties must name at least one of {', '.join(type(self).model_fields)}")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_asked_for(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Properties that are learned, in the fixed order of this class."""
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
    """Initial learning rate of each group of parameters; all decay linearly to zero."""

    section = "training.learning_rates"
    network: Rate | None = Field(None, description="weights and biases of the network")
    radial: Rate | None = Field(None, description="radial coefficients beta")
    scale: Rate | None = Field(None, description="scale per species; with initial_scale spread in units of it")
    shift: Rate | None = Field(None, description="shift per species; with initial_scale spread in units of it")


class Training(Section):
    """How the parameters are found."""

    section = "training"
    preset: Literal["standard", "paper"] = Field(
        "standard",
        description="fills what is not given of learning_rates, batch_size, initial_scale and network",
    )
    epochs: int = Field(300, ge=1, le=1_000_000, description="passes over the training structures; the paper: 1000")
    batch_size: int | None = Field(None, ge=1, description="structures per step; the preset decides where not given")
    learning_rates: LearningRates = Field(
        default_factory=LearningRates, description="overrides of the preset's learning rates"
    )
    initial_scale: Literal["spread", "reference"] | None = Field(
        None,
        description="spread: first predictions vary as the data do; reference: scale from the labels alone (paper)",
    )
    members: int = Field(3, ge=1, le=100, description="models in the committee")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of parameters and features")
    threads: int | None = Field(None, ge=1, le=1024, description="threads; without it: all cores")
    separate_models: bool = Field(False, description="one model per property instead of one with several heads")


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
        """Labels that the training needs, in the order of `gmcore.quantities`."""
        return tuple(self.properties.loss_weights)

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML that `load_config` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


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
