"""Forces from the analytic gradients of ALASKA, with the state of CASSCF that they belong to.

    ::    RASSCF root number  1 Total energy:  -3235.70713608        RASSCF; a single state has only this energy
    RASSCF state energy =          -3235.7071360779                  MCLR, which comes first for a state average
    Lagrangian multipliers are calculated for state no.   1
    Wavefunction type: State average CASSCF                          ALASKA
     *              Molecular gradients               *
     ------------------------------------------------
                      X              Y              Z                Hartree/Bohr
     ------------------------------------------------
      CO1    2.565421E-03  -1.110218E-03   6.529126E-03
     ------------------------------------------------

A state average has a gradient for each state; without `RlxRoot` in RASSCF, ALASKA computes that of the highest root.
The energy tells whose gradient it is: forces are taken only where it is that of the lowest state, which D belongs to.

Not supported: numerical gradients, gradients of CASPT2 and MC-PDFT; they have other energies, and are left out.
"""

from __future__ import annotations

import re

import numpy as np

from gmcore.errors import DataError, excerpt
from gmcore.exchange.openmolcas_runs import MODULE, Calculation
from gmcore.exchange.tensors import numbers_in
from gmcore.units import conversion

_HEADING = re.compile(r"^\s*\*\s+Molecular gradients\s+\*\s*$")
_KIND = re.compile(r"Wavefunction type:\s*(State average )?(?:CAS|RAS)SCF\s*$")
_RULE = re.compile(r"^\s*-{20,}\s*$")
_STATE = r"RASSCF state energy\s*=\s*(\S+)"
_ROOT = r"RASSCF root number\s+\d+ Total energy:\s+(\S+)"
_ONE_STATE = r"Lagrangian multipliers are calculated for state no\.\s*(\d+)"
_KEEPS_STATE = {"alaska", "mclr", "rassi", "single_aniso", "poly_aniso"}
"""Modules between RASSCF and a gradient that leave it one of CASSCF."""
SAME_ENERGY = 1e-6
"""Hartree: largest difference between the energies of one state; 1e-10 is usual. Two states this near have no D."""
SAME_PLACE = 1e-4
"""A: largest difference between the coordinates of one geometry; they have six decimals or more."""
BALANCED = 1e-4, 1e-3
"""Largest force and torque on the whole molecule, atomic units, and the part of those on its atoms that is added."""


def lowest_state_forces(
    calculation: Calculation, positions: np.ndarray | None, energy: float | None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the forces on the atoms in the lowest state, (n_atoms, 3) in eV/A, and remarks for the user.

    None stands for the forces where the calculation has no gradient, or none that is certainly of that state.

    Parameters
    ----------
    positions : (n_atoms, 3), A, of the tensor in the same output; None where the output has none.
    energy : of the lowest state without spin-orbit coupling, eV; None where it is not known.

    Raises
    ------
    DataError : the gradient of that state is incomplete, or is not one of this molecule in this geometry.
    """
    lines = calculation.lines
    tables = [k for k in range(calculation.start, calculation.stop) if _HEADING.match(lines[k])]
    if not tables:
        return None, ()
    if positions is None or energy is None:
        return None, ("forces are left out: their geometry or energy is not in the same calculation",)
    lowest = energy / conversion("energy", "Hartree")[0]
    states = [_energy(calculation, table) for table in tables]
    fitting = [k for k, state in zip(tables, states) if state is not None and abs(state - lowest) <= SAME_ENERGY]
    if fitting:
        return _forces(calculation, fitting[-1], positions), ()
    if states[-1] is None:
        return None, ("forces are left out: the gradients are not those of one state of CASSCF",)
    return None, (
        f"forces are left out: the gradients are of a state at {states[-1]:.8f} Hartree, the lowest one lies at "
        f"{lowest:.8f} (RlxRoot = 1 in RASSCF chooses it)",
    )


def _energy(calculation: Calculation, at: int) -> float | None:
    """Hartree, of the state whose gradient is in line `at`; None where the output does not make that certain."""
    lines = calculation.lines
    modules = [(k, hit[1].lower()) for k in range(calculation.start, at) if (hit := MODULE.search(lines[k]))]
    wave = max((k for k, name in modules if name == "rasscf"), default=at)
    if wave == at or not {name for k, name in modules if k > wave} <= _KEEPS_STATE:
        return None
    last = modules[-1][0]
    kind = next((hit for k in range(last, at) if (hit := _KIND.search(lines[k]))), None)
    if kind is None or any("Hellmann-Feynman" in line for line in lines[last:at]):
        return None
    if kind[1] is None:
        energies = calculation.numbers_before(at, _ROOT, wave)
    else:
        response = max((k for k, name in modules if name == "mclr" and k > wave), default=at)
        energies = calculation.numbers_before(at, _STATE, response)
        if len(calculation.numbers_before(at, _ONE_STATE, response)) != 1:
            return None
    return energies[0] if len(energies) == 1 else None


def _forces(calculation: Calculation, table: int, positions: np.ndarray) -> np.ndarray:
    origin = f"{calculation.name}, line {table + 1}"
    rows = [line.split() for line in _rows(calculation.lines[table : calculation.stop], origin)]
    line, labels, places = calculation.coordinates_before(table)
    if [row[0] for row in rows] != labels:
        raise DataError(
            f"the gradients of {origin} must be those of the atoms of line {line + 1} in the same order, "
            f"{excerpt(' '.join(labels))}, got {excerpt(' '.join(row[0] for row in rows))} (group must be NoSym)"
        )
    if np.shape(places) != np.shape(positions) or not np.abs(places - positions).max() <= SAME_PLACE:
        raise DataError(f"the gradients of {origin} must be for the geometry of the D tensor, got another one before")
    gradient = np.array([numbers_in(" ".join(row[1:]), 3, origin) for row in rows])
    _check_balance(gradient, (positions - positions.mean(axis=0)) / conversion("length", "Bohr")[0], origin)
    return -gradient * conversion("forces", "Hartree/Bohr")[0]


def _rows(block: list[str], origin: str) -> list[str]:
    """The lines between the second and the third rule of a table."""
    rules = [k for k, line in enumerate(block) if _RULE.match(line)][:3]
    ends = next((k for k, line in enumerate(block) if "--- Stop Module:" in line), len(block))
    if len(rules) < 3 or rules[2] > ends or block[rules[0] + 1].split() != ["X", "Y", "Z"]:
        raise DataError(f"the table of gradients of {origin} must have X, Y and Z of each atom between lines of dashes")
    return [line for line in block[rules[1] + 1 : rules[2]] if line.strip()]


def _check_balance(gradient: np.ndarray, places: np.ndarray, origin: str) -> None:
    """The energy does not change when the molecule is moved or rotated as a whole."""
    least, part = BALANCED
    for name, terms in (("force", gradient), ("torque", np.cross(places, gradient))):
        whole, allowed = float(np.linalg.norm(terms.sum(axis=0))), least + part * np.linalg.norm(terms, axis=1).sum()
        if not whole <= allowed:
            raise DataError(
                f"the gradients of {origin} must leave no {name} on the whole molecule, got {whole:.3g} in atomic "
                "units: they belong to other atoms, or to another geometry"
            )
