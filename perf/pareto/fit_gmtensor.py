"""gmtensor: `gmtensor train` with gmtensor.yaml, the model as it is after the best epoch."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import yaml
from ase import Atoms
from ase.io import write

from gmcore import GMCalculator
from gmcore.threads import available_cores
from perf.pareto.worker import Stopwatch, checked, epochs_for

CELL = "none"


def fit(
    train: list[Atoms], validation: list[Atoms], options: dict, folder: Path, minutes: float, seed: int
) -> tuple[Stopwatch, dict]:
    write(folder / "frames.extxyz", [*train, *validation], format="extxyz")
    n, m = len(train), len(validation)
    parts = {"n_structures": n + m, "train": list(range(n)), "validation": list(range(n, n + m)), "test": []}
    (folder / "parts.json").write_text(json.dumps(parts))
    base = yaml.safe_load((Path(__file__).parent / "gmtensor.yaml").read_text())
    config = {key: {**base.get(key, {}), **options.get(key, {})} for key in ("descriptor", "network", "training")}
    config = base | config | {"seed": seed}
    config["training"]["threads"] = available_cores()

    def command(output: str, epochs: int) -> list[str]:
        own = config | {"output": output, "training": config["training"] | {"epochs": epochs}}
        (folder / f"{output}.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
        shutil.rmtree(folder / output, ignore_errors=True)
        return [sys.executable, "-m", "gmcore", "train", str(folder / f"{output}.yaml")]

    epochs = config["training"].get("epochs")
    if epochs is None:
        epochs = epochs_for(minutes, command("trial", 1_000_000), folder / "trial" / "member_0" / "history.csv")
    with Stopwatch() as training:
        checked(command("model", epochs))
    return training, {"epochs": epochs}


def load(folder: Path) -> GMCalculator:
    return GMCalculator(folder / "model" / "model.h5")
