"""The harness that measures, and the files it keeps; never a test of how fast anything is."""

from __future__ import annotations

import gc
import json
import time

import numpy as np
import pytest

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.structures import Batch
from perf import harness, report
from perf.__main__ import main
from perf.bench_to_error import rows_of
from perf.epoch_clock import EpochClock
from perf.gemms import BareGemms
from perf.systems import bulk, model_parts, molecules
from support.tolerances import relative_error

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Samples neither collect what other tests left nor wait for threads: nothing is timed here."""
    monkeypatch.setattr(harness, "PAUSE_S", 0.0)
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def comparison():
    seconds = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([0.5, 1.0, 2.0])}
    return harness.Comparison(seconds, {"a": 9.0, "b": 0.5}, foreign=0.0)


def test_ratios_are_paired(comparison):
    """Drift by a factor of four between rounds leaves the ratio exact."""
    ratio = comparison.ratio("a", to="b")
    assert (ratio.median, ratio.lower, ratio.upper) == (2.0, 2.0, 2.0)
    assert comparison.time("a").median == 2.0


def test_callables_take_turns(monkeypatch):
    monkeypatch.setattr(harness, "foreign_share", lambda before, after: 0.0)
    order = []
    functions = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timed = harness.compare(functions, sample_s=0.0, budget_s=0.0, rounds=(4, 4))
    assert "".join(order[9:]) == "abcbcacababc"  # three calls each before: the first, and two to see how long it takes
    assert all(len(samples) == 4 for samples in timed.seconds.values())


def test_busy_rounds_are_set_aside(monkeypatch):
    shares = iter([0.9, 0.0, 0.9, 0.0, 0.0])
    monkeypatch.setattr(harness, "foreign_share", lambda before, after: next(shares))
    timed = harness.compare({"a": lambda: None}, sample_s=0.0, budget_s=0.0, rounds=(3, 3), patience_s=60.0)
    assert len(timed.seconds["a"]) == 3
    assert not timed.disturbed


def test_a_busy_machine_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "foreign_share", lambda before, after: 0.9)
    timed = harness.compare({"a": lambda: None}, sample_s=0.0, budget_s=0.0, rounds=(3, 3), patience_s=0.0)
    assert timed.disturbed
    row = report.Row.timed(timed, "a", "nothing", "us", to="a")
    assert row.ratio is None
    assert "others used 90%" in row.note
    kept = report.Report(tmp_path, threads=1, benches={"busy": [row]})
    assert kept.save() == ["busy"]
    assert not kept.path.exists()


def test_first_call_is_apart(monkeypatch):
    monkeypatch.setattr(harness, "foreign_share", lambda before, after: 0.0)
    pauses = iter([0.05])
    timed = harness.compare({"a": lambda: time.sleep(next(pauses, 0.0))}, sample_s=0.0, budget_s=0.0, rounds=(3, 3))
    assert timed.first_call["a"] >= 0.05


def test_child_process():
    assert harness.in_child("perf.report", "versions")["wall_s"] > 0
    with pytest.raises(RuntimeError, match="nothing ended with code 1"):
        harness.in_child("perf.report", "nothing")


def test_memory_is_that_of_the_child():
    """The parent holds more than the child ever does."""
    held = np.ones(400_000_000 // 8)
    found = harness.in_child("perf.bench_memory", "child", {"n_atoms": 500})
    assert found["before"] <= found["peak"] < held.nbytes
    assert harness.peak_memory() > held.nbytes


def test_results_are_merged_per_machine(comparison, tmp_path):
    row = report.Row.timed(comparison, "a", "nothing", "ms/atom", 2, to="b", target="<= 3")
    assert (row.value, row.ratio, row.first_call_s) == (1000.0, (2.0, 2.0, 2.0), 9.0)
    report.Report(tmp_path, threads=1, benches={"one": [row]}).save()
    second = report.Report(tmp_path, threads=2, benches={"two": [row]})
    second.save()
    whole = json.loads(second.path.read_text())
    assert list(whole["benches"]) == ["one", "two"]
    assert whole["benches"]["one"]["threads"] == 1
    assert whole["benches"]["two"]["rows"][0]["ratio"] == [2.0, 2.0, 2.0]
    assert whole["machine"]["cores"] >= 1
    assert {"commit", "measured", "versions"} <= whole["benches"]["two"].keys()


def test_unknown_benchmark(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["perf", "nothing"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "benchmarks are kernels, energy_forces" in capsys.readouterr().err


@pytest.mark.parametrize("n_atoms", [64, 500])
def test_bulk_has_the_neighbors_asked_for(n_atoms):
    pairs = build_pairs(Batch.from_atoms(bulk(n_atoms)), 6.5)
    assert abs(pairs.n_pairs / n_atoms - 100) < 8


def test_molecules_have_the_neighbors_asked_for():
    pairs = build_pairs(Batch.from_atoms(molecules(4, 63, 44.0, 8.0)), 8.0)
    assert abs(pairs.n_pairs / (4 * 63) - 44) < 2


def test_bare_gemms_are_the_products_of_the_network():
    _, member = model_parts()
    gemms = BareGemms(8, up=2, down=2, weights=1)
    gemms()
    multiplications = sum(x.shape[0] * x.shape[1] * y.shape[1] for x, y, _ in gemms._products)
    assert multiplications == 5 * 8 * sum(weights.size for weights in member.weights[:-1])
    for x, y, out in gemms._products:
        assert relative_error(out, x.astype(float) @ y) < 1e-5


def test_epochs_and_seconds_to_an_error():
    """The first epoch that is good enough counts; an error that is never reached says how close it came."""
    errors = (0.05, 0.018, 0.025)
    history = [{"epoch": k + 1, "wall_s": 9.0, "processor_s": 1.5 * (k + 1), "error": e} for k, e in enumerate(errors)]
    rows = {(row.what, row.unit): row for row in rows_of("fast", 3, history)}
    assert rows["fast, to 20 meV/A", "epochs"].value == 2
    assert rows["fast, to 30 meV/A", "s"].value == 3.0
    assert rows["fast, to 15 meV/A", "s"].value is None
    assert "18.0 meV/A" in rows["fast, to 15 meV/A", "s"].note
    assert rows["fast, a step", "ms"].value == pytest.approx(4500 / (3 * 119))


def test_epoch_clock(tmp_path):
    clock = EpochClock(str(tmp_path / "clock.csv"), "val_loss")
    clock.on_train_begin()
    for epoch in range(2):
        clock.on_train_batch_begin(0)
        clock.on_epoch_end(epoch, {"val_loss": 0.5 + epoch})
    lines = [line.split(",") for line in (tmp_path / "clock.csv").read_text().splitlines()]
    assert [(line[0], line[3]) for line in lines] == [("epoch", "error"), ("1", "0.5"), ("2", "1.5")]
    assert float(lines[2][1]) >= float(lines[1][1]) >= 0.0
