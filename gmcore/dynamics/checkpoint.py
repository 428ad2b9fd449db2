"""What a run needs to go on: its state at the end of a chunk, the structure it started from, and what it was told.

One file, state.npz, replaced atomically after each chunk. It also says which configuration the run belongs to: every
key that the path of the atoms depends on, with files by the SHA-256 of their contents, so that a folder may be moved
but a model may not be exchanged under a run.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.state import State
from gmcore.errors import GMError
from gmcore.files import atomic_path

CHECKPOINT = "state.npz"
CHANGEABLE = ("output", "duration", "threads", "stop", "analysis")
"""Keys that may differ when a run is continued."""

_FILES = ("potential", "structure.file", "d_tensor.model", "d_tensor.reference")
_STATE, _START = "state/", "start/"


class RunError(GMError):
    """A run that cannot be started or continued."""


@dataclass(frozen=True)
class Checkpoint:
    """Attributes: state; start, the structure at the start; identity, as of `identity_of`."""

    state: State
    start: Atoms
    identity: dict[str, Any]


def identity_of(config: MDConfig) -> dict[str, Any]:
    """Dotted key -> value of everything that must stay the same along a run.

    RunError: a file that the configuration names cannot be read.
    """
    flat = _flattened(config.model_dump(mode="json", exclude=set(CHANGEABLE)))
    for key in _FILES:
        if flat.get(key) is not None:
            try:
                flat[key] = hashlib.sha256(Path(flat[key]).read_bytes()).hexdigest()
            except OSError as error:
                raise RunError(f"{key} {flat[key]} cannot be read: {error.strerror or error}") from error
    return flat


def refuse_changes(folder: Path, now: dict[str, Any], then: dict[str, Any]) -> None:
    """Refuse to continue a run with other settings than it was started with; RunError names them."""
    changed = []
    for key in sorted(now.keys() | then.keys()):
        if now.get(key) != then.get(key):
            was, is_now = then.get(key, "not given"), now.get(key, "not given")
            changed.append(f"the contents of {key}" if key in _FILES else f"{key} (was {was}, is {is_now})")
    if changed:
        raise RunError(
            f"the run in {folder} must go on as it was started, got changes in {', '.join(changed)}; "
            "choose another output, or start over with gmtensor md --no-resume"
        )


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the file; the old one stays until the new one is whole. WriteError: as `atomic_path`."""
    arrays = {_STATE + name: values for name, values in checkpoint.state.arrays().items()}
    start = checkpoint.start
    arrays |= {_START + "positions": start.positions, _START + "cell": start.cell.array}
    arrays["identity"] = np.array(json.dumps(checkpoint.identity))
    with atomic_path(folder / CHECKPOINT) as temporary:
        np.savez(temporary, **arrays)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the file, None where there is none; RunError: it is damaged or something else."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = State.from_arrays(
            {name.removeprefix(_STATE): values for name, values in arrays.items() if name.startswith(_STATE)}
        )
        start = Atoms(state.numbers, arrays[_START + "positions"], cell=arrays[_START + "cell"], pbc=state.pbc)
        return Checkpoint(state, start, json.loads(str(arrays["identity"])))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        # the reasons that NumPy gives, pickles among them, lead astray
        raise RunError(
            f"{path} is damaged or no state of a run: put it back, or start over with gmtensor md --no-resume"
        ) from error


def _flattened(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value
    return flat
