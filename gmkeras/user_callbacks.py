"""Callbacks that a configuration names, from import paths to objects (`training.callbacks`)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from gmcore.errors import GMError, excerpt, shortened


class CallbackError(GMError):
    """A callback that cannot be imported, made or used."""


_USELESS = {
    keras.callbacks.BackupAndRestore: "the same command continues an interrupted training by itself",
    keras.callbacks.LearningRateScheduler: "training.learning_rates and the linear decay decide the rates",
    keras.callbacks.ReduceLROnPlateau: "training.learning_rates and the linear decay decide the rates",
    keras.callbacks.SwapEMAWeights: "the optimizer keeps no average of the weights",
}
"""What works in `GMModel.fit`, but not with the checkpoints and the optimizer of a configuration, and why."""


@dataclass(frozen=True)
class CallbackMaker:
    """Class and arguments of a callback; every member of a committee gets a new one."""

    path: str
    kind: type[keras.callbacks.Callback]
    arguments: Mapping[str, Any]

    def __call__(self) -> keras.callbacks.Callback:
        """Return a new callback.

        Raises
        ------
        CallbackError : the class does not take these arguments.
        """
        try:
            return self.kind(**self.arguments)
        except Exception as error:
            raise CallbackError(
                f"training.callbacks: {self.path} cannot be made with the arguments {excerpt(dict(self.arguments))}, "
                f"{type(error).__name__}: {shortened(str(error))}"
            ) from error


def import_callbacks(entries: Sequence[Mapping[str, Any]]) -> list[CallbackMaker]:
    """Import the classes of `training.callbacks`; nothing is made yet.

    Raises
    ------
    CallbackError : a module that cannot be imported, or something that is no callback for a training of gmtensor.
    """
    return [CallbackMaker(entry["class"], _class_of(entry["class"]), entry["arguments"]) for entry in entries]


def _class_of(path: str) -> type[keras.callbacks.Callback]:
    place, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(place)
    except Exception as error:  # whatever the code of the module does
        raise CallbackError(
            f"training.callbacks: the module of {path} cannot be imported, {type(error).__name__}: "
            f"{shortened(str(error))}; a module of your own must be installed or in a folder of PYTHONPATH"
        ) from error
    kind = getattr(module, name, None)
    if not isinstance(kind, type) or not issubclass(kind, keras.callbacks.Callback):
        raise CallbackError(
            f"training.callbacks: {path} must be a subclass of keras.callbacks.Callback, "
            f"got {'nothing of that name' if kind is None else excerpt(kind)}"
        )
    for base, reason in _USELESS.items():
        if issubclass(kind, base):
            raise CallbackError(f"training.callbacks: {path} cannot be used, because {reason}: leave it out")
    return kind
