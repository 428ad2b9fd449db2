"""Outputs of quantum chemistry programs, written from their layouts with any numbers."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from gmcore.anisotropy import zfs_parameters
from gmcore.exchange.spin_hamiltonian import levels_of, spin_text
from gmcore.units import conversion

BOHR = conversion("length", "Bohr")[0]
BANNER = "                         * O   R   C   A *\n\n               Program Version 6.1.0  -  RELEASE   -\n\n"


def rows(matrix: np.ndarray, width: int = 12) -> str:
    return "".join("".join(f" {value:{width}.6f}" for value in row) + "  \n" for row in matrix)


def orca_geometry(atoms: Atoms) -> str:
    lines = "".join(f"  {s:<3}{x:13.6f}{y:13.6f}{z:13.6f}\n" for s, (x, y, z) in zip(atoms.symbols, atoms.positions))
    return f"---------------------------------\nCARTESIAN COORDINATES (ANGSTROEM)\n{'-' * 33}\n{lines}\n"


def d_and_ratio(matrix: np.ndarray, unit: str) -> str:
    found = zfs_parameters(matrix)
    return f"D   = {found.d:12.6f}  {unit}\nE/D = {found.e_over_d:12.6f}\n\n"


def orca_scf(matrix: np.ndarray, printed: str | None = None) -> str:
    """As ORCA 6 has it: a heading of the module first, which is none of the QDPT blocks."""
    module = f"{'-' * 20}\nZERO-FIELD SPLITTING\n{'-' * 20}\n\nMethod             : SCF\nBasis              : AO\n\n"
    values, vectors = np.linalg.eigh(matrix)
    return (
        f"{module}{'-' * 27}\nZERO-FIELD-SPLITTING TENSOR\n{'-' * 27}\n\nraw-matrix : \n{rows(matrix)}\n"
        f"Tensor is right-handed\ndiagonalized D matrix : \n{rows(values[None])}\n{rows(vectors)}\n\n"
        f"Direction X=1 Y=0 Z=2\n{printed or d_and_ratio(matrix, 'cm**-1')}"
        "SPIN-SPIN-PART\n                  0          1          2    \n      0       1.000000   0.000000   0.000000\n"
    )


def orca_qdpt(matrix: np.ndarray, words: str, printed: str | None = None) -> str:
    """One contribution; the effective Hamiltonian of a quartet stands before the matrix."""
    hamiltonian = "".join("   0.000000" * 4 + "\n" for _ in range(8)) if "EFFECTIVE" in words else ""
    values, vectors = np.linalg.eigh(matrix - np.trace(matrix) / 3.0 * np.eye(3))
    return (
        f"{'-' * 20}\nZERO-FIELD SPLITTING\n{words}\n{'-' * 20}\n\n{hamiltonian}\n"
        f"Raw matrix (cm-1):\n{rows(matrix)}\n"
        f"Eigenvalues (traceless):\n{rows(values[None])}\nEigenvectors:\n{rows(vectors)}\n"
        f"Euler angles w.r.t. molecular frame (degrees):\n   10.0  20.0  30.0\n\n"
        f"{printed or d_and_ratio(matrix, 'cm-1')}"
    )


def energies(method: str) -> str:
    return f"\n ------------------------------------------\n QDPT WITH {method} DIAGONAL ENERGIES\n {'-' * 42}\n\n"


def property_5(atoms: Atoms, matrix: np.ndarray, eigenvalues: np.ndarray | None = None) -> str:
    values, vectors = np.linalg.eigh(matrix)
    values = values if eigenvalues is None else eigenvalues
    header = "                  0          1          2    \n"

    def table(matrix):
        return header + "".join(f"{k:7d}" + "".join(f"{v:13.6f}" for v in row) + "\n" for k, row in enumerate(matrix))

    places = "".join(
        f"{k:16d} {s:<2}" + "".join(f"{x:18.12f}" for x in p) + "\n"
        for k, (s, p) in enumerate(zip(atoms.symbols, atoms.positions))
    )
    return (
        f"{'-' * 61}\n----------------------- !PROPERTIES! ------------------------\n{'-' * 61}\n# ---\n$ SCF_Energy\n"
        "   description: The SCF energy\n   geom. index: 1\n   prop. index: 1\n"
        "        SCF Energy:     -150.0850390508\n"
        "# -----------------------------------------------------------\n$ EPRNMR_DTensor\n   description: D tensor\n"
        "   geom. index: 1\n   prop. index: 1\n Source density: 1 SCF \n Spin multiplicity: 4 \n Raw D tensor: \n"
        f"{table(matrix)} D eigenvalues: \n{table(values[None])} D eigenvectors: \n{table(vectors)}# ---\n"
        "----------------------- !GEOMETRIES! ------------------------\n# ---\n"
        "------------------------ !GEOMETRY! -------------------------\n"
        f"    Number of atoms:    {len(atoms)} \n    Geometry Index:     1 \n    Coordinates:\n{places}"
    )


def property_6(geometries: list[Atoms], matrices: list[np.ndarray], title: str = "SCF_D_Tensor") -> str:
    text = f"{'*' * 49}\n******************* ORCA 6.1.0 ******************\n{'*' * 49}\n"
    text += "$Calculation_Status\n   &GeometryIndex 1\n$End\n"
    for index, (atoms, matrix) in enumerate(zip(geometries, matrices), start=1):
        places = "".join(
            f"              {s:<4}" + "".join(f"{x / BOHR:18.12f}" for x in p) + "\n"
            for s, p in zip(atoms.symbols, atoms.positions)
        )
        found = zfs_parameters(matrix)
        table = "".join(f"{k:<30d}" + "".join(f"{v:28.16e}" for v in row) + "\n" for k, row in enumerate(matrix))
        text += (
            f'$Geometry\n   &GeometryIndex {index}\n   &NAtoms [&Type "Integer"] {len(atoms)}\n'
            f'   &CartesianCoordinates [&Type "Coordinates", &Dim({len(atoms)},4), &Units "Bohr"] \n{places}$End\n'
            f'${title}\n   &GeometryIndex {index}\n   &d_raw [&Type "ArrayOfDoubles", &Dim (3,3)] \n'
            f"{'0':>58}{'1':>28}{'2':>28}\n\n{table}"
            f'   &D [&Type "Double"] {found.d:24.16e}\n   &E [&Type "Double"] {found.e:24.16e}\n'
            '   &Method [&Type "String"] "SCF"\n$End\n'
        )
    return text


def single_aniso(matrix: np.ndarray, atoms: Atoms | None = None, order=(2, 1, 0), spin: float = 1.5) -> str:
    """Multiplets 1 and 2; `order` says which eigenvalue is Dx, Dy, Dz."""
    text = ""
    if atoms is not None:
        upper = np.triu_indices(len(atoms), 1)
        repulsion = (np.outer(atoms.numbers, atoms.numbers)[upper] / atoms.get_all_distances()[upper]).sum() * BOHR
        text = "".join(
            f"      Associated Effective Charge {z:10.6f} au\n      Associated Actual Charge    {z:10.6f} au\n"
            for z in dict.fromkeys(atoms.numbers)
        ) + (
            "                    ************************************************ \n"
            "                    **** Cartesian Coordinates / Bohr, Angstrom **** \n"
            "                    ************************************************ \n\n"
            "     Center  Label                x              y              z                     x              y "
            "             z\n"
        )
        for k, (symbol, p) in enumerate(zip(atoms.symbols, atoms.positions), start=1):
            numbers = "".join(f"{x:15.6f}" for x in p / BOHR) + "       " + "".join(f"{x:15.6f}" for x in p)
            text += f"{k:9d}      {symbol.upper() + str(k):<8}{numbers}\n"
        text += f"\n     Nuclear Potential Energy            {repulsion:.8f} au\n"
    values, vectors = np.linalg.eigh(matrix - np.trace(matrix) / 3.0 * np.eye(3))
    values, vectors = values[list(order)], vectors[:, list(order)]
    x, y, z = values
    d, e = (1.5 * x, 0.5 * (y - z)) if abs(x - y) > abs(y - z) else (1.5 * z, 0.5 * (x - y))
    axes = "".join(
        f" D{'xyz'[k]} ={values[k]:9.3f} | {'XYZ'[k]}a |  1.000000  0.000000  0.000000 |"
        + "".join(f"{v:10.6f}" for v in vectors[:, k])
        + " |\n"
        for k in range(3)
    )
    heading = (
        "     CALCULATION OF PSEUDOSPIN HAMILTONIAN TENSORS FOR THE MULTIPLET {} ( effective S =  {})\n"
        + "".join(
            f"spin-orbit state{k:2d}. energy({k}) = {level:11.3f} cm-1.\n"
            for k, level in enumerate(levels_of(matrix, spin), start=1)
        )
    )
    block = (
        f"D TENSOR:\n{'-' * 84}|\nMAIN VALUES    |                           MAIN ANISOTROPY AXES                     |"
        "   x , y , z  -- initial Cartesian axes\n---------------|----\n"
        f"               |    |     Xm        Ym        Zm\n{axes}{'-' * 84}|\n\n"
        "2-nd order ZFS Hamiltonian:\n\nH_zfs^{2}= D * [S_{Za}^2 - S*(S+1)/3]\n\n"
        f"Anisotropy parameters: D = 3/2 * Dz;  E = (Dx-Dy)/2;\nD = {d:9.4f}\nE = {e:9.4f}\n"
    )
    first, second = (heading.format(number, spin_text(spin)) for number in (1, 2))
    return f"{text}{first}{block}{second}{block.replace(' Dx =', ' Dx = 9')}"
