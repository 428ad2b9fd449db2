"""Small runs of molecular dynamics for tests of the runner; fixtures `inputs` and `whole` are in conftest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from ase import Atoms
from ase.io import write

from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import parse_config
from gmcore.data.datasets import Dataset
from gmcore.dynamics.trajectory import Trajectory
from gmcore.evaluation.trust import training_environments
from gmcore.model_file import write_model
from gmcore.uncertainty.last_layer import with_draws
from gmcore.uncertainty.uncertainty import Uncertainty
from support.models import random_parts

MOLECULE = Atoms("CoN2H2", [[0, 0, 0], [1.9, 0, 0], [-1.9, 0.1, 0], [2.3, 0.9, 0], [-2.3, 0, 0.9]])
SIZE = {"species": (1, 7, 27), "hidden": (6,), "r_max": 3.0, "n_basis": 4, "n_radial": 2}
ENSEMBLES = [
    {"kind": "langevin", "friction": 20},
    {"kind": "nose_hoover", "thermostat_time": 20},
    {"kind": "nve"},
    {"kind": "npt", "barostat_time": 200},
]


def write_weak_model(
    path: Path, head: str, n_members: int, seed: int = 0, knows: bool = True, molecule: Atoms = MOLECULE, **size
) -> None:
    """A random model whose forces are so weak that atoms never meet within a test.

    With `knows` it has the environments of rattled molecules, and a single member has draws of its last layer.
    """
    settings, members = random_parts((head,), n_members=n_members, seed=seed, **SIZE | size)
    members = [replace(m, scale={name: 0.05 * scale for name, scale in m.scale.items()}) for m in members]
    uncertainty = None
    if knows:
        frames = [molecule.copy() for _ in range(40)]
        for k, frame in enumerate(frames):
            frame.rattle(0.05, seed=k)
        if n_members == 1:
            members = [with_draws(settings, members[0], frames)]
        environments = training_environments(settings, members[0], Dataset(frames, {}, {}, np.zeros(len(frames))))
        uncertainty = Uncertainty({}, environments)
    write_model(path, settings, members, uncertainty=uncertainty)


def write_inputs(folder: Path) -> Path:
    """Models and structures that the runs are about; returns the folder."""
    write_weak_model(folder / "potential.h5", "energy", 2)
    write_weak_model(folder / "single.h5", "energy", 1)
    write_weak_model(folder / "bare.h5", "energy", 1, knows=False)
    write_weak_model(folder / "d.h5", "d_tensor", 3)
    write_weak_model(folder / "d_single.h5", "d_tensor", 1)
    write(folder / "molecule.extxyz", MOLECULE)
    crystal = MOLECULE.copy()
    crystal.set_cell([[7.0, 0, 0], [1.0, 7.5, 0], [-0.5, 1.0, 8.0]])
    crystal.pbc = True
    crystal.translate([0.95, 0.9, 0.02] @ crystal.cell.array)
    crystal.wrap()
    write(folder / "crystal.extxyz", crystal)
    return folder


def raw(inputs: Path, output: Path, **changes) -> dict:
    """Two replicas, 15 steps of equilibration and 40 of production; intervals that do not divide a chunk."""
    return {
        "output": str(output),
        "potential": str(inputs / "potential.h5"),
        "structure": {"file": str(inputs / "molecule.extxyz")},
        "replicas": {"temperatures": [100, 300], "seeds": [1]},
        "ensemble": {"kind": "langevin", "friction": 20},
        "equilibration": 0.0075,
        "duration": 0.02,
        "chunk": 0.005,
        "record": {"positions": 4, "velocities": 3, "scalars": 6, "precision": "float64"},
        "d_tensor": {"model": str(inputs / "d.h5"), "every": 7, "molecule": {"metal": "Co"}},
        "threads": 1,
        **changes,
    }


def configured(*arguments, **changes) -> MDConfig:
    return parse_config(yaml.safe_dump(raw(*arguments, **changes)), kind=MDConfig)


def assert_same_run(one: Path, other: Path, least: int = 6) -> None:
    """Bit for bit: every sample, and the state to go on from."""
    first, second = Trajectory(one), Trajectory(other)
    assert first.names() == second.names() and len(first.steps("position")) >= least
    for name in first.names():
        np.testing.assert_array_equal(first.steps(name), second.steps(name))
        for replica in range(first.n_replicas):
            np.testing.assert_array_equal(first.values(name, replica), second.values(name, replica), err_msg=name)
    with np.load(one / "state.npz") as a, np.load(other / "state.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
