"""Units of files: values are multiplied by a factor once, when they are read.

Inside there is one unit per quantity, that of `gmcore.quantities`, and A for lengths. D tensors are energies per hbar^2
and may be given as a wavenumber, frequency, temperature or energy. Temperatures and frequencies are h nu and k_B T.

All physical constants of the program are here and come from `scipy.constants`: exact ones of the SI (2019), and for
Hartree, Bohr and the atomic mass unit those of CODATA as the installed SciPy has them (2022 from SciPy 1.15 on).
"""

from __future__ import annotations

import re

from scipy import constants

from gmcore.errors import GMError, excerpt
from gmcore.quantities import QUANTITIES
from gmcore.suggest import did_you_mean

BOLTZMANN: float = constants.k / constants.e
"""eV/K."""
HBAR: float = constants.hbar / constants.e * 1e15
"""eV fs."""
WAVENUMBER: float = constants.h * constants.c * 100.0 / constants.e
"""eV: energy of 1 cm^-1."""
PER_FS: float = 1.0 / (constants.c * 100.0 * 1e-15)
"""cm^-1: wavenumber of a frequency of 1 fs^-1."""
MASS_UNIT: float = constants.m_u / constants.e * 1e10
"""eV: 1 amu A^2/fs^2."""
ASE_TIME: float = MASS_UNIT**0.5
"""fs: the unit of time in which ASE has m v^2 in eV, for m in amu and lengths in A."""

_HARTREE: float = constants.physical_constants["Hartree energy in eV"][0]  # eV
_BOHR: float = constants.physical_constants["Bohr radius"][0] * 1e10  # A
_KCAL: float = 4184.0 / constants.N_A / constants.e  # eV per kcal/mol
_PASCAL: float = 1e-30 / constants.e  # eV/A^3 per Pa
_DEBYE: float = 1e-21 / constants.c / constants.e * 1e10  # e*A

_LENGTH = {"A": 1.0, "Bohr": _BOHR, "nm": 10.0}
_ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": _HARTREE,
    "kcal/mol": _KCAL,
    "kJ/mol": _KCAL / 4.184,
    "Ry": _HARTREE / 2.0,
    "cm^-1": WAVENUMBER,
}
_FORCE = {
    f"{energy}/{length}": factor / _LENGTH[length]
    for energy, factor in _ENERGY.items()
    if energy != "cm^-1"
    for length in ("A", "Bohr", "nm")
}
_SPLITTING = {
    "cm^-1": 1.0,
    "MHz": 1e6 / constants.c / 100.0,
    "GHz": 1e9 / constants.c / 100.0,
    "K": BOLTZMANN / WAVENUMBER,
    "meV": 1e-3 / WAVENUMBER,
    "eV": 1.0 / WAVENUMBER,
    "Hartree": _HARTREE / WAVENUMBER,
}
_STRESS = {
    "eV/A^3": 1.0,
    "GPa": 1e9 * _PASCAL,
    "kbar": 1e8 * _PASCAL,
    "bar": 1e5 * _PASCAL,
    "Pa": _PASCAL,
    "Hartree/Bohr^3": _HARTREE / _BOHR**3,
    "kcal/mol/A^3": _KCAL,
}

# internal unit -> units of the same kind -> factor to the internal unit, which stands first
_KINDS: dict[str, dict[str, float]] = {
    "A": _LENGTH | {"a.u.": _BOHR},
    "eV": _ENERGY | {"a.u.": _HARTREE},
    "eV/A": _FORCE | {"a.u.": _HARTREE / _BOHR},
    "eV/A^3": _STRESS | {"a.u.": _HARTREE / _BOHR**3},
    "e": {"e": 1.0, "a.u.": 1.0},
    "e*A": {"e*A": 1.0, "Debye": _DEBYE, "e*Bohr": _BOHR, "a.u.": _BOHR},
    "A^3": {"A^3": 1.0, "Bohr^3": _BOHR**3, "nm^3": 1e3, "a.u.": _BOHR**3},
    "cm^-1": _SPLITTING,
    "1": {"1": 1.0},
}

# where each model has its own unit, a unit keeps its kind: a volume, an energy or a plain number
_KIND_OF = {unit: kind for kind in ("A^3", "cm^-1", "1") for unit in _KINDS[kind]}
_ANY = {unit: _KINDS[kind][unit] for unit, kind in _KIND_OF.items()}

UNITS: dict[str, dict[str, float]] = {"length": _KINDS["A"]} | {
    quantity.name: _KINDS.get(quantity.unit, {quantity.unit: 1.0}) if quantity.unit else _ANY for quantity in QUANTITIES
}
"""Quantity -> unit -> factor to the internal unit."""

_SPELLINGS = {
    "Å": "A", "\u212b": "A", "angstrom": "A", "Angstrom": "A", "Ang": "A", "ang": "A",
    "bohr": "Bohr", "a0": "Bohr",
    "hartree": "Hartree", "Ha": "Hartree", "Eh": "Hartree", "rydberg": "Ry",
    "debye": "Debye", "kb": "kbar", "au": "a.u.", "atomic": "a.u.",
}  # fmt: skip
_WAVENUMBERS = ("1/cm", "cm-1", "cm⁻¹", "cm**-1", "cm^-1", "cm^(-1)")


class UnitError(GMError):
    """A unit that is not stated or not known for its quantity."""


def conversion(quantity: str, unit: str) -> tuple[float, str]:
    """Return (factor, internal unit): value in `unit` times factor = value in the internal unit.

    Raises
    ------
    UnitError : the quantity or the unit is unknown.

    Examples
    --------
    >>> conversion("energy", "kcal/mol")
    (0.043364104241800934, 'eV')
    """
    if quantity not in UNITS:
        raise UnitError(f"unknown quantity {excerpt(quantity)}{did_you_mean(quantity, UNITS)}")
    known = UNITS[quantity]
    name = _spelled(str(unit))
    if name not in known:
        raise UnitError(f"unknown unit {excerpt(unit)} for {quantity}; known: {', '.join(known)}")
    return known[name], _KIND_OF[name] if known is _ANY else next(iter(known))


def not_stated(quantity: str) -> UnitError:
    """Return the error for a quantity whose unit neither the configuration nor the file states."""
    return UnitError(
        f"the unit of {quantity} is not stated (data: units: {{{quantity}: ...}}); known: {', '.join(UNITS[quantity])}"
    )


def _spelled(unit: str) -> str:
    """Return the unit with blanks removed and every part in the spelling of the tables."""
    unit = "".join(unit.split())
    if unit in _WAVENUMBERS:
        return "cm^-1"
    unit = unit.replace("³", "^3").replace("**", "^").replace("·", "*")
    return "".join(_SPELLINGS.get(part, part) for part in re.split(r"([/*^])", unit))
