"""Extended XYZ, ASE trajectories and ASE databases.

ASE moves names that its calculators know (energy, forces, stress, dipole, charges, ...) from a file into a calculator;
other names end up in `info` (per structure) or `arrays` (per atom). A frame here gathers all three again. A name that
occurs in several of them is taken from `info` or `arrays`, which hold the value under the name used in the file. The
entry `units` of `info` states units as `gmtensor predict` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from ase import Atoms

from gmcore.data.frames import Frame, units_in_file
from gmcore.errors import DataError, shortened
from gmcore.extxyz.reading import XYZFrame, read_xyz_frames
from gmcore.formats import BoundedFile, check_arrays


def read_extxyz(path: Path, start: int = 0) -> Iterator[Frame]:
    """Yield the frames of an extended XYZ file from number `start` on.

    Raises
    ------
    DataError : a frame cannot be read.
    """
    return _frames(path, "extended XYZ", read_xyz_frames(path, start), start)


def read_ase(path: Path) -> Iterator[Frame]:
    """Yield the frames of an ASE trajectory, or the rows of an ASE database with their key-value pairs and data.

    Raises
    ------
    DataError : a frame or row cannot be read.
    """
    if path.suffix.lower() != ".db":
        check_arrays(path)
    if path.suffix.lower() in (".db", ".json"):
        return _frames(path, "an ASE database", _rows(path))
    return _frames(path, "an ASE trajectory", _images(path))


def _images(path: Path) -> Iterator[Atoms]:
    from ase.io.trajectory import TrajectoryReader

    with BoundedFile(path) as file:
        trajectory = TrajectoryReader(file)
        for k in range(len(trajectory)):
            yield trajectory[k]


def _rows(path: Path) -> Iterator[Atoms]:
    from ase.db import connect

    with connect(path) as database:
        for row in database.select():
            atoms = row.toatoms()
            atoms.info = {**row.data, **row.key_value_pairs}
            yield atoms


def _frames(path: Path, what: str, structures: Iterator[Atoms | XYZFrame], first: int = 0) -> Iterator[Frame]:
    for index in count(first):
        try:
            found = next(structures)
        except StopIteration:
            return
        except DataError:
            raise
        except Exception as error:  # parsers raise anything: IndexError, KeyError, sqlite3.DatabaseError, ...
            reason = shortened(str(error)) or type(error).__name__
            raise DataError(f"{path} cannot be read as {what} at frame {index}: {reason}") from error
        yield frame_of(found, f"frame {index} of {path.name}")


def frame_of(found: Atoms | XYZFrame, origin: str) -> Frame:
    """Return a structure of ASE, or an ordinary one of a file, as a frame with all values that it carries."""
    if isinstance(found, XYZFrame):
        fields, units = found.fields, units_in_file(found.fields.get("units"))
        return Frame(found.numbers, found.positions, found.cell, found.pbc, fields, origin, units)
    fields = dict(found.calc.results) if found.calc is not None else {}
    fields |= found.info
    fields |= {name: array for name, array in found.arrays.items() if name not in ("numbers", "positions")}
    return Frame.of(found, fields, origin, units_in_file(fields.get("units")))
