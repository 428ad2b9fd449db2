"""Trainings that are killed or asked to end at random moments: the model in the end is that of one that ran through."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from gmcore.model_file import read_model
from support.command_line import killed
from support.short_trainings import write_water

DRIVER = """
import os, random, signal, sys, threading, time

import gmkeras.training
from gmcore.commands.app import main
from gmkeras import callbacks

callbacks.SECONDS_BETWEEN_CHECKPOINTS = 0.0
epoch_end = callbacks.Checkpoints.on_epoch_end

def attempt(number):
    child = os.fork()
    if child == 0:
        seen = []

        def on_epoch_end(self, *arguments):  # the clock begins when there is something to lose
            epoch_end(self, *arguments)
            seen.append(1)
            time.sleep(0.1)

        callbacks.Checkpoints.on_epoch_end = on_epoch_end
        if number is not None:
            first, delay = rng.randrange(2), rng.uniform(0.0, 0.6)

            def kill():
                while len(seen) < first:
                    time.sleep(0.01)
                time.sleep(delay)
                os.kill(os.getpid(), number)

            threading.Thread(target=kill, daemon=True).start()
        main()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

seed, codes = int(sys.argv.pop()), []
for number in range(12 if seed > 0 else 4 if seed == 0 else 0):  # the first seed is that of every run of the tests
    rng = random.Random(100 * seed + number)  # of the child
    codes.append(attempt(rng.choice([signal.SIGKILL, signal.SIGTERM])))
    if codes[-1] == 0:
        break
print(codes, file=sys.stderr)
sys.exit(0 if codes[-1:] == [0] else attempt(None))
"""
TRAINING = """
output: {name}
seed: 3
data:
  files: [water.xyz]
  units: {{length: A, energy: eV, forces: eV/A}}
  split: {{train: 12, validation: 5, test: 3}}
descriptor: {{r_max: 3.0, n_basis: 4, n_radial: 2}}
network: {{hidden: [8]}}
properties: {{energy: {{}}}}
training: {{epochs: 6, members: 2, batch_size: 4, threads: 1}}
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("seed", range(int(os.environ.get("GMTENSOR_KILLED_RUNS", "1"))))
def test_killed_at_random_moments(tmp_path, seed):
    write_water(tmp_path / "water.xyz", 20)

    def train(name: str, seed: int) -> list[int]:
        (tmp_path / f"{name}.yaml").write_text(TRAINING.format(name=name))
        return killed(DRIVER, "train", tmp_path / f"{name}.yaml", seed)

    train("whole", -1)
    codes = train("killed", seed)
    print("exit codes", codes)
    assert seed or len(set(codes)) > 1, codes
    (settings, members), (_, found) = (read_model(tmp_path / name / "model.h5") for name in ("whole", "killed"))
    assert len(found) == settings.provenance["config"]["training"]["members"]
    for one, other in zip(members, found):
        for a, b in zip([one.beta, *one.weights, *one.biases], [other.beta, *other.weights, *other.biases]):
            # one training in a few differs in the last digits of float32 from an identical one
            assert np.allclose(a, b, rtol=1e-4, atol=1e-5)
    for member in range(2):
        with open(tmp_path / "killed" / f"member_{member}" / "history.csv", newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(1, 7)]
