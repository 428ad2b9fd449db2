"""Learning curves: errors against the number of training structures (P figure 2).

Each size is trained separately, in its own folder. A larger training set contains all structures of the smaller ones,
and all sizes are tested on the same structures (see `gmcore.data.splits`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gmcore.config.training import TrainConfig
from gmcore.errors import GMError
from gmcore.evaluation.figures import learning_curve
from gmcore.files import atomic_path, lock_folder
from gmcore.outputs import LEARNING_CURVE, check_outputs
from gmcore.quantities import BY_NAME

FOLDER, TABLE = "learning_curve", "learning_curve.json"


def run_learning_curve(config: TrainConfig, sizes: Sequence[int], train: Callable[[TrainConfig], Any]) -> list[Path]:
    """Train with each number of structures; return the paths of the table and of one figure per quantity.

    Parameters
    ----------
    config : configuration of the training.
    sizes : numbers of training structures, different and positive.
    train : trains a configuration; its result has `metrics`, part -> quantity -> errors. The errors of the test part
        are drawn, or of the validation part if there is no test part.

    Raises
    ------
    LockError : another process writes to the folder of the learning curve.
    GMError : if there are no sizes, or a size is below 1 or given twice.
    """
    if not sizes or min(sizes) < 1 or len(set(sizes)) != len(sizes):
        raise GMError(f"training sizes must be different and positive, got {list(sizes)}")
    with lock_folder(config.output / FOLDER):
        return _run(config, sizes, train)


def _run(config: TrainConfig, sizes: Sequence[int], train: Callable[[TrainConfig], Any]) -> list[Path]:
    """Train in the locked folder of the learning curve."""
    folder = config.output / FOLDER
    check_outputs([folder / TABLE], config.reads, makes=(LEARNING_CURVE, config.output))
    points = {}
    for size in sorted(sizes):
        metrics = train(with_training_size(config, size)).metrics
        points[size] = metrics["test" if "test" in metrics else "validation"]
    table = folder / TABLE
    curves: dict[str, dict[str, Any]] = {}
    for quantity in next(iter(points.values())):
        entries = [errors[quantity] for errors in points.values()]
        curves[quantity] = {
            "sizes": list(points),
            "mae": [entry["mae"] for entry in entries],
            "rmse": [entry["rmse"] for entry in entries],
            "unit": entries[0]["unit"],
        }
    paths = [table]
    for quantity, curve in curves.items():
        if quantity in BY_NAME:  # derived quantities are only in the table
            path = folder / f"learning_curve_{quantity}.png"
            title = BY_NAME[quantity].title
            fits = learning_curve(path, curve["sizes"], curve["mae"], curve["rmse"], unit=curve["unit"], quantity=title)
            curve["slopes"] = {name: fit.slope for name, fit in fits.items()}
            paths.append(path)
    with atomic_path(table) as temporary:
        temporary.write_text(json.dumps(curves, indent=2) + "\n", encoding="utf-8")
    return paths


def with_training_size(config: TrainConfig, size: int) -> TrainConfig:
    """Return the configuration with `size` training structures and an output folder of its own."""
    split = config.data.split.model_copy(update={"train": size})
    data = config.data.model_copy(update={"split": split})
    return config.model_copy(update={"data": data, "output": config.output / FOLDER / f"train_{size}"})
