"""A workflow with rounds that is killed again and again: nothing is lost or labeled twice, and the end is the same.

    python -m pytest -m fuzz tests/workflow/test_killed_rounds.py          GMTENSOR_KILLED_ROUNDS=100: number of kills

The commands are the real ones: trainings of a few epochs, short dynamics, labels from a function, two rounds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
import pytest

from gmcore.dynamics.trajectory import Trajectory
from gmcore.model_file import read_model
from support.places import ROOT

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.fuzz

KILLS = int(os.environ.get("GMTENSOR_KILLED_ROUNDS", "5"))
LONGEST = 15.0
"""s that a call may live at most before it is killed; short against a whole workflow, long against a step's start."""

FUNCTION = """
from pathlib import Path

import numpy as np


def d_tensor(numbers, positions):
    with open(Path(__file__).with_name("calls"), "a") as log:
        log.write(positions.tobytes().hex() + "\\n")
    arms = positions[1:5] - positions[0]
    return 10.0 * np.einsum("ia,ib->ab", arms, arms)
"""
TRAINING = """
output: {name}
data:
  files: [{name}.extxyz]
  total_charge: total_charge
  units: {units}
  keys: {keys}
  split: {{train: 12, validation: 4, test: 4}}
descriptor: {{r_max: 4.0, n_basis: 5, n_radial: 3}}
network: {{hidden: [8]}}
properties: {{{property}: }}
training: {{epochs: 3, members: 2, threads: 1}}
"""
MD = """
output: md
potential: potential/model.h5
structure: {file: potential.extxyz}
replicas: {temperatures: [50]}
time_step: 0.5
duration: 0.2
chunk: 0.05
threads: 1
record: {positions: 2, velocities: 2, scalars: 2}
d_tensor: {model: d_tensor/model.h5, every: 2, molecule: {metal: Co}}
analysis: {modes: false, blocks: 2}
"""
LOOP = """
output: loop
train: [potential.yaml, d_tensor.yaml]
md: md.yaml
rounds:
  at_most: 2
  improve:
    - {train: d_tensor.yaml, label: label.yaml, frames: 5, check: 3}
"""


def make_folder(folder: Path) -> Path:
    """Write everything that the workflow reads."""
    folder.mkdir()
    frames = ase.io.read(ROOT / "examples" / "cobalt_thiolate" / "potential.extxyz", ":20")
    ase.io.write(folder / "potential.extxyz", frames)
    for frame in frames:
        arms = frame.positions[1:5] - frame.positions[0]
        tensor = 10.0 * np.einsum("ia,ib->ab", arms, arms)
        frame.info["d_tensor"] = tensor - np.trace(tensor) / 3.0 * np.eye(3)
    ase.io.write(folder / "d_tensor.extxyz", frames)
    texts = {"function.py": FUNCTION, "md.yaml": MD, "loop.yaml": LOOP, "calls": ""}
    texts["label.yaml"] = "method: python\njobs: 2\npython: {function: 'function.py:d_tensor'}\n"
    units, keys = "{length: A, energy: eV, forces: eV/A}", "{energy: energy_ref, forces: forces_ref}"
    texts["potential.yaml"] = TRAINING.format(name="potential", property="energy", units=units, keys=keys)
    units = "{length: A, d_tensor: cm^-1}"
    texts["d_tensor.yaml"] = TRAINING.format(name="d_tensor", property="d_tensor", units=units, keys="{}")
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def attempt(folder: Path, seconds: float | None) -> bool:
    """Run the workflow, kill it after a time if one is given, and return whether it finished."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gmcore", "run", "loop.yaml"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()  # until its children have ended too: they hold the pipe
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode == 0


def results(folder: Path) -> dict:
    """Everything that must not depend on interruptions."""
    loop = folder / "loop"
    rounds = json.loads((loop / "rounds.json").read_text())
    for entry in rounds["rounds"]:
        entry.pop("seconds")
    labeled = [frame for path in sorted(loop.glob("**/*_labeled.extxyz")) for frame in ase.io.read(path, ":")]
    members = read_model(loop / "round_2" / "d_tensor" / "model.h5")[1]
    run = Trajectory(loop / "round_2" / "md")
    return {
        "rounds": list(numbers_in(rounds)),
        "frames": [float(frame.info.get("frame", -1)) for frame in labeled],
        "positions": np.ravel([frame.positions for frame in labeled]),
        "labels": np.ravel([frame.info["d_tensor"] for frame in labeled]),
        "weights": np.concatenate([np.ravel(weights) for member in members for weights in member.weights]),
        "run": np.ravel(run.values("position", 0)),
    }


def numbers_in(content: object) -> Iterator[float]:
    """All numbers of nested lists and dictionaries, in order."""
    if isinstance(content, (list, dict)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from numbers_in(value)
    elif isinstance(content, (int, float)):
        yield float(content)


def computed(folder: Path) -> list[tuple[float, ...]]:
    """Positions of the frames that were computed, rounded so that those of one frame are equal."""
    calls = (folder / "calls").read_text().split()
    return [tuple(np.round(np.frombuffer(bytes.fromhex(call)), 3).tolist()) for call in calls]


def test_killed_rounds_end_as_unbroken_ones(tmp_path):
    unbroken = make_folder(tmp_path / "unbroken")
    assert attempt(unbroken, None)
    expected, labeled = results(unbroken), computed(unbroken)
    assert len(labeled) == len(set(labeled)) == 13  # two rounds of five frames, and three for the comparison
    rng, kills, longest = random.Random(1), 0, LONGEST
    for number in range(KILLS):
        folder = make_folder(tmp_path / f"broken_{number}")
        before = kills
        while kills < KILLS:
            if attempt(folder, rng.uniform(0.5, longest)):
                break
            kills += 1
        else:
            assert attempt(folder, None)
        for name, values in results(folder).items():
            # one of several trainings differs in the last digit of some weights, killed or not
            np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
        calls = computed(folder)
        assert len(set(calls)) == len(labeled)
        # a frame that was being computed when everything was killed is computed again, no other one
        assert len(calls) - len(labeled) <= 2 * (kills - before)
        if kills >= KILLS:
            break
    assert kills == KILLS
