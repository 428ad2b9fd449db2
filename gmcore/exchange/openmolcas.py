"""D tensors from SINGLE_ANISO, with the geometry that OpenMolcas prints in the same calculation.

For each multiplet with an effective spin of 1 or more (source of OpenMolcas, aniso_util/dmatrix):

    ENERGY OF THE SPIN-ORBIT STATE (   1) =         0.00000000000000           all states, once for all multiplets
    CALCULATION OF PSEUDOSPIN HAMILTONIAN TENSORS FOR THE MULTIPLET 1 ( effective S =  3/2)
    spin-orbit state 1. energy(1) =       0.000 cm-1.                          the states of this multiplet
     gX =   2.31370788177098 | Xm |  0.60418271703432 -0.54562326844451  0.58073960892035 |
      2 |  -2 |       1.50  |  0.90224969097745E-02 |                          B(2,q) along Xm, Ym, Zm
    D TENSOR:
      MAIN VALUES  |          MAIN ANISOTROPY AXES                              |   x , y , z  -- initial Cartesian axes
                   |    |     Xm        Ym        Zm     |    x         y         z     |
    Dx =   33.100 | Xa |  0.999990  0.001000  0.004000 |  0.707100 -0.707100  0.010000 |
    D =  -99.3000
    E =    1.2000

The second group of direction cosines refers to the axes of the input, so D = sum_k D_k n_k n_k^T. It has three
decimals. The parameters B(2,q) of Stevens operators have fourteen digits; where they are printed, D comes from them
and must agree with the table. The printed D and E follow the program's own rule (D belongs to x or z, whichever is
further from y). They are checked against that rule, while the usual convention is used in all results. The tensor is
that of multiplet 1, the ground multiplet.

A tensor means nothing where the spin Hamiltonian does not hold. The levels must be those of S.D.S, the next state must
lie apart, and the spin must be one of those that RASSI was given (`gmcore.exchange.spin_hamiltonian`).

A run that starts from a stored file does not print coordinates; its geometry must then be given.

Not supported: excited multiplets, tensors printed at high print levels only.
"""

from __future__ import annotations

import re

import numpy as np

from gmcore.errors import DataError, excerpt, shortened
from gmcore.exchange.openmolcas_gradients import lowest_state_forces
from gmcore.exchange.openmolcas_runs import Calculation, calculations
from gmcore.exchange.spin_hamiltonian import check_multiplet, spin_text
from gmcore.exchange.tensors import ComputedTensor, numbers_in, require_wavenumbers, whole_number_in
from gmcore.units import conversion

_NUMBER = r"(-?\d+\.\d+(?:[EeDd][+-]?\d+)?)"
_MULTIPLET = re.compile(r"PSEUDOSPIN HAMILTONIAN TENSORS FOR THE MULTIPLET\s+(\d+)(?:.*effective S =\s*(\d+)(/2)?)?")
_AXIS = re.compile(rf"D_?([xyzXYZ])\s*=\s*{_NUMBER}\s*\|\s*[XYZ]a\s*\|([^|]+)\|([^|]+)\|")
_MAGNETIC_AXIS = re.compile(rf"g[XYZ] =\s*{_NUMBER}\s*\|\s*[XYZ]m\s*\|([^|]+)\|")
_STEVENS = re.compile(rf"^\s*2\s*\|\s*(-?[012])\s*\|\s*\d+\.\d+\s*\|\s*{_NUMBER}\s*\|\s*$")
_LEVEL = re.compile(rf"spin-orbit state\s+\d+\. energy\(\s*\d+\) =\s*{_NUMBER} cm-1")
_STATE = rf"ENERGY OF THE SPIN-ORBIT STATE\s*\(\s*\d+\)\s*=\s*{_NUMBER}"
_RASSI_STATE = rf"::\s+{{}}RASSI State\s+\d+\s+Total energy:\s*{_NUMBER}"
ORTHOGONAL = 1e-4
"""Largest deviation of the printed axes from orthonormality; they have six decimals."""
ROUNDED = 2e-3
"""Largest difference, cm^-1, between a D of three decimals and the same D of all digits; 1e-5 of D comes on top."""
SAME_LEVELS = 0.1
"""Largest difference, cm^-1, between levels of RASSI and of SINGLE_ANISO, which are those of one calculation."""


def read_single_aniso(text: str, name: str, unit: str | None = None) -> list[ComputedTensor]:
    """Return the D tensor of the ground multiplet of each calculation in an output, cm^-1.

    Raises
    ------
    DataError : a calculation failed, has no tensor, or is one that a D tensor does not describe; the layout is not
        known; or the tensor contradicts what else the program printed.
    """
    require_wavenumbers(unit, name)
    found = [tensor for calculation in calculations(text.splitlines(), name) for tensor in _tensors(calculation)]
    if not found:
        raise DataError(f"{name} is an OpenMolcas output without a D tensor: {_missing(text)}")
    return found


def _tensors(calculation: Calculation) -> list[ComputedTensor]:
    lines, name = calculation.lines, calculation.name
    found, heading = [], None
    for k in range(calculation.start, calculation.stop):
        if match := _MULTIPLET.search(lines[k]):
            heading = k, whole_number_in(match[1], f"{name}, line {k + 1}"), match
        if lines[k].strip() not in ("D TENSOR:", "D-TENSOR:") or not any(
            "MAIN VALUES" in below for below in lines[k : k + 4]
        ):
            continue
        if heading is None:
            raise DataError(f"{name}, line {k + 1}: the D tensor must belong to a multiplet; this layout is not known")
        start, number, match = heading
        if number == 1:
            found.append(_ground(calculation, start, k, _spin(match, f"{name}, line {start + 1}")))
    return found


def _spin(match: re.Match, origin: str) -> float:
    if match[2] is None:
        raise DataError(f"{origin} must state the effective spin of the multiplet; this layout is not known")
    return whole_number_in(match[2], origin) / (2.0 if match[3] else 1.0)


def _ground(calculation: Calculation, start: int, at: int, spin: float) -> ComputedTensor:
    """The tensor in line `at`, of the multiplet whose heading is line `start`."""
    lines, origin = calculation.lines, f"{calculation.name}, line {at + 1}"
    tensor = _all_digits(_tensor(lines[at : at + 20], origin), lines[start:at], origin)
    levels = np.array([_printed(match[1], origin) for line in lines[start:at] if (match := _LEVEL.search(line))])
    if spin < 1.0 or len(levels) != round(2 * spin) + 1:
        raise DataError(
            f"{origin} must list the {round(2 * spin) + 1} states of a multiplet with S = {spin_text(spin)}, got "
            f"{len(levels)}"
        )
    check_multiplet(tensor, spin, levels, _above(calculation, start, len(levels), origin), origin)
    multiplicities = {round(value) for value in calculation.numbers_before(at, r"SPIN MULTIPLICITY:\s*(\d+)")}
    if multiplicities and len(levels) not in multiplicities:
        stated = ", ".join(map(str, sorted(multiplicities)))
        raise DataError(
            f"the multiplicity of {origin} must be that of the states given to RASSI, {stated}, got {len(levels)}: "
            "correct MLTP of SINGLE_ANISO"
        )
    line, atoms = calculation.geometry_before(at)
    energies = calculation.numbers_before(at, _RASSI_STATE.format(""))
    energy = min(energies) * conversion("energy", "Hartree")[0] if energies else None
    forces, notes = lowest_state_forces(calculation, None if atoms is None else atoms.positions, energy)
    return ComputedTensor(
        tensor,
        "cm^-1",
        atoms,
        "",
        "",
        max(line, calculation.start),
        origin,
        notes,
        spin=spin,
        charge=calculation.charge_before(at),
        energy=energy,
        forces=forces,
    )


def _above(calculation: Calculation, start: int, n: int, origin: str) -> float | None:
    """The level, cm^-1, of the first state that is not among the `n` of the ground multiplet.

    Raises
    ------
    DataError : RASSI found other levels than SINGLE_ANISO works with.
    """
    states = np.array(calculation.numbers_before(start, _STATE))
    totals = np.array(calculation.numbers_before(start, _RASSI_STATE.format("SO-")))
    if len(totals):
        levels = (totals - totals[0]) * conversion("d_tensor", "Hartree")[0]
        if len(states) and not (
            len(states) == len(levels) and np.abs(states - states[0] - levels).max() <= SAME_LEVELS
        ):
            raise DataError(f"the states of {origin} must be those of RASSI in the same file, got other energies")
        states = levels
    return float(states[n] - states[0]) if len(states) > n else None


def _missing(text: str) -> str:
    """What a calculation without a D tensor lacks."""
    if match := _MULTIPLET.search(text):
        spin = shortened(f"{match[2] or 'unknown'}{match[3] or ''}")
        return (
            f"its multiplet 1 has an effective spin of {spin}, and D needs "
            "1 or more; MLTP of SINGLE_ANISO must be 1 multiplet of all 2S + 1 states"
        )
    if not re.search(r"Start Module:\s*rassi", text, re.IGNORECASE):
        return "the RASSI part is missing"
    return "the SINGLE_ANISO part is missing; import the file rassi.h5 of the same calculation instead"


def _all_digits(rounded: np.ndarray, block: list[str], origin: str) -> np.ndarray:
    """The tensor from the parameters B(2,q) in the frame of the magnetic axes, where both are printed."""
    axes = [numbers_in(_apart(match[2]), 3, origin) for line in block if (match := _MAGNETIC_AXIS.search(line))]
    b = {int(match[1]): _printed(match[2], origin) for line in block if (match := _STEVENS.search(line))}
    if len(axes) != 3 or len(b) != 5:
        return rounded
    a = _orthonormal(_orthogonal(np.array(axes), "magnetic", origin))
    xy, xz, yz = b[-2], b[1] / 2.0, b[-1] / 2.0
    tensor = a.T @ np.array([[b[2] - b[0], xy, xz], [xy, -b[2] - b[0], yz], [xz, yz, 2.0 * b[0]]]) @ a
    if not np.abs(tensor - rounded).max() <= ROUNDED + 1e-5 * np.abs(rounded).max():
        raise DataError(
            f"the D tensor of {origin} must agree with the parameters B(2,q) above it, got {excerpt(rounded.tolist())} "
            f"and {excerpt(tensor.tolist())} cm^-1"
        )
    return tensor


def _orthogonal(axes: np.ndarray, kind: str, origin: str) -> np.ndarray:
    if not np.abs(axes @ axes.T - np.eye(3)).max() <= ORTHOGONAL:  # also where a cosine is not a number
        raise DataError(f"the {kind} axes of {origin} must be orthonormal, got {axes.tolist()}")
    return axes


def _tensor(block: list[str], origin: str) -> np.ndarray:
    rows = [match for line in block if (match := _AXIS.search(line))]
    if [match[1].lower() for match in rows] != ["x", "y", "z"]:
        raise DataError(f"{origin} must contain Dx, Dy and Dz with their axes; this layout is not known")
    values = np.array([_printed(match[2], origin) for match in rows])
    axes = _orthogonal(np.array([numbers_in(_apart(match[4]), 3, origin) for match in rows]), "anisotropy", origin)
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


def _printed(text: str, origin: str) -> float:
    """A number of Fortran, whose exponent may begin with D."""
    return numbers_in(re.sub("[Dd]", "e", text), 1, origin)[0]


def _apart(cosines: str) -> str:
    """Direction cosines of fixed width may touch: a minus sign begins the next one."""
    return re.sub(r"(?<=\d)-", " -", cosines)
