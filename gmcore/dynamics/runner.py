"""A run of molecular dynamics from its configuration: in chunks, each of which is safe once it is done.

    for every chunk:  neighbor list anew -> steps -> RUN/trajectory/<chunk>.h5 -> RUN/state.npz
    at the end:       RUN/trajectory/*.h5 -> RUN/trajectory.h5

The trajectory of a chunk is written before the state that follows it, both atomically. A kill between the two, or at
any other moment, costs the chunk at most, which is computed again, bit for bit as before: forces depend on where the
neighbor list was built, and chunks begin at steps that depend on the time step and the chunk length alone. The same
holds for a run that is extended. Samples are due at multiples of their interval, counted from the first step of the
production, wherever chunks end.

Bit for bit means: same machine, same number of threads, same versions of the libraries.

Not supported: two processes in one folder; the second one is refused where folders can be locked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.checkpoint import Checkpoint, RunError, identity_of, write_checkpoint
from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.h5md import merge_segments, write_segment
from gmcore.dynamics.integrators import make_integrator
from gmcore.dynamics.progress import RunProgress
from gmcore.dynamics.recorder import Recorder
from gmcore.dynamics.run_folder import (
    CONFIG,
    DUMP,
    alone_in,
    clear_run,
    earlier_checkpoint,
    refuse_losses,
    remove_leftovers,
    remove_segments,
)
from gmcore.dynamics.setup import make_header, make_observer, starting_state, starting_structure
from gmcore.dynamics.state import DynamicsError
from gmcore.dynamics.stops import RunStopped, StopConditions
from gmcore.dynamics.trajectory import MERGED, segment_path, trajectory_files
from gmcore.engine.neighbors import NeighborError
from gmcore.engine.structures import StructureError
from gmcore.files import atomic_path
from gmcore.model import Model, load_model
from gmcore.threads import set_threads
from gmcore.units import ASE_TIME

UPDATE = 10  # steps between updates of the progress bar


def run_md(config: MDConfig, resume: bool = True) -> Path:
    """Run, or go on with, the dynamics of a configuration; return the folder of the run.

    Parameters
    ----------
    resume : go on where an earlier call stopped; otherwise what that one left is removed.

    Raises
    ------
    RunStopped : a stop condition ended the run; the frames it concerns are in stopped.extxyz.
    RunError : a folder that holds something else, a configuration that is not the one of the run, or files that
        cannot be used; GMError for models, structures and molecules that do not fit each other.
    """
    folder = config.output
    run, goes_on = _ready(config, resume)
    with alone_in(folder):
        if not goes_on:  # all that can be refused has been: from here on earlier files may go
            clear_run(folder)
            run.checkpoint()
        remove_leftovers(folder)
        with atomic_path(folder / CONFIG) as temporary:
            temporary.write_text(config.to_yaml(), encoding="utf-8")
        run.finish()
    return folder


def describe_run(config: MDConfig) -> list[str]:
    """Check all that a run needs, the forces at its start included; return what it will be, line by line.

    Nothing is written, and nothing is relaxed. Errors as of `run_md`, stops excepted.
    """
    return _ready(config, resume=True, relax=False)[0].describe()


def _ready(config: MDConfig, resume: bool, relax: bool = True) -> tuple[_Run, bool]:
    """A run that is ready to begin or go on, and whether it goes on; nothing is written."""
    set_threads(config.threads)
    identity, model = identity_of(config), load_model(config.potential, config.dtype)
    earlier = earlier_checkpoint(config.output, identity, resume)
    if earlier is not None:
        refuse_losses(config.output, (earlier.state.step - config.equilibration_steps) // config.chunk_steps)
        return _Run(config, model, earlier), True
    start = starting_structure(config, model if relax else None)
    return _Run(config, model, Checkpoint(starting_state(config, start), start, identity)), False


class _Run:
    """A run that is ready to go on from a checkpoint."""

    def __init__(self, config: MDConfig, model: Model, checkpoint: Checkpoint):
        state, self._config, self._checkpoint = checkpoint.state, config, checkpoint
        self._before = config.equilibration_steps
        self._total = self._before + config.production_steps
        self._n_chunks = config.production_steps // config.chunk_steps
        if state.step > self._total:
            done = (state.step - self._before) * config.time_step * 1e-3
            raise RunError(f"duration must not be below the {done:g} ps that {config.output} holds already")
        self._names = [f"{temperature:g} K, seed {seed}" for temperature, seed in config.replicas.pairs()]
        self._observer = make_observer(config, checkpoint.start)
        self._stops = StopConditions(config.stop, checkpoint.start, self._names)
        if config.stop.forces_deviation is not None and model.n_members == 1:
            raise RunError("stop.forces_deviation needs a committee, got a potential with one member")
        forces = BatchForces(model, state.numbers, state.pbc, state.n_replicas, config.skin)
        self._integrator = make_integrator(
            config.ensemble.kind,
            forces,
            state,
            config.time_step,
            [temperature for temperature, _ in config.replicas.pairs()],
            fixed=config.fixed or None,
            **config.ensemble.options(),
        )
        self._header = make_header(config, state, self._observer)

    def describe(self) -> list[str]:
        """What the run is, line by line."""
        config, state = self._config, self._integrator.state
        lines = [
            f"{self._checkpoint.start.get_chemical_formula()}: {state.n_atoms} atoms, "
            f"{'periodic' if state.pbc.any() else 'not periodic'}",
            f"{state.n_replicas} replicas: {'; '.join(self._names)}",
            f"{config.ensemble.kind}, {config.equilibration:g} + {config.duration:g} ps in steps of "
            f"{config.time_step:g} fs, {self._n_chunks} chunks; "
            f"{state.step} of {self._total} steps done",
        ]
        if self._observer is not None:
            molecules = self._observer.molecules
            n_molecules, n_atoms = molecules.indices.shape
            lines.append(
                f"D of {n_molecules} x {n_atoms} atoms ({Atoms(molecules.numbers).get_chemical_formula()}), "
                f"every {config.d_tensor.every} steps"
            )
        return lines

    def checkpoint(self) -> None:
        """Save the present state."""
        earlier = self._checkpoint
        write_checkpoint(self._config.output, Checkpoint(self._integrator.state, earlier.start, earlier.identity))

    def finish(self) -> None:
        """Run what is left and join the parts of the trajectory."""
        config, state = self._config, self._integrator.state
        with RunProgress(state.step, self._total, config.time_step, state.n_replicas) as progress:
            while state.step < self._total:
                self._chunk(progress)
        files = trajectory_files(config.output, self._n_chunks)
        if files != [config.output / MERGED]:
            merge_segments(config.output / MERGED, self._header, files, self._n_chunks)
        remove_segments(config.output)

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
        self.checkpoint()

    def _step(self) -> None:
        try:
            self._integrator.step()
        except (DynamicsError, StructureError, NeighborError) as error:
            raise self._stops.unusable(self._integrator, error) from error
        self._stops.check(self._integrator)

    def _save(self, first: int, recorder: Recorder) -> None:
        if first >= 0:  # where no sample was due, too: a chunk without its file is one that was lost
            number = first // self._config.chunk_steps
            write_segment(segment_path(self._config.output, number), self._header, recorder.data())

    def _dumped(self, stopped: RunStopped) -> RunStopped:
        """Write the frames that ended the run; return the same stop with time and place in its sentence."""
        config, state, result = self._config, self._integrator.state, self._integrator.result
        step = state.step - self._before + (not stopped.has_forces)  # a step without forces has not been counted
        time = step * config.time_step
        deviation = result.forces_deviation()
        frames = []
        for k in stopped.replicas:
            atoms = Atoms(state.numbers, state.positions[k], cell=state.cells[k], pbc=state.pbc, masses=state.masses)
            atoms.set_velocities(state.velocities[k] * ASE_TIME)
            atoms.info |= {"replica": k, "name": self._names[k], "time": time, "step": step}
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
