"""A callback that writes down when each epoch of a training ended, and how large the validation error was."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import keras


class EpochClock(keras.callbacks.Callback):
    """One line per epoch in `path`: seconds of wall clock and of processor since the first step, and `quantity`.

    Parameters
    ----------
    path : file that is written anew.
    quantity : name in the logs of Keras.
    """

    def __init__(self, path: str, quantity: str = "val_forces_mae"):
        super().__init__()
        self._path, self._quantity = Path(path), quantity

    def on_train_begin(self, logs=None):
        self._path.write_text("epoch,wall_s,processor_s,error\n")

    def on_train_batch_begin(self, batch, logs=None):
        if not hasattr(self, "_start"):
            self._start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        wall, processor = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([epoch + 1, f"{wall:.3f}", f"{processor:.3f}", float(logs[self._quantity])])
