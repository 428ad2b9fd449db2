"""D tensors from ORCA output, versions 4 to 6.

Two layouts. The SCF tensor (spin-spin and spin-orbit together, as asked for in the input):

    ZERO-FIELD-SPLITTING TENSOR
    raw-matrix :
      -0.250415    -0.000000    -0.000000           three rows, cm^-1
    D   =     2.108776  cm**-1
    E/D =     0.000000

and the blocks of quasi-degenerate perturbation theory, one for each contribution, first with the energies of CASSCF,
then with those of NEVPT2:

    QDPT WITH NEVPT2 DIAGONAL ENERGIES
    ZERO-FIELD SPLITTING
    EFFECTIVE HAMILTONIAN SOC CONTRIBUTION          (EFFECTIVE HAMILTONIAN SPIN-ORBIT COUPLING CONTRIBUTION) before 6
    Raw matrix (cm-1):                              three rows
    D   =   -99.123456 cm-1
    E/D =     0.012345

Each belongs to the last CARTESIAN COORDINATES (ANGSTROEM) before it, in whose frame the matrix is. If blocks do not
state their energies, two of a kind in an output that mentions NEVPT2 are taken for CASSCF and NEVPT2, in this order;
otherwise their level is "unstated". A block whose matrix is not where it is expected is refused.

Not supported: parts of the SCF tensor, tensors of single centers, the g tensor.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from gmcore.errors import DataError
from gmcore.exchange.tensors import ComputedTensor, atoms_from, checked_tensor, numbers_in, require_wavenumbers

UNSTATED = "unstated"
_ENERGIES = re.compile(r"QDPT WITH (.+?) DIAGONAL ENERGIES")
_D = re.compile(r"D\s*=\s*(\S+)\s+cm(?:\*\*|\^)?-1")
_RATIO = re.compile(r"E/D\s*=\s*(\S+)")
_REACH = 400
"""Number of lines that are searched for a block; the effective Hamiltonian of a large spin precedes its matrix."""


def read_orca(text: str, name: str, unit: str | None = None) -> list[ComputedTensor]:
    """Return every D tensor of an ORCA output, cm^-1.

    Raises
    ------
    DataError : the layout is not known, or a tensor contradicts what the program printed.
    """
    require_wavenumbers(unit, name)
    lines = text.splitlines()
    atoms, step, level, found = None, -1, UNSTATED, []
    for k, line in enumerate(lines):
        heading = line.strip()
        origin = f"{name}, line {k + 1}"
        if heading == "CARTESIAN COORDINATES (ANGSTROEM)":
            atoms, step, level = _geometry(lines, k, origin), step + 1, UNSTATED
        elif energies := _ENERGIES.search(heading):
            level = energies[1].lower()
        elif heading == "ZERO-FIELD-SPLITTING TENSOR":
            tensor, notes = _matrix(lines, k, "raw-matrix", origin)
            found.append(ComputedTensor(tensor, "cm^-1", atoms, "scf", "total", max(step, 0), origin, notes))
        elif heading == "ZERO-FIELD SPLITTING" and (contribution := _contribution(lines, k)):
            tensor, notes = _matrix(lines, k, "Raw matrix (cm-1)", origin)
            found.append(ComputedTensor(tensor, "cm^-1", atoms, level, contribution, max(step, 0), origin, notes))
    return _with_levels(found, "NEVPT2" in text)


def _geometry(lines: list[str], start: int, origin: str):
    """Rows "Co  x  y  z" after the heading and its line of dashes, up to a blank line."""
    symbols, positions = [], []
    for line in lines[start + 2 :]:
        parts = line.split()
        if not parts:
            break
        symbols.append(parts[0])
        positions.append(numbers_in(" ".join(parts[1:]), 3, origin))
    if not symbols:
        raise DataError(f"{origin} must be followed by the coordinates of the atoms, got none")
    return atoms_from(symbols, positions, origin)


def _contribution(lines: list[str], start: int) -> str | None:
    """Name of the contribution from the line below the heading; None for headings of another kind (SCF, ORCA 6)."""
    below = (line.strip().strip("()") for line in lines[start + 1 : start + 5])
    words = next((line.upper() for line in below if line and set(line) != {"-"}), "")
    if "CONTRIBUTION" not in words:
        return None
    orbit = "SOC" in words or "SPIN-ORBIT" in words
    spin = "SSC" in words or "SPIN-SPIN" in words
    if not orbit:
        return "spin-spin" if spin else words.lower()
    kinds = [kind for phrase, kind in (("2ND ORDER", "second-order"), ("EFFECTIVE", "effective")) if phrase in words]
    return f"{kinds[0]}+ssc" if spin and len(kinds) == 1 else kinds[0] if len(kinds) == 1 else words.lower()


def _matrix(lines: list[str], start: int, label: str, origin: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the matrix after `label` within the block and notes, compared with D and E/D printed after it."""
    reach = lines[start + 1 : start + _REACH]
    end = next((k for k, line in enumerate(reach) if line.strip().startswith("ZERO-FIELD")), len(reach))
    block = reach[:end]
    at = next((k for k, line in enumerate(block) if line.strip().lower().startswith(label.lower())), None)
    if at is None or len(block) < at + 4:
        raise DataError(f"{origin}: no {label!r} follows the heading; this layout is not known")
    rows = np.array([numbers_in(line, 3, origin) for line in block[at + 1 : at + 4]])
    rest = block[at + 4 :]
    d = next((match for line in rest if (match := _D.match(line.strip()))), None)
    ratio = next((match for line in rest if (match := _RATIO.match(line.strip()))), None)
    if d is None or ratio is None:
        raise DataError(f"{origin}: no D and E/D follow the matrix; this layout is not known")
    (d_value,), (e_over_d,) = numbers_in(d[1], 1, origin), numbers_in(ratio[1], 1, origin)
    if not (np.isfinite(rows).all() and np.isfinite((d_value, e_over_d)).all()):
        raise DataError(f"{origin}: the matrix, D and E/D must be finite numbers")
    digits = min(_decimals(text) for text in (d[1], ratio[1], *block[at + 1].split()))
    # the rounding of the ratio is multiplied by D in E
    digits = min(digits, digits - int(np.ceil(np.log10(max(abs(d_value), 1.0)))))
    return checked_tensor(rows, "cm^-1", origin, digits, (d_value, e_over_d * d_value))


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _with_levels(found: list[ComputedTensor], nevpt2: bool) -> list[ComputedTensor]:
    """Name the levels of pairs of blocks that do not state them: CASSCF comes first, NEVPT2 second."""
    named = []
    for tensor in found:
        alike = [
            other
            for other in found
            if (other.step, other.level, other.contribution) == (tensor.step, UNSTATED, tensor.contribution)
        ]
        if tensor.level == UNSTATED and len(alike) == 2 and nevpt2:
            tensor = replace(tensor, level="casscf" if tensor is alike[0] else "nevpt2")
        named.append(tensor)
    return named
