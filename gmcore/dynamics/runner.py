"""A run of molecular dynamics from its configuration: in chunks, each of which is safe once it is done.

    for every chunk:  neighbor list anew -> steps -> RUN/trajectory/<chunk>.h5 -> RUN/state.npz
    at the end:       RUN/trajectory/*.h5 -> RUN/trajectory.h5

The trajectory of a chunk is written before the state that follows it, both atomically. A kill between the two, or at
any other moment, costs the chunk at most, which is computed again, bit for bit as before: forces depend on where the
neighbor list was built, and chunks begin at steps that depend on the time step and the chunk length alone. The same
holds for a run that is extended. Samples are due at multiples of their interval, counted from the first step of the
production, wherever chunks end.

Bit for bit means: same machine, same number of threads, same versions of the libraries.

Not supported: two processes in one folder.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numba
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from gmcore.files import atomic_path
from gmcore.model import Model, load_model
from gmcore.neighbors import NeighborError
from gmcore.structures import StructureError
from gmcore.threads import available_cores, set_threads

from .checkpoint import CHECKPOINT, Checkpoint, RunError, identity_of, read_checkpoint, refuse_changes, write_checkpoint
from .config import MDConfig
from .forces import BatchForces
from .h5md import Header, merge_segments, write_segment
from .integrators import make_integrator
from .progress import RunProgress
from .recorder import Recorder
from .state import initial_state
from .stops import RunStopped, StopConditions
from .tensor_observer import TensorObserver, declared_molecules
from .trajectory import MERGED, SEGMENTS, segment_path, trajectory_files

CONFIG = "config.yaml"
DUMP = "stopped.extxyz"
UPDATE = 10  # steps between updates of the progress bar


def run_md(config: MDConfig, resume: bool = True) -> Path:
    """Run, or go on with, the dynamics of a configuration; return the folder of the run.

    Parameters
    ----------
    resume : go on where an earlier call stopped; otherwise what that one left is removed.

    Errors
    ------
    RunStopped : a stop condition ended the run; the frames it concerns are in stopped.extxyz.
    RunError : a folder that holds something else, a configuration that is not the one of the run, or files that
        cannot be used; GMError for models, structures and molecules that do not fit each other.
    """
    set_threads(config.threads or min(available_cores(), numba.config.NUMBA_NUM_THREADS))
    folder, identity = config.output, identity_of(config)
    model = load_model(config.potential, config.dtype)
    checkpoint = _earlier(folder, identity, resume)
    if checkpoint is None:
        checkpoint = _started(config, model, identity)
    run = _Run(config, model, checkpoint)
    if not (folder / CHECKPOINT).exists():
        write_checkpoint(folder, checkpoint)
    (folder / DUMP).unlink(missing_ok=True)  # that of a stop which is being overcome, or comes again
    with atomic_path(folder / CONFIG) as temporary:
        temporary.write_text(config.to_yaml(), encoding="utf-8")
    run.finish()
    return folder


class _Run:
    """A run that is ready to go on from a checkpoint."""

    def __init__(self, config: MDConfig, model: Model, checkpoint: Checkpoint):
        state, self._config, self._checkpoint = checkpoint.state, config, checkpoint
        self._before = config.equilibration_steps
        self._total = self._before + config.production_steps
        if state.step > self._total:
            done = (state.step - self._before) * config.time_step * 1e-3
            raise RunError(f"duration must not be below the {done:g} ps that {config.output} holds already")
        self._names = [f"{temperature:g} K, seed {seed}" for temperature, seed in config.replicas.pairs()]
        self._observer = _observer(config, checkpoint.start)
        self._stops = StopConditions(config.stop, checkpoint.start, self._names)
        if config.stop.forces_deviation is not None and model.n_members == 1:
            raise RunError("stop.forces_deviation needs a committee, got a potential with one member")
        temperatures = np.array([temperature for temperature, _ in config.replicas.pairs()])
        forces = BatchForces(model, state.numbers, state.pbc, state.n_replicas, config.skin)
        self._integrator = make_integrator(
            config.ensemble.kind,
            forces,
            state,
            config.time_step,
            temperatures,
            fixed=config.fixed or None,
            **config.ensemble.options(),
        )
        molecules = None if self._observer is None else self._observer.molecules
        self._header = Header(
            state.numbers,
            state.masses,
            state.pbc,
            config.time_step,
            config.ensemble.kind,
            np.full(state.n_replicas, np.nan) if config.ensemble.kind == "nve" else temperatures,
            np.array([seed for _, seed in config.replicas.pairs()]),
            None if molecules is None else molecules.numbers,
            None if molecules is None else molecules.indices,
        )

    def finish(self) -> None:
        """Run what is left and join the parts of the trajectory."""
        config, state = self._config, self._integrator.state
        with RunProgress(state.step, self._total, config.time_step, state.n_replicas) as progress:
            while state.step < self._total:
                self._chunk(progress)
        files = trajectory_files(config.output)
        segments = [path for path in files if path.name != MERGED]
        if segments:
            merge_segments(config.output / MERGED, self._header, files, config.production_steps // config.chunk_steps)
        _remove_segments(config.output)

    def _chunk(self, progress: RunProgress) -> None:
        """Run one chunk and save it; at most the rest of the equilibration before the production."""
        config, state = self._config, self._integrator.state
        first = state.step - self._before
        end = state.step + (config.chunk_steps if first >= 0 else min(config.chunk_steps, -first))
        recorder = Recorder(config, self._observer)
        try:
            self._integrator.restart()
            if first == 0:
                self._stops.check(self._integrator)
                recorder.take(0, self._integrator)
            while state.step < end:
                self._step()
                if first >= 0:
                    recorder.take(state.step - self._before, self._integrator)
                if state.step % UPDATE == 0 or state.step == end:
                    progress.update(state.step, "production" if first >= 0 else "equilibration")
        except RunStopped as stopped:
            self._save(first, recorder)
            raise self._dumped(stopped) from None
        self._save(first, recorder)
        write_checkpoint(config.output, Checkpoint(state, self._checkpoint.start, self._checkpoint.identity))

    def _step(self) -> None:
        try:
            self._integrator.step()
        except (StructureError, NeighborError) as error:
            raise self._stops.unusable(self._integrator, error) from error
        self._stops.check(self._integrator)

    def _save(self, first: int, recorder: Recorder) -> None:
        data = recorder.data()
        if data:
            write_segment(segment_path(self._config.output, first // self._config.chunk_steps), self._header, data)

    def _dumped(self, stopped: RunStopped) -> RunStopped:
        """Write the frames that ended the run; return the same stop with time and place in its sentence."""
        config, state, result = self._config, self._integrator.state, self._integrator.result
        time = (state.step - self._before) * config.time_step
        deviation = result.forces_deviation()
        frames = []
        for k in stopped.replicas:
            atoms = Atoms(state.numbers, state.positions[k], cell=state.cells[k], pbc=state.pbc, masses=state.masses)
            atoms.set_velocities(state.velocities[k] / units.fs)
            atoms.info |= {"replica": k, "name": self._names[k], "time": time, "step": state.step - self._before}
            if stopped.has_forces:
                atoms.calc = SinglePointCalculator(atoms, energy=float(result.energies[k]), forces=result.forces[k])
                if not np.isnan(deviation[k]).all():
                    atoms.arrays["forces_deviation"] = deviation[k]
            frames.append(atoms)
        path = config.output / DUMP
        with atomic_path(path) as temporary:
            write(temporary, frames, format="extxyz")
        when = f"at {time * 1e-3:.6g} ps" if time >= 0 else f"{-time * 1e-3:.6g} ps before the production"
        return RunStopped(
            f"{stopped}, {when}; see {path}, all samples before are kept", stopped.replicas, stopped.has_forces
        )


def _earlier(folder: Path, identity: dict, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from; what a killed process or an earlier run left is cleared away."""
    if (folder / CONFIG).exists() and not (folder / CHECKPOINT).exists():
        raise RunError(f"{folder} must be empty or hold a run, it holds a {CONFIG} without {CHECKPOINT}")
    for part in (*folder.glob(".*.part.*"), *folder.glob(f"{SEGMENTS}/.*.part.*")):
        part.unlink()
    if resume:
        checkpoint = read_checkpoint(folder)
        if checkpoint is not None:
            refuse_changes(folder, identity, checkpoint.identity)
        elif (folder / MERGED).exists() or (folder / SEGMENTS).exists():
            raise RunError(f"{folder} holds a trajectory without {CHECKPOINT} and cannot go on: use --no-resume")
        return checkpoint
    for name in (CONFIG, CHECKPOINT, DUMP, MERGED):
        (folder / name).unlink(missing_ok=True)
    _remove_segments(folder)
    return None


def _started(config: MDConfig, model: Model, identity: dict) -> Checkpoint:
    """The first checkpoint: structure read, relaxed where wanted, velocities drawn."""
    start = _structure("structure.file", config.structure.file, config.structure.index)
    if config.structure.relax:
        from gmcore.analysis.modes import relax

        start = relax(start, model, config.structure.max_force)
    pairs = config.replicas.pairs()
    temperatures, seeds = [temperature for temperature, _ in pairs], [seed for _, seed in pairs]
    state = initial_state(start, temperatures, seeds, fixed=config.fixed or None)
    return Checkpoint(state, start, identity)


def _observer(config: MDConfig, start: Atoms) -> TensorObserver | None:
    wanted = config.d_tensor
    if wanted is None:
        return None
    reference = None if wanted.reference is None else _structure("d_tensor.reference", wanted.reference, 0)
    molecules = declared_molecules(start, wanted.molecule.metal, wanted.molecule.indices, reference)
    return TensorObserver(load_model(wanted.model, config.dtype), molecules)


def _structure(key: str, file: Path, index: int) -> Atoms:
    """One structure of a file, without constraints or calculator."""
    try:
        atoms = read(file, index=index)
    except Exception as error:  # ASE's parsers raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{key}: structure {index} of {file} cannot be read: {reason}") from error
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def _remove_segments(folder: Path) -> None:
    for path in (folder / SEGMENTS).glob("*.h5"):
        path.unlink()
    with suppress(OSError):  # not there, or holds files of someone else
        (folder / SEGMENTS).rmdir()
