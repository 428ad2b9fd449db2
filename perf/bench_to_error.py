"""Epochs and seconds to a given error: `gmtensor train` of one model on 950 molecules of ethanol.

The rates decay to zero over the epochs of a training, so that how soon an error is reached depends on how long the
training was meant to last. Every training here has the same number of epochs.

Seconds are those of the processor, since the first step and with the validation after each epoch: other processes on
the machine do not count, as they would in those of the clock.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from ase.io import write

from gmcore.config.presets import PRESETS
from perf.harness import ROOT
from perf.pareto.frames import NoDataError, Sizes, read_frames
from perf.pareto.worker import labeled
from perf.report import Row

TRAININGS = {
    "standard": {"preset": "standard"},
    "standard with adam": {"preset": "standard", "optimizer": "adam", "learning_rates": {"network": 0.06}},  # its best
    "fast": {"preset": "fast"},
    "paper": {"preset": "paper"},
}
LEVELS = (40.0, 30.0, 20.0, 15.0, 10.0)  # meV/A
SIZES = Sizes(test=0)


def run(data: Path, epochs: int) -> list[Row]:
    """Rows of every training for every error.

    Parameters
    ----------
    data : folder with the files of revised MD17.
    epochs : of each training.
    """
    try:
        frames = read_frames(data, "ethanol", SIZES)
    except NoDataError as error:
        return [Row(name, "ethanol", "epochs", note=str(error)) for name in TRAININGS]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _write_frames(frames, Path(folder))
        for name in TRAININGS:
            rows += rows_of(name, epochs, train(name, epochs, Path(folder)))
    return rows


def _write_frames(frames: dict, folder: Path) -> None:
    parts = {part: labeled(frames, part) for part in ("train", "validation")}
    n, m = (len(part) for part in parts.values())
    write(folder / "frames.extxyz", [atoms for part in parts.values() for atoms in part], format="extxyz")
    split = {"n_structures": n + m, "train": list(range(n)), "validation": list(range(n, n + m)), "test": []}
    (folder / "parts.json").write_text(json.dumps(split))


def train(name: str, epochs: int, folder: Path) -> list[dict[str, float]]:
    """Train with the frames in a folder; return what `EpochClock` wrote, epoch by epoch.

    Raises
    ------
    RuntimeError : the training failed; the message ends with what it said.
    """
    clock, file = folder / f"{name}.csv", folder / f"{name}.yaml"
    config = {
        "output": name,
        "seed": 1,
        "data": {
            "files": ["frames.extxyz"],
            "units": {"length": "A", "energy": "eV", "forces": "eV/A"},
            "split": {"file": "parts.json"},
        },
        "properties": {"energy": {}},
        "training": {
            **TRAININGS[name],
            "epochs": epochs,
            "members": 1,
            "callbacks": [{"class": "perf.epoch_clock.EpochClock", "arguments": {"path": str(clock)}}],
        },
    }
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "gmcore", "train", str(file)],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the training {name} ended with code {done.returncode}: {done.stderr[-500:]}")
    with open(clock, newline="", encoding="utf-8") as table:
        return [{name: float(value) for name, value in line.items()} for line in csv.DictReader(table)]


def rows_of(name: str, epochs: int, history: list[dict[str, float]]) -> list[Row]:
    """Rows of one training; an error in the history is in eV/A."""
    system = f"ethanol, 950 structures, {epochs} epochs"
    steps = len(history) * -(-SIZES.train // PRESETS[TRAININGS[name]["preset"]]["batch_size"])
    rows = [Row(f"{name}, a step", system, "ms", 1e3 * history[-1]["processor_s"] / steps)]
    for level in LEVELS:
        reached = next((line for line in history if 1e3 * line["error"] <= level), None)
        best = min(1e3 * line["error"] for line in history)
        note = "" if reached else f"{name}: not reached, lowest validation error {best:.1f} meV/A"
        for unit, key in (("epochs", "epoch"), ("s", "processor_s")):
            rows.append(Row(f"{name}, to {level:g} meV/A", system, unit, reached and reached[key], note=note))
    return rows
