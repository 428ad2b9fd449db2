"""Labels for the frames of a file: several at a time, each whole or not at all, none computed twice.

The state is a folder beside the output, see `gmcore.labeling.store`. After an interruption of any kind the same call
goes on where it was: a frame that is labeled is never computed again, and the output is the same as without the
interruption if the method gives the same labels for the same frame.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from gmcore.config.labeling import LabelConfig
from gmcore.data.frames import Frame, default_length, in_angstrom
from gmcore.data.labels import detraced, label_array, symmetrized
from gmcore.data.reading import read_frames
from gmcore.errors import DataError, GMError
from gmcore.files import WriteError, atomic_path, lock_folder
from gmcore.labeling.code import CodeMethod
from gmcore.labeling.methods import LabelError, Labels, Method, Missing, Refused
from gmcore.labeling.openmolcas import OpenMolcasMethod
from gmcore.labeling.orca import OrcaMethod
from gmcore.labeling.processes import Interrupted, Processes, environment_with, over_time
from gmcore.labeling.store import ADVICE, Store, StoreError, remove_folder
from gmcore.quantities import BY_NAME, PER_ATOM_GRADE, is_per_atom, quantity_of
from gmcore.running.interruption import EndedEarly, Interruption

LAYOUT = "1"
"""Part of every key; another one forgets all labels."""


@dataclass
class Summary:
    """What became of the frames.

    Attributes
    ----------
    total : frames in the file.
    labeled : frames with labels.
    computed : of these, how many were computed now; several equal frames count once.
    seconds : computing time of all labels, summed over the frames, also of those known from earlier calls.
    refused : where a frame is, and why it was refused.
    missing : where a frame is, and where its result is expected.
    """

    total: int
    labeled: int = 0
    computed: int = 0
    seconds: float = 0.0
    refused: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Task:
    """A frame to be labeled: positions in A; `key` names it together with the settings."""

    frame: Frame
    atoms: Atoms
    total_charge: float | None
    multiplicity: int | None
    key: str = ""


def work_folder(output: Path) -> Path:
    """Return the folder of the state that belongs to an output."""
    return output.with_name(output.name + ".work")


def method_of(config: LabelConfig, processes: Processes, folder: Path) -> Method:
    """Return the method of a configuration.

    Parameters
    ----------
    processes : where it runs its programs, unless they run by `FrameJob.run`.
    folder : the work folder.
    """
    if config.method == "orca":
        return OrcaMethod(config, folder)
    if config.method == "openmolcas":
        return OpenMolcasMethod(config)
    return CodeMethod(config, processes)


def label_frames(
    path: Path,
    config: LabelConfig,
    output: Path,
    *,
    retry: bool = False,
    skip_missing: bool = False,
    report: Callable[[str], None] = lambda line: None,
    interruption: Interruption | None = None,
) -> Summary:
    """Label the frames of a file, and write those that have labels.

    Parameters
    ----------
    path : file in any known format.
    output : extended XYZ file to write; it is not written if no frame has labels, or if results are missing.
    retry : try frames again that were refused by an earlier call.
    skip_missing : write the output although results are missing.
    report : called with a line of text for each frame that was computed.
    interruption : ends the work at its time limit; frames that are being computed are given up.

    Raises
    ------
    DataError, UnitError : the file of frames cannot be used, or its unit of length is not known.
    LabelError : the method cannot be used.
    LockError : another process labels frames for the same output.
    StoreError : a file of the work folder is damaged.
    WriteError : the disk is full.
    EndedEarly, KeyboardInterrupt : a signal or the time limit; what is labeled is kept.
    """
    if sys.platform == "win32":
        raise LabelError("frames can be labeled on Linux and macOS only: use a virtual machine")
    tasks = [_task(frame, path, config) for frame in read_frames(path)]
    folder, processes = work_folder(output), Processes()
    with lock_folder(folder):
        method = method_of(config, processes, folder.resolve())
        try:
            method.check()
            if method.needs_charge:
                _require_charges(tasks, config)
            identity = hashlib.sha256(
                "\n".join([LAYOUT, config.method, *config.wanted, method.identity()]).encode()
            ).hexdigest()
            tasks = [_with_key(task, identity) for task in tasks]
            run = _Run(config, method, processes, Store(folder), identity, report)
            run.label(tasks, retry, interruption)
        finally:
            processes.stop()
            method.close()
        summary, frames = run.collected(tasks)
        if frames and (skip_missing or not summary.missing):
            with atomic_path(output) as temporary:
                write(temporary, frames, format="extxyz")
    return summary


class _Run:
    """The labeling of several frames; parameters as in `label_frames`."""

    def __init__(
        self,
        config: LabelConfig,
        method: Method,
        processes: Processes,
        store: Store,
        identity: str,
        report: Callable[[str], None],
    ):
        self._config, self._method, self._processes, self._store = config, method, processes, store
        self._identity, self._report = identity, report
        self._missing: dict[str, str] = {}
        self._computed = 0

    def label(self, tasks: Sequence[_Task], retry: bool, interruption: Interruption | None = None) -> None:
        """Label all frames that are not labeled yet."""
        again = retry or self._method.retries
        open_tasks: dict[str, _Task] = {}
        for task in tasks:
            if self._store.record(task.key) is None and (again or self._store.refusal(task.key) is None):
                open_tasks.setdefault(task.key, task)
        if not open_tasks:
            return
        executor = ThreadPoolExecutor(min(self._config.jobs, len(open_tasks)))
        try:
            running = {executor.submit(self._label, task) for task in open_tasks.values()}
            number = 0
            while running:
                limit = None if interruption is None else interruption.seconds_left
                done, running = wait(running, limit and max(limit, 0.0), return_when=FIRST_COMPLETED)
                if not done:
                    raise EndedEarly("ended by the time limit")
                for future in done:
                    number += 1
                    labeled, line = future.result()
                    self._computed += labeled
                    self._report(f"[{number}/{len(open_tasks)}] {line}")
        finally:  # after an interruption or an error, the others are ended and not waited for
            if running:
                self._processes.stop()
            executor.shutdown(wait=True, cancel_futures=True)

    def collected(self, tasks: Sequence[_Task]) -> tuple[Summary, list[Atoms]]:
        """Return what became of all frames, and those with labels."""
        summary, frames = Summary(len(tasks), computed=self._computed), []
        for key in {task.key: None for task in tasks}:
            record = self._store.record(key)
            summary.seconds += record["seconds"] if record else 0.0
        for task in tasks:
            record = self._store.record(task.key)
            if record is not None:
                try:
                    values = _checked(Labels(record["values"]), task, self._config.wanted)
                except GMError as error:
                    raise StoreError(f"{self._store.path(task.key)}: {error}; {ADVICE}") from error
                frames.append(_labeled(task, values, record["extras"]))
            elif task.key in self._missing:
                summary.missing.append((task.frame.origin, self._missing[task.key]))
            else:
                summary.refused.append((task.frame.origin, self._store.refusal(task.key) or ""))
        summary.labeled = len(frames)
        return summary, frames

    def _label(self, task: _Task) -> tuple[bool, str]:
        """Label a frame and write the result down; return whether it is labeled, and what happened."""
        if self._processes.stopped:
            raise Interrupted("labeling is being stopped")
        scratch, start = self._store.new_scratch(task.key), time.monotonic()
        job = _Job(task, scratch, self._config, self._processes, self._store, self._geometry(task))
        try:
            result = self._method.label(task.atoms.copy(), job)
            values = _checked(result, task, self._config.wanted)
        except (LabelError, WriteError, Interrupted):
            raise
        except Missing as missing:
            remove_folder(scratch)
            self._missing[task.key] = str(missing)
            return False, f"{task.frame.origin}: {missing}"
        except GMError as error:
            if self._processes.stopped:  # it may have failed because its program was ended
                raise Interrupted("labeling is being stopped") from error
            reason = " ".join(str(error).split())
            self._store.refuse(task.key, reason, task.frame.origin, scratch)
            return False, f"{task.frame.origin}: refused: {reason}"
        seconds = time.monotonic() - start
        kept = scratch if self._config.keep else None
        self._store.add(task.key, values, result.extras, result.files, self._geometry(task), seconds, kept)
        if kept is None:
            remove_folder(scratch)
        return True, f"{task.frame.origin}: labeled in {seconds:.3g} s"

    def _geometry(self, task: _Task) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "numbers": task.atoms.numbers.tolist(),
            "positions": task.atoms.positions.tolist(),
            "total_charge": task.total_charge,
            "multiplicity": task.multiplicity,
        }


class _Job:
    """A frame as the method sees it, see `gmcore.labeling.methods.FrameJob`."""

    def __init__(
        self,
        task: _Task,
        folder: Path,
        config: LabelConfig,
        processes: Processes,
        store: Store,
        geometry: Mapping[str, Any],
    ):
        self.key, self.folder = task.key, folder
        self.time_limit, self.threads = config.time_limit, config.threads
        self.total_charge, self.multiplicity = task.total_charge, task.multiplicity
        self._deadline = time.monotonic() + config.time_limit
        self._processes, self._store, self._geometry = processes, store, geometry

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None, log: str = "log.txt") -> int:
        """Run a program in the folder and return its exit code."""
        variables = environment_with(self.threads, environment)
        with open(self.folder / log, "ab") as file:
            process = self._processes.start(command, self.folder, variables, file)
            try:
                code = process.receive(self._deadline)["exit"]
            except TimeoutError:
                raise over_time(self.time_limit) from None
            finally:
                self._processes.end(process)
        if self._processes.stopped:
            raise Interrupted("labeling is being stopped")
        return int(code)

    def nearest(self, name: str) -> Path | None:
        """Return the file `name` kept by the nearest labeled frame."""
        return self._store.nearest(name, self._geometry)


def _task(frame: Frame, path: Path, config: LabelConfig) -> _Task:
    """Return the task of a frame of a file, without its key."""
    given = in_angstrom(frame, path, default_length(path))
    atoms = Atoms(given.numbers, given.positions, cell=given.cell, pbc=given.pbc)
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise DataError(f"positions and cell of {frame.origin} must be finite")
    charge = _number(frame, "total_charge", config.total_charge)
    multiplicity = _number(frame, "multiplicity", config.multiplicity)
    if multiplicity is not None and not (multiplicity == int(multiplicity) and 1 <= multiplicity <= 100):
        raise DataError(f"multiplicity of {frame.origin} must be a whole number from 1 to 100, got {multiplicity:g}")
    return _Task(frame, atoms, charge, None if multiplicity is None else int(multiplicity))


def _number(frame: Frame, name: str, default: float | None) -> float | None:
    value = frame.fields.get(name)
    if value is None:
        return default
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise DataError(f"{name} of {frame.origin} must be a number, got {value!r}")
    return float(array.reshape(()))


def _require_charges(tasks: Sequence[_Task], config: LabelConfig) -> None:
    for task in tasks:
        for name in ("total_charge", "multiplicity"):
            if getattr(task, name) is None:
                raise LabelError(
                    f"method {config.method} needs the {name} of every frame, and {task.frame.origin} does not state "
                    f"it: set {name} in the configuration"
                )


def _with_key(task: _Task, identity: str) -> _Task:
    digest = hashlib.sha256(f"{identity} {task.total_charge} {task.multiplicity}\n".encode())
    atoms = task.atoms
    for array in (atoms.numbers.astype("<i8"), atoms.positions, atoms.cell.array, atoms.pbc.astype("<i8")):
        digest.update(np.ascontiguousarray(array + 0, dtype=array.dtype.newbyteorder("<")).tobytes())
    return _Task(task.frame, atoms, task.total_charge, task.multiplicity, digest.hexdigest()[:32])


def _checked(result: Labels, task: _Task, wanted: Sequence[str]) -> dict[str, Any]:
    """Return the wanted quantities as nested lists, in shape, finite and D tensors without trace.

    Raises
    ------
    GMError : a quantity is missing or cannot be used.
    """
    values = {}
    for name in wanted:
        if name not in result.values:
            known = ", ".join(result.values) or "nothing"
            raise Refused(f"{name} is missing from the result, which has {known}")
        array = label_array(name, result.values[name], Frame.of(task.atoms, {}, task.frame.origin))
        if BY_NAME[name].is_tensor:
            array = symmetrized(name, array[None], [task.frame.origin], BY_NAME[name].unit)[0][0]
        if BY_NAME[name].traceless:
            array = detraced(name, array[None], BY_NAME[name].unit)[0][0]
        values[name] = array.tolist()
    return values


def _labeled(task: _Task, values: Mapping[str, Any], extras: Mapping[str, Any]) -> Atoms:
    """Return the frame with all that its file says but for predictions, its labels, and the units."""
    atoms, n_atoms = task.atoms.copy(), len(task.atoms)
    left_out = {"numbers", "positions", "length", *_predictions(task.frame.fields, values)}
    units = {name: unit for name, unit in task.frame.units.items() if name not in left_out and name not in values}
    for name, value in task.frame.fields.items():
        array = np.asarray(value)
        if name in left_out:
            continue
        if _is_column(name, array, n_atoms + task.frame.padding):
            atoms.arrays[name] = array[:n_atoms]
        else:
            atoms.info[name] = value
    for name in ("total_charge", "multiplicity"):
        if (value := getattr(task, name)) is not None and name not in atoms.info:
            atoms.info[name] = int(value) if value == int(value) else value
    atoms.info.update(extras)
    for name, value in values.items():
        if BY_NAME[name].per_atom:
            atoms.arrays[name] = np.array(value, dtype=np.float64)
            atoms.info.pop(name, None)
        else:
            atoms.info[name] = np.array(value, dtype=np.float64) if isinstance(value, list) else value
            atoms.arrays.pop(name, None)
    units |= {name: BY_NAME[name].unit for name in values if BY_NAME[name].unit}
    atoms.info["units"] = " ".join(["positions=A", *(f"{name}={unit}" for name, unit in units.items())])
    return atoms


def _predictions(names: Collection[str], labeled: Collection[str]) -> set[str]:
    """Return the fields that are predictions of a model, which must not be mistaken for labels.

    They are known by an error or a deviation beside them. Errors of what is labeled now are no errors of the label.
    """
    found = set()
    for name in names:
        quantity = quantity_of(name)
        if quantity != name and quantity in BY_NAME and (quantity in names or quantity in labeled):
            found |= {name, quantity}
    return found


def _is_column(name: str, array: np.ndarray, rows: int) -> bool:
    """Whether a field of a file has one row for each atom."""
    quantity = BY_NAME.get(quantity_of(name))
    if quantity is not None or name == PER_ATOM_GRADE:
        return is_per_atom(name)
    return array.ndim in (1, 2) and len(array) == rows and array.shape not in ((3,), (3, 3))
