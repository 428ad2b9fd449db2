"""Configuration of a molecular dynamics run: every key with its default, bounds and description.

The descriptions are the documentation: a test compares docs/dynamics.md with them. Times are in ps, or in fs if the
description says so, and must be whole numbers of steps. The duration must be a whole number of chunks: every chunk
starts with a new neighbor list, so the results do not depend on whether a run was interrupted or extended.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from gmcore.config.analysis import Analysis
from gmcore.config.section import ConfigPath, Section
from gmcore.errors import excerpt
from gmcore.units import conversion

Index = Annotated[int, Field(ge=0)]
Temperature = Annotated[float, Field(gt=0.0, le=1e5)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

_USED = {
    "langevin": ("friction",),
    "nose_hoover": ("thermostat_time", "chain_length"),
    "npt": ("friction", "pressure", "barostat_time", "cell_friction"),
    "nve": (),
}


class Structure(Section):
    """The starting structure."""

    section = "structure"

    file: ConfigPath = Field(
        description="file with the structure, in any format that ASE reads; velocities are ignored"
    )
    index: int | list[int] = Field(
        0,
        description="index of the structure in the file, from 0; -1 is the last; or a list, with one index for each "
        "seed or for each replica",
    )
    relax: bool = Field(False, description="relax the atoms, but not the cell, before the run")
    max_force: float = Field(0.02, gt=0.0, le=10.0, description="largest force after the relaxation, eV/A")


class Replicas(Section):
    """Independent copies of the system: one for each combination of temperature and seed."""

    section = "replicas"

    temperatures: list[Temperature] = Field(
        min_length=1, description="temperatures of the thermostat and of the initial velocities, K"
    )
    seeds: list[Seed] = Field(
        [1], min_length=1, description="random seeds of the initial velocities and of the thermostat"
    )

    @model_validator(mode="after")
    def _different(self) -> Replicas:
        for name in ("temperatures", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"replicas.{name} must all be different, got {excerpt(values)}")
        return self

    def pairs(self) -> list[tuple[float, int]]:
        """Temperature and seed of each replica, in the order of the trajectory."""
        return [(temperature, seed) for temperature in self.temperatures for seed in self.seeds]


class Ensemble(Section):
    """The equations of motion."""

    section = "ensemble"

    kind: Literal["langevin", "nose_hoover", "npt", "nve"] = Field(
        "langevin", description="langevin (BAOAB), nose_hoover (chains), npt (flexible cell) or nve (velocity Verlet)"
    )
    friction: float = Field(1.0, gt=0.0, le=1e3, description="friction of the atoms in langevin and npt, 1/ps")
    thermostat_time: float = Field(100.0, gt=0.0, description="relaxation time of nose_hoover, fs")
    chain_length: int = Field(3, ge=1, le=20, description="number of thermostats in the chain of nose_hoover")
    pressure: float = Field(1.0, ge=-1e7, le=1e7, description="external pressure of npt, bar; 1e4 bar = 1 GPa")
    barostat_time: float = Field(1000.0, gt=0.0, description="relaxation time of the cell in npt, fs")
    cell_friction: float = Field(10.0, gt=0.0, le=1e4, description="friction of the cell in npt, 1/ps")

    @model_validator(mode="after")
    def _used(self) -> Ensemble:
        for name, field in type(self).model_fields.items():
            # a resolved configuration states all defaults, so only other values are an error
            if name not in ("kind", *_USED[self.kind]) and getattr(self, name) != field.default:
                raise ValueError(f"ensemble.{name} is not used by {self.kind}: remove it, or choose another kind")
        return self

    def options(self) -> dict[str, float | int]:
        """Return the options for `make_integrator`, in its units: fs, eV/A^3."""
        factors = {"friction": 1e-3, "cell_friction": 1e-3, "pressure": conversion("stress", "bar")[0]}
        return {name: getattr(self, name) * factors.get(name, 1) for name in _USED[self.kind]}


class Record(Section):
    """Intervals of recording, in steps from the start of the production."""

    section = "record"

    positions: int = Field(10, ge=1, description="steps between recorded positions (and cells)")
    velocities: int = Field(5, ge=0, description="steps between recorded velocities; 0: never")
    scalars: int = Field(
        10, ge=1, description="steps between recorded energies, temperatures, deviations, grades and stress"
    )
    precision: Literal["float32", "float64"] = Field(
        "float32", description="precision of recorded positions and velocities; the dynamics itself uses float64"
    )


class Molecule(Section):
    """The atoms of the molecules whose D is computed."""

    section = "d_tensor.molecule"

    metal: str | None = Field(None, description="element, for example Co: every bonded molecule that contains it")
    indices: list[Index] | list[list[Index]] | None = Field(
        None,
        min_length=1,
        description="indices of the atoms of the molecule, or one list for each of several molecules",
    )

    @field_validator("metal")
    @classmethod
    def _element(cls, metal: str | None) -> str | None:
        if metal is not None and atomic_numbers.get(metal, 0) < 1:
            raise ValueError(f"d_tensor.molecule.metal must be an element symbol such as Co, got {excerpt(metal)}")
        return metal

    @model_validator(mode="after")
    def _one_way(self) -> Molecule:
        if (self.metal is None) == (self.indices is None):
            got = "neither" if self.metal is None else "both"
            raise ValueError(f"d_tensor.molecule needs either metal (for example metal: Co) or indices, got {got}")
        return self


class DTensorSampling(Section):
    """D of molecules during the run, from a separate model."""

    section = "d_tensor"

    model: ConfigPath = Field(description="model file with a D tensor")
    every: int = Field(10, ge=1, description="steps between evaluations")
    molecule: Molecule = Field(description="atoms of the molecules")
    reference: ConfigPath | None = Field(
        None, description="structure that defines the order of the atoms (default: order of the first molecule)"
    )


class Stop(Section):
    """Conditions that end the run early; infinite numbers and NaN always do."""

    section = "stop"

    forces_deviation: float | None = Field(
        None,
        gt=0.0,
        description="largest deviation of the force on any atom between the members of a committee (for a single "
        "model: between draws of its last layer), eV/A",
    )
    extrapolation: float | None = Field(
        None,
        gt=0.0,
        description="largest extrapolation grade of the potential, e.g. 2; 1 is the edge of its training data",
    )
    temperature: float | None = Field(None, gt=0.0, description="largest temperature of a replica, K")
    broken_bonds: float | None = Field(
        None, gt=1.0, description="largest ratio of any bond length to its length in the starting structure, e.g. 1.5"
    )
    every: int = Field(10, ge=1, description="steps between checks")


class MDConfig(Section):
    """The configuration of a run with all defaults filled in and paths resolved."""

    section = "the configuration"

    output: ConfigPath = Field(description="folder of the run; created if it does not exist")
    potential: ConfigPath = Field(description="model file with an energy; a committee uses its mean")
    structure: Structure = Field(description="starting structure")
    replicas: Replicas = Field(description="temperatures and seeds of the replicas, which run together")
    ensemble: Ensemble = Field(default_factory=Ensemble, description="equations of motion")
    time_step: float = Field(0.5, gt=0.0, le=20.0, description="time step, fs")
    duration: float = Field(gt=0.0, description="length of the production, ps; a whole number of chunks")
    equilibration: float = Field(
        0.0, ge=0.0, description="length of the equilibration before the production, ps; not recorded"
    )
    chunk: float = Field(
        0.5, gt=0.0, description="time between checkpoints, ps; an interruption loses at most this much"
    )
    record: Record = Field(default_factory=Record, description="intervals of recording")
    d_tensor: DTensorSampling | None = Field(None, description="D of molecules during the run")
    stop: Stop = Field(default_factory=Stop, description="conditions that end the run early")
    fixed: list[Index] = Field(default_factory=list, description="indices of atoms that do not move")
    skin: float = Field(
        1.0, ge=0.0, le=10.0, description="margin of the neighbor list, A; a larger margin means fewer rebuilds"
    )
    dtype: Literal["float32", "float64"] | None = Field(
        None, description="precision of the models (default: precision of their training)"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="number of threads (default: all cores)")
    device: Literal["cpu", "cuda"] = Field("cpu", description="device of the dynamics: cpu, or cuda for an NVIDIA GPU")
    analysis: Analysis = Field(default_factory=Analysis, description="settings of the analysis")

    @model_validator(mode="after")
    def _whole_steps(self) -> MDConfig:
        for name in ("chunk", "equilibration"):
            self._whole(name, getattr(self, name) * 1000.0 / self.time_step, f"steps of {self.time_step:g} fs")
        self._whole("duration", self.duration / self.chunk, f"chunks of {self.chunk:g} ps")
        return self

    def _whole(self, name: str, number: float, of_what: str) -> None:
        """Check that `number` is whole, and not zero except for the equilibration."""
        whole = math.isfinite(number) and abs(number - round(number)) <= 1e-6 * max(number, 1.0)
        if not whole or (number < 0.5 and name != "equilibration"):
            raise ValueError(f"{name} must be a whole number of {of_what}, got {getattr(self, name):g} ps")

    @model_validator(mode="after")
    def _starts(self) -> MDConfig:
        n_seeds, n_replicas, index = len(self.replicas.seeds), len(self.replicas.pairs()), self.structure.index
        if isinstance(index, list) and len(index) not in (n_seeds, n_replicas):
            raise ValueError(
                f"structure.index must be one index, one for each of {n_seeds} seeds or one for each of {n_replicas} "
                f"replicas, got {len(index)}"
            )
        return self

    def start_indices(self) -> list[int]:
        """Index of the structure that each replica starts from."""
        index, pairs = self.structure.index, self.replicas.pairs()
        if isinstance(index, int):
            return [index] * len(pairs)
        return index if len(index) == len(pairs) else index * len(self.replicas.temperatures)

    @property
    def chunk_steps(self) -> int:
        """Number of steps between checkpoints."""
        return round(self.chunk * 1000.0 / self.time_step)

    @property
    def equilibration_steps(self) -> int:
        """Number of steps of the equilibration."""
        return round(self.equilibration * 1000.0 / self.time_step)

    @property
    def production_steps(self) -> int:
        """Number of steps of the production."""
        return round(self.duration / self.chunk) * self.chunk_steps

    def to_yaml(self) -> str:
        """Return the configuration as YAML; `load_config` reads it back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
