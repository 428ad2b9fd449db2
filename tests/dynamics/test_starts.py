"""Runs that start from several structures, several runs of one configuration, and signals that end a run."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest
import yaml
from ase.io import write

from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import ConfigError, load_runs
from gmcore.dynamics.checkpoint import RunError
from gmcore.dynamics.recorder import Recorder
from gmcore.dynamics.runner import run_md
from gmcore.dynamics.trajectory import Trajectory
from gmcore.running.interruption import EndedEarly, Interruption
from support.command_line import refused, run
from support.md_runs import MOLECULE, assert_same_run, configured, raw


@pytest.fixture
def frames(tmp_path):
    moved = [MOLECULE.copy() for _ in range(3)]
    for k, frame in enumerate(moved):
        frame.rattle(0.02, seed=k)
    other = MOLECULE.copy()
    other.numbers[1] = 1
    write(tmp_path / "frames.extxyz", [*moved, other])
    return tmp_path / "frames.extxyz"


def test_replicas_start_from_different_structures(inputs, tmp_path, frames):
    changes = {"duration": 0.005, "equilibration": 0, "d_tensor": None}
    wanted = {
        "structure": {"file": str(frames), "index": [2, 0]},
        "replicas": {"temperatures": [100, 300], "seeds": [1, 7]},
    }
    both = Trajectory(run_md(configured(inputs, tmp_path / "both", **changes, **wanted)))
    for replica, (index, temperature, seed) in enumerate([(2, 100, 1), (0, 100, 7), (2, 300, 1), (0, 300, 7)]):
        own = {
            "structure": {"file": str(frames), "index": index},
            "replicas": {"temperatures": [temperature], "seeds": [seed]},
        }
        alone = Trajectory(run_md(configured(inputs, tmp_path / str(replica), **changes, **own)))
        ours = both.values("position", replica)
        np.testing.assert_allclose(ours, alone.values("position", 0), atol=1e-9)
    assert np.abs(both.values("position", 0)[0] - both.values("position", 1)[0]).max() > 0.01
    with pytest.raises(
        ConfigError, match=r"structure.index must be one index, one for each of 2 seeds or .* 4 replicas"
    ):
        configured(inputs, tmp_path / "c", **wanted | {"structure": {"file": str(frames), "index": [0, 1, 2]}})
    with pytest.raises(RunError, match=r"must have the same atoms in the same order .* structure 3 of .* structure 0"):
        run_md(configured(inputs, tmp_path / "c", **wanted | {"structure": {"file": str(frames), "index": [0, 3]}}))


def test_several_runs_share_a_configuration(inputs, tmp_path):
    content = raw(inputs, tmp_path / "runs", duration=0.005, equilibration=0, d_tensor=None)
    content["runs"] = {
        "slow": {"ensemble": {"friction": 30}},
        "b2": {"replicas": {"seeds": [5]}, "output": "b2"},
        "as_is": None,
    }
    config = tmp_path / "md.yaml"
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    runs = load_runs(config, MDConfig)
    assert {name: own.output for name, own in runs.items()} == {
        "slow": tmp_path / "runs" / "slow",
        "b2": tmp_path / "b2",
        "as_is": tmp_path / "runs" / "as_is",
    }
    assert runs["slow"].ensemble.friction == 30.0 and runs["slow"].replicas == runs["as_is"].replicas
    assert runs["b2"].replicas.seeds == [5] and runs["b2"].replicas.temperatures == [100, 300]
    done = run("md", config, "--run", "b2", "--run", "as_is")
    assert done.code == 0 and done.out == f"written: {tmp_path / 'b2'}\nwritten: {tmp_path / 'runs' / 'as_is'}\n"
    assert not (tmp_path / "runs" / "slow").exists()
    assert refused("md", config, "--run", "b3") == f"{config} has no run 'b3'; known: slow, b2, as_is"
    assert "run slow:" in run("validate", config).out
    config.write_text(yaml.safe_dump(content | {"runs": {"a": {"output": "x"}, "b": {"output": "x"}}}))
    assert refused("md", config) == f"{config}: each run needs an output of its own"
    config.write_text(yaml.safe_dump(content | {"runs": {"../a": None}}))
    assert "the name of a run must have letters, digits" in refused("md", config)
    config.write_text(yaml.safe_dump(content | {"runs": {"a": {"tme_step": 1}}}))
    assert refused("validate", config).startswith(f"{config}, run a: unknown key")


@pytest.mark.skipif(os.name != "posix", reason="signals are a matter of POSIX")
def test_a_signal_ends_the_run_after_its_chunk(inputs, whole, tmp_path, monkeypatch):
    original = Recorder.take

    def take(self, step, *arguments):
        if step == 24:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, step, *arguments)

    said = []
    with monkeypatch.context() as patch, Interruption(None, "chunk", said.append) as interruption:
        patch.setattr(Recorder, "take", take)
        with pytest.raises(EndedEarly, match="ended by SIGTERM"):
            run_md(configured(inputs, tmp_path / "run"), interruption=interruption)
    assert said == ["SIGTERM: ending after this chunk; a second signal ends at once"]
    assert Trajectory(tmp_path / "run").steps("position").max() == 28  # chunks end at multiples of 10
    assert_same_run(run_md(configured(inputs, tmp_path / "run")), whole)
    done = run("md", _written(tmp_path, inputs), "--max-time", "0:00:00")
    assert (
        done.code == 75 and "ended by the time limit; finished chunks are saved, continue with: gmtensor md" in done.err
    )
    assert Trajectory(tmp_path / "limited").n_replicas == 2


def _written(folder, inputs):
    (folder / "md.yaml").write_text(yaml.safe_dump(raw(inputs, folder / "limited", equilibration=0)))
    return folder / "md.yaml"


def test_lines_of_a_run_without_a_terminal(inputs, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("gmcore.running.progress.SECONDS", 0.0)  # every line that would come after a minute
    run_md(configured(inputs, tmp_path / "run"))
    line = capfd.readouterr().err.splitlines()[-1]
    assert re.match(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d production, 55 of 55 steps \(100\.0 %\), [\d.e+]+ ns/day x 2, "
        r"[\d.]+ to [\d.]+ K, deviation [\d.e-]+( to [\d.e-]+)? eV/A, 1 min left, \S+$",
        line,
    ), line
