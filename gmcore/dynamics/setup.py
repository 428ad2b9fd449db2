"""Set up the parts of a run from its configuration: starting structure, state, D tensor observer, header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.checkpoint import RunError
from gmcore.dynamics.h5md import Header
from gmcore.dynamics.state import State, initial_state
from gmcore.dynamics.tensor_observer import TensorObserver, declared_molecules
from gmcore.errors import DataError
from gmcore.formats import read_structure
from gmcore.model import Model, load_model


def starting_structures(config: MDConfig, model: Model | None = None) -> list[Atoms]:
    """Read the starting structure of each replica; relax it if the configuration says so and a model is given.

    Raises
    ------
    RunError : a structure cannot be read, or has other atoms or another periodicity than the first one.
    RelaxationError : a structure cannot be relaxed.
    """
    indices = config.start_indices()
    found: dict[int, Atoms] = {}
    for index in dict.fromkeys(indices):
        start = _structure("structure.file", config.structure.file, index)
        first = found.get(indices[0], start)
        if not np.array_equal(start.numbers, first.numbers) or (start.pbc != first.pbc).any():
            raise RunError(
                f"the structures that replicas start from must have the same atoms in the same order and the same "
                f"periodicity, but structure {index} of {config.structure.file} differs from structure {indices[0]}"
            )
        if config.structure.relax and model is not None:
            from gmcore.dynamics.relaxation import relax

            start = _without_constraints(relax(start, model, config.structure.max_force))
        found[index] = start
    return [found[index] for index in indices]


def starting_state(config: MDConfig, starts: Sequence[Atoms]) -> State:
    """Return all replicas at the structures that they start from, with velocities drawn at their temperatures.

    Raises
    ------
    DynamicsError : as in `initial_state`.
    """
    temperatures, seeds = zip(*config.replicas.pairs())
    state = initial_state(starts[0], temperatures, seeds, fixed=config.fixed or None)
    for k, start in enumerate(starts):
        state.positions[k], state.cells[k] = start.positions, start.cell.array
    return state


def make_observer(config: MDConfig, start: Atoms) -> TensorObserver | None:
    """Return the observer of the D tensors; None for a run without D.

    Raises
    ------
    RunError : the reference structure cannot be read.
    GMError : the molecules are not found, or the model has no D tensor, as in `Molecules` and `TensorObserver`.
    """
    wanted = config.d_tensor
    if wanted is None:
        return None
    reference = None if wanted.reference is None else _structure("d_tensor.reference", wanted.reference, 0)
    molecules = declared_molecules(start, wanted.molecule.metal, wanted.molecule.indices, reference)
    return TensorObserver(load_model(wanted.model, config.dtype, config.device), molecules)


def make_header(config: MDConfig, state: State, observer: TensorObserver | None) -> Header:
    """Return the data of the trajectory that do not change in time."""
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
    """Read one structure of a file; `key` is the key of the configuration, for messages."""
    try:
        return _without_constraints(read_structure(file, index))
    except DataError as error:
        raise RunError(f"{key}: {error}") from error


def _without_constraints(atoms: Atoms) -> Atoms:
    """Return a copy without constraints, velocities and calculator."""
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
