"""Configuration of a molecular dynamics run: every key, its default, its bounds and its meaning.

The descriptions are the documentation: a test compares docs/dynamics.md with them. Times are given in ps (fs where the
key says so) and must be whole numbers of steps; the duration must be a whole number of chunks, because a run starts its
neighbor list anew with every chunk and so does the same arithmetic whether it was interrupted, extended, or neither.
"""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from gmcore.config.analysis import Analysis
from gmcore.config.section import ConfigPath, Section
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
    """Where the atoms start."""

    section = "structure"

    file: ConfigPath = Field(description="structure in any format that ASE reads; its velocities are not used")
    index: int = Field(0, description="which structure of the file, from 0; -1 is the last")
    relax: bool = Field(False, description="relax the atoms (not the cell) with the potential before the run")
    max_force: float = Field(0.02, gt=0.0, le=10.0, description="largest force that relaxing leaves, eV/A")


class Replicas(Section):
    """Independent copies that run together: every temperature with every seed."""

    section = "replicas"

    temperatures: list[Temperature] = Field(
        min_length=1, description="K; of the thermostat and of the velocities at the start"
    )
    seeds: list[Seed] = Field([1], min_length=1, description="seeds of velocities and thermostat noise")

    @model_validator(mode="after")
    def _different(self) -> Replicas:
        for name in ("temperatures", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"replicas.{name} must differ from each other, got {values}")
        return self

    def pairs(self) -> list[tuple[float, int]]:
        """Temperature and seed of each replica, in the order of the trajectory."""
        return [(temperature, seed) for temperature in self.temperatures for seed in self.seeds]


class Ensemble(Section):
    """Equations of motion."""

    section = "ensemble"

    kind: Literal["langevin", "nose_hoover", "npt", "nve"] = Field(
        "langevin", description="langevin (BAOAB), nose_hoover (chains), npt (full cell), nve (velocity Verlet)"
    )
    friction: float = Field(1.0, gt=0.0, le=1e3, description="friction of langevin and of the atoms in npt, 1/ps")
    thermostat_time: float = Field(100.0, gt=0.0, description="relaxation time of nose_hoover, fs")
    chain_length: int = Field(3, ge=1, le=20, description="thermostats in the chain of nose_hoover")
    pressure: float = Field(1.0, ge=-1e7, le=1e7, description="pressure of npt, bar; 1e4 is 1 GPa")
    barostat_time: float = Field(1000.0, gt=0.0, description="relaxation time of the cell in npt, fs")
    cell_friction: float = Field(10.0, gt=0.0, le=1e4, description="friction of the cell in npt, 1/ps")

    @model_validator(mode="after")
    def _used(self) -> Ensemble:
        for name, field in type(self).model_fields.items():
            # a resolved configuration states every default: only other values are refused
            if name not in ("kind", *_USED[self.kind]) and getattr(self, name) != field.default:
                raise ValueError(f"ensemble.{name} has no meaning for kind {self.kind}: leave it out")
        return self

    def options(self) -> dict[str, float | int]:
        """Options of `make_integrator`, in its units: fs, eV/A^3."""
        factors = {"friction": 1e-3, "cell_friction": 1e-3, "pressure": conversion("stress", "bar")[0]}
        return {name: getattr(self, name) * factors.get(name, 1) for name in _USED[self.kind]}


class Record(Section):
    """How often what is written, in steps; all intervals count from the start of the production."""

    section = "record"

    positions: int = Field(10, ge=1, description="steps between positions (and cells)")
    velocities: int = Field(5, ge=0, description="steps between velocities; 0: none")
    scalars: int = Field(10, ge=1, description="steps between energies, temperatures, deviations and stress")
    precision: Literal["float32", "float64"] = Field(
        "float32", description="of positions and velocities in the trajectory; the dynamics itself keeps float64"
    )


class Molecule(Section):
    """Which atoms make up the molecules whose D is wanted."""

    section = "d_tensor.molecule"

    metal: str | None = Field(None, description="element: every molecule, as bonds connect it, that holds such an atom")
    indices: list[Index] | list[list[Index]] | None = Field(
        None, min_length=1, description="atoms of the molecule, or one list for each of several molecules"
    )

    @field_validator("metal")
    @classmethod
    def _element(cls, metal: str | None) -> str | None:
        if metal is not None and atomic_numbers.get(metal, 0) < 1:
            raise ValueError(f"d_tensor.molecule.metal must be a chemical symbol such as Co, got {metal!r}")
        return metal

    @model_validator(mode="after")
    def _one_way(self) -> Molecule:
        if (self.metal is None) == (self.indices is None):
            raise ValueError("d_tensor.molecule must be declared in one way: metal (metal: Co) or indices")
        return self


class DTensorAlongTheWay(Section):
    """Magnetic anisotropy of molecules during the run, from a model of its own."""

    section = "d_tensor"

    model: ConfigPath = Field(description="model file (a committee gives its deviation too) with a D tensor")
    every: int = Field(10, ge=1, description="steps between evaluations")
    molecule: Molecule = Field(description="which atoms")
    reference: ConfigPath | None = Field(
        None, description="structure whose order of atoms molecules are written in; without it: that of the first one"
    )


class Stop(Section):
    """When a run ends before its time; numbers that are not finite always end it."""

    section = "stop"

    forces_deviation: float | None = Field(
        None, gt=0.0, description="committee deviation of the force on any atom, eV/A; needs a committee"
    )
    temperature: float | None = Field(None, gt=0.0, description="temperature of the atoms of a replica, K")
    broken_bonds: float | None = Field(
        None, gt=1.0, description="length of any bond over its length in the starting structure, 1.5 for example"
    )
    every: int = Field(10, ge=1, description="steps between checks")


class MDConfig(Section):
    """One run, fully resolved: every default filled in, paths relative to the configuration file."""

    section = "the configuration"

    output: ConfigPath = Field(description="folder of the run; made where missing")
    potential: ConfigPath = Field(description="model file with an energy; of a committee the mean drives the atoms")
    structure: Structure = Field(description="where the atoms start")
    replicas: Replicas = Field(description="copies that run together, temperatures times seeds")
    ensemble: Ensemble = Field(default_factory=Ensemble, description="equations of motion")
    time_step: float = Field(0.5, gt=0.0, le=20.0, description="fs")
    duration: float = Field(gt=0.0, description="production, ps; a whole number of chunks")
    equilibration: float = Field(0.0, ge=0.0, description="before the production, ps; nothing of it is written")
    chunk: float = Field(0.5, gt=0.0, description="ps between checkpoints: what a kill can cost at most")
    record: Record = Field(default_factory=Record, description="how often what is written")
    d_tensor: DTensorAlongTheWay | None = Field(None, description="D of molecules during the run")
    stop: Stop = Field(default_factory=Stop, description="when a run ends before its time")
    fixed: list[Index] = Field(default_factory=list, description="atoms that do not move")
    skin: float = Field(
        1.0, ge=0.0, le=10.0, description="margin of the neighbor list, A; with more it is built less often"
    )
    dtype: Literal["float32", "float64"] | None = Field(
        None, description="precision of both models; without it: that of their training"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="threads; without it: all cores")
    device: str = Field("cpu", description="cpu")
    analysis: Analysis = Field(default_factory=Analysis, description="what `gmtensor analyze` does with the run")

    @field_validator("device")
    @classmethod
    def _device(cls, device: str) -> str:
        if device != "cpu":
            raise ValueError(f"device must be 'cpu', dynamics does not run on other devices yet, got {device!r}")
        return device

    @model_validator(mode="after")
    def _whole_steps(self) -> MDConfig:
        for name in ("chunk", "equilibration"):
            self._whole(name, getattr(self, name) * 1000.0 / self.time_step, f"steps of {self.time_step:g} fs")
        self._whole("duration", self.duration / self.chunk, f"chunks of {self.chunk:g} ps")
        return self

    def _whole(self, name: str, number: float, of_what: str) -> None:
        if abs(number - round(number)) > 1e-6 * max(number, 1.0) or (number < 0.5 and name != "equilibration"):
            raise ValueError(f"{name} must be a whole number of {of_what}, got {getattr(self, name):g} ps")

    @property
    def chunk_steps(self) -> int:
        """Steps between checkpoints."""
        return round(self.chunk * 1000.0 / self.time_step)

    @property
    def equilibration_steps(self) -> int:
        """Steps before the production."""
        return round(self.equilibration * 1000.0 / self.time_step)

    @property
    def production_steps(self) -> int:
        """Steps of the production."""
        return round(self.duration / self.chunk) * self.chunk_steps

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML that `load_config` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
