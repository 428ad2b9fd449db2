"""Runs that end before their time: what is said, what is dumped, what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import read

from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.runner import run_md
from gmcore.dynamics.stops import RunStopped
from gmcore.dynamics.trajectory import Trajectory
from gmcore.engine.structures import StructureError
from support.md_runs import assert_same_run, configured


def nan_at(call: int):
    """`BatchForces.__call__` that gives NaN for replica 1 from a call on."""
    count, original = 0, BatchForces.__call__

    def forces(self, positions, cells, want_stress=False):
        nonlocal count
        count += 1
        result = original(self, positions, cells, want_stress)
        if count >= call:
            result.forces[1, 2, 0] = np.nan
        return result

    return forces


def refused_at(call: int):
    """`BatchForces.__call__` that refuses the structure at a call."""
    count, original = 0, BatchForces.__call__

    def forces(self, *arguments):
        nonlocal count
        count += 1
        if count == call:
            raise StructureError("positions must be finite, got [nan, 0, 0]")
        return original(self, *arguments)

    return forces


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (
            {"temperature": 30, "every": 4},
            r"replica 300 K, seed 1.*: the temperature is .* K, above stop.temperature = 30",
        ),
        ({"forces_deviation": 1e-6}, r"the deviation of the force on atom \d \((Co|N|H)\) is .* eV/A, above"),
        (
            {"extrapolation": 0.1},
            r"the extrapolation grade is .*, above stop.extrapolation = 0.1; atom \d .* is farthest",
        ),
        ({"broken_bonds": 1.0001}, r"the length of bond (Co|N) \d - (N|H) \d is .* times its initial length, above"),
    ],
)
def test_stops(inputs, tmp_path, stop, message):
    with pytest.raises(RunStopped, match=message):
        run_md(configured(inputs, tmp_path, equilibration=0.0, stop=stop))
    frames = read(tmp_path / "stopped.extxyz", ":")
    assert all(frame.get_forces().any() and frame.info["name"].endswith("seed 1") for frame in frames)
    grades = [frame.info["extrapolation"] / frame.arrays["extrapolation_atoms"].max() for frame in frames]
    assert grades[0] > 0.0 and np.ptp(grades) < 1e-6  # that of the atom that leads, over one limit


@pytest.mark.parametrize(
    ("patched", "message", "n_frames"),
    [
        (nan_at(34), "replica 300 K, seed 1: an energy, force or stress is infinite or NaN", 1),
        (refused_at(34), "positions", 2),
    ],
)
def test_what_was_recorded_before_a_stop_is_kept(whole, inputs, tmp_path, monkeypatch, patched, message, n_frames):
    # calls: one when the run is set up, then per chunk one and one for each step; the 34th is step 14 of the production
    with monkeypatch.context() as patch, pytest.raises(RunStopped, match=message) as stopped:
        patch.setattr(BatchForces, "__call__", patched)
        run_md(configured(inputs, tmp_path))
    assert (
        "(at 0.007 ps). The frames are in" in str(stopped.value)
        and len(read(tmp_path / "stopped.extxyz", ":")) == n_frames
    )
    kept, expected = Trajectory(tmp_path), Trajectory(whole)
    assert kept.steps("position").tolist() == [0, 4, 8, 12] and kept.steps("velocity").tolist() == [0, 3, 6, 9, 12]
    for replica in range(2):
        np.testing.assert_array_equal(kept.values("velocity", replica), expected.values("velocity", replica)[:5])
    run_md(configured(inputs, tmp_path))
    assert_same_run(tmp_path, whole)
    assert not (tmp_path / "stopped.extxyz").exists()


def test_stress_that_is_not_finite_stops_the_run(inputs, tmp_path, monkeypatch):
    original = BatchForces.__call__

    def forces(*arguments):
        result = original(*arguments)
        result.stress[0, 1, 1] = np.inf
        return result

    monkeypatch.setattr(BatchForces, "__call__", forces)
    changes = {"ensemble": {"kind": "npt"}, "structure": {"file": str(inputs / "crystal.extxyz")}, "equilibration": 0.0}
    with pytest.raises(RunStopped, match="replica 100 K, seed 1: an energy, force or stress is infinite or NaN"):
        run_md(configured(inputs, tmp_path, **changes))


def test_a_thermostat_that_overflows_stops_the_run(inputs, tmp_path):
    changes = {"ensemble": {"kind": "nose_hoover", "thermostat_time": 0.001}, "equilibration": 0.0}
    with pytest.raises(
        RunStopped,
        match=r"the Nose-Hoover chain of .* use langevin \(at 0.0005 ps\). The frames are in .*stopped.extxyz",
    ):
        run_md(configured(inputs, tmp_path, **changes))
    assert len(read(tmp_path / "stopped.extxyz", ":")) == 2 and Trajectory(tmp_path).steps("position").tolist() == [0]


def test_samples_after_the_end_are_not_joined(whole, inputs, tmp_path, monkeypatch):
    """A run that stopped within a chunk and is declared finished before it, and later goes on after all."""
    with monkeypatch.context() as patch:
        patch.setattr(BatchForces, "__call__", nan_at(44))
        with pytest.raises(RunStopped):
            run_md(configured(inputs, tmp_path / "run"))
    assert Trajectory(tmp_path / "run").steps("velocity")[-1] > 20
    run_md(configured(inputs, tmp_path / "run", duration=0.01))
    assert Trajectory(tmp_path / "run").steps("velocity")[-1] == 18
    assert_same_run(run_md(configured(inputs, tmp_path / "run")), whole)
