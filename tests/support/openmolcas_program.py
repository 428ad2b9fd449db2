"""A program in the place of OpenMolcas: it leaves the files of a genuine calculation, or fails as OpenMolcas does."""

from __future__ import annotations

import stat
from pathlib import Path

import h5py
import numpy as np

SCRIPT = """#!/bin/sh
here={here}
[ "$1" = version ] && echo v22.10 && exit 0
out=$MOLCAS_OUTPUT
name=${{1%.input}}
end() {{ echo "--- Stop Module: $name at now /rc=$1 ---"; }}
echo "$1" >> "$here/calls"
echo "--- Start Module: $name at now ---"
if [ $name = start ]; then
    grep -q SCF start.input && cp "$here/scf.h5" "$out/frame.scf.h5"
    end _RC_ALL_IS_WELL_
    exit 0
fi
{states}
"""

GOOD = """
cp "$here/rasscf.h5" "$MOLCAS_WORKDIR/frame/converged4.h5"
cp "$here/rassi.h5" "$out/frame.rassi.h5"
end _RC_ALL_IS_WELL_
"""


def write_program(folder: Path, rassi: Path, states: str = GOOD, d_weight: float = 0.96) -> Path:
    """Write the program, and the files that it leaves, for [CoCl4]2- in a minimal basis of 54 functions.

    Parameters
    ----------
    rassi : file of a genuine calculation that it leaves.
    states : lines of the shell for the input of states.
    d_weight : of one of the active orbitals in `rasscf.h5`.
    """
    (folder / "rassi.h5").write_bytes(rassi.read_bytes())
    n, inactive = 54, 46
    functions = np.zeros((n, 4), dtype=np.int64)
    functions[:, 0] = np.repeat([1, 2, 3, 4, 5], [18, 9, 9, 9, 9])
    functions[:, 1] = 1
    functions[13:18, 2] = 2
    rng = np.random.default_rng(5)
    basis = np.eye(n) + 0.1 * rng.normal(size=(n, n))
    overlap = basis @ basis.T / n + np.eye(n)
    values, vectors = np.linalg.eigh(overlap)
    inverse_root = (vectors / np.sqrt(values)) @ vectors.T
    scf = np.linalg.qr(rng.normal(size=(n, n)))[0] @ inverse_root
    orbitals = np.eye(n)
    orbitals[[*range(13, 18), *range(46, 51)]] = orbitals[[*range(46, 51), *range(13, 18)]]
    c, s = np.sqrt(d_weight), np.sqrt(1.0 - d_weight)
    orbitals[[inactive, 0]] = np.array([[c, s], [-s, c]]) @ orbitals[[inactive, 0]]
    kinds = np.repeat(np.array([b"I", b"2", b"S"]), [inactive, 5, n - inactive - 5])
    for name, rows in (("scf.h5", scf), ("rasscf.h5", orbitals @ inverse_root)):
        with h5py.File(folder / name, "w") as file:
            file["AO_OVERLAP_MATRIX"] = overlap.ravel()
            file["MO_VECTORS"] = rows.ravel()
            file["MO_ENERGIES"] = np.sort(rng.normal(size=n))
            file["MO_OCCUPATIONS"] = np.zeros(n)
            file["MO_TYPEINDICES"] = kinds
            file["BASIS_FUNCTION_IDS"] = functions
    program = folder / "molcas"
    program.write_text(SCRIPT.format(here=f"'{folder}'", states=states))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program
