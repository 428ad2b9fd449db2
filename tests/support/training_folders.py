"""The folder of a training, without its model: what a report and an analysis read of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write

ERRORS = {"mae": 0.3, "rmse": 0.6, "unit": "cm^-1", "n": 30}


def write_training_folder(folder: Path, frames: Sequence[Atoms], split: Sequence[int], **metrics: Any) -> None:
    """Write data, configuration, metrics and learning curve of a training on D tensors.

    Parameters
    ----------
    frames : with their D tensor, cm^-1, as `info["D"]`.
    split : numbers of structures for training, validation and test.
    metrics : more of the test part, beside the errors of the elements of D.
    """
    write(folder / "data.extxyz", list(frames))
    train, validation, test = split
    (folder / "config.yaml").write_text(
        "output: .\ndata:\n  files: data.extxyz\n  units: {length: A, d_tensor: cm^-1}\n  keys: {d_tensor: D}\n"
        f"  split: {{train: {train}, validation: {validation}, test: {test}}}\nproperties: {{d_tensor: }}\n"
    )
    (folder / "metrics.json").write_text(json.dumps({"test": {"d_tensor": ERRORS, **metrics}}))
    curve = {"sizes": [100, 300, 900], "mae": [0.9, 0.5, 0.3], "rmse": [1.5, 1.1, 0.6], "unit": "cm^-1"}
    (folder / "learning_curve").mkdir()
    (folder / "learning_curve" / "learning_curve.json").write_text(json.dumps({"d_tensor": curve}))
