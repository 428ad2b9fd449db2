"""What an analysis is asked for: every key, its default, its bounds and its meaning.

The section `analysis` of a run's configuration; `gmtensor analyze --config FILE` takes the same keys from a file of
its own, and the options of the command line stand above both. Values to compare with (those of a publication, say) are
given by the user in `reference`: none are built in.
"""

from __future__ import annotations

from typing import Annotated, Literal

from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from gmcore.config.section import Section
from gmcore.suggest import did_you_mean
from gmcore.units import conversion

Index = Annotated[int, Field(ge=0)]
Number = int | float  # -106 stays what it is: the digits of a number say how well it is known
AnisotropyUnit = Literal["cm^-1", "MHz", "GHz", "meV", "K"]
COMPARABLE = {
    "D": "d_tensor",
    "D_width": "d_tensor",
    "E": "d_tensor",
    "E_width": "d_tensor",
    "D_of_mean": "d_tensor",
    "E_of_mean": "d_tensor",
    "d_deviation": "d_tensor",
    "forces_deviation": "forces",
    "distance": "length",
    "order": None,
    "correlation_D_distance": None,
    "correlation_D_order": None,
    "correlation_E_distance": None,
    "correlation_E_order": None,
    "training_mae": "d_tensor",
    "training_rmse": "d_tensor",
}
"""Quantities that a reference can give, and the kind of unit of each (None: a plain number)."""


class ReferenceValue(Section):
    """One number, or a range of two, that the report sets beside its own."""

    section = "analysis.reference.values"

    quantity: str = Field(description=f"one of {', '.join(COMPARABLE)}")
    value: Number | tuple[Number, Number] = Field(description="the number, or [lowest, highest]")
    unit: str | None = Field(None, description="its unit; plain numbers have none")
    temperature: float | None = Field(None, ge=0.0, description="temperature that it belongs to, K; without it: any")

    @field_validator("quantity")
    @classmethod
    def _known(cls, quantity: str) -> str:
        if quantity not in COMPARABLE:
            raise ValueError(f"unknown quantity {quantity!r} in a reference{did_you_mean(quantity, COMPARABLE)}")
        return quantity

    @model_validator(mode="after")
    def _unit(self) -> ReferenceValue:
        kind = COMPARABLE[self.quantity]
        if (kind is None) != (self.unit is None):
            need = "no unit" if kind is None else "a unit"
            raise ValueError(f"the reference value of {self.quantity} must have {need}, got {self.unit!r}")
        if kind is not None:
            conversion(kind, self.unit)
        return self


class Reference(Section):
    """Values from elsewhere."""

    section = "analysis.reference"

    source: str = Field(min_length=1, description="where the values come from; stands above their columns")
    note: str = Field("", description="what differs, the level of theory say; stands below the table")
    values: list[ReferenceValue] = Field(min_length=1, description="the values")


class Analysis(Section):
    """What is computed from a trajectory, and how."""

    section = "analysis"

    metal: str | Index | None = Field(
        None, description="element or index of the central atom; without it: the only metal of the molecule"
    )
    ligands: list[str | Index] | None = Field(
        None, min_length=1, description="indices or elements of the atoms bound to it; without it: its first shell"
    )
    bonds: list[tuple[Index, Index]] = Field(
        default_factory=list, description="further distances, as pairs of indices in the molecule"
    )
    angles: list[tuple[Index, Index, Index]] = Field(
        default_factory=list, description="further angles, as triples of indices with the vertex in the middle"
    )
    discard: float | None = Field(
        None,
        ge=0.0,
        description="left out at the start of replicas, ps; without it: a tenth where the run had no equilibration",
    )
    blocks: int = Field(5, ge=2, le=1000, description="blocks of each replica, from which errors are estimated")
    max_lag: float = Field(2.0, gt=0.0, description="longest lag of autocorrelation functions, ps")
    max_wavenumber: float = Field(2000.0, gt=0.0, description="end of the spectra, cm^-1")
    resolution: float = Field(5.0, gt=0.0, description="width over which Fourier spectra are smoothed, cm^-1")
    mesa_order: int | None = Field(
        None, ge=1, description="order of the maximum-entropy spectra; without it: chosen for each series"
    )
    unit: AnisotropyUnit = Field("cm^-1", description="unit of D, E and all that follows from them")
    modes: bool | None = Field(
        None, description="harmonic modes of the potential and their dD/dq; without it: for molecules"
    )
    max_force: float = Field(1e-4, gt=0.0, description="largest force left by the relaxation before modes, eV/A")
    seed: int = Field(1, ge=0, description="seed of the bootstrap")
    reference: Reference | None = Field(None, description="values to compare with")

    @field_validator("metal", "ligands")
    @classmethod
    def _elements(cls, value: str | int | list[str | int] | None) -> str | int | list[str | int] | None:
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str) and atomic_numbers.get(entry, 0) < 1:
                raise ValueError(f"metal and ligands must be elements or indices, got {entry!r}")
        return value

    @model_validator(mode="after")
    def _different_atoms(self) -> Analysis:
        for atoms in (*self.bonds, *self.angles):
            if len(set(atoms)) != len(atoms):
                raise ValueError(f"bonds and angles must join different atoms, got {list(atoms)}")
        return self
