"""Units at the border: every accepted unit against a value from another source, everything else refused."""

from __future__ import annotations

import ase.units
import pytest

from gmcore.units import UNITS, UnitError, conversion

# (quantity, unit, value of one such unit inside), from ASE's table of constants or the definition
KNOWN = [
    ("length", "A", 1.0),
    ("length", "Bohr", ase.units.Bohr),
    ("length", "nm", 10.0),
    ("energy", "kcal/mol", ase.units.kcal / ase.units.mol),
    ("energy", "kJ/mol", ase.units.kJ / ase.units.mol),
    ("energy", "Hartree", ase.units.Hartree),
    ("energy", "Ry", ase.units.Rydberg),
    ("energy", "meV", 1e-3),
    ("energy", "cm^-1", ase.units.invcm),
    ("forces", "kcal/mol/A", ase.units.kcal / ase.units.mol),
    ("forces", "Hartree/Bohr", ase.units.Hartree / ase.units.Bohr),
    ("forces", "kJ/mol/nm", ase.units.kJ / ase.units.mol / 10.0),
    ("forces", "meV/A", 1e-3),
    ("stress", "GPa", ase.units.GPa),
    ("stress", "kbar", 0.1 * ase.units.GPa),
    ("stress", "Hartree/Bohr^3", ase.units.Hartree / ase.units.Bohr**3),
    ("charges", "e", 1.0),
    ("dipole", "Debye", ase.units.Debye),
    ("dipole", "a.u.", ase.units.Bohr),
    ("d_tensor", "MHz", 1.0 / 29979.2458),
    ("d_tensor", "GHz", 1.0 / 29.9792458),
    ("d_tensor", "K", ase.units.kB / ase.units.invcm),
    ("d_tensor", "meV", 8.065544),
    ("tensor", "a.u.", ase.units.Bohr**3),
    ("tensor", "MHz", 1.0 / 29979.2458),
]


@pytest.mark.parametrize("quantity, unit, expected", KNOWN)
def test_factor(quantity, unit, expected):
    assert conversion(quantity, unit)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("quantity", UNITS)
def test_first_unit_is_the_internal_one(quantity):
    first = next(iter(UNITS[quantity]))
    assert conversion(quantity, first) == (1.0, first)


def test_tensor_keeps_its_kind():
    assert conversion("tensor", "Bohr^3")[1] == "A^3"
    assert conversion("tensor", "K")[1] == "cm^-1"
    assert conversion("tensor", "1") == (1.0, "1")


@pytest.mark.parametrize(
    "quantity, spelling, unit",
    [
        ("length", "Å", "A"),
        ("length", "angstrom", "A"),
        ("forces", "Ha / bohr", "Hartree/Bohr"),
        ("forces", "eV/Å", "eV/A"),
        ("stress", "eV/Å³", "eV/A^3"),
        ("stress", "eV/A**3", "eV/A^3"),
        ("d_tensor", "cm-1", "cm^-1"),
        ("d_tensor", "1/cm", "cm^-1"),
        ("dipole", "e·Å", "e*A"),
        ("energy", "au", "a.u."),
    ],
)
def test_spelling(quantity, spelling, unit):
    assert conversion(quantity, spelling) == conversion(quantity, unit)


def test_unknown_unit_is_refused_with_the_list():
    with pytest.raises(UnitError, match=r"unknown unit 'furlong' for length; known: A, Bohr, nm, a\.u\."):
        conversion("length", "furlong")


@pytest.mark.parametrize("quantity, unit", [("energy", "ev"), ("d_tensor", "mhz"), ("energy", ""), ("forces", "eV")])
def test_case_and_kind_matter(quantity, unit):
    with pytest.raises(UnitError, match=f"unknown unit '{unit}' for {quantity}"):
        conversion(quantity, unit)


def test_unknown_quantity_names_the_nearest():
    with pytest.raises(UnitError, match="unknown quantity 'force'; did you mean 'forces'"):
        conversion("force", "eV/A")
