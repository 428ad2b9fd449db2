"""What a machine with a card is asked: rehearsed here, with nothing installed but what a CUDA image has."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from perf import card
from support.places import ROOT, environment

pytestmark = pytest.mark.slow

BESIDE_THEM = (
    "numba_cuda cuda cupy llvmlite py _pytest pluggy iniconfig packaging pygments pydantic_core annotated_types"
)
BESIDE_THEM += " typing_extensions typing_inspection nvidia gmcore gmkeras perf support tests conftest"
"""What the packages of `card.PACKAGES` and this repository bring along; nothing else can be imported below."""
GUARD = """
import sys

class Guarded:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        known = top.startswith("_") or top in sys.stdlib_module_names or top in ALLOWED
        return self.finder.find_spec(name, path, target) if known else None

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Guarded, sys.meta_path)
"""


def test_a_rehearsal_needs_no_tensorflow_and_runs_to_its_end(tmp_path):
    allowed = {*card.PACKAGES, *BESIDE_THEM.split()}
    assert not allowed & {"tensorflow", "keras"}
    (tmp_path / "sitecustomize.py").write_text(GUARD.replace("ALLOWED", repr(allowed)))
    env = environment(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    command = [
        sys.executable,
        "-m",
        "perf",
        "card",
        "--rehearse",
        "--minutes",
        "40",
        "--output",
        tmp_path / "card.json",
    ]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "card.json").read_text())["rows"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == list(card.PARTS)
    assert {row["status"] for row in rows} == {"ok", "absent"}

    tests = [row for row in rows if row["part"] == "tests"]
    assert tests[0]["value"].endswith(" skipped") and int(tests[0]["value"].split()[0]) >= 30
    reasons = {row["note"]: int(row["what"].split()[0]) for row in tests[1:]}
    assert reasons.pop("TensorFlow is not installed") == 1
    assert list(reasons) == ["a real device is wanted, this process has the CUDA simulator"]

    asked = {row["target"]: row for row in rows if row.get("target")}
    assert {"<= 2; <= 0.15 us/atom", "<= 0.05 us/atom", "<= 80 us", "<= 150 us", "<= 6.7 ms"} <= asked.keys()
    assert asked["<= 80 us"]["value"] == ""  # what no card has measured stays empty
    assert asked["<= 80 us"]["predicted"].endswith(" us")
    assert done.stdout.splitlines()[-len(rows) - 2].split() == ["part", "what", "measured", "target", "predicted"]


TESTS = """
import os, time

def test_passes(): pass
def test_fails(): raise ValueError("as it must")
def test_crashes(): os._exit(3)
def test_hangs(): time.sleep(600)
def test_comes_last(): pass
"""


def test_what_fails_crashes_or_hangs_is_told_and_the_rest_goes_on(tmp_path):
    path = tmp_path / "test_some.py"
    path.write_text(TESTS)
    results, log = card.run_tests(["--rootdir", tmp_path, "-c", "/dev/null", path], 120.0, 3.0, environment())
    assert [(name.split("::")[1], found["outcome"]) for name, found in results.items()] == [
        ("test_passes", "passed"),
        ("test_fails", "failed"),
        ("test_crashes", "crashed"),
        ("test_hangs", "hung"),
        ("test_comes_last", "passed"),
    ]
    head, *bad = card.rows_of_tests(results)
    assert (head["status"], head["value"]) == ("failed", "2 passed, 1 failed, 1 crashed, 1 hung")
    assert bad[0]["note"] == "ValueError: as it must"
    assert "as it must" in log


def test_a_part_that_fails_is_a_row_and_time_that_is_up_too(tmp_path, monkeypatch):
    monkeypatch.setitem(card.PARTS, "nothing", card.Part(60, "a part that nobody wrote"))
    day = card.CardDay(card.MINUTES, True, tmp_path / "card.json")
    day.run("nothing")
    late = card.CardDay(0.0, True, tmp_path / "late.json")
    late.run("first")
    assert day.rows[0]["note"] == "exit code 1: KeyError: 'nothing'"
    assert late.rows[0]["note"] == "not run: the time was up"
    assert json.loads(day.path.read_text())["logs"]["nothing"].startswith("Traceback")


def test_limits_leave_time_for_every_part():
    assert sum(part.seconds for part in card.PARTS.values()) <= 60.0 * card.MINUTES


def test_missing_packages_are_one_line(monkeypatch, capsys):
    monkeypatch.setitem(card.PACKAGES, "no_such_module", "no-such-package")
    assert card.main(["--rehearse"]) == 2
    assert capsys.readouterr().err == "missing: no-such-package: pip install 'no-such-package'\n"
