"""D tensors from SINGLE_ANISO, with the geometry that OpenMolcas prints.

For each multiplet with an effective spin of 1 or more (source of OpenMolcas, aniso_util/dmatrix):

    CALCULATION OF PSEUDOSPIN HAMILTONIAN TENSORS FOR THE MULTIPLET 1 ( effective S =  3/2)
    D TENSOR:
      MAIN VALUES  |          MAIN ANISOTROPY AXES                              |   x , y , z  -- initial Cartesian axes
                   |    |     Xm        Ym        Zm     |    x         y         z     |
    Dx =   33.100 | Xa |  0.999990  0.001000  0.004000 |  0.707100 -0.707100  0.010000 |
    D =  -99.3000
    E =    1.2000

The second group of direction cosines refers to the axes of the input, so D = sum_k D_k n_k n_k^T. The printed D and
E follow the program's own rule (D belongs to x or z, whichever is further from y). They are checked against that rule,
while the usual convention is used in all results. The tensor is that of multiplet 1, the ground multiplet.

Coordinates come from "Cartesian Coordinates / Bohr, Angstrom" in the same file; the element is the letters of a label.
A run that starts from a stored file does not print them; its geometry must then be given.

Not supported: excited multiplets, tensors printed at high print levels only, symmetry-adapted labels without element.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from gmcore.errors import DataError
from gmcore.exchange.tensors import ComputedTensor, atoms_from, numbers_in, require_wavenumbers, whole_number_in

if TYPE_CHECKING:
    from ase import Atoms

_NUMBER = r"(-?\d+\.\d+(?:[EeDd][+-]?\d+)?)"
_MULTIPLET = re.compile(r"PSEUDOSPIN HAMILTONIAN TENSORS FOR THE MULTIPLET\s+(\d+)")
_AXIS = re.compile(rf"D_?([xyzXYZ])\s*=\s*{_NUMBER}\s*\|\s*[XYZ]a\s*\|([^|]+)\|([^|]+)\|")
ORTHOGONAL = 1e-4
"""Largest deviation of the printed axes from orthonormality; they have six decimals."""


def read_single_aniso(text: str, name: str, unit: str | None = None) -> list[ComputedTensor]:
    """Return the D tensor of the ground multiplet, cm^-1.

    Raises
    ------
    DataError : the layout is not known, or the tensor contradicts what the program printed.
    """
    require_wavenumbers(unit, name)
    lines = text.splitlines()
    multiplets, found = [], []
    for k, line in enumerate(lines):
        if match := _MULTIPLET.search(line):
            multiplets.append((k, whole_number_in(match[1], f"{name}, line {k + 1}")))
    for k, line in enumerate(lines):
        if line.strip() not in ("D TENSOR:", "D-TENSOR:") or not any(
            "MAIN VALUES" in below for below in lines[k : k + 4]
        ):
            continue
        before = [multiplet for at, multiplet in multiplets if at < k]
        if not before:
            raise DataError(f"{name}, line {k + 1}: the D tensor must belong to a multiplet; this layout is not known")
        if before[-1] == 1:
            origin = f"{name}, line {k + 1}"
            found.append(
                ComputedTensor(_tensor(lines[k : k + 20], origin), "cm^-1", _geometry(lines, name), "", "", 0, origin)
            )
    return found


def _tensor(block: list[str], origin: str) -> np.ndarray:
    rows = [match for line in block if (match := _AXIS.search(line))]
    if [match[1].lower() for match in rows] != ["x", "y", "z"]:
        raise DataError(f"{origin} must contain Dx, Dy and Dz with their axes; this layout is not known")
    values = np.array([_printed(match[2], origin) for match in rows])
    axes = np.array([numbers_in(_apart(match[4]), 3, origin) for match in rows])
    if not np.abs(axes @ axes.T - np.eye(3)).max() <= ORTHOGONAL:  # also where a cosine is not a number
        raise DataError(f"the anisotropy axes of {origin} must be orthonormal, got {axes.tolist()}")
    _compare(values, block, origin)
    axes = _orthonormal(axes)
    return axes.T @ np.diag(values) @ axes


def _orthonormal(axes: np.ndarray) -> np.ndarray:
    """The orthonormal axes nearest to rounded ones."""
    left, _, right = np.linalg.svd(axes)
    return left @ right


def _compare(values: np.ndarray, block: list[str], origin: str) -> None:
    """Check that the D and E of the program agree with its main values by its own rule."""
    x, y, z = values
    d, e = (1.5 * x, 0.5 * (y - z)) if abs(x - y) > abs(y - z) else (1.5 * z, 0.5 * (x - y))
    for letter, expected in (("D", d), ("E", e)):
        match = next((m for line in block if (m := re.match(rf"\s*{letter}\s*=\s*{_NUMBER}\s*$", line))), None)
        if match is None:
            raise DataError(f"{origin} must contain {letter}; this layout is not known")
        digits = min(len(match[1].partition(".")[2]), 3)
        if abs(_printed(match[1], origin) - expected) > 2.0 * 10.0**-digits:
            raise DataError(
                f"{letter} = {match[1]} cm^-1 printed in {origin} must agree with its main values, which give "
                f"{expected:.4f}"
            )


def _geometry(lines: list[str], name: str) -> Atoms | None:
    """The last table of coordinates in both units; rows "1  CO1  x y z (bohr)  x y z (A)"."""
    starts = [k for k, line in enumerate(lines) if "cartesian coordinates / bohr, angstrom" in line.lower()]
    if not starts:
        return None
    symbols, positions = [], []
    for line in lines[starts[-1] + 1 :]:
        parts = line.split()
        if len(parts) == 8 and parts[0].isdigit():
            symbols.append(_element(parts[1]))
            positions.append(numbers_in(" ".join(parts[5:]), 3, name))
        elif symbols:
            break
    if not symbols:
        raise DataError(f"{name}, line {starts[-1] + 1}: no coordinates follow the heading; this layout is not known")
    return atoms_from(symbols, positions, name)


def _element(label: str) -> str:
    return re.sub(r"[^A-Za-z].*", "", label).title()


def _printed(text: str, origin: str) -> float:
    """A number of Fortran, whose exponent may begin with D."""
    return numbers_in(re.sub("[Dd]", "e", text), 1, origin)[0]


def _apart(cosines: str) -> str:
    """Direction cosines of fixed width may touch: a minus sign begins the next one."""
    return re.sub(r"(?<=\d)-", " -", cosines)
