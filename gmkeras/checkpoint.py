"""The state of a training between two epochs, on disk as plain arrays: all that a restart needs to go on exactly.

Weights, optimizer (step and moments), best weights so far and the history. Random numbers need no state: the order of
the batches depends on seed and epoch alone, initial weights on the seed. Files appear whole or not at all, so that a
kill during a write leaves the checkpoint before it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gmcore.errors import GMError
from gmcore.files import atomic_path
from gmcore.inputs.npz import NpzArrays
from gmkeras.model import GMModel


class CheckpointError(GMError):
    """A checkpoint that cannot be continued from."""


@dataclass
class TrainingState:
    """What has been learned so far.

    Attributes
    ----------
    epoch : epochs done.
    history : per epoch a dict of numbers, keys as in history.csv.
    best_error : lowest validation error so far, and `best_epoch` (from 1) when it was reached.
    best_weights : weights of that epoch, in the order of `GMModel.weights`.
    stopped : whether a callback has ended the training before its last epoch.
    mean_weights : mean of the weights at the ends of the last `n_mean` epochs.
    averaged : validation errors of that mean, if it has become `best_weights`.
    """

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_error: float = float("inf")
    best_epoch: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)
    stopped: bool = False
    mean_weights: list[np.ndarray] = field(default_factory=list)
    n_mean: int = 0
    averaged: dict[str, float] = field(default_factory=dict)


def save_checkpoint(path: Path, fingerprint: str, model: GMModel, state: TrainingState) -> None:
    """Write model, optimizer and state; `fingerprint` says what the training was."""
    groups = {
        "weights": [w.numpy() for w in model.weights],
        "optimizer": [np.asarray(v) for v in model.optimizer.variables],
        "best": state.best_weights,
        "mean": state.mean_weights,
    }
    arrays = {f"{group}_{k}": array for group, values in groups.items() for k, array in enumerate(values)}
    progress = {
        "fingerprint": fingerprint,
        "epoch": state.epoch,
        "history": state.history,
        "best_error": state.best_error,
        "best_epoch": state.best_epoch,
        "stopped": state.stopped,
        "n_mean": state.n_mean,
        "averaged": state.averaged,
    }
    with atomic_path(path) as temporary:
        np.savez(temporary, progress=np.array(json.dumps(progress)), **arrays)


def load_checkpoint(path: Path, fingerprint: str, model: GMModel) -> TrainingState:
    """Set weights and optimizer of `model` as they were and return the state; a missing file is a fresh state.

    Raises
    ------
    CheckpointError : a damaged file, or one of a training with other settings or data.
    """
    if not path.is_file():
        return TrainingState()
    try:
        arrays = NpzArrays(path).everything()
        progress = json.loads(str(arrays.pop("progress")))
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: remove it to train from the beginning") from error
    needed: dict[str, type | tuple[type, ...]] = {
        **{"fingerprint": str, "epoch": int, "history": list, "best_epoch": int},
        **{"best_error": (int, float), "stopped": bool, "n_mean": int, "averaged": dict},
    }
    if not isinstance(progress, dict) or not all(isinstance(progress.get(key), kind) for key, kind in needed.items()):
        raise CheckpointError(f"checkpoint {path} is damaged: remove it to train from the beginning")
    if progress["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"checkpoint {path} belongs to a training with other settings or data: choose another output folder"
        )

    def group(name: str) -> list[np.ndarray]:
        return [arrays[f"{name}_{k}"] for k in range(sum(key.startswith(f"{name}_") for key in arrays))]

    try:
        for variable, value in zip(model.weights, group("weights"), strict=True):
            variable.assign(value)
        for variable, value in zip(model.optimizer.variables, group("optimizer"), strict=True):
            variable.assign(value)
        best, mean = group("best"), group("mean")
    except (KeyError, ValueError, TypeError) as error:  # arrays are missing, or have another shape or type
        raise CheckpointError(f"checkpoint {path} is damaged: remove it to train from the beginning") from error
    known = {name: progress[name] for name in needed if name != "fingerprint"}
    return TrainingState(**known, best_weights=best, mean_weights=mean)
