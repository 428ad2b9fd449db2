"""Processes that are started after a prediction predict the same, whether they are forked or spawned."""

import os
import subprocess
import sys

import numba
import pytest

from gmcore import threads
from gmcore.kernels.after_fork import KNOWN
from gmcore.model import load_model
from support.models import random_model
from support.places import environment
from support.systems import large_cluster

pytestmark = pytest.mark.slow

HANG = 300  # seconds, most of them for kernels that are not in the cache


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("model") / "model.h5", hidden=(8, 8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.parametrize(("way", "n_processes"), [("generations", 4), ("thread", 2), ("fork", 4), ("spawn", 4)])
def test_other_processes_predict_the_same(path, way, n_processes):
    if way != "spawn" and not KNOWN[0] <= numba.version_info.short <= KNOWN[1]:
        pytest.skip(f"Numba {numba.__version__} is not known to gmcore.kernels.after_fork")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "support.forked_predictions", way, str(path)]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=HANG)
    assert run.returncode == 0, run.stderr
    found = [float(line) for line in run.stdout.split()]
    expected = float(load_model(path).predict(large_cluster())["energy"][0])
    assert found == pytest.approx([expected] * n_processes, rel=1e-12)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_numbers_of_threads_are_asked_for_between_forks_only(monkeypatch):
    """A child that is forked while another thread holds the lock of Numba would wait for it forever."""
    held = []
    monkeypatch.setattr(numba, "get_num_threads", lambda: held.append(threads.one_at_a_time._is_owned()) or 1)
    monkeypatch.setattr(numba, "set_num_threads", lambda number: held.append(threads.one_at_a_time._is_owned()))
    threads.set_threads(threads.get_threads())
    assert held == [True, True]
