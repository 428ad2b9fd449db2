"""Predictions of files in parts: the same as at once, whatever interrupts them, and in shares."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from gmcore.data.datasets import read_dataset
from gmcore.data.reading import Source
from gmcore.evaluation import streaming
from gmcore.evaluation.streaming import PredictionError, Shard, Task, parts_folder, predict_file
from gmcore.files import LockError, lock_folder
from gmcore.model import Model, load_model
from gmcore.running.interruption import EndedEarly, Interruption
from support.command_line import killed, refused, run
from support.models import random_model
from support.systems import slab, water_molecule

N = 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and a file of molecules and slabs in which every structure is another one."""
    path = tmp_path_factory.mktemp("streaming")
    random_model(path / "model.h5", ("energy", "d_tensor"), n_members=2)
    rng, frames = np.random.default_rng(3), []
    for k in range(N):
        frame = slab() if k % 5 == 2 else water_molecule()
        frame.positions += rng.normal(scale=0.02, size=frame.positions.shape)
        frame.info["total_charge"] = float(k % 2)
        frames.append(frame)
    write(path / "frames.xyz", frames)
    return path


@pytest.fixture(scope="module")
def model(folder) -> Model:
    return load_model(folder / "model.h5")


class After(Interruption):
    """Ends the work after so many parts."""

    def __init__(self, parts):
        super().__init__()
        self._parts = parts

    def check(self):
        self._parts -= 1
        if self._parts == 0:
            raise EndedEarly("ended by the test")


@pytest.fixture
def predict(folder, model, monkeypatch):
    monkeypatch.setattr(streaming, "FRAMES", 4)

    def call(output, parts=None, shard=None, **options):
        task = Task(Source(folder / "frames.xyz"), {"length": "A"}, shard=shard or Shard())
        interruption = None if parts is None else After(parts)
        return predict_file(model, folder / "model.h5", task, output, interruption=interruption, **options)

    return call


@pytest.mark.parametrize("suffix", ["extxyz", "h5", "npz", "csv"])
def test_an_interrupted_prediction_is_one_that_ran_through(predict, tmp_path, suffix):
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    summary = predict(whole)
    for parts in (1, 2):
        with pytest.raises(EndedEarly):
            predict(output, parts)
        assert not output.exists()
    folder = parts_folder(output)
    assert len(list(folder.glob("0*.json"))) == 3
    (folder / f"000003.{'npz' if suffix in ('h5', 'npz') else suffix}").write_text("a part without its facts")
    assert predict(output) == summary and summary.n_structures == N
    if suffix == "h5":  # the seal is another one, because HDF5 notes the time
        labels = ["energy", "forces", "d_tensor"]
        one, other = read_dataset(output, labels), read_dataset(whole, labels)
        assert all(np.array_equal(a, b) for key in labels for a, b in zip(one.labels[key], other.labels[key]))
        assert one.total_charge.tolist() == [0.0, 1.0] * 11 + [0.0]
    elif suffix == "npz":
        with np.load(output) as one, np.load(whole) as other:
            assert one.files == other.files and all(
                np.array_equal(one[k], other[k], equal_nan=k != "units") for k in one
            )
    else:
        assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([whole.name, output.name])


def test_the_numbers_are_those_of_the_model(predict, folder, model, tmp_path):
    predict(tmp_path / "p.extxyz")
    frames, ours = read(folder / "frames.xyz", ":"), read(tmp_path / "p.extxyz", ":")
    expected = model.predict(frames)
    for k, frame in enumerate(ours):
        assert frame.get_potential_energy() == pytest.approx(expected["energy"][k], rel=1e-12)
        np.testing.assert_allclose(frame.get_forces(), expected["forces"][k], atol=2e-8)
        np.testing.assert_allclose(frame.info["d_tensor"], expected["d_tensor"][k], rtol=1e-9, atol=1e-12)
        assert frame.info["total_charge"] == k % 2 and (frame.pbc == frames[k].pbc).all()
        assert "stress" not in frame.calc.results or frame.pbc.any()


def test_shards_are_the_whole(predict, tmp_path):
    predict(tmp_path / "whole.csv")
    rows = []
    for number in (1, 2, 3):
        predict(tmp_path / "part.csv", shard=Shard(number, 3))
        with open(tmp_path / "part.csv", newline="") as file:
            rows += list(csv.DictReader(file))
    with open(tmp_path / "whole.csv", newline="") as file:
        wanted = list(csv.DictReader(file))
    assert [row["structure"] for row in rows] == [str(k) for k in range(N)]
    np.testing.assert_allclose([float(r["energy [eV]"]) for r in rows], [float(r["energy [eV]"]) for r in wanted])
    for text in ("0/3", "4/3", "3", "a/b", "1/0"):
        with pytest.raises(PredictionError, match=r"a shard must have the form 3/16"):
            Shard.parse(text)
    with pytest.raises(PredictionError, match=r"there are 23 structures for 24 shards: use fewer shards"):
        predict(tmp_path / "part.csv", shard=Shard(1, 24))


def test_what_does_not_belong_together_is_not_joined(predict, folder, model, tmp_path):
    output = tmp_path / "out.extxyz"
    with pytest.raises(EndedEarly):
        predict(output, 1)
    with pytest.raises(PredictionError, match=r"out\.extxyz\.parts holds parts of a prediction with other settings "):
        predict(output, shard=Shard(1, 2))
    with lock_folder(parts_folder(output)), pytest.raises(LockError):
        predict(output)
    (parts_folder(output) / "000000.json").write_text("{")
    with pytest.raises(PredictionError, match=r"000000\.json cannot be read: .*; remove the folder, or start over"):
        predict(output)
    predict(output, resume=False)
    assert len(read(output, ":")) == N and not parts_folder(output).exists()


def test_a_bad_structure_leaves_nothing_behind(folder, tmp_path):
    write(tmp_path / "bad.xyz", [Atoms("H2", [[0, 0, 0], [0, 0, 0]])])
    message = refused("predict", folder / "model.h5", tmp_path / "bad.xyz", "-o", tmp_path / "p.csv")
    assert message.startswith("frame 0 of bad.xyz: ")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.xyz"]
    done = run("predict", folder / "model.h5", folder / "frames.xyz", "-o", tmp_path / "p.csv", "--shard", "2/2")
    assert done.code == 0 and f"written: {tmp_path / 'p.csv'} (12 structures: energy, forces" in done.out
    message = refused(
        "predict", folder / "model.h5", folder / "frames.xyz", "-o", tmp_path / "p.csv", "--max-time", "90"
    )
    assert message == "a time limit must be hours and minutes, such as 23:30, 0:00:30 or 1-12:00, got '90'"


DRIVER = """
import os, random, signal, sys, threading, time
from gmcore.evaluation import streaming
from gmcore.commands.app import main

streaming.FRAMES = 2

def attempt(delay, number):
    child = os.fork()
    if child == 0:
        if number is not None:
            threading.Thread(target=lambda: (time.sleep(delay), os.kill(os.getpid(), number)), daemon=True).start()
            check = streaming._Parts.add  # slow enough for the signal to come in time
            streaming._Parts.add = lambda *arguments: (time.sleep(0.01), check(*arguments))[1]
        main()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

import gmcore.commands.models, gmcore.engine.evaluator
seed = int(sys.argv.pop())
rng, codes = random.Random(seed), []
for _ in range(6 if seed >= 0 else 0):
    codes.append(attempt(rng.uniform(0.05, 0.4), rng.choice([signal.SIGKILL, signal.SIGTERM])))
    if codes[-1] == 0:
        break
print(codes, file=sys.stderr)
sys.exit(0 if codes[-1:] == [0] else attempt(0.0, None))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("seed", range(int(os.environ.get("GMTENSOR_KILLED_RUNS", "1"))))
def test_killed_at_random_moments(folder, tmp_path, seed):
    def predict(name: str, seed: int) -> list[int]:
        output = tmp_path / name
        return killed(
            DRIVER, "predict", folder / "model.h5", folder / "frames.xyz", "-o", output, "--threads", "1", seed
        )

    predict("whole.extxyz", -1)
    codes = predict("out.extxyz", seed)
    assert seed or len(set(codes)) > 1, codes
    assert (tmp_path / "out.extxyz").read_bytes() == (tmp_path / "whole.extxyz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.extxyz", "whole.extxyz"]
