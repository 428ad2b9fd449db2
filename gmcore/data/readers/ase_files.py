"""Extended XYZ, ASE trajectories and ASE databases.

ASE moves names that its calculators know (energy, forces, stress, dipole, charges, ...) from a file into a calculator;
other names end up in `info` (per structure) or `arrays` (per atom). A frame here gathers all three again. A name that
occurs in several of them is taken from `info` or `arrays`, which hold the value under the name used in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from gmcore.data.frames import Frame
from gmcore.errors import DataError, excerpt

_PROPERTIES = re.compile(rb"(?:^|\s)Properties\s*=\s*[\"'{]?([^\s\"'}]+)", re.IGNORECASE)


def read_extxyz(path: Path) -> Iterator[Frame]:
    """Yield the frames of an extended XYZ file.

    Raises
    ------
    DataError : a frame cannot be read.
    """
    from ase.io import iread

    _check_claims(path)
    return _frames(path, "extended XYZ", iread(path, index=":", format="extxyz"))


def _check_claims(path: Path) -> None:
    """Refuse more atoms or columns than the file has room for: the reader would look for them all."""
    size, number = path.stat().st_size, 1
    with open(path, "rb") as stream:
        while (header := stream.readline(100)).strip():
            try:
                n_atoms = int(header)
            except ValueError:  # not XYZ, which the reader says better
                return
            comment = stream.readline()
            left = size - stream.tell()
            if not 0 <= 2 * n_atoms <= left + 1:  # a row has a character and the end of its line
                raise DataError(
                    f"{path} cannot be read as extended XYZ: line {number} promises {excerpt(n_atoms)} atoms, "
                    f"{left} bytes follow"
                )
            rows = (stream.readline() for _ in range(n_atoms))
            words = len(next(rows, comment).split())
            columns = _columns(comment)
            if columns > words:
                raise DataError(
                    f"{path} cannot be read as extended XYZ: line {number + 1} declares {columns} columns, "
                    f"the row below has {words}"
                )
            for _ in rows:
                pass
            number += n_atoms + 2
            while (start := stream.tell()) and (line := stream.readline()).lstrip().startswith(b"VEC"):
                number += 1
            if line:
                stream.seek(start)


def _columns(comment: bytes) -> int:
    """Return the number of columns that a comment line declares, 0 where it does not."""
    declared = _PROPERTIES.search(comment)
    try:
        return sum(int(count) for count in declared[1].split(b":")[2::3]) if declared else 0
    except ValueError:
        return 0


def read_ase(path: Path) -> Iterator[Frame]:
    """Yield the frames of an ASE trajectory, or the rows of an ASE database with their key-value pairs and data.

    Raises
    ------
    DataError : a frame or row cannot be read.
    """
    if path.suffix.lower() in (".db", ".json"):
        return _frames(path, "an ASE database", _rows(path))
    from ase.io import iread

    return _frames(path, "an ASE trajectory", iread(path, index=":", format="traj"))


def _rows(path: Path) -> Iterator[Atoms]:
    from ase.db import connect

    with connect(path) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = {**row.data, **row.key_value_pairs}
            yield atoms


def _frames(path: Path, what: str, structures: Iterator[Atoms]) -> Iterator[Frame]:
    index = 0
    while True:
        try:
            atoms = next(structures)
        except StopIteration:
            break
        except Exception as error:  # parsers raise anything: IndexError, KeyError, sqlite3.DatabaseError, ...
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path} cannot be read as {what} at frame {index}: {reason}") from error
        yield _frame(atoms, f"frame {index} of {path.name}")
        index += 1


def _frame(atoms: Atoms, origin: str) -> Frame:
    fields = dict(atoms.calc.results) if atoms.calc is not None else {}
    fields |= atoms.info
    fields |= {name: array for name, array in atoms.arrays.items() if name not in ("numbers", "positions")}
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return Frame(bare, fields, origin)
