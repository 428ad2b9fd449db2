"""The checkpoint of a run: the state at the end of a chunk, the starting structure, and the settings of the run.

It is one file, state.npz, replaced atomically after each chunk. The settings are all keys of the configuration that
influence the trajectory. Files are identified by the SHA-256 of their contents: the folder of a run may be moved, but
its model may not be replaced by another one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.state import State
from gmcore.errors import GMError
from gmcore.files import atomic_path
from gmcore.inputs.npz import NpzArrays

CHECKPOINT = "state.npz"
CHANGEABLE = ("output", "duration", "threads", "stop", "analysis")
"""Keys of the configuration that may change when a run is continued."""

_FILES = ("potential", "structure.file", "d_tensor.model", "d_tensor.reference")
_STATE, _START = "state/", "start/"


class RunError(GMError):
    """A run cannot be started or continued."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue.

    Attributes
    ----------
    state : state of all replicas.
    start : the structure that the run started from.
    identity : settings of the run, see `identity_of`.
    """

    state: State
    start: Atoms
    identity: dict[str, Any]


def identity_of(config: MDConfig) -> dict[str, Any]:
    """Collect the settings that must not change during a run, as dotted key -> value; a file is given by its SHA-256.

    Raises
    ------
    RunError : a file named in the configuration cannot be read.
    """
    flat = _flattened(config.model_dump(mode="json", exclude=set(CHANGEABLE)))
    for key in _FILES:
        if flat.get(key) is not None:
            try:
                flat[key] = hashlib.sha256(Path(flat[key]).read_bytes()).hexdigest()
            except OSError as error:
                raise RunError(f"{key}: the file {flat[key]} cannot be read: {error.strerror or error}") from error
    return flat


def check_unchanged(folder: Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Make sure that a run continues with the settings that it was started with.

    Parameters
    ----------
    folder : folder of the run, for the message.
    now, then : `identity_of` the present configuration and that of the checkpoint.

    Raises
    ------
    RunError : settings have changed; the message lists them.
    """
    changed = []
    for key in sorted(now.keys() | then.keys()):
        if now.get(key) != then.get(key):
            was, is_now = then.get(key, "not given"), now.get(key, "not given")
            changed.append(f"the contents of {key}" if key in _FILES else f"{key} (was {was}, now {is_now})")
    if changed:
        raise RunError(
            f"the run in {folder} was started with other settings; changed since then: {', '.join(changed)}. "
            "Undo the changes, choose another output, or start over with gmtensor md --no-resume"
        )


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write state.npz; the old file stays until the new one is complete.

    Raises
    ------
    WriteError : the disk is full or the folder is not writable.
    """
    arrays: dict[str, Any] = {_STATE + name: values for name, values in checkpoint.state.arrays().items()}
    start = checkpoint.start
    arrays |= {_START + "positions": start.positions, _START + "cell": start.cell.array}
    arrays["identity"] = np.array(json.dumps(checkpoint.identity))
    with atomic_path(folder / CHECKPOINT) as temporary:
        np.savez(temporary, **arrays)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read state.npz; return None if the folder has none.

    Raises
    ------
    RunError : the file is damaged or is not a checkpoint.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        arrays = NpzArrays(path).everything()
        state = State.from_arrays(
            {name.removeprefix(_STATE): values for name, values in arrays.items() if name.startswith(_STATE)}
        )
        positions, cell = arrays[_START + "positions"], arrays[_START + "cell"]
        identity, numbers = json.loads(str(arrays["identity"])), arrays[_STATE + "numbers"]
        shapes_fit = positions.shape == (state.n_atoms, 3) and cell.shape == (3, 3)
        if not (isinstance(identity, dict) and shapes_fit and np.isfinite(positions).all() and np.isfinite(cell).all()):
            raise ValueError("a part of the checkpoint is not what a run writes")
        if numbers.dtype.kind not in "iu" or numbers.min() < 1 or numbers.max() > 118 or state.step < 0:
            raise ValueError("atomic numbers or the step are impossible")
        start = Atoms(state.numbers, positions, cell=cell, pbc=state.pbc)
        return Checkpoint(state, start, identity)
    except (GMError, OSError, LookupError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        # the reasons that NumPy gives (it speaks of pickles) are misleading
        raise RunError(
            f"{path} is damaged or is not a checkpoint: restore the file, or start over with gmtensor md --no-resume"
        ) from error


def _flattened(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dictionary of dotted keys, without keys that are None."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat
