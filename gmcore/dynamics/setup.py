"""The parts of a run, made from its configuration: starting structure and state, D of molecules, header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.checkpoint import RunError
from gmcore.dynamics.h5md import Header
from gmcore.dynamics.state import State, initial_state
from gmcore.dynamics.tensor_observer import TensorObserver, declared_molecules
from gmcore.model import Model, load_model


def starting_structure(config: MDConfig, model: Model | None = None) -> Atoms:
    """The structure of the configuration, relaxed with `model` where that is wanted and a model given.

    RunError: it cannot be read; errors of `gmcore.dynamics.relaxation.relax`.
    """
    start = _structure("structure.file", config.structure.file, config.structure.index)
    if config.structure.relax and model is not None:
        from gmcore.dynamics.relaxation import relax

        start = _bare(relax(start, model, config.structure.max_force))
    return start


def starting_state(config: MDConfig, start: Atoms) -> State:
    """All replicas at `start`, with velocities of their temperatures; errors of `initial_state`."""
    temperatures, seeds = zip(*config.replicas.pairs())
    return initial_state(start, temperatures, seeds, fixed=config.fixed or None)


def make_observer(config: MDConfig, start: Atoms) -> TensorObserver | None:
    """What evaluates D along the way, if anything; errors of `Molecules` and `TensorObserver`."""
    wanted = config.d_tensor
    if wanted is None:
        return None
    reference = None if wanted.reference is None else _structure("d_tensor.reference", wanted.reference, 0)
    molecules = declared_molecules(start, wanted.molecule.metal, wanted.molecule.indices, reference)
    return TensorObserver(load_model(wanted.model, config.dtype), molecules)


def make_header(config: MDConfig, state: State, observer: TensorObserver | None) -> Header:
    """What stays the same along the trajectory."""
    temperatures, seeds = (np.array(values) for values in zip(*config.replicas.pairs()))
    return Header(
        state.numbers,
        state.masses,
        state.pbc,
        config.time_step,
        config.ensemble.kind,
        np.full(len(seeds), np.nan) if config.ensemble.kind == "nve" else temperatures,
        seeds,
        None if observer is None else observer.molecules.numbers,
        None if observer is None else observer.molecules.indices,
    )


def _structure(key: str, file: Path, index: int) -> Atoms:
    """One structure of a file."""
    try:
        return _bare(read(file, index=index))
    except (IndexError, StopIteration) as error:
        raise RunError(f"{key}: {file} must hold a structure of index {index}, it holds fewer or none") from error
    except Exception as error:  # ASE's parsers raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{key}: structure {index} of {file} cannot be read: {reason}") from error


def _bare(atoms: Atoms) -> Atoms:
    """Without constraints, velocities and calculator."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
