"""Trajectories of other programs: text dumps of LAMMPS, and what MDAnalysis reads (extra `mdanalysis`).

A dump names atoms by types, and many trajectories name no atoms at all. Which element a type is must be stated, unless
the dump has a column `element` or the topology has elements; nothing is guessed from masses or names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.io.lammpsrun import read_lammps_dump_text

from gmcore.data.frames import Frame
from gmcore.errors import DataError, GMError, excerpt, shortened

SNAPSHOT, ATOMS, UNITS = b"ITEM: TIMESTEP", b"ITEM: ATOMS", b"ITEM: UNITS"
LENGTHS = {"metal": "A", "real": "A", "electron": "Bohr", "nano": "nm"}
"""Unit of length by the style of units that a dump may state."""
_ONE = re.compile(rb"ITEM: NUMBER OF ATOMS\s+(\d+)")
ADVICE = "state the element of each type, for example: --element 1=Co --element 2=N"


def checked_elements(elements: Mapping[str, str]) -> dict[str, str]:
    """Return the elements of types after a look at their symbols.

    Raises
    ------
    DataError : one is no element.
    """
    for kind, symbol in elements.items():
        if atomic_numbers.get(symbol, 0) < 1:
            raise DataError(f"the element of type {excerpt(kind)} must be a symbol such as Co, got {excerpt(symbol)}")
    return dict(elements)


def read_lammps(path: Path, elements: Mapping[str, str], start: int = 0) -> Iterator[Frame]:
    """Yield the snapshots of a text dump of LAMMPS from number `start` on, atoms in the order of their ids.

    Parameters
    ----------
    elements : type -> symbol; not needed if the dump has a column `element`.

    Raises
    ------
    DataError : a snapshot cannot be read, or the element of a type is not known.
    """
    elements = checked_elements(elements)
    for index, lines in enumerate(_snapshots(path, start)):
        origin = f"frame {start + index} of {path.name}"
        try:
            yield _snapshot(lines, elements, origin, path.stat().st_size)
        except GMError:
            raise
        except Exception as error:  # ASE's parsers raise anything
            reason = shortened(str(error)) or type(error).__name__
            raise DataError(f"{path} cannot be read as a dump of LAMMPS at frame {start + index}: {reason}") from error


def count_lammps(path: Path) -> int:
    """Return the number of snapshots of a dump."""
    with open(path, "rb") as stream:
        return sum(line.startswith(SNAPSHOT) for line in stream)


def _snapshots(path: Path, start: int) -> Iterator[list[bytes]]:
    number, lines = -1, list[bytes]()
    with open(path, "rb") as stream:
        for line in stream:
            if line.startswith(SNAPSHOT):
                if number >= start:
                    yield lines
                number, lines = number + 1, []
            if number >= start or number < 0:
                lines.append(line)
    if number < 0 and any(line.strip() for line in lines):
        raise DataError(f'{path} is no text dump of LAMMPS: it has no line "{SNAPSHOT.decode()}"')
    if number >= start:
        yield lines


def _snapshot(lines: list[bytes], elements: Mapping[str, str], origin: str, size: int) -> Frame:
    head = next((k for k, line in enumerate(lines) if line.startswith(ATOMS)), None)
    counted = _ONE.search(b"".join(lines[: head or 0]))
    if head is None or counted is None or len(lines) - head - 1 < int(counted[1]):
        raise DataError(f"{origin} is not complete: the dump was cut, or is still written")
    columns = lines[head].decode().split()[2:]
    kinds: list[str] = []
    if elements:
        if "type" not in columns:
            raise DataError(f"{origin} has no column type to which elements could be given")
        at = columns.index("type")
        used = {row.split()[at].decode() for row in lines[head + 1 : head + 1 + int(counted[1])]}
        if unknown := sorted(used - elements.keys()):
            raise DataError(f"the element of type {unknown[0]} of {origin} is not known: {ADVICE}")
        kinds = [elements.get(str(k + 1), "X") for k in range(max(map(int, used)))]
        columns = [f"other_{name}" if name in ("element", "mass") else name for name in columns]
    elif "element" not in columns:
        raise DataError(f"{origin} has types and no elements: {ADVICE}")
    text = b"".join([*lines[:head], f"ITEM: ATOMS {' '.join(columns)}\n".encode(), *lines[head + 1 :]]).decode()
    atoms = read_lammps_dump_text(StringIO(text), index=0, specorder=kinds or None, units="metal")
    units = next((lines[k + 1].decode().strip() for k in range(head) if lines[k].startswith(UNITS)), "")
    fields: dict[str, Any] = {"step": int(lines[1])}
    if atoms.calc is not None:
        fields |= atoms.calc.results
    return Frame.of(atoms, fields, origin, {"length": LENGTHS[units]} if units in LENGTHS else {})


def read_mdanalysis(path: Path, elements: Mapping[str, str], topology: Path | None, start: int = 0) -> Iterator[Frame]:
    """Yield the frames of a trajectory that MDAnalysis reads from number `start` on; lengths are in A.

    Parameters
    ----------
    elements : type in the topology -> symbol; not needed if the topology has elements.
    topology : file that names the atoms; may be left out if the trajectory does.

    Raises
    ------
    DataError : the trajectory cannot be read, or the element of an atom is not known.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what topologies do not have
        universe = _universe(path, topology)
        numbers = _numbers(universe.atoms, checked_elements(elements), path)
        from MDAnalysis.lib.mdamath import triclinic_vectors

        for index in range(start, len(universe.trajectory)):
            try:
                step = universe.trajectory[index]
            except Exception as error:
                reason = shortened(str(error)) or type(error).__name__
                raise DataError(f"{path} cannot be read by MDAnalysis at frame {index}: {reason}") from error
            box = step.dimensions
            cell = np.zeros((3, 3)) if box is None else np.array(triclinic_vectors(box), np.float64)
            fields = {"step": int(step.data.get("step", step.frame)), "time": 1000.0 * float(step.time)}
            place = numbers, np.array(step.positions, np.float64), cell, np.full(3, bool(cell.any()))
            yield Frame(*place, fields, f"frame {index} of {path.name}", {"length": "A"})


def count_mdanalysis(path: Path, topology: Path | None) -> int:
    """Return the number of frames of a trajectory that MDAnalysis reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return len(_universe(path, topology).trajectory)


def _universe(path: Path, topology: Path | None) -> Any:
    try:
        import MDAnalysis
    except ImportError as error:
        raise DataError(
            f"reading {path} needs MDAnalysis: install it with pip install 'gmtensor[mdanalysis]'"
        ) from error
    try:
        return MDAnalysis.Universe(*([str(topology)] if topology else []), str(path))
    except Exception as error:
        reason = shortened(str(error)) or type(error).__name__
        hint = "" if topology else "; a trajectory without names of its atoms needs --topology"
        raise DataError(f"{path} cannot be read by MDAnalysis: {reason}{hint}") from error


def _numbers(atoms: Any, elements: Mapping[str, str], path: Path) -> np.ndarray:
    """Return the atomic numbers of the atoms of a topology."""
    named = [str(symbol).capitalize() for symbol in getattr(atoms, "elements", [""] * len(atoms))]
    kinds = [str(kind) for kind in getattr(atoms, "types", [""] * len(atoms))]
    symbols = [elements.get(kind, symbol) for kind, symbol in zip(kinds, named)]
    unknown = sorted({kind for kind, symbol in zip(kinds, symbols) if atomic_numbers.get(symbol, 0) < 1})
    if unknown == [""]:
        raise DataError(f"{path} does not name its atoms: state a file that does with --topology")
    if unknown:
        raise DataError(
            f"the topology of {path} has no element for atoms of type {', '.join(unknown[:5])}: state it, for example: "
            f"--element {unknown[0]}=C"
        )
    return np.array([atomic_numbers[symbol] for symbol in symbols])
