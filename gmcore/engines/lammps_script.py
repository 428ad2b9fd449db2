"""Input files of LAMMPS with lines for gmtensor.

    gmtensor potential MODEL elements C H Co [every N] [dtype float32|float64]
    gmtensor record FOLDER every N [d_tensor MODEL metal Co] [temperature T] [seed K]

The first line stands where `pair_style` and `pair_coeff` would, the second before the runs that are recorded; a
recording ends with the next one or with the file. All other lines are for LAMMPS, which gets them unchanged, part by
part. A line for gmtensor may use variables of LAMMPS (${name}) and go on after &.

Not supported: these lines inside included files, loops and conditions; `jump` to the file itself must be `jump SELF`
and stay within its part.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
from ase import Atoms
from ase.data import atomic_numbers

from gmcore.engines import EngineError
from gmcore.engines.lammps import LammpsPotential, open_lammps
from gmcore.engines.lammps_recorder import LammpsRecorder
from gmcore.suggest import did_you_mean
from gmcore.threads import available_cores, set_threads

POTENTIAL = {"elements": "symbols", "every": "number", "dtype": "text"}
RECORD = {"every": "number", "d_tensor": "text", "metal": "text", "temperature": "real", "seed": "number"}
NAMES = {"potential": POTENTIAL, "record": RECORD}


def split_script(text: str) -> list[str | list[str]]:
    r"""Divide an input into parts for LAMMPS (a string each) and lines for gmtensor (a list of lines, joined at &).

    >>> split_script("units metal\ngmtensor record a &\nevery 5\nrun 10\n")
    ['units metal\n', ['gmtensor record a  every 5'], 'run 10\n']
    """
    parts: list[str | list[str]] = []
    for_lammps: list[str] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.split()[:1] != ["gmtensor"]:
            for_lammps.append(line + "\n")
            continue
        if for_lammps:
            parts.append("".join(for_lammps))
            for_lammps = []
        while line.rstrip().endswith("&") and number < len(lines):
            line = line.rstrip()[:-1] + " " + lines[number]
            number += 1
        parts.append([line])
    return [*parts, "".join(for_lammps)] if for_lammps else parts


def parse_line(line: str) -> tuple[str, str, dict[str, Any]]:
    """Return the name, the file or folder, and the options of a line for gmtensor.

    Raises
    ------
    EngineError : an unknown name or option, or a value that is missing or no number.
    """
    words = shlex.split(line, comments=True)
    name = words[1] if len(words) > 1 else ""
    if name not in NAMES:
        raise EngineError(
            f"a line for gmtensor must begin with 'gmtensor potential' or 'gmtensor record', got {line.strip()!r}"
        )
    kinds, key = NAMES[name], None
    options: dict[str, list[str]] = {}
    if len(words) < 3:
        raise EngineError(f"'gmtensor {name}' must name a {'model' if name == 'potential' else 'folder'}, got nothing")
    for word in words[3:]:
        if key is None or (kinds[key] == "symbols" and word in kinds):
            key = word
            if key not in kinds:
                raise EngineError(f"'gmtensor {name}' has no option {key!r}{did_you_mean(key, kinds)}")
            options[key] = []
            continue
        options[key].append(word)
        if kinds[key] != "symbols":
            key = None
    return name, words[2], {key: _value(name, key, kinds[key], given) for key, given in options.items()}


def _value(name: str, key: str, kind: str, given: list[str]) -> Any:
    if not given:
        raise EngineError(f"the option {key} of 'gmtensor {name}' needs a value")
    if kind == "symbols":
        return given
    try:
        return {"text": str, "number": int, "real": float}[kind](given[0])
    except ValueError:
        raise EngineError(f"the option {key} of 'gmtensor {name}' must be a number, got {given[0]!r}") from None


def run_script(path: str | os.PathLike, arguments: Sequence[str] = (), threads: int | None = None) -> None:
    """Run an input file with lines for gmtensor in LAMMPS, on all processes of mpirun.

    Parameters
    ----------
    path : the input file.
    arguments : those of the program `lmp`, such as ("-var", "T", "300").
    threads : threads of each process (default: the cores of the machine divided among its processes).

    Raises
    ------
    EngineError : LAMMPS or a line for gmtensor cannot do what it says.
    GMError : the models or the molecules cannot be used, or a step failed.
    """
    try:
        parts = split_script(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"the input {path} cannot be read: {error}") from error
    for part in parts:  # all are checked before anything runs
        if isinstance(part, list) and "$" not in part[0]:
            parse_line(part[0])
    lammps = open_lammps(arguments)
    try:
        _Script(lammps, threads).run(parts)
    finally:
        lammps.close()


class _Script:
    """The state of a script between its parts."""

    def __init__(self, lammps: Any, threads: int | None):
        from mpi4py import MPI

        self._lammps, self._comm = lammps, MPI.COMM_WORLD
        here = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        set_threads(threads or max(1, min(available_cores() // here.size, numba.config.NUMBA_NUM_THREADS)))
        self._potential: LammpsPotential | None = None
        self._recorder: LammpsRecorder | None = None

    def run(self, parts: list[str | list[str]]) -> None:
        for part in parts:
            if isinstance(part, str):
                self._run_lammps(part)
            else:
                name, file, options = parse_line(self._lammps.expand(part[0]) or part[0])
                self._start_potential(file, options) if name == "potential" else self._start_recorder(file, options)
        self._end_recording()

    def _run_lammps(self, text: str) -> None:
        """Give LAMMPS a part as a file, so that it can jump in it; the first process reads it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in.lammps"
            path.write_text(text, encoding="utf-8")
            try:
                self._lammps.file(self._comm.bcast(str(path)))
            except Exception as error:  # LAMMPS raises plain exceptions
                if self._potential is not None:
                    self._potential.raise_errors()
                raise EngineError(f"LAMMPS: {' '.join(str(error).split()).removeprefix('ERROR: ')}") from error
        if self._potential is not None:
            self._potential.raise_errors()

    def _start_potential(self, file: str, options: dict[str, Any]) -> None:
        if self._potential is not None:
            raise EngineError("an input of LAMMPS can have one line 'gmtensor potential', got a second one")
        elements = options.pop("elements", None)
        if elements is None:
            raise EngineError("'gmtensor potential' must say the element of every atom type: elements C H Co")
        self._potential = LammpsPotential(self._lammps, file, elements, **options)

    def _start_recorder(self, folder: str, options: dict[str, Any]) -> None:
        if self._potential is None:
            raise EngineError("'gmtensor record' must come after 'gmtensor potential'")
        if "every" not in options:
            raise EngineError("'gmtensor record' must say the number of steps between samples: every 10")
        self._end_recording()
        d_tensor, metal = options.pop("d_tensor", None), options.pop("metal", None)
        if (d_tensor is None) != (metal is None):
            raise EngineError("d_tensor and metal must be given together: d_tensor MODEL metal Co")
        if metal is not None and metal not in atomic_numbers:
            raise EngineError(f"metal must be an element such as Co, got {metal!r}")
        every = options.pop("every")
        make = None if d_tensor is None else lambda start: _observer(d_tensor, metal, start)
        self._recorder = LammpsRecorder(self._potential, folder, every, make, **options)

    def _end_recording(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None


def _observer(model: str, metal: str, start: Atoms) -> Any:
    from gmcore.dynamics.tensor_observer import TensorObserver, declared_molecules
    from gmcore.model import load_model

    return TensorObserver(load_model(model), declared_molecules(start, metal, None))
