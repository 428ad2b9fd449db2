"""The configuration of labels: the reference method, what it computes, and how many frames at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gmcore.config.section import IMPORT_PATH, ConfigPath, Section, resolved
from gmcore.errors import excerpt
from gmcore.quantities import BY_NAME
from gmcore.suggest import did_you_mean

METHODS = ("openmolcas", "orca", "ase", "python")
PROPERTIES = ("energy", "forces", "stress", "charges", "dipole")
"""Quantities that ASE calculators know."""
FUNCTION = r"[^\x00-\x1f]+:[A-Za-z_]\w*"


class OpenMolcas(Section):
    """D tensors by CASSCF with spin-orbit coupling."""

    section = "openmolcas"

    basis: str = Field("ANO-RCC-VDZ", pattern=r"^[A-Za-z0-9*+().-]+$", description="basis set of all atoms")
    metal: str | None = Field(None, description="element whose d shell is active (default: the only transition metal)")
    lower_spins: bool = Field(
        False, description="also the states of the next lower spin: more accurate, and twice as expensive"
    )
    roots: int | None = Field(
        None, ge=1, le=50, description="states of the highest spin (default: all that the d shell has)"
    )
    memory: int = Field(2000, ge=200, le=1_000_000, description="memory of each frame, MB")
    thresholds: tuple[float, float, float] | None = Field(
        None,
        description="convergence of CASSCF: energy, orbital rotation, gradient, Hartree (default: chosen by the number "
        "of atoms)",
    )
    command: str = Field("pymolcas", min_length=1, description="the driver of OpenMolcas: name or path")
    d_electrons: int | None = Field(
        None,
        ge=2,
        le=8,
        description="electrons in the d shell (default: of the first oxidation state of II, III, IV and I with this "
        "multiplicity)",
    )
    min_d_weight: float = Field(
        0.75, ge=0.0, le=1.0, description="a frame with an active orbital that is less of a d orbital is refused"
    )

    @field_validator("command")
    @classmethod
    def _place(cls, value: str, info: ValidationInfo) -> str:
        """Join a path, like every other, to the folder of the configuration; a name is searched for in PATH."""
        return str(resolved(Path(value), info)) if "/" in value else value

    @field_validator("metal")
    @classmethod
    def _transition_metal(cls, value: str | None) -> str | None:
        from ase.data import atomic_numbers

        if value is not None and not 21 <= atomic_numbers.get(value, 0) <= 30:
            raise ValueError(f"openmolcas.metal must be a transition metal from Sc to Zn, got {value!r}")
        return value

    @field_validator("thresholds")
    @classmethod
    def _positive(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not all(0.0 < number <= 0.1 for number in value):
            raise ValueError(f"openmolcas.thresholds must lie between 0 and 0.1, got {list(value)}")
        return value


class Orca(Section):
    """Inputs for ORCA, and its outputs, wherever it ran."""

    section = "orca"

    template: ConfigPath = Field(
        description="input file with {charge}, {multiplicity} and {coordinates} where each frame has its own"
    )
    level: str | None = Field(
        None, description="level of theory, where an output has several D tensors: scf, casscf or nevpt2"
    )
    contribution: str | None = Field(
        None, description="kind of tensor, where an output has several: total, second-order, effective, ..."
    )


class AseCalculator(Section):
    """A calculator of ASE."""

    section = "ase"

    calculator: str = Field(description="class or function that makes it, for example tblite.ase.TBLite")
    arguments: dict[str, Any] = Field(default_factory=dict, description="its arguments")
    charge: str | None = Field(None, description="name of the argument that takes the total charge (default: none)")
    multiplicity: str | None = Field(None, description="name of the argument that takes 2S + 1 (default: none)")

    @field_validator("calculator")
    @classmethod
    def _import_path(cls, value: str) -> str:
        if not re.fullmatch(IMPORT_PATH, value):
            raise ValueError(f"ase.calculator must be a dotted name such as tblite.ase.TBLite, got {excerpt(value)}")
        return value


class UserFunction(Section):
    """A function of the user's, called as f(numbers, positions) or f(atoms)."""

    section = "python"

    function: str = Field(description="FILE.py:NAME, or MODULE:NAME of an installed package")
    arguments: dict[str, Any] = Field(default_factory=dict, description="further arguments, by name")

    @field_validator("function")
    @classmethod
    def _place(cls, value: str, info: ValidationInfo) -> str:
        """Join the file, like every path, to the folder of the configuration."""
        if not re.fullmatch(FUNCTION, value):
            raise ValueError(f"python.function must be FILE.py:NAME or MODULE:NAME, got {excerpt(value)}")
        place, _, name = value.rpartition(":")
        return f"{resolved(Path(place), info)}:{name}" if place.endswith(".py") else value


class LabelConfig(Section):
    """Labels by a reference method."""

    section = "labels"

    method: Literal["openmolcas", "orca", "ase", "python"] = Field(
        description="openmolcas, orca, ase or python; its settings are in the section of this name"
    )
    quantities: list[str] | None = Field(
        None,
        min_length=1,
        description="what is computed (default: energy and forces by ase, d_tensor by the others)",
    )
    jobs: int = Field(2, ge=1, le=1024, description="frames that are computed at the same time")
    threads: int = Field(1, ge=1, le=1024, description="threads of each of them")
    time_limit: float = Field(600.0, gt=0.0, le=1e7, description="s; a frame that takes longer is refused")
    total_charge: float | None = Field(
        None, ge=-1000, le=1000, description="total charge in e, of frames that do not state it"
    )
    multiplicity: int | None = Field(None, ge=1, le=100, description="2S + 1, of frames that do not state it")
    keep: bool = Field(False, description="keep the folders of frames that succeeded")
    openmolcas: OpenMolcas | None = Field(None, description="settings of OpenMolcas")
    orca: Orca | None = Field(None, description="settings of ORCA")
    ase: AseCalculator | None = Field(None, description="settings of an ASE calculator")
    python: UserFunction | None = Field(None, description="settings of a function")

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that are read: the template of ORCA, or the file of the function."""
        if self.orca is not None:
            return (self.orca.template,)
        place = self.python.function.rpartition(":")[0] if self.python is not None else ""
        return (Path(place),) if place.endswith(".py") else ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the quantities that are computed."""
        default = ("energy", "forces") if self.method == "ase" else ("d_tensor",)
        return default if self.quantities is None else tuple(self.quantities)

    @field_validator("quantities")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        for name in value or ():
            if name not in BY_NAME:
                raise ValueError(f"unknown quantity {name!r}{did_you_mean(name, BY_NAME)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, value: Any) -> Any:
        """Let the section of OpenMolcas, which has defaults for everything, be left out."""
        if isinstance(value, dict) and value.get("method") == "openmolcas" and value.get("openmolcas") is None:
            return value | {"openmolcas": {}}
        return value

    @model_validator(mode="after")
    def _fits(self) -> LabelConfig:
        for name in METHODS:
            if (getattr(self, name) is None) == (name == self.method):
                word = "needs a section" if name == self.method else "has no use for the section"
                raise ValueError(f"method {self.method} {word} {name!r}")
        possible = {"ase": PROPERTIES, "python": tuple(BY_NAME)}.get(self.method, ("d_tensor",))
        for name in self.wanted:
            if name not in possible:
                raise ValueError(f"method {self.method} computes {', '.join(possible)}, not {name}")
        return self
