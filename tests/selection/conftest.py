"""The run and the models that frames are chosen from and with; not to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import write

from support.selection import break_frames, training_frames, write_known_model
from support.synthetic_runs import synthetic_run


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The run in run/, its models, labeled.extxyz; not to be changed."""
    folder = tmp_path_factory.mktemp("selection")
    write(folder / "labeled.extxyz", training_frames())
    write_known_model(folder / "d.h5", "d_tensor", "labeled.extxyz")
    write_known_model(folder / "potential.h5", "energy", "labeled.extxyz")
    synthetic_run(folder / "run", (10.0, 20.0), n_samples=60, tumbling=False)
    break_frames(folder / "run" / "trajectory.h5")
    synthetic_run(folder / "crystal", (10.0, 20.0), n_samples=30, seeds_each=1, cell=7.0)
    return folder
