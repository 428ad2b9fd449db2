"""apax, Gaussian moments in JAX: `apax train`, its default rates and precision, the checkpoint of the best epoch.

The basis, the cutoff, the loss and the batches are those of gmtensor.yaml: the two differ in code more than in model.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import yaml
from apax.md import ASECalculator
from ase import Atoms
from ase.io import write

from perf.pareto.worker import Stopwatch, checked, epochs_for

CELL = "none"


def fit(
    train: list[Atoms], validation: list[Atoms], options: dict, folder: Path, minutes: float, seed: int
) -> tuple[Stopwatch, dict]:
    for name, frames in (("train", train), ("validation", validation)):
        write(folder / f"{name}.extxyz", frames, format="extxyz")

    def command(experiment: str, n_epochs: int) -> list[str]:
        config = {
            "n_epochs": n_epochs,
            "seed": seed,
            "data": {
                "directory": str(folder),
                "experiment": experiment,
                "train_data_path": str(folder / "train.extxyz"),
                "val_data_path": str(folder / "validation.extxyz"),
                "n_train": len(train),
                "n_valid": len(validation),
                "batch_size": 8,
                "valid_batch_size": min(50, len(validation)),
            },
            "model": {
                "name": "gmnn",
                "basis": {"name": "gaussian", "n_basis": 16, "r_min": 0.5, "r_max": 5.0},
                "nn": options["nn"],
                "n_radial": options["n_radial"],
            },
            "loss": [{"name": "energy", "weight": 1.0}, {"name": "forces", "weight": 4.0}],
            "metrics": [{"name": name, "reductions": ["mae"]} for name in ("energy", "forces")],
            "callbacks": [{"name": "csv"}],
        }
        shutil.rmtree(folder / experiment, ignore_errors=True)
        (folder / f"{experiment}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return [str(Path(sys.executable).parent / "apax"), "train", str(folder / f"{experiment}.yaml")]

    epochs = epochs_for(minutes, command("trial", 1_000_000), folder / "trial" / "log.csv")
    with Stopwatch() as training:
        checked(command("model", epochs))
    return training, {"epochs": epochs}


def load(folder: Path) -> ASECalculator:
    return ASECalculator(folder / "model")
