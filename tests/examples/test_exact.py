"""The example gives the right answer: exact averages of a run, and the learned D where the dynamics goes.

The full check takes minutes, so it is not part of the tests. Run the main job and compare its averages of D with the
exact ones of its own frames, for three seeds (`seed` of both trainings and of their splits, and `replicas.seeds`):

    gmtensor run examples/co_pdms/workflow.yaml && python examples/co_pdms/exact.py runs/co_pdms_md

The second command fails if D is more than two total errors off. Here a short training of one small model has to predict
the mean D of frames that were recorded in such a run (`run_frames.npz`: 30 frames at 50 K and 30 at 100 K).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml

from gmcore import load_model, zfs_parameters
from gmcore.analysis.analyze import analyze
from gmcore.config.analysis import Analysis
from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import load_config
from gmcore.dynamics.trajectory import Trajectory
from support.places import ROOT
from support.synthetic_runs import synthetic_run

EXAMPLE = ROOT / "examples" / "co_pdms"


@pytest.fixture
def exact(monkeypatch):
    """The script exact.py, which imports the ligand-field model beside it."""
    monkeypatch.syspath_prepend(EXAMPLE)
    yield importlib.import_module("exact")
    for name in ("exact", "ligand_field"):
        sys.modules.pop(name, None)


def test_exact_averages_are_those_of_the_frames_that_the_analysis_keeps(exact, tmp_path):
    relaxed = ase.io.read(EXAMPLE / "d_tensor.extxyz", 0)
    synthetic_run(tmp_path, temperatures=(2.0, 8.0), seeds_each=1, n_samples=50, atoms=relaxed)
    discard = 0.04  # ps: the first 10 of 50 samples, one each 4 fs
    content = analyze(tmp_path, Analysis(discard=discard, blocks=2))
    found = {(row.temperature, row.quantity): row for row in exact.compare(tmp_path)}
    trajectory = Trajectory(tmp_path)
    for replica, temperature in enumerate((2.0, 8.0)):
        frames = trajectory.values("position", replica)[10:]
        zfs = zfs_parameters(np.array([exact.d_tensor(relaxed.numbers, frame) for frame in frames]))
        assert found[temperature, "D"].exact == pytest.approx(zfs.d.mean(), rel=1e-6)
        assert found[temperature, "E_width"].exact == pytest.approx(zfs.e.std(), rel=1e-4)
        recorded = content["states"][replica]["anisotropy"]["D"]
        row = found[temperature, "D"]
        assert row.model == recorded["value"] and row.error >= recorded["error"] > 0.0
        assert row.apart == pytest.approx((row.model - row.exact) / row.error)


def test_the_reference_of_the_example_covers_every_temperature_of_its_run():
    config = load_config(EXAMPLE / "md.yaml", MDConfig)
    stated = {(value.temperature, value.quantity) for value in config.analysis.reference.values}
    assert stated == {(t, q) for t in config.replicas.temperatures for q in ("D", "D_width", "E", "E_width")}


@pytest.mark.slow
def test_a_short_training_predicts_the_mean_d_of_recorded_dynamics(exact, tmp_path):
    training = pytest.importorskip("gmkeras.training", reason="TensorFlow is not installed")
    TrainConfig = importlib.import_module("gmcore.config.training").TrainConfig
    config = yaml.safe_load((EXAMPLE / "d_tensor.yaml").read_text(encoding="utf-8"))
    config["output"] = str(tmp_path / "model")
    config["data"]["files"] = [str(EXAMPLE / "d_tensor.extxyz")]
    config["network"] = {"hidden": [64, 64]}
    config["training"] |= {"epochs": 12, "members": 1}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    training.train(load_config(tmp_path / "short.yaml", TrainConfig))
    model = load_model(tmp_path / "model" / "model.h5")
    recorded = np.load(Path(__file__).parent / "run_frames.npz")
    for temperature in (50, 100):
        frames = [ase.Atoms(recorded["numbers"], positions) for positions in recorded[f"positions_{temperature}"]]
        learned = zfs_parameters(model.predict(frames)["d_tensor"]).d
        true = zfs_parameters(np.array([exact.d_tensor(atoms.numbers, atoms.positions) for atoms in frames])).d
        assert abs(learned.mean() - true.mean()) < 1.2  # cm^-1; the thermal width is 4 to 6
        assert np.corrcoef(learned, true)[0, 1] > 0.9
