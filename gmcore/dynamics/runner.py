"""A run of molecular dynamics from its configuration, in chunks that are saved as soon as they are done.

    for every chunk:  new neighbor list -> steps -> RUN/trajectory/<chunk>.h5 -> RUN/state.npz
    at the end:       RUN/trajectory/*.h5 -> RUN/trajectory.h5

First the trajectory of a chunk is written, then the checkpoint, both atomically. If the process is killed at any
moment, at most one chunk is lost. It is computed again with the same result, bit for bit: forces depend on where the
neighbor list was built, and chunks start at steps that depend only on the time step and the chunk length. The same
holds for a run that is extended. Samples are recorded at multiples of their interval, counted from the first step of
the production, independent of the chunks.

Results are equal bit for bit on the same machine, with the same number of threads and the same versions of the
libraries.

Not supported: two processes in one folder. Where files can be locked, the second process stops with an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.checkpoint import CHECKPOINT, Checkpoint, RunError, identity_of, write_checkpoint
from gmcore.dynamics.drivers import Frame, make_driver
from gmcore.dynamics.h5md import merge_segments, write_segment
from gmcore.dynamics.progress import RunProgress
from gmcore.dynamics.recorder import Recorder
from gmcore.dynamics.run_folder import (
    CONFIG,
    DUMP,
    check_trajectory,
    clear_run,
    earlier_checkpoint,
    remove_leftovers,
    remove_segments,
)
from gmcore.dynamics.setup import make_header, make_observer, starting_state, starting_structures
from gmcore.dynamics.state import DynamicsError
from gmcore.dynamics.stops import RunStopped, StopConditions
from gmcore.dynamics.trajectory import MERGED, segment_path, trajectory_files
from gmcore.engine.neighbors import NeighborError
from gmcore.engine.structures import StructureError
from gmcore.files import atomic_path, lock_folder
from gmcore.model import Model, load_model
from gmcore.outputs import RUN, check_outputs
from gmcore.running.interruption import Interruption
from gmcore.threads import set_threads
from gmcore.units import ASE_TIME

UPDATE = 10  # steps between updates of the progress bar


def run_md(config: MDConfig, resume: bool = True, interruption: Interruption | None = None) -> Path:
    """Run, or continue, the dynamics of a configuration; return the folder of the run.

    Parameters
    ----------
    config : configuration of the run.
    resume : continue an earlier run; otherwise the earlier run is removed.
    interruption : is asked after each chunk whether the run should end.

    Raises
    ------
    EndedEarly : the interruption said so; the same call goes on.
    RunStopped : a stop condition ended the run; the frames that met it are in stopped.extxyz.
    RunError : the folder belongs to something else, the settings of the run have changed, or a file cannot be used.
    LockError : another process writes to the folder, or the folder cannot be created.
    GMError : models, structure and molecules do not fit together.
    """
    folder = config.output
    run, continues = _prepare(config, resume)
    with lock_folder(folder):
        if not continues:  # all checks have passed, so earlier files may now be removed
            clear_run(folder)
            run.checkpoint()
        remove_leftovers(folder)
        with atomic_path(folder / CONFIG) as temporary:
            temporary.write_text(config.to_yaml(), encoding="utf-8")
        run.finish(interruption)
    return folder


def check_run(config: MDConfig) -> list[str]:
    """Check everything that a run needs, including the forces at its start; return a summary, line by line.

    Nothing is written, and the structure is not relaxed.

    Raises
    ------
    RunError, GMError : as in `run_md`.
    """
    return _prepare(config, resume=True, relax=False)[0].summary()


def _prepare(config: MDConfig, resume: bool, relax: bool = True) -> tuple[_Run, bool]:
    """Set up a run without writing anything; also return whether it continues an earlier run."""
    set_threads(config.threads)
    identity, model = identity_of(config), load_model(config.potential, config.dtype, config.device)
    earlier = earlier_checkpoint(config.output, identity, resume)
    wanted = config.d_tensor
    reads = (config.potential, config.structure.file, *((wanted.model, wanted.reference) if wanted else ()))
    names = (CONFIG, CHECKPOINT, MERGED, DUMP)
    check_outputs([config.output / name for name in names], reads, makes=(RUN, config.output))
    if earlier is not None:
        check_trajectory(config.output, (earlier.state.step - config.equilibration_steps) // config.chunk_steps)
        return _Run(config, model, earlier), True
    starts = starting_structures(config, model if relax else None)
    return _Run(config, model, Checkpoint(starting_state(config, starts), starts[0], identity)), False


class _Run:
    """A run that starts from a checkpoint, which may be that of step 0."""

    def __init__(self, config: MDConfig, model: Model, checkpoint: Checkpoint):
        state, self._config, self._checkpoint = checkpoint.state, config, checkpoint
        self._before = config.equilibration_steps
        self._total = self._before + config.production_steps
        self._n_chunks = config.production_steps // config.chunk_steps
        if state.step > self._total:
            done = (state.step - self._before) * config.time_step * 1e-3
            raise RunError(f"duration must be at least {done:g} ps, which the run in {config.output} has already done")
        self._names = [f"{temperature:g} K, seed {seed}" for temperature, seed in config.replicas.pairs()]
        self._observer = make_observer(config, checkpoint.start)
        self._stops = StopConditions(config.stop, checkpoint.start, self._names)
        if config.stop.forces_deviation is not None and model.n_members == 1 and not model.evaluator.n_draws:
            where, draws = (" on a GPU", "") if config.device == "cuda" else ("", " or with draws of its last layer")
            raise RunError(
                f"stop.forces_deviation{where} needs a potential with several members{draws}, got one member"
                f"{' and no draws' if draws else ''}: leave it out, or train the potential again"
            )
        if config.stop.extrapolation is not None and model.evaluator.environments is None:
            raise RunError(
                f"stop.extrapolation needs a potential that knows its training data, but {config.potential} is of an "
                "earlier version: leave it out, or train the potential again"
            )
        self._driver = make_driver(config, model, state, self._observer)
        self._integrator = self._driver.integrator
        self._frame: Frame | None = None  # the one that is being looked at
        self._look: Callable[[], None] | None = None  # what is still to be done with the last one
        self._header = make_header(config, state, self._observer)

    def summary(self) -> list[str]:
        """Summarize the run, line by line."""
        config, state = self._config, self._integrator.state
        duration = f"{config.duration:g} ps"
        if config.equilibration > 0.0:
            duration = f"{config.equilibration:g} ps of equilibration and {duration} of production"
        lines = [
            f"{self._checkpoint.start.get_chemical_formula()}: {state.n_atoms} atoms, "
            f"{'periodic' if state.pbc.any() else 'not periodic'}",
            f"{state.n_replicas} {'replica' if state.n_replicas == 1 else 'replicas'}: {'; '.join(self._names)}",
            f"{config.ensemble.kind}, {duration} in steps of {config.time_step:g} fs, {self._n_chunks} chunks of "
            f"production; {state.step} of {self._total} steps are done",
        ]
        if self._observer is not None and config.d_tensor is not None:
            molecules = self._observer.molecules
            n_molecules, n_atoms = molecules.indices.shape
            lines.append(
                f"D of {n_molecules} {'molecule' if n_molecules == 1 else 'molecules'} of {n_atoms} atoms "
                f"({Atoms(molecules.numbers).get_chemical_formula()}), every {config.d_tensor.every} steps"
            )
        return lines

    def checkpoint(self) -> None:
        """Write the present state as a checkpoint."""
        self._integrator.fetch()
        earlier = self._checkpoint
        write_checkpoint(self._config.output, Checkpoint(self._integrator.state, earlier.start, earlier.identity))

    def finish(self, interruption: Interruption | None = None) -> None:
        """Run the remaining chunks and join the files of the trajectory."""
        config, state = self._config, self._integrator.state
        if interruption is not None:
            interruption.begin()
        with RunProgress(state.step, self._total, config.time_step, state.n_replicas) as progress:
            while state.step < self._total:
                self._chunk(progress)
                if interruption is not None and state.step < self._total:
                    interruption.check()
        files = trajectory_files(config.output, self._n_chunks)
        if files != [config.output / MERGED]:
            merge_segments(config.output / MERGED, self._header, files, self._n_chunks)
        remove_segments(config.output)

    def _chunk(self, progress: RunProgress) -> None:
        """Run one chunk and save it. Chunks of the equilibration end with the equilibration."""
        config, state = self._config, self._integrator.state
        first = state.step - self._before
        end = state.step + (config.chunk_steps if first >= 0 else min(config.chunk_steps, -first))
        recorder = Recorder(config)
        try:
            self._integrator.restart()
            if first == 0:
                self._look_at(recorder, 1)
            while state.step < end:
                step = state.step - self._before
                n_steps = self._driver.block_length(min(recorder.steps_to_next(step), end - state.step))
                self._advance(n_steps)
                self._look_at(recorder if first >= 0 else None, n_steps)
                if state.step % UPDATE < n_steps or state.step == end:
                    progress.show(state.step, "production" if first >= 0 else "equilibration", self._frame)
            self._catch_up()
        except RunStopped as stopped:
            self._save(first, recorder)
            raise self._write_stopped_frames(stopped) from None
        self._save(first, recorder)
        self.checkpoint()

    def _advance(self, n_steps: int) -> None:
        """Do some steps, and look at the frame before them on the way."""
        state, end = self._integrator.state, self._integrator.state.step + n_steps
        try:
            self._driver.advance(n_steps, self._catch_up)
        except (DynamicsError, StructureError, NeighborError) as error:
            self._integrator.fetch()
            self._frame = None
            raise self._stops.step_failed(state, error) from error
        if state.step < end:  # a GPU found numbers that are not finite
            self._look = lambda: self._check(self._driver.frame(False), n_steps)
            self._catch_up()

    def _look_at(self, recorder: Recorder | None, n_steps: int) -> None:
        """Prepare to check and record the present step, which comes after `n_steps` others; `_catch_up` does it."""
        absolute, stops, driver = self._integrator.state.step, self._stops, self._driver
        step = absolute - self._before
        checked = stops.is_due(absolute, n_steps)
        if not (checked or driver.looks_at_every_step or (recorder is not None and recorder.is_due(step))):
            return
        scalars, tensors = (recorder.wants_scalars(step), recorder.wants_tensors(step)) if recorder else (False, False)
        frame = driver.frame(checked or scalars)
        samples = driver.tensors() if tensors else None

        def look() -> None:
            self._check(frame, n_steps)
            if recorder is not None:
                recorder.take(step, frame, samples)

        self._look = look

    def _check(self, frame: Frame, n_steps: int) -> None:
        self._frame = frame
        self._stops.check(frame, n_steps)

    def _catch_up(self) -> None:
        """Look at the last frame, if that has not been done."""
        look, self._look = self._look, None
        if look is not None:
            look()

    def _save(self, first: int, recorder: Recorder) -> None:
        """Write the trajectory of a chunk that starts at step `first` of the production."""
        if first >= 0:  # also a file without samples: a missing file means that a chunk was lost
            number = first // self._config.chunk_steps
            write_segment(segment_path(self._config.output, number), self._header, recorder.data())

    def _write_stopped_frames(self, stopped: RunStopped) -> RunStopped:
        """Write the frames that ended the run; return the same exception with time and file in its message."""
        frame = self._frame if stopped.has_forces and self._frame is not None else self._integrator
        config, state, result = self._config, frame.state, frame.result
        step = state.step - self._before + (not stopped.has_forces)  # a failed step has not been counted
        time = step * config.time_step
        frames = []
        for k in stopped.replicas:
            atoms = Atoms(state.numbers, state.positions[k], cell=state.cells[k], pbc=state.pbc, masses=state.masses)
            atoms.set_velocities(state.velocities[k] * ASE_TIME)
            atoms.info |= {"replica": k, "name": self._names[k], "time": time, "step": step}
            if stopped.has_forces:
                atoms.calc = SinglePointCalculator(atoms, energy=float(result.energies[k]), forces=result.forces[k])
                deviation = result.forces_deviation()[k]
                if not np.isnan(deviation).all():
                    atoms.arrays["forces_deviation"] = deviation
                if result.extrapolation is not None:
                    grades, of_atoms = result.extrapolation
                    atoms.info["extrapolation"], atoms.arrays["extrapolation_atoms"] = float(grades[k]), of_atoms[k]
            frames.append(atoms)
        path = config.output / DUMP
        with atomic_path(path) as temporary:
            write(temporary, frames, format="extxyz")
        when = f"at {time * 1e-3:.6g} ps" if time >= 0 else f"{-time * 1e-3:.6g} ps before the start of the production"
        return RunStopped(
            f"{stopped} ({when}). The frames are in {path}; all samples before this step are kept",
            stopped.replicas,
            stopped.has_forces,
        )
