"""A D tensor as a quantum chemistry program gives it, and the checks that its file must pass.

Eigenvalues are never taken from a file, because some versions print zeros next to a correct matrix. The matrix is
diagonalized here, and the D and E that a program printed must agree with it within the printed digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gmcore.anisotropy import zfs_parameters
from gmcore.data.labels import symmetrized
from gmcore.errors import DataError, excerpt
from gmcore.units import conversion

if TYPE_CHECKING:
    from ase import Atoms


LARGEST = 1e30
"""Numbers beyond are misprints; their powers could not be computed with."""


@dataclass(frozen=True, eq=False)
class ComputedTensor:
    """One D tensor as a file has it.

    Attributes
    ----------
    tensor : (3, 3), in `unit`, symmetric; the trace is still in it.
    unit : "cm^-1", or what was stated for a file that does not say.
    atoms : geometry in whose frame the tensor is, A; None where the file has none.
    level, contribution : which of the tensors of its file: "casscf", "effective"; empty where there is only one kind.
    step : which geometry of its file it belongs to; increases along the file.
    origin : where it is in the file, for error messages.
    notes : remarks for the user.
    spin : S of the ground multiplet; None where the file does not say.
    charge : of the molecule, e; None where the file does not say.
    energy : of the lowest state without spin-orbit coupling, eV; None where the file does not say.
    forces : (n_atoms, 3) of the same state at `atoms` and in their frame, eV/A; None where the file has none.
    """

    tensor: np.ndarray
    unit: str
    atoms: Atoms | None
    level: str
    contribution: str
    step: int
    origin: str
    notes: tuple[str, ...] = ()
    spin: float | None = None
    charge: float | None = None
    energy: float | None = None
    forces: np.ndarray | None = None

    @property
    def kind(self) -> str:
        """Level and contribution as text."""
        return " ".join(part for part in (self.level, self.contribution) if part)


def checked_tensor(
    rows: np.ndarray, unit: str, origin: str, digits: int, printed: tuple[float, float] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the symmetric matrix and notes; the D and E printed by the program must agree with it.

    Parameters
    ----------
    rows : (3, 3) as the file has them.
    digits : decimals with which rows, D and E are printed.
    printed : D and E of the program, whose sign of E means nothing; None where it prints none. Zeros beside a matrix
        that is not zero are taken for a fault of the program and noted.

    Raises
    ------
    DataError : the matrix is not finite or not symmetric, or D and E contradict it.
    """
    if not np.isfinite(rows).all():
        raise DataError(f"the D tensor of {origin} must be finite, got {rows.tolist()}")
    (tensor,), notes = symmetrized("D", rows[None], [origin], unit)
    if printed is None:
        return tensor, tuple(notes)
    found = zfs_parameters(tensor)
    # an eigenvalue moves by no more than the matrix does, three times the rounding of an element; D by twice that
    tolerance = 8.0 * 0.5 * 10.0**-digits + 2.0 * float(np.abs(rows - rows.T).max()) + 1e-9 * abs(float(found.d))
    d, e = printed
    if d == 0.0 and e == 0.0 and abs(found.d) > tolerance:
        return tensor, (*notes, "the program printed zeros for D and E; they were computed from its matrix instead")
    rhombic = found.e + 2.0 * tolerance >= abs(found.d) / 3.0  # there the sign of D is rounding
    same_d = abs(d - found.d) <= tolerance or (rhombic and abs(d + found.d) <= 2.0 * tolerance)
    if not (same_d and abs(abs(e) - found.e) <= tolerance):
        raise DataError(
            f"D = {d:.6g} and E = {e:.6g} {unit} printed in {origin} must agree with its matrix, which gives "
            f"D = {found.d:.6g} and E = {found.e:.6g} {unit}"
        )
    return tensor, tuple(notes)


def require_wavenumbers(unit: str | None, name: str) -> None:
    """Refuse a stated unit other than cm^-1 for a file whose unit is known.

    Raises
    ------
    DataError : another unit is stated.
    """
    if unit is not None and conversion("d_tensor", unit)[0] != 1.0:
        raise DataError(f"the unit of the D tensor is cm^-1 in {name}, not {unit}: leave the unit out")


def numbers_in(line: str, count: int, origin: str) -> list[float]:
    """Return the `count` numbers of a line.

    Raises
    ------
    DataError : the line does not consist of that many numbers.
    """
    parts = line.split()
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) == count and any(abs(value) > LARGEST for value in values):
        raise DataError(f"{origin} must have numbers below {LARGEST:g} here, got {excerpt(line.strip())}")
    if len(values) != count:
        raise DataError(f"{origin} must have {count} numbers here, got {excerpt(line.strip())}")
    return values


def whole_number_in(text: str, origin: str) -> int:
    """Return a whole number below 10^9; a longer one is refused with the name of its place."""
    if len(text) > 9:
        raise DataError(f"{origin} must have whole numbers of at most 9 digits here, got {excerpt(text)}")
    return int(text)


def atoms_from(symbols: Sequence[str], positions: Sequence[Sequence[float]] | np.ndarray, origin: str) -> Atoms:
    """Return `ase.Atoms` from symbols and positions (n_atoms, 3) in A.

    Raises
    ------
    DataError : a symbol is not a chemical element.
    """
    from ase import Atoms
    from ase.data import atomic_numbers

    if not symbols:
        raise DataError(f"the geometry of {origin} must have atoms, got none")
    for symbol in symbols:
        if symbol not in atomic_numbers or symbol == "X":
            raise DataError(f"the geometry of {origin} must consist of chemical elements, got {excerpt(symbol)}")
    return Atoms(list(symbols), np.array(positions, dtype=np.float64))
