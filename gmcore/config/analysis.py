"""Settings of an analysis: every key with its default, bounds and description.

This is the section `analysis` of the configuration of a run. `gmtensor analyze --config FILE` reads the same keys from
a separate file. Options of the command line override both. Values to compare with, for example from a publication, are
given by the user in `reference`; none are built in.
"""

from __future__ import annotations

from typing import Annotated, Literal

from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from gmcore.config.section import Section
from gmcore.errors import excerpt
from gmcore.suggest import did_you_mean
from gmcore.units import conversion

Index = Annotated[int, Field(ge=0)]
Number = int | float  # integers stay integers: the digits of a reference value show its precision
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
"""Quantities that a reference can contain, with the quantity that defines their unit (None: dimensionless)."""


class ReferenceValue(Section):
    """One reference value, or a range, that the report shows next to the computed one."""

    section = "analysis.reference.values"

    quantity: str = Field(description=f"quantity: {', '.join(COMPARABLE)}")
    value: Number | tuple[Number, Number] = Field(description="number, or range [lowest, highest]")
    unit: str | None = Field(None, description="unit of the value; omit for dimensionless quantities")
    temperature: float | None = Field(
        None, ge=0.0, description="temperature of the value, K (default: all temperatures)"
    )

    @field_validator("quantity")
    @classmethod
    def _known(cls, quantity: str) -> str:
        if quantity not in COMPARABLE:
            raise ValueError(
                f"unknown quantity {excerpt(quantity)} in analysis.reference{did_you_mean(quantity, COMPARABLE)}"
            )
        return quantity

    @model_validator(mode="after")
    def _unit(self) -> ReferenceValue:
        kind = COMPARABLE[self.quantity]
        if kind is not None and self.unit is not None:
            conversion(kind, self.unit)
        elif kind is not None:
            raise ValueError(f"the reference value of {self.quantity} must have a unit, got none")
        elif self.unit is not None:
            raise ValueError(f"the reference value of {self.quantity} must have no unit, got {excerpt(self.unit)}")
        return self


class Reference(Section):
    """Values to compare with."""

    section = "analysis.reference"

    source: str = Field(min_length=1, description="source of the values; the heading of their column in the report")
    note: str = Field("", description="remark below the table, for example on the level of theory")
    values: list[ReferenceValue] = Field(min_length=1, description="list of values")


class Analysis(Section):
    """Settings of the analysis of a trajectory."""

    section = "analysis"

    metal: str | Index | None = Field(
        None, description="element or index of the central atom (default: the only metal of the molecule)"
    )
    ligands: list[str | Index] | None = Field(
        None, min_length=1, description="indices or elements of its ligand atoms (default: the atoms bonded to it)"
    )
    bonds: list[tuple[Index, Index]] = Field(
        default_factory=list, description="additional distances, as pairs of indices in the molecule"
    )
    angles: list[tuple[Index, Index, Index]] = Field(
        default_factory=list,
        description="additional angles, as triples of indices in the molecule; the vertex is in the middle",
    )
    discard: float | None = Field(
        None,
        ge=0.0,
        description="time discarded at the start of each replica, ps (default: a tenth; 0 after an equilibration)",
    )
    blocks: int = Field(5, ge=2, le=1000, description="number of blocks per replica for error estimates")
    max_lag: float = Field(2.0, gt=0.0, description="largest lag of autocorrelation functions, ps")
    max_wavenumber: float = Field(2000.0, gt=0.0, description="largest wavenumber of the spectra, cm^-1")
    resolution: float = Field(5.0, gt=0.0, description="smoothing width of Fourier spectra, cm^-1")
    mesa_order: int | None = Field(
        None, ge=1, description="order of the maximum-entropy spectra (default: chosen for each series)"
    )
    unit: AnisotropyUnit = Field("cm^-1", description="unit of D, E and derived quantities")
    modes: bool | None = Field(None, description="compute harmonic modes and dD/dq (default: only for molecules)")
    max_force: float = Field(
        1e-4, gt=0.0, description="largest force after the relaxation that precedes the modes, eV/A"
    )
    seed: int = Field(1, ge=0, description="random seed of the bootstrap")
    reference: Reference | None = Field(None, description="reference values to compare with")

    @field_validator("metal", "ligands")
    @classmethod
    def _elements(cls, value: str | int | list[str | int] | None) -> str | int | list[str | int] | None:
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str) and atomic_numbers.get(entry, 0) < 1:
                raise ValueError(f"metal and ligands must be element symbols or indices, got {excerpt(entry)}")
        return value

    @model_validator(mode="after")
    def _different_atoms(self) -> Analysis:
        for atoms in (*self.bonds, *self.angles):
            if len(set(atoms)) != len(atoms):
                raise ValueError(f"the atoms of a bond or angle must be different, got {list(atoms)}")
        return self
