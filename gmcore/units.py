"""Units at the border: what a file says is multiplied by a factor once, when it is read.

Inside there is one unit per quantity (first of each row below): A, eV, eV/A, eV/A^3, e, e*A, cm^-1, A^3. Factors come
from the exact constants of the SI (2019) and CODATA 2018 for Hartree and Bohr. D tensors are energies per hbar^2 and
may be given as a wavenumber, frequency, temperature or energy. Temperatures and frequencies are h nu and k_B T.
"""

from __future__ import annotations

import re

from gmcore.errors import GMError
from gmcore.suggest import did_you_mean

_ELEMENTARY_CHARGE = 1.602176634e-19  # C
_AVOGADRO = 6.02214076e23
_PLANCK = 6.62607015e-34  # J s
_LIGHT = 299792458.0  # m/s
_BOLTZMANN = 1.380649e-23  # J/K
_HARTREE = 27.211386245988  # eV
_BOHR = 0.529177210903  # A
_KCAL = 4184.0 / _AVOGADRO / _ELEMENTARY_CHARGE  # eV per kcal/mol
_PASCAL = 1e-30 / _ELEMENTARY_CHARGE  # eV/A^3 per Pa
_DEBYE = 1e-21 / _LIGHT / _ELEMENTARY_CHARGE * 1e10  # e*A
_WAVENUMBER = _PLANCK * _LIGHT * 100.0 / _ELEMENTARY_CHARGE  # eV per cm^-1

_LENGTH = {"A": 1.0, "Bohr": _BOHR, "nm": 10.0}
_ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": _HARTREE,
    "kcal/mol": _KCAL,
    "kJ/mol": _KCAL / 4.184,
    "Ry": _HARTREE / 2.0,
    "cm^-1": _WAVENUMBER,
}
_FORCE = {
    f"{energy}/{length}": factor / _LENGTH[length]
    for energy, factor in _ENERGY.items()
    if energy != "cm^-1"
    for length in ("A", "Bohr", "nm")
}
_SPLITTING = {
    "cm^-1": 1.0,
    "MHz": 1e6 / _LIGHT / 100.0,
    "GHz": 1e9 / _LIGHT / 100.0,
    "K": _BOLTZMANN / _ELEMENTARY_CHARGE / _WAVENUMBER,
    "meV": 1e-3 / _WAVENUMBER,
    "eV": 1.0 / _WAVENUMBER,
    "Hartree": _HARTREE / _WAVENUMBER,
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
_POLARIZABILITY = {"A^3": 1.0, "Bohr^3": _BOHR**3, "nm^3": 1e3}

# quantity -> unit -> factor to the internal unit, which stands first
UNITS: dict[str, dict[str, float]] = {
    "length": _LENGTH | {"a.u.": _BOHR},
    "energy": _ENERGY | {"a.u.": _HARTREE},
    "forces": _FORCE | {"a.u.": _HARTREE / _BOHR},
    "stress": _STRESS | {"a.u.": _HARTREE / _BOHR**3},
    "charges": {"e": 1.0, "a.u.": 1.0},
    "dipole": {"e*A": 1.0, "Debye": _DEBYE, "e*Bohr": _BOHR, "a.u.": _BOHR},
    "d_tensor": _SPLITTING,
    # any symmetric tensor: each unit keeps to the internal unit of its own kind
    "tensor": _POLARIZABILITY | {"a.u.": _BOHR**3} | _SPLITTING | {"1": 1.0},
}

# internal unit of each unit of a tensor: it keeps its kind, volume, energy or plain number
_TENSOR_UNITS = dict.fromkeys([*_POLARIZABILITY, "a.u."], "A^3") | dict.fromkeys(_SPLITTING, "cm^-1") | {"1": "1"}

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

    >>> conversion("energy", "kcal/mol")
    (0.043364104241800934, 'eV')
    """
    if quantity not in UNITS:
        raise UnitError(f"no quantity {quantity!r} has a unit{did_you_mean(quantity, UNITS)}")
    known = UNITS[quantity]
    name = _spelled(str(unit))
    if name not in known:
        raise UnitError(f"unknown unit {unit!r} for {quantity}; known: {', '.join(known)}")
    internal = _TENSOR_UNITS[name] if quantity == "tensor" else next(iter(known))
    return known[name], internal


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
