"""Runs that are killed, extended, moved or damaged: bit for bit the same, or refused in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from gmcore.dynamics.checkpoint import RunError, read_checkpoint, write_checkpoint
from gmcore.dynamics.langevin import Langevin
from gmcore.dynamics.runner import run_md
from gmcore.dynamics.trajectory import Trajectory
from gmcore.files import LockError, lock_folder
from gmcore.model_file import read_model, write_model
from support.md_runs import ENSEMBLES, assert_same_run, configured, raw
from support.places import ROOT

pytestmark = pytest.mark.slow

DRIVER = """
import os, random, signal, sys
from pathlib import Path
from gmcore.config.loading import load_config
from gmcore.config.dynamics import MDConfig
from gmcore.dynamics.langevin import Langevin
from gmcore.dynamics.runner import run_md
from gmcore.running.interruption import EndedEarly, Interruption

config = load_config(sys.argv[1], MDConfig)

def attempt(fatal, number=None):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0
    def counted(name, function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == fatal:
                os.write(1, f"{name}\\n".encode())
                os.kill(os.getpid(), number)
            return function(*arguments, **options)
        return call
    os.replace, os.fsync = counted("replace", os.replace), counted("fsync", os.fsync)
    Path.unlink, Langevin.step = counted("unlink", Path.unlink), counted("step", Langevin.step)
    try:
        with Interruption() as interruption:
            run_md(config, interruption=interruption)
    except EndedEarly:
        os._exit(75)
    os._exit(0)

rng = random.Random(int(sys.argv[2]))
for _ in range(8):
    number = rng.choice([signal.SIGKILL, signal.SIGTERM])
    code = attempt(rng.randint(3, 50), number)
    assert code in (0, -signal.SIGKILL if number == signal.SIGKILL else 75), code
    if code == 0:
        break
assert attempt(0) == 0
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("seed", range(int(os.environ.get("GMTENSOR_KILLED_RUNS", "1"))))
def test_killed_at_random_moments(whole, inputs, tmp_path, seed):
    (tmp_path / "md.yaml").write_text(yaml.safe_dump(raw(inputs, tmp_path / "run")))
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "md.yaml"), str(8 + seed)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    killed_in = result.stdout.split()
    print(f"killed {len(killed_in)} times")
    if seed == 0:  # at different places; other seeds are for larger numbers
        assert len(killed_in) >= 5 and len(set(killed_in)) >= 3, killed_in
    assert_same_run(tmp_path / "run", whole)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "state.npz", "trajectory.h5"]


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=lambda ensemble: ensemble["kind"])
def test_an_extended_run_is_one_long_run(inputs, tmp_path, ensemble):
    changes = {"ensemble": ensemble, "structure": {"file": str(inputs / "crystal.extxyz")}}
    long = run_md(configured(inputs, tmp_path / "long", **changes))
    run_md(configured(inputs, tmp_path / "short", duration=0.01, **changes))
    assert Trajectory(tmp_path / "short").steps("position")[-1] == 20
    extended = run_md(configured(inputs, tmp_path / "short", **changes))
    assert_same_run(extended, long)
    assert not (extended / "trajectory").exists()
    trajectory = Trajectory(extended)
    assert ("stress" in trajectory.names()) == (ensemble["kind"] == "npt")
    boxes = trajectory.values("box", 0)
    assert (np.ptp(boxes, axis=0).max() > 0) == (ensemble["kind"] == "npt")
    assert np.isnan(trajectory.temperatures).all() == (ensemble["kind"] == "nve")


def test_every_chunk_begins_with_a_new_neighbor_list(inputs, tmp_path, monkeypatch):
    """What bit-exact continuation rests on: the order of pairs depends on where a list was built."""
    calls, forget = [], Langevin.restart

    def restart(self):
        calls.append(self.state.step)
        forget(self)

    monkeypatch.setattr(Langevin, "restart", restart)
    run_md(configured(inputs, tmp_path))
    assert calls == [0, 0, 10, 15, 25, 35, 45]  # set up, then 10 + 5 steps of equilibration and four chunks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_step": 0.25}, r"time_step \(was 0.5, now 0.25\)"),
        ({"ensemble": {"friction": 5}}, r"ensemble.friction \(was 20.0, now 5.0\)"),
        ({"d_tensor": None}, r"d_tensor.every \(was 7, now not given\), .*the contents of d_tensor.model"),
        (
            {"potential": "single.h5"},
            "changed since then: the contents of potential. Undo the changes, choose another output",
        ),
        ({"duration": 0.01}, "duration must be at least 0.02 ps"),
    ],
)
def test_refuses_to_go_on_with_other_settings(whole, inputs, changes, message):
    if "potential" in changes:
        changes = {"potential": str(inputs / changes["potential"])}
    before = (whole / "state.npz").read_bytes()
    with pytest.raises(RunError, match=message):
        run_md(configured(inputs, whole, **changes))
    assert (whole / "state.npz").read_bytes() == before


def test_a_moved_folder_goes_on(whole, inputs, tmp_path):
    for name in ("potential.h5", "d.h5", "molecule.extxyz"):
        (tmp_path / name).write_bytes((inputs / name).read_bytes())
    run_md(configured(inputs, tmp_path / "old", duration=0.005))
    (tmp_path / "old").rename(tmp_path / "new")
    run_md(configured(tmp_path, tmp_path / "new"))
    assert_same_run(tmp_path / "new", whole)


def written_again(path):
    """Write a model file again with another provenance."""
    settings, members = read_model(path)
    write_model(path, replace(settings, provenance={"date": "another"}), members)


def old_identity(folder):
    """Put what older versions wrote into a checkpoint: of a model the SHA-256 of its file alone."""
    checkpoint = read_checkpoint(folder)
    values = {key: value["file"] if isinstance(value, dict) else value for key, value in checkpoint.identity.items()}
    assert values != checkpoint.identity
    write_checkpoint(folder, replace(checkpoint, identity=values))


def test_goes_on_with_models_that_were_written_again(inputs, tmp_path):
    for name in ("potential.h5", "d.h5", "molecule.extxyz"):
        (tmp_path / name).write_bytes((inputs / name).read_bytes())
    folder = run_md(configured(tmp_path, tmp_path / "run", duration=0.005))
    written_again(tmp_path / "potential.h5")
    written_again(tmp_path / "d.h5")
    assert (tmp_path / "potential.h5").read_bytes() != (inputs / "potential.h5").read_bytes()
    run_md(configured(tmp_path, folder, duration=0.01))

    old_identity(folder)
    run_md(configured(tmp_path, folder, duration=0.015))  # the same file: goes on, and from now on by its content
    written_again(tmp_path / "potential.h5")
    run_md(configured(tmp_path, folder))
    old_identity(folder)
    (tmp_path / "potential.h5").write_bytes((inputs / "potential.h5").read_bytes())
    with pytest.raises(RunError, match=r"changed since then: the contents of potential\. Undo the changes"):
        run_md(configured(tmp_path, folder))


def test_refuses_folders_of_something_else(inputs, tmp_path):
    (tmp_path / "config.yaml").write_text("data:")
    for resume in (True, False):
        with pytest.raises(
            RunError, match=r"must be a new folder or that of an earlier run, .* has a config.yaml and no state.npz"
        ):
            run_md(configured(inputs, tmp_path), resume=resume)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "trajectory").mkdir()
    with pytest.raises(
        RunError,
        match=r"has a trajectory but no state.npz: restore this file, or start over with gmtensor md --no-resume",
    ):
        run_md(configured(inputs, tmp_path))
    for damaged in (b"PK no archive", b""):
        (tmp_path / "state.npz").write_bytes(damaged)
        with pytest.raises(
            RunError, match=r"state.npz is damaged or is not a checkpoint: restore the file, or start over"
        ):
            read_checkpoint(tmp_path)
    for resume in (True, False):
        with pytest.raises(RunError, match=r"output must be a folder, but .*state.npz is a file"):
            run_md(configured(inputs, tmp_path / "state.npz"), resume=resume)


def test_refuses_to_go_on_without_its_samples(inputs, tmp_path):
    """Those of a finished run, and of one of its chunks, lost or damaged."""
    config = configured(inputs, tmp_path / "run", duration=0.01)
    joined = run_md(config) / "trajectory.h5"
    whole = joined.read_bytes()
    longer = configured(inputs, tmp_path / "run")
    joined.write_bytes(whole[: len(whole) // 2])
    for again in (config, longer):
        with pytest.raises(RunError, match=r"trajectory.h5 is not a trajectory .* restore it, or start over"):
            run_md(again)
    joined.unlink()
    for again in (config, longer):
        with pytest.raises(RunError, match=r"trajectory/000000.h5 does not exist; the run in .* restore it"):
            run_md(again)


def test_one_process_at_a_time(inputs, tmp_path):
    pytest.importorskip("fcntl")
    with (
        lock_folder(tmp_path / "run"),
        pytest.raises(
            LockError, match=rf"another process \({os.getpid()}\) is writing to the folder .*run: wait until"
        ),
    ):
        run_md(configured(inputs, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(LockError, match=r"the output folder .* cannot be created: Not a directory"):
        run_md(configured(inputs, tmp_path / "file" / "run"))
