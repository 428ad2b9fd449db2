"""A trajectory of a LAMMPS run, with D of molecules, in the layout of `gmtensor md`.

LAMMPS calls Python in the middle of a step, where velocities are half a step behind. The command `fix store/state`
keeps positions, not wrapped, and velocities at the end of every n-th step; they are read in the next one. The first
process gathers them and evaluates D while the others wait.

Steps are counted from the last multiple of n before the recording began. A file is written after every
`samples_per_file` samples, so a killed run loses these at most; `close` joins the files.

Not supported: a changing number of atoms, going on with an earlier recording, and `reset_timestep` while recording.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.dynamics.h5md import Header, merge_segments, write_segment
from gmcore.dynamics.tensor_observer import TensorObserver
from gmcore.dynamics.trajectory import MERGED, SEGMENTS, segment_path, segments_in
from gmcore.engines import EngineError
from gmcore.engines.lammps import LammpsPotential
from gmcore.units import BOLTZMANN, MASS_UNIT

STORE = "gmtensor_store"
"""Name of the fix that keeps positions and velocities."""
PICOSECOND = 1000.0  # fs


class LammpsRecorder:
    """Records every n-th step of the runs of LAMMPS from now on, until `close`. Made by all processes together.

    Parameters
    ----------
    potential : the model in LAMMPS.
    folder : folder of the run; `gmtensor analyze` and `gmtensor report` read it.
    every : steps between samples.
    observer : makes the evaluator of D from the present structure (default: no D). It is called on the first process
        only, and must not read files with ASE, which waits for the other processes then.
    temperature : target temperature, K; not given for nve.
    seed : of velocities and thermostat, to tell replicas apart.
    samples_per_file : samples that a killed run loses at most.

    Attributes
    ----------
    folder : Path
    n_samples : number of samples so far.

    Raises
    ------
    EngineError : the folder has a trajectory already, or `every` is below 1.
    GMError : the molecules are not found, or the D model cannot be used.
    """

    def __init__(
        self,
        potential: LammpsPotential,
        folder: str | os.PathLike,
        every: int,
        observer: Callable[[Atoms], TensorObserver] | None = None,
        temperature: float | None = None,
        seed: int = 0,
        samples_per_file: int = 500,
    ):
        self.folder, self.n_samples = Path(folder), 0
        self._potential, self._comm, self._lammps = potential, potential.comm, potential.lammps
        self._every, self._size = int(every), samples_per_file
        self._observer: TensorObserver | None = None
        self._steps: list[int] = []
        self._values: dict[str, list[np.ndarray]] = {}
        self._at: dict[str, list[int]] = {}
        self._n_files = 0
        self._last_call = self._last_sample = -1
        if every < 1:
            raise EngineError(f"every must be at least 1, got {every}")
        self._define()
        first = int(self._lammps.extract_global("ntimestep"))
        self._origin, self._last_sample = first - first % self._every, first
        self._on_first(lambda state: self._begin(state, observer, temperature, seed))
        potential.observers.append(self._observe)

    def close(self) -> None:
        """Record the last step if it is due, join the files, and stop recording.

        Raises
        ------
        WriteError, TrajectoryError : the files cannot be written.
        EngineError : there is no sample, because every run was shorter than `every` steps.
        """
        if self._observe not in self._potential.observers:
            return
        self._potential.observers.remove(self._observe)
        step = int(self._lammps.extract_global("ntimestep"))
        self._take(step - step % self._every)
        self._on_first(self._finish)
        self._lammps.command(f"unfix {STORE}")

    def __enter__(self) -> LammpsRecorder:
        """Record until the end of the block."""
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            self.close()

    # samples ---------------------------------------------------------------------------------------------------------

    def _define(self) -> None:
        columns = "xu yu zu vx vy vz"
        self._lammps.command(f"fix {STORE} all store/state {self._every} {columns}")

    def _observe(self, step: int) -> None:
        """Take the sample of an earlier step that has ended."""
        ended = step if step == self._last_call else step - 1  # a run begins by evaluating its first step again
        if step < self._last_call:
            raise EngineError(f"a recording cannot go on after reset_timestep, got step {step} after {self._last_call}")
        if self._last_call >= 0:
            self._take(ended - ended % self._every)
        self._last_call = step

    def _take(self, step: int) -> None:
        if step <= self._last_sample:
            return
        self._last_sample = step
        last = self._potential.last
        self._on_first(lambda state: self._add(step, state, last if last and last.number == step else None))

    def _on_first(self, function: Callable[[Any], None]) -> None:
        """Call a function with the present state on the first process; its error is raised on all of them."""
        state, error = self._gather(), None
        if self._comm.rank == 0:
            try:
                function(state)
            except Exception as failure:
                error = failure
        words = self._comm.bcast(None if error is None else f"{error}")
        if words is not None:
            raise error if error is not None else EngineError(words)

    def _gather(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Types, positions (A), velocities (A/fs) of all atoms in the order of their tags, and the cell (A)."""
        n_own = self._lammps.extract_setting("nlocal")
        stored = self._lammps.numpy.extract_fix(STORE, 1, 2) if n_own else np.empty((0, 6))
        tags, types = (np.array(self._potential.atom_array(name, n_own)) for name in ("id", "type"))
        parts = self._comm.gather((tags, types, np.array(stored)))
        (low, high, xy, yz, xz, _, _) = self._lammps.extract_box()
        if parts is None:
            return None
        tags, types, stored = (np.concatenate(columns) for columns in zip(*parts))
        order = np.argsort(tags)
        x, y, z = np.subtract(high, low)
        cell = np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])
        return types[order].astype(int), stored[order, :3], stored[order, 3:] / PICOSECOND, cell

    # on the first process --------------------------------------------------------------------------------------------

    def _begin(self, state: Any, observer: Any, temperature: float | None, seed: int) -> None:
        if (self.folder / MERGED).exists() or (self.folder / SEGMENTS).exists():
            raise EngineError(f"the folder {self.folder} has a trajectory already: choose another folder")
        types, positions, _, cell = state
        pbc = np.array(self._lammps.extract_box()[5], bool)
        numbers, masses = self._potential.numbers[types - 1], self._potential.per_type_masses()[types - 1]
        if observer is not None:
            self._observer = observer(Atoms(numbers, positions, cell=cell, pbc=pbc))
        molecules = None if self._observer is None else self._observer.molecules
        self._header = Header(
            numbers, masses, pbc, PICOSECOND * self._lammps.extract_global("dt"),
            "nve" if temperature is None else "lammps",
            np.array([np.nan if temperature is None else temperature]), np.array([seed]),
            None if molecules is None else molecules.numbers, None if molecules is None else molecules.indices,
        )  # fmt: skip
        (self.folder / SEGMENTS).mkdir(parents=True)

    def _add(self, step: int, state: Any, last: Any) -> None:
        _, positions, velocities, cell = state
        kinetic = 0.5 * MASS_UNIT * float((self._header.masses[:, None] * velocities**2).sum())
        n_degrees = max(3 * len(positions) - 3, 1)
        values: dict[str, Any] = {
            "position": positions.astype(np.float32),
            "velocity": velocities.astype(np.float32),
            "kinetic_energy": kinetic,
            "temperature": kinetic / (0.5 * n_degrees * BOLTZMANN),
        }
        if self._header.pbc.any():
            values["box"] = cell
        if last is not None:
            values["potential_energy"] = last.energies.mean()
            if len(last.energies) > 1:
                values["energy_deviation"] = last.energies.std()
            if last.deviation is not None:
                values["forces_deviation"] = last.deviation
            if last.grade is not None:
                values["extrapolation"] = last.grade
        if self._observer is not None:
            values |= {name: found[0] for name, found in self._observer(positions[None], cell[None]).items()}
        for name, value in values.items():
            self._at.setdefault(name, []).append(step - self._origin)
            self._values.setdefault(name, []).append(np.array(value))
        self.n_samples += 1
        if len(self._values["position"]) == self._size:
            self._write()

    def _write(self) -> None:
        data = {name: (np.array(self._at[name]), np.stack(values)[None]) for name, values in self._values.items()}
        if data:
            write_segment(segment_path(self.folder, self._n_files), self._header, data)
            self._n_files += 1
        self._at, self._values = {}, {}

    def _finish(self, state: Any) -> None:
        self._write()
        files = segments_in(self.folder)
        if not files:
            raise EngineError(f"nothing was recorded: no run was as long as {self._every} steps")
        merge_segments(self.folder / MERGED, self._header, files, len(files))
        for path in files:
            path.unlink()
        (self.folder / SEGMENTS).rmdir()
