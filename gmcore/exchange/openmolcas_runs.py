"""The calculations in one output of OpenMolcas: whether they ended well, and the molecule that each of them was for.

    --- Start Module: gateway at ... ---                          GATEWAY begins a calculation
    Associated Actual Charge     27.000000 au                     the elements that are there
    **** Cartesian Coordinates / Bohr, Angstrom ****              rows "1  CO1  x y z (Bohr)  x y z (A)"
    Nuclear Potential Energy            658.08130591 au
    --- Stop Module: gateway at ... /rc=_RC_ALL_IS_WELL_ ---
    Cartesian coordinates in Angstrom:                            of the wave function, rows "1  CO1  x y z"
    Nuclear repulsion energy =  658.08130591
    Total molecular charge   -2.00
    SPIN MULTIPLICITY:                      4                     of the states given to RASSI
    ::    RASSI State    1     Total energy:   -3235.70698471115702
    ::    SO-RASSI State    1     Total energy:   -3235.70781522078823

Labels are no elements: "CA" may be calcium or a carbon with another basis set. Of all readings by the elements that the
calculation has, the right one gives the nuclear repulsion energy that is printed.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gmcore.errors import DataError, excerpt, shortened
from gmcore.exchange.tensors import atoms_from, numbers_in
from gmcore.units import conversion

if TYPE_CHECKING:
    from ase import Atoms

MODULE = re.compile(r"--- Start Module:\s*(\w+)")
_STOP = re.compile(r"--- Stop Module:\s*(\w+) at .*/rc=\s*(\S+)")
_FAILED = re.compile(
    r"no convergence|not[ _]converged|convergence problem|energy diverges|failed to converge|non-zero return code",
    re.IGNORECASE,
)
_PROJECT = re.compile(r"^\s*\|\s*Project:\s*(\S+)")
_WELL, _AGAIN = "_RC_ALL_IS_WELL_", "_RC_INVOKED_OTHER_MODULE_"
"""How modules end: well, or to be started again after another one, as ALASKA after MCLR."""
_TABLES = {"cartesian coordinates / bohr, angstrom": (8, 5), "cartesian coordinates in angstrom:": (5, 2)}
"""Headings of coordinates: number of columns, and the first of those in A."""
_REPULSION = re.compile(r"nuclear (?:potential|repulsion) energy\s*=?\s*(\S+)", re.IGNORECASE)
_CHARGE = re.compile(r"associated (effective|actual) charge\s+(\S+)", re.IGNORECASE)
MOST_READINGS = 1000
"""Readings of the labels of a molecule that are tried."""
REPULSION = 1e-5
"""Largest relative difference between the printed nuclear repulsion and that of the molecule as it is read."""


@dataclass(frozen=True)
class Calculation:
    """Lines of a file that belong to one calculation, from one GATEWAY, or name of a project, to the next.

    Attributes
    ----------
    lines : all lines of the file.
    start, stop : the first line of the calculation, and that after its last one.
    name : of the file, for messages.
    """

    lines: list[str]
    start: int
    stop: int
    name: str

    def numbers_before(self, at: int, pattern: str, since: int | None = None) -> list[float]:
        """The numbers that a pattern finds in the lines of this calculation before line `at`, from line `since` on."""
        compiled = re.compile(pattern)
        hits = ((k, compiled.search(self.lines[k])) for k in range(self.start if since is None else since, at))
        return [numbers_in(hit[1], 1, f"{self.name}, line {k + 1}")[0] for k, hit in hits if hit]

    def charge_before(self, at: int) -> float | None:
        """The total charge, e, of the last wave function before line `at`."""
        charges = self.numbers_before(at, r"Total molecular charge\s+(\S+)")
        return charges[-1] if charges else None

    def geometry_before(self, at: int) -> tuple[int, Atoms | None]:
        """Line and atoms of the last table of coordinates before line `at`; -1 and None where there is none.

        Raises
        ------
        DataError : the tables are of different molecules, or labels and coordinates contradict what else is printed.
        """
        line, labels, positions = self.coordinates_before(at)
        return line, self._molecule(labels, positions, line, at) if labels else None

    def coordinates_before(self, at: int) -> tuple[int, list[str], list[list[float]]]:
        """Line, labels and positions (n_atoms, 3), A, of the last table before line `at`; -1 and nothing without one.

        Raises
        ------
        DataError : the tables are of different molecules.
        """
        tables = [(k, *shape) for k in range(self.start, at) if (shape := _table(self.lines[k])) is not None]
        if not tables:
            return -1, [], []
        read = [self._rows(*table) for table in tables]
        if any(labels != read[0][0] for labels, _ in read):
            raise DataError(
                f"{self.name} must have one molecule in each calculation, got another one in line {tables[-1][0] + 1} "
                f"than in line {tables[0][0] + 1}"
            )
        return tables[-1][0], *read[-1]

    def _rows(self, line: int, n_columns: int, first: int) -> tuple[list[str], list[list[float]]]:
        labels: list[str] = []
        positions = []
        for k in range(line + 1, self.stop):
            parts = self.lines[k].split()
            if len(parts) == n_columns and parts[0].isdigit():
                labels.append(parts[1])
                positions.append(numbers_in(" ".join(parts[first : first + 3]), 3, f"{self.name}, line {k + 1}"))
            elif labels:
                break
        if not labels:
            raise DataError(
                f"{self.name}, line {line + 1}: no coordinates follow the heading; this layout is not known"
            )
        return labels, positions

    def _nuclei(self, at: int) -> dict[int, float]:
        """Atomic number -> charge that acts on the electrons, of the basis sets that are printed before line `at`."""
        found: dict[str, list[float]] = {"effective": [], "actual": []}
        for k in range(self.start, at):
            if match := _CHARGE.search(self.lines[k]):
                found[match[1].lower()] += numbers_in(match[2], 1, f"{self.name}, line {k + 1}")
        pairs = zip(found["effective"], found["actual"])
        return {round(actual): effective for effective, actual in pairs if abs(actual) < 1000.0}

    def _molecule(self, labels: list[str], positions: list[list[float]], line: int, at: int) -> Atoms:
        """The atoms of the table in line `line`: the first reading of its labels that gives the printed repulsion."""
        origin, nuclei = f"{self.name}, line {line + 1}", self._nuclei(at)
        printed = next((hit[1] for text in self.lines[line:at] if (hit := _REPULSION.search(text))), None)
        letters = [re.sub(r"[^A-Za-z].*", "", label) for label in labels]
        kinds = {kind: _elements(kind, set(nuclei), origin) for kind in letters}
        readings = [
            dict(zip(kinds, reading)) for reading in itertools.islice(itertools.product(*kinds.values()), MOST_READINGS)
        ]
        molecules = [atoms_from([reading[kind] for kind in letters], positions, origin) for reading in readings]
        if printed is None:
            if len(molecules) > 1:
                raise DataError(f"the labels of {origin} may be {_listed(molecules)}, no nuclear repulsion says which")
            return molecules[0]
        expected = numbers_in(printed, 1, origin)[0]
        for molecule in molecules:
            if abs(_repulsion(molecule, nuclei) - expected) <= REPULSION * max(abs(expected), 1.0):
                return molecule
        raise DataError(
            f"the molecule of {origin} must give the nuclear repulsion of {expected:.6g} Hartree that is printed; "
            f"{_listed(molecules)} does not"
        )


def _listed(molecules: list[Atoms]) -> str:
    return shortened(" or ".join(str(molecule.symbols) for molecule in molecules))


def _repulsion(atoms: Atoms, nuclei: dict[int, float]) -> float:
    """Hartree, with the charges that act on the electrons."""
    charges = np.array([nuclei.get(number, float(number)) for number in atoms.numbers])
    upper = np.triu_indices(len(atoms), 1)
    distances = atoms.get_all_distances()[upper] / conversion("length", "Bohr")[0]
    with np.errstate(divide="ignore"):
        return float(np.sum(np.outer(charges, charges)[upper] / distances))


def calculations(lines: list[str], name: str) -> list[Calculation]:
    """Return the calculations of an output, all of which ended well.

    Raises
    ------
    DataError : a module failed, did not converge or did not end.
    """
    running: list[str] = []
    waiting: set[str] = set()
    starts, project = [0], None
    for k, line in enumerate(lines):
        if _FAILED.search(line):
            raise DataError(f"{name}, line {k + 1}: the calculation did not converge or failed, {_said(line)}")
        if match := MODULE.search(line):
            running.append(match[1])
            waiting.discard(match[1])
            if match[1].lower() == "gateway":
                starts.append(k)
        elif (match := _PROJECT.search(line)) and match[1] != project:
            project = match[1]
            starts.append(k)
        elif match := _STOP.search(line):
            if match[2] == _AGAIN:
                waiting.add(match[1])
            elif match[2] != _WELL:
                raise DataError(
                    f"{name}, line {k + 1}: the module {match[1].upper()} must end with {_WELL}, got "
                    f"{excerpt(match[2])}"
                )
            if match[1] in running:
                running.remove(match[1])
    if unfinished := [*running, *waiting]:
        raise DataError(f"{name}: the module {unfinished[-1].upper()} did not end; the calculation broke off")
    return [Calculation(lines, *span, name) for span in zip(starts, [*starts[1:], len(lines)])]


def _said(line: str) -> str:
    return excerpt(" ".join(line.strip(" .#*-").split()))


def _table(line: str) -> tuple[int, int] | None:
    lower = line.lower()
    return next((shape for heading, shape in _TABLES.items() if heading in lower), None)


def _elements(letters: str, numbers: set[int], origin: str) -> list[str]:
    """The elements that the letters of a label may mean, of those that the calculation has, if it says which."""
    from ase.data import atomic_numbers

    readings = dict.fromkeys((letters[:2].title(), letters[:1].title()))
    found = [part for part in readings if part in atomic_numbers and part != "X"]
    known = [part for part in found if not numbers or atomic_numbers[part] in numbers]
    if not known:
        raise DataError(
            f"the labels of {origin} must begin with chemical elements whose basis sets the output lists, got "
            f"{excerpt(letters)}"
        )
    return known
