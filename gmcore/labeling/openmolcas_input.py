"""Inputs of OpenMolcas for the D tensor of a complex of one 3d metal.

Active are the five 3d orbitals of the metal, with the average over all states of the highest spin that the d shell has,
so that no state moves into the average or out of it:

    d2, d8    10 triplets    lower spins: 15 singlets
    d3, d7    10 quartets                 40 doublets
    d4, d6     5 quintets                 45 triplets
    d5         1 sextet                   24 quartets, without which it has no D
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gmcore.config.labeling import OpenMolcas
from gmcore.labeling.methods import Refused
from gmcore.units import conversion

if TYPE_CHECKING:
    from ase import Atoms

STATES = {2: (10, 15), 3: (10, 40), 4: (5, 45), 5: (1, 24), 6: (5, 45), 7: (10, 40), 8: (10, 15)}
"""Number of d electrons -> number of states of the highest spin, and of the next lower one."""
OXIDATION = (2, 3, 4, 1)
"""Oxidation states, the most likely first: S = 3/2 is d7 for cobalt, not d3."""
TIGHT, LOOSE = (1e-10, 1e-5, 1e-5), (1e-7, 1e-4, 1e-4)
"""Thresholds of CASSCF in Hartree: energy, orbital rotation, gradient."""
SMALL = 20
"""Number of atoms up to which the tight thresholds can be met: energies of 53 atoms have a noise of 1e-9."""
N_D = 5
"""Orbitals of a d shell."""


@dataclass(frozen=True)
class ActiveSpace:
    """Which electrons and states a calculation has.

    Attributes
    ----------
    metal : index of the metal among the atoms.
    d_electrons, multiplicity : of the d shell; the highest multiplicity that it has.
    inactive : number of doubly occupied orbitals.
    roots, lower_roots : number of states of the highest spin, and of the next lower one (0: without them).
    charge : of the molecule, e.
    """

    metal: int
    d_electrons: int
    multiplicity: int
    inactive: int
    roots: int
    lower_roots: int
    charge: int


def active_space(atoms: Atoms, charge: float, multiplicity: int, settings: OpenMolcas) -> ActiveSpace:
    """Return the active space of a molecule.

    Raises
    ------
    Refused : it is not one metal with the highest spin of its d shell and S = 1 or more.
    """
    if atoms.pbc.any():
        raise Refused("openmolcas labels molecules, got a frame with periodic boundaries")
    numbers = np.asarray(atoms.numbers)
    if settings.metal is None:
        metals = np.flatnonzero((numbers >= 21) & (numbers <= 30))
        what = "one transition metal from Sc to Zn, or openmolcas.metal must be stated"
    else:
        metals = np.flatnonzero(np.asarray(atoms.symbols) == settings.metal)
        what = f"one atom of {settings.metal}, which is openmolcas.metal"
    if len(metals) != 1:
        raise Refused(f"the frame must have {what}; got {len(metals)} in {atoms.symbols}")
    number, electrons = int(numbers[metals[0]]), int(numbers.sum()) - round(charge)
    n_d = settings.d_electrons or _d_electrons(number, multiplicity)
    symbol = atoms.symbols[int(metals[0])]
    if n_d is None or multiplicity != min(n_d, 2 * N_D - n_d) + 1 or charge != round(charge):
        raise Refused(
            f"openmolcas computes S = 1 to 5/2 in the highest spin of d2 to d8, and {symbol} with a multiplicity of "
            f"{multiplicity} and a total charge of {charge:g} is none of them"
        )
    if (electrons - n_d) % 2 or electrons < n_d:
        raise Refused(
            f"a total charge of {charge:g} leaves {electrons} electrons, which a multiplicity of {multiplicity} does "
            f"not fit"
        )
    full, lower = STATES[n_d]
    roots = settings.roots or full
    if roots > full:
        raise Refused(f"openmolcas.roots must be at most {full}, which is all that d{n_d} has, got {roots}")
    if n_d == N_D and not settings.lower_spins:
        raise Refused("S = 5/2 has no D without quartets: set openmolcas.lower_spins to true")
    return ActiveSpace(
        int(metals[0]),
        n_d,
        multiplicity,
        (electrons - n_d) // 2,
        roots,
        lower if settings.lower_spins else 0,
        round(charge),
    )


def _d_electrons(number: int, multiplicity: int) -> int | None:
    """Return the number of d electrons of the likeliest oxidation state with a multiplicity as its highest."""
    counts = (number - 18 - oxidation for oxidation in OXIDATION)
    return next((n for n in counts if n in STATES and min(n, 2 * N_D - n) + 1 == multiplicity), None)


def start_input(atoms: Atoms, space: ActiveSpace, basis: str, scf: bool) -> str:
    """Return the input for the integrals, and for a Fock matrix if `scf`."""
    origin = atoms.positions[space.metal] / conversion("length", "Bohr")[0]
    lines = [
        "&GATEWAY",
        "Coord",
        str(len(atoms)),
        "Angstrom",
        *(f"{symbol} {x:.10f} {y:.10f} {z:.10f}" for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions)),
        f"Basis = {basis}",
        "Group = NoSym",
        "AngMom",
        " ".join(f"{x:.8f}" for x in origin),
        "AMFI",
        "RICD",
        "&SEWARD",
    ]
    if scf:  # of closed shells only; its convergence does not matter
        odd = (space.d_electrons % 2) != 0
        lines += ["&SCF", f"Charge = {space.charge - odd}", "Iterations = 100"]
    return "\n".join(lines) + "\n"


def orbitals_of(multiplicity: int) -> str:
    """Return the name of the file with the orbitals of a spin, which begins with no keyword of RASSCF, such as spin."""
    return f"converged{multiplicity}.h5"


def states_input(space: ActiveSpace, n_atoms: int, settings: OpenMolcas, start: str) -> str:
    """Return the input for CASSCF and its states with spin-orbit coupling.

    Parameters
    ----------
    start : name of the file of orbitals, in the scratch folder of the project.
    """
    thresholds = settings.thresholds or (TIGHT if n_atoms <= SMALL else LOOSE)
    spins = [(space.multiplicity, space.roots)]
    if space.lower_roots:
        spins.append((space.multiplicity - 2, space.lower_roots))
    lines = []
    for k, (multiplicity, roots) in enumerate(spins, 1):
        lines += [
            "&RASSCF",
            f"FileOrb = {start}",
            f"Spin = {multiplicity}",
            f"NActEl = {space.d_electrons} 0 0",
            f"Inactive = {space.inactive}",
            f"Ras2 = {N_D}",
            f"CIRoot = {roots} {roots} 1",
            "Thrs = " + " ".join(f"{threshold:g}" for threshold in thresholds),
            "OrbListing = NOTHING",
            f">> COPY $Project.JobIph JOB{k:03d}",
            f">> COPY $Project.rasscf.h5 {orbitals_of(multiplicity)}",
        ]
        start = orbitals_of(multiplicity)
    lines += [
        "&RASSI",
        f"NrOfJobIphs = {len(spins)} all",
        "SpinOrbit",
        "EJob",
        "MEES",
        "Properties = 3",
        *(f"'ANGMOM' {axis}" for axis in (1, 2, 3)),
    ]
    return "\n".join(lines) + "\n"
