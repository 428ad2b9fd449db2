"""A run of a tetrahedral complex, models that know their errors, and the data that they were trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from gmcore.data.datasets import Dataset
from gmcore.evaluation.trust import training_environments
from gmcore.model_file import write_model
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.uncertainty import Uncertainty
from support.models import random_parts
from support.synthetic_runs import complex_molecule

SIZE = {"species": (1, 7, 27), "hidden": (6,), "r_max": 4.0, "n_basis": 4, "n_radial": 2, "n_members": 3}
BROKEN = {(0, 5): "overlap", (1, 7): "times as long", (2, 9): "finite", (3, 11): "times as long"}
"""Frames of the run, by replica and frame, that are broken by `break_frames`."""


def training_frames():
    frames = [complex_molecule() for _ in range(40)]
    for k, frame in enumerate(frames):
        frame.rattle(0.03, seed=k)
        frame.info["total_charge"] = -2
    return frames


def write_known_model(path: Path, head: str, data: str) -> None:
    """A committee whose calibration, training environments and data file are known."""
    settings, members = random_parts((head,), **SIZE)
    provenance = {
        "config": {"data": {"files": [data], "units": {"length": "A"}}},
        "total_charges": [-2.0],
        "multiplicities": [4.0],
    }
    frames = training_frames()
    environments = training_environments(settings, members[0], Dataset(frames, {}, {}, np.zeros(len(frames))))
    key = "forces" if head == "energy" else head
    calibration = Calibration("committee", 2.0, 0.1, 0.01, 40, (0.4, 0.6), (0.68, 0.95))
    settings = replace(settings, provenance=provenance)
    write_model(path, settings, members, uncertainty=Uncertainty({key: calibration}, environments))


def break_frames(trajectory: Path) -> None:
    """An overlap, a hydrogen atom that flies away, numbers that are not finite, and an early one for each replica."""
    with h5py.File(trajectory, "r+") as file:
        for (replica, frame), kind in BROKEN.items():
            positions = file[f"particles/replica_{replica:03d}/position/value"]
            values = positions[frame]
            if kind == "overlap":
                values[5] = 0.6 * values[1] + 0.4 * values[5]
            elif kind == "finite":
                values[8] = np.nan
            else:
                values[8] *= 3.0
            positions[frame] = values
