"""What happens at the end of an epoch: best weights are kept, logs and a checkpoint written, the progress bar moved."""

from __future__ import annotations

import csv
import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.progress import Progress, TaskID

from gmcore.errors import GMError
from gmcore.files import FULL_DISK, WriteError
from gmcore.running.interruption import EndedEarly, Interruption
from gmcore.running.progress import PlainLines
from gmkeras.checkpoint import TrainingState, save_checkpoint

SECONDS_BETWEEN_CHECKPOINTS = 10.0
AVERAGED = 0.1
"""Share of the epochs, the last ones, whose weights are averaged."""


class DivergenceError(GMError):
    """A training whose loss is no longer a number."""


class BestWeights(keras.callbacks.Callback):
    """Record the epoch in `state`, and its weights if its validation error is the lowest so far.

    The error is the sum over the quantities of the validation MAE in units of the quantity's mean absolute deviation in
    the training data; with one quantity the epoch with the lowest MAE (P, section 2.2.3). The weights at the ends of
    the last epochs are averaged: after the training the mean is taken where it validates better.

    Parameters
    ----------
    spreads : quantity -> its mean absolute deviation.
    n_epochs : epochs of the whole training; the last AVERAGED of them are averaged.
    """

    def __init__(self, state: TrainingState, spreads: Mapping[str, float], n_epochs: int):
        super().__init__()
        self._state, self._spreads, self._n_epochs = state, dict(spreads), n_epochs

    def error(self, logs: Mapping[str, float], prefix: str = "val_") -> float:
        """Error of one number of results of `evaluate`."""
        return sum(logs[f"{prefix}{quantity}_mae"] / spread for quantity, spread in self._spreads.items())

    def on_epoch_end(self, epoch, logs=None):
        state = self._state
        row = {name: float(value) for name, value in logs.items()}
        if not np.isfinite(row["loss"]):
            raise DivergenceError(f"the loss must stay finite, got {row['loss']} in epoch {epoch + 1}: lower the rates")
        error = self.error(row)
        if not np.isfinite(error):
            raise DivergenceError(f"validation errors must stay finite, got {row}, epoch {epoch + 1}: lower the rates")
        state.epoch = epoch + 1
        state.history.append({"epoch": epoch + 1, **row, "val_error": error})
        if error < state.best_error:
            state.best_error, state.best_epoch = error, epoch + 1
            state.best_weights = [weight.numpy() for weight in self.model.weights]
        if epoch >= (1.0 - AVERAGED) * self._n_epochs:
            state.n_mean += 1
            weights = [weight.numpy() for weight in self.model.weights]
            mean = state.mean_weights or weights
            state.mean_weights = [old + (new - old) / state.n_mean for old, new in zip(mean, weights)]

    def compare_mean(self, validation: tf.data.Dataset) -> None:
        """After the training: take the mean of the last weights if its error is lower."""
        state = self._state
        self.model.set_weights(state.mean_weights)
        found = self.model.evaluate(validation, verbose=0, return_dict=True)
        error = self.error(found, prefix="")
        if error < state.best_error:
            state.best_error, state.best_weights = error, state.mean_weights
            state.averaged = {f"val_{name}": float(value) for name, value in found.items()} | {"val_error": error}
        state.mean_weights, state.n_mean = [], 0


class Logs(keras.callbacks.Callback):
    """Write the history to `history.csv` and, for TensorBoard, to event files in `events`, both in `folder`.

    The event files are written without the TensorBoard package, which TensorFlow need not bring along.

    Raises
    ------
    WriteError : the disk is full or `folder` cannot be written to.
    """

    def __init__(self, folder: Path, state: TrainingState):
        super().__init__()
        self._csv, self._state = folder / "history.csv", state
        with _writing(folder):
            self._events = tf.summary.create_file_writer(str(folder / "events"))
        self._metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )

    def on_train_begin(self, logs=None):
        self._csv.unlink(missing_ok=True)
        self._append(self._state.history)  # the epochs before a restart

    def on_epoch_end(self, epoch, logs=None):
        row = self._state.history[-1]
        self._append([row])
        with _writing(self._csv.parent), self._events.as_default(step=row["epoch"]):
            for name in row.keys() - {"epoch"}:
                tf.summary.write(name, tf.constant(row[name], tf.float32), metadata=self._metadata)
            self._events.flush()

    def on_train_end(self, logs=None):
        self._events.close()

    def _append(self, rows: Sequence[Mapping[str, float]]) -> None:
        if not rows:
            return
        new = not self._csv.exists()
        with _writing(self._csv.parent), open(self._csv, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for k, row in enumerate(rows):
                if new and k == 0:
                    writer.writerow(row)
                writer.writerow(row.values())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one sentence what Python or TensorFlow found wrong with writing the logs."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        full = isinstance(error, tf.errors.ResourceExhaustedError) or getattr(error, "errno", None) == errno.ENOSPC
        reason = FULL_DISK[errno.ENOSPC] if full else str(error).splitlines()[0]
        raise WriteError(f"the logs in {folder} could not be written: {reason}") from error


class Checkpoints(keras.callbacks.Callback):
    """Save the training every few seconds, at the end of an epoch, and after the last one.

    It must come after the callbacks of the user: one of them may end the training, which is then recorded.

    Parameters
    ----------
    n_epochs : epochs of the whole training.
    seconds : least time between two checkpoints.
    interruption : is asked after each epoch whether the training should end.

    Raises
    ------
    EndedEarly : the interruption said so; the checkpoint is written.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: str,
        state: TrainingState,
        n_epochs: int,
        seconds: float | None = None,
        interruption: Interruption | None = None,
    ):
        super().__init__()
        self._interruption = interruption
        self._path, self._fingerprint, self._state, self._n_epochs = path, fingerprint, state, n_epochs
        self._seconds = SECONDS_BETWEEN_CHECKPOINTS if seconds is None else seconds
        self._last = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        if self._interruption is not None:
            self._interruption.begin()

    def on_epoch_end(self, epoch, logs=None):
        self._state.stopped = bool(self.model.stop_training)
        done = epoch + 1 == self._n_epochs or self._state.stopped
        why = "" if done or self._interruption is None else self._interruption.why()
        if done or why or time.monotonic() - self._last >= self._seconds:
            save_checkpoint(self._path, self._fingerprint, self.model, self._state)
            self._last = time.monotonic()
        if why:
            raise EndedEarly(why)


class ProgressBar(keras.callbacks.Callback):
    """Advance a task of a `rich` progress display by one for every batch, and show the errors of the last epoch.

    Where there is no terminal, a plain line a minute says so.
    """

    def __init__(self, progress: Progress, task: TaskID, state: TrainingState, lines: PlainLines):
        super().__init__()
        self._progress, self._task, self._state, self._lines = progress, task, state, lines

    def on_train_batch_end(self, batch, logs=None):
        self._progress.advance(self._task)

    def on_epoch_end(self, epoch, logs=None):
        row = self._state.history[-1]
        shown = [
            f"{name.removeprefix('val_')} {row[name]:.4g}"
            for name in row
            if name.startswith("val_") and name.endswith("_mae")
        ]
        self._progress.update(self._task, status=f"epoch {row['epoch']}, {', '.join(shown)}")
        self._lines.done = epoch + 1
        if not self._progress.console.is_terminal and self._lines.due():
            self._lines.write(", ".join(shown))
