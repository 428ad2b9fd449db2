"""Trainings that run at the same time: which may, their threads, signals, failures, the record, what is shown."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from gmcore.commands.app import app
from gmcore.config.loading import load_config
from gmcore.config.workflow import Workflow
from gmcore.threads import VARIABLES, thread_variables
from gmcore.workflow import bars, processes, side_by_side
from gmcore.workflow.bars import TrainingBars, epochs_done
from gmcore.workflow.record import WorkflowError
from gmcore.workflow.side_by_side import groups, shares
from gmcore.workflow.steps import training_step
from gmcore.workflow.workflow import run_workflow
from support.places import ROOT
from support.workflows import write_trainings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-ins lock files and get signals as POSIX does")

TRAINING = """
import fcntl, json, os, pathlib, sys, time
config = pathlib.Path(sys.argv[2])
name, folder, output = config.stem, config.parent, config.parent / config.stem
other = {"d": "potential", "potential": "d"}[name]
alive = open(folder / (name + ".alive"), "w")
fcntl.flock(alive, fcntl.LOCK_EX)

def wait_for(path):
    while not path.exists():
        time.sleep(0.01)

try:
    print("this is " + name, flush=True)
    (folder / (name + ".began")).write_text(json.dumps(dict(os.environ)))
    if not (folder / "alone").exists():
        wait_for(folder / (other + ".began"))
    if (folder / (name + ".late")).exists():
        wait_for(folder / "record" / "workflow.json")  # which the other is in
    if (folder / (name + ".fails")).exists():
        print("error: the data of " + name, file=sys.stderr)
        sys.exit(2)
    if not (folder / "alone").exists() and (folder / (other + ".fails")).exists() or (folder / "hang").exists():
        wait_for(folder / "never")
except KeyboardInterrupt:
    (folder / (name + ".interrupted")).touch()
    sys.exit(130)
(output / "model.h5").write_text(name)
print("advice: more " + name)
"""
"""Stands in for `gmtensor train`: waits until the other training has begun, then fails, hangs or makes its model."""


def start_with(training: str) -> str:
    return processes.START.split("from gmcore.commands")[0] + training


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Two trainings that can only finish if they run at the same time, on a machine of two cores."""
    write_trainings(tmp_path)
    (tmp_path / "all.yaml").write_text("output: record\ntrain: [potential.yaml, d.yaml]\n")
    for name in ("e.xyz", "d.xyz"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(processes, "START", start_with(TRAINING))
    monkeypatch.setattr(side_by_side, "available_cores", lambda: 2)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def finished(folder: Path) -> list[str]:
    """Names of the configurations whose steps are in the record."""
    path = folder / "record" / "workflow.json"
    return [Path(name).stem for name in json.loads(path.read_text())] if path.is_file() else []


def test_trainings_run_at_the_same_time(folder, monkeypatch):
    """On a pipe there are lines for start and end, and what the training wrote, as a whole."""
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "7")
    done = CliRunner().invoke(app, ["run", str(folder / "all.yaml")])
    assert done.exit_code == 0, done.output
    assert sorted(finished(folder)) == ["d", "potential"]
    for place, name in (("1/2", "potential"), ("2/2", "d")):
        command = f"[{place}] gmtensor train {folder / name}.yaml"
        assert f"{command}, messages in {folder / name / 'train.log'}\n" in done.output
        assert f"{command} finished\nthis is {name}\nadvice: more {name}\n" in done.output
        environment = json.loads((folder / f"{name}.began").read_text())
        assert {environment[variable] for variable in VARIABLES} == {"1"}
    again = CliRunner().invoke(app, ["run", str(folder / "all.yaml")])
    assert again.output.count("(already done)") == 2


def test_a_failure_stops_the_others_and_all_can_be_resumed(folder):
    (folder / "d.fails").touch()
    done = CliRunner().invoke(app, ["run", str(folder / "all.yaml")])
    assert done.exit_code == 2
    assert f"[2/2] gmtensor train {folder}/d.yaml failed\nthis is d\nerror: the data of d\n" in done.output
    assert f"[1/2] gmtensor train {folder}/potential.yaml was stopped\n" in done.output
    assert (
        f"error: step 2 of 2, gmtensor train {folder}/d.yaml, failed with exit code 2, see {folder}/d/train.log; "
        f"stopped because of that: gmtensor train {folder}/potential.yaml: fix the problem and run the same command "
        "again, which resumes all of them" in done.output
    )
    assert finished(folder) == []
    (folder / "d.fails").unlink()
    assert CliRunner().invoke(app, ["run", str(folder / "all.yaml")]).exit_code == 0
    assert sorted(finished(folder)) == ["d", "potential"]


def test_a_training_that_has_finished_is_recorded_when_another_fails(folder):
    for name in ("alone", "d.fails", "d.late"):
        (folder / name).touch()
    with pytest.raises(WorkflowError, match=r"step 2 of 2, .* failed with exit code 2, see .*train\.log: fix"):
        list(run_workflow(load_config(folder / "all.yaml", Workflow)))
    assert finished(folder) == ["potential"]


def test_a_lone_training_keeps_the_screen_and_its_share(folder, capfd):
    """The number of threads decides the rounding, so it is that of the interrupted call."""
    (folder / "alone").touch()
    events = run_workflow(load_config(folder / "all.yaml", Workflow))
    assert [event.log is not None for event in events] == [True] * 4
    capfd.readouterr()
    (folder / "d.xyz").write_text("more")
    events = list(run_workflow(load_config(folder / "all.yaml", Workflow)))
    assert [(event.done, event.log) for event in events] == [(True, None), (False, None)]
    assert "this is d\nadvice: more d\n" in capfd.readouterr().out
    assert json.loads((folder / "d.began").read_text())["NUMBA_NUM_THREADS"] == "1"


RUN = f"""
import signal
# a test run in the background of a shell inherits signals that are ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
from gmcore.workflow import bars, processes, side_by_side
side_by_side.available_cores = lambda: 2
processes.START = processes.START.split("from gmcore.commands")[0] + {TRAINING!r}
from gmcore.commands.app import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_reaches_all(folder, number):
    (folder / "hang").touch()
    command = [sys.executable, "-c", RUN, "run", str(folder / "all.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as parent:
        wait_until(lambda: all((folder / f"{name}.began").exists() for name in ("d", "potential")))
        parent.send_signal(number)
        _, err = parent.communicate(timeout=60)
    for name in ("d", "potential"):
        with open(folder / f"{name}.alive") as file:
            wait_until(lambda file=file: unlocked(file))
        assert (folder / f"{name}.interrupted").exists() == (number == signal.SIGINT)
    if number == signal.SIGINT:
        assert parent.returncode == 75 and f"have ended early; continue with: gmtensor run {folder}/all.yaml" in err
    assert finished(folder) == []


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60  # only so that a broken program does not hang the tests
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def unlocked(file: IO) -> bool:
    """Whether the process that held the lock has ended."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        ("data: {split: {file: potential/splits.json, train: 8}}", 2),
        ("training: {start_from: [potential/model.h5]}", 2),
        ("output: potential/d", 2),
        ("output: potential", 2),
    ],
)
def test_what_depends_on_another_training_waits_for_it(tmp_path, text, expected):
    write_trainings(tmp_path)
    content = yaml.safe_load((tmp_path / "d.yaml").read_text())
    for key, value in (yaml.safe_load(text) or {}).items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(content))
    steps = [training_step(tmp_path / f"{name}.yaml") for name in ("potential", "d")]
    assert len(list(groups(steps))) == expected


@pytest.mark.parametrize(
    ("cores", "at_most", "given", "at_once", "threads"),
    [
        (8, None, (None, None, None), 3, (2, 2, 2)),
        (2, None, (None, None, None), 2, (1, 1, 1)),
        (8, 2, (None, None, None), 2, (4, 4, 4)),
        (8, 1, (None, None), 1, (None, None)),
        (1, None, (None, None), 1, (None, None)),
        (8, None, (3, None), 2, (3, 4)),
        (2, None, (2, 2), 1, (None, None)),
    ],
)
def test_shares_of_the_cores(tmp_path, monkeypatch, cores, at_most, given, at_once, threads):
    """A number in the configuration of a training stays, and no more threads run than there are cores."""
    monkeypatch.setattr(side_by_side, "available_cores", lambda: cores)
    write_trainings(tmp_path)
    text = (tmp_path / "d.yaml").read_text()
    group = []
    for k, number in enumerate(given):
        more = f"training: {{threads: {number}}}\n" if number else ""
        (tmp_path / f"{k}.yaml").write_text(text.replace("output: d", f"output: d{k}") + more)
        group.append(training_step(tmp_path / f"{k}.yaml"))
    assert shares(group, at_most) == (at_once, cores, threads)


def test_variables_of_the_user_are_never_raised():
    own = {"OMP_NUM_THREADS": "2,1", "NUMBA_NUM_THREADS": "64", "MKL_NUM_THREADS": "many"}
    found = thread_variables(4, own)
    assert found == dict.fromkeys(VARIABLES, "4") | {"OMP_NUM_THREADS": "2,1"}


def test_bars_show_the_epochs_of_all_members(tmp_path, monkeypatch):
    write_trainings(tmp_path)
    step, screen = training_step(tmp_path / "d.yaml"), io.StringIO()
    assert epochs_done(step.training) == (0, "")
    for member, n_epochs in ((0, 300), (1, 20)):
        history = tmp_path / "d" / f"member_{member}" / "history.csv"
        history.parent.mkdir(parents=True)
        rows = [f"{epoch + 1},0.5,0.123456789" for epoch in range(n_epochs)]
        history.write_text("\n".join(["epoch,loss,val_d_tensor_mae", *rows, ""]))
    assert epochs_done(step.training) == (320, "member 1, epoch 20, d_tensor_mae 0.1234")
    monkeypatch.setattr(bars, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100))
    with TrainingBars() as shown:
        shown.add(step)
    assert "d.yaml" in screen.getvalue() and "member 1, epoch 20, d_tensor_mae 0.1234" in screen.getvalue()
