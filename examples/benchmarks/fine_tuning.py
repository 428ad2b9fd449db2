"""Fine-tuning of a model of cheap D tensors on a few expensive ones, against training on the few from scratch.

    python examples/benchmarks/fine_tuning.py ../shared/data/co_pdms_D/train.extxyz -o runs/fine_tuning --seeds 1 2 3

Expensive are the D tensors of quantum chemistry in the file, cheap those of the ligand field of `examples/co_pdms` for
other frames of it. For each seed 50 expensive ones (42 to train, 8 to choose the epoch), 150 to test, all of them other
frames than the 120 cheap ones (100 and 20). Prints a table of RMSEs; finished trainings are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from ase.io import read, write

from gmcore.config.presets import PRESETS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "co_pdms"))
from ligand_field import d_tensor

EXPENSIVE, CHEAP, TEST = 50, 120, 150
RATES = PRESETS["standard"]["learning_rates"][False]
"""Learning rates of the preset for D tensors."""


def fine_tuned(share: float, **settings) -> dict:
    """Settings of a training on, with a share of the preset's rates for network and radial coefficients."""
    rates = RATES | {group: share * RATES[group] for group in ("network", "radial")}
    return {"start_from": "cheap/model.h5", "learning_rates": rates} | settings


VARIANTS = {
    "from scratch": {},
    "rates of the preset": fine_tuned(1.0),
    "0.4 of network and radial": fine_tuned(0.4),
    "0.1 of network and radial": fine_tuned(0.1),
    "rates of the preset, radial frozen": fine_tuned(1.0, freeze=["radial"]),
    "rates of the preset, radial and hidden_0 frozen": fine_tuned(1.0, freeze=["radial", "hidden_0"]),
    "from scratch, 200 epochs": {"epochs": 200},
    "rates of the preset, 200 epochs": fine_tuned(1.0, epochs=200),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/fine_tuning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    errors: dict[str, list[float]] = {name: [] for name in options.variants}
    for seed in options.seeds:
        folder = options.output / f"seed_{seed}"
        make_data(options.data, folder, seed)
        cheap = {"epochs": options.epochs}
        trained(folder, "cheap", "cheap.extxyz", {"train": 100, "validation": CHEAP - 100}, seed, cheap)
        split = {"validation": 8, "file": None}
        for name in options.variants:
            settings = {"epochs": options.epochs} | VARIANTS[name]
            metrics = trained(folder, name, "expensive.extxyz", split, seed, settings)
            errors[name].append(metrics["test"]["d_tensor"]["rmse"])
            print(f"seed {seed}, {name}: RMSE {errors[name][-1]:.3f} cm^-1", flush=True)
    for name, values in errors.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} | {np.mean(values):.2f} |")


def make_data(source: Path, folder: Path, seed: int) -> None:
    """Write expensive.extxyz, test.extxyz and cheap.extxyz."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = read(source, ":")
    order = np.random.default_rng(seed).permutation(len(frames))
    parts = np.split(order, np.cumsum([TEST, EXPENSIVE, CHEAP]))
    for name, rows in zip(("test", "expensive", "cheap"), parts):
        chosen = [frames[k].copy() for k in rows]
        for atoms in chosen:
            value = atoms.info.pop("D_tensor") if name != "cheap" else d_tensor(atoms.numbers, atoms.positions)
            atoms.info = {"d_tensor": np.asarray(value, float), "units": "positions=A d_tensor=cm^-1"}
        write(folder / f"{name}.extxyz", chosen)


def trained(folder: Path, name: str, file: str, split: dict, seed: int, training: dict) -> dict:
    """Train in a process of its own and return the metrics."""
    output = name.replace(", ", "_").replace(" ", "_")
    config = {
        "output": output,
        "seed": seed,
        "data": {"files": file, "split": {key: value for key, value in split.items() if value}},
        "properties": {"d_tensor": None},
        "training": {"members": 1, "threads": 1} | training,
    }
    if file != "cheap.extxyz":
        config["data"]["test_files"] = "test.extxyz"
    if "start_from" not in training:
        config["descriptor"] = {"r_max": 8.0}
    path = folder / f"{output}.yaml"
    path.write_text(yaml.safe_dump(config))
    metrics = folder / output / "metrics.json"
    if not metrics.is_file():
        subprocess.run([sys.executable, "-m", "gmcore", "train", str(path)], check=True, capture_output=True)
    return json.loads(metrics.read_text())


if __name__ == "__main__":
    main()
