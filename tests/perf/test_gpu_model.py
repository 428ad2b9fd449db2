"""What is predicted of a card, and that the prediction is about what is launched."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from perf import gpu_model
from support.places import ROOT, environment

MODEL = gpu_model.Network("paper", 5, 7, (6, 5), 360)
CASES = [(1, 4, 32768), (3, 4, 32768), (3, 4, 3)]
"""Members, atoms, and the atoms of a chunk."""

LAUNCHES = """
import json, sys
from gmcore.device import memory
from gmcore.device.cuda import open_device
from gmcore.engine import stages_cuda
from gmcore.engine.structures import Batch
from perf import gpu_model, kernel_times, systems
from perf.bench_gpu import REHEARSAL, make_model
from support.simulator import prepare

prepare()
found = []
for n_members, n_atoms, chunk in json.loads(sys.argv[1]):
    memory.MAX_CHUNK = stages_cuda.TOGETHER = chunk
    evaluator = make_model(REHEARSAL, n_members=n_members).evaluator
    pairs = evaluator.find_pairs(Batch.from_atoms(systems.bulk(n_atoms, 30)))
    step = evaluator.step(pairs, forces=True)
    with kernel_times.launches(open_device()) as names:
        step.run(pairs.geometry, None)
    found.append(names)
print(json.dumps(found))
"""


def in_the_simulator(*command: str) -> list | dict:
    env = environment(NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr[-3000:])
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_step_launches_what_is_predicted(monkeypatch):
    """And no more: fourteen nodes for a small system, however many members the committee has."""
    found = in_the_simulator("-c", LAUNCHES, json.dumps(CASES))
    for (n_members, n_atoms, chunk), names in zip(CASES, found):
        monkeypatch.setattr(gpu_model, "MAX_CHUNK", chunk)
        system = gpu_model.System("", MODEL._replace(n_members=n_members), n_atoms, 3.0, 1, "")
        assert names == [launch.name for launch in gpu_model.step_launches(system)]
        if chunk > n_atoms:
            assert len(names) == 14


@pytest.mark.slow
def test_the_counts_are_those_of_the_kernels():
    assert in_the_simulator("-m", "perf.count_operations") == json.loads(gpu_model.COUNTS.read_text())["operations"]


def test_every_kernel_of_a_step_has_a_prediction(capsys):
    gpu_model.main([])
    text = capsys.readouterr().out
    loads = json.loads(gpu_model.COUNTS.read_text())["loads"]
    for key in gpu_model.SYSTEMS:
        for name, seconds in gpu_model.kernel_times(key).items():
            assert 0.0 < seconds < 1.0 and name in text
            assert name == gpu_model.PRODUCT or name in loads
    assert gpu_model.predicted_cell("md_step").endswith(" us") and gpu_model.predicted_cell("neighbors") == ""


def test_what_limits_a_launch():
    """Three launches that only memory, only arithmetic and only a long way of one thread can limit."""
    name, card = "network_cuda.multiply", gpu_model.H100
    memory = gpu_model.predict(gpu_model.Launch(name, card.bandwidth * gpu_model.BANDWIDTH_SHARE, 0.0))
    arithmetic = gpu_model.predict(gpu_model.Launch(name, 0.0, card.flops * gpu_model.KERNEL_SHARE))
    latency = gpu_model.predict(gpu_model.Launch(name, 0.0, 0.0, path=card.clock / gpu_model.CYCLES))
    assert [found.limit for found in (memory, arithmetic, latency)] == ["bytes", "arithmetic", "latency"]
    for found in (memory, arithmetic, latency):
        assert found.seconds == pytest.approx(1.0, abs=1e-4)
    assert 0.0 < memory.occupancy <= 1.0
    assert gpu_model.load_widths("ld.global.v4.f32 {%f1}; ld.global.f32 %f2; ld.shared.f32 %f3;") == [1, 2]
