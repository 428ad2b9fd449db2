"""The checkpoint of a run: the state at the end of a chunk, the starting structure, and the settings of the run.

It is one file, state.npz, replaced atomically after each chunk. The settings are all keys of the configuration that
influence the trajectory. Files are identified by the SHA-256 of their contents: the folder of a run may be moved, but
its model may not be replaced by another one. A model file may be written again with a new date: also the SHA-256 of
what decides its predictions is kept. Older checkpoints have only that of the file.
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
from gmcore.errors import GMError, shortened
from gmcore.files import atomic_path
from gmcore.inputs.npz import NpzArrays
from gmcore.model_file import model_identity, read_model

CHECKPOINT = "state.npz"
CHANGEABLE = ("output", "duration", "threads", "stop", "analysis")
"""Keys of the configuration that may change when a run is continued."""

LISTED = 5
"""Changed settings that a message names."""

_MODELS = ("potential", "d_tensor.model")
_FILES = (*_MODELS, "structure.file", "d_tensor.reference")
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
    """Collect the settings that must not change during a run, as dotted key -> value.

    A file is given by its SHA-256, a model by {"file": its SHA-256, "content": its `model_identity`}.

    Raises
    ------
    RunError : a file named in the configuration cannot be read.
    ModelFileError : a model cannot be read.
    """
    flat = _flattened(config.model_dump(mode="json", exclude=set(CHANGEABLE)))
    for key in _FILES:
        if flat.get(key) is not None:
            path = Path(flat[key])
            try:
                flat[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise RunError(f"{key}: the file {path} cannot be read: {error.strerror or error}") from error
            if key in _MODELS:
                flat[key] = {"file": flat[key], "content": model_identity(*read_model(path))}
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
        if not _is_same(now.get(key), then.get(key)):
            was, is_now = (shortened(str(values.get(key, "not given")), 60) for values in (then, now))
            words = f"{shortened(key, 60)} (was {was}, now {is_now})"
            changed.append(f"the contents of {key}" if key in _FILES else words)
    if len(changed) > LISTED:
        changed[LISTED:] = [f"{len(changed) - LISTED} more"]
    if changed:
        raise RunError(
            f"the run in {folder} was started with other settings; changed since then: {', '.join(changed)}. "
            "Undo the changes, choose another output, or start over with gmtensor md --no-resume"
        )


def _is_same(now: Any, then: Any) -> bool:
    """Whether a value of `identity_of` has not changed; `then` may be that of an older version."""
    if isinstance(now, dict) and isinstance(then, dict):
        return now["content"] == then.get("content")
    return now["file"] == then if isinstance(now, dict) else now == then


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
    RunError : the file is damaged, is not a checkpoint, or was written by a version with other random numbers.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        arrays = NpzArrays(path).everything()
        if _STATE + "generators" in arrays:
            raise RunError(
                f"the run in {folder} began with an earlier version of gmtensor, whose random numbers this one cannot "
                "continue: finish it with that version, or start over with gmtensor md --no-resume"
            )
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
    except RunError:
        raise
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
