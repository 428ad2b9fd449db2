"""`gmtensor run`: order of the steps, what is repeated and what is not, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gmcore.commands.app import app
from gmcore.config.loading import ConfigError, load_config, parse_config
from gmcore.config.workflow import Workflow
from gmcore.files import LockError, lock_folder
from gmcore.running.interruption import EndedEarly, Interruption
from gmcore.workflow import processes, side_by_side
from gmcore.workflow.record import WorkflowError
from gmcore.workflow.steps import steps_of
from gmcore.workflow.workflow import run_workflow
from support.places import ROOT
from support.workflows import write_trainings

pytestmark = pytest.mark.slow

MD = """
output: md
potential: potential/model.h5
structure: {file: start.xyz}
replicas: {temperatures: [100]}
duration: 1
d_tensor: {model: d/model.h5, molecule: {metal: Co}, reference: order.xyz}
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Configurations of two trainings and a run; data and structures are any bytes here."""
    write_trainings(tmp_path)
    (tmp_path / "md.yaml").write_text(MD)
    (tmp_path / "all.yaml").write_text("output: record\ntrain: [potential.yaml, d.yaml]\nmd: md.yaml\n")
    for name in ("e.xyz", "d.xyz", "start.xyz", "order.xyz"):
        (tmp_path / name).write_text(name)
    return tmp_path


class Commands:
    """Stands in for the processes of the steps: makes their files, from what they read."""

    def __init__(self):
        self.run: list[str] = []
        self.failing: str | None = None
        self.code = 2
        self.options: list[tuple[str, ...]] = []

    def __call__(self, arguments: tuple[str, ...], threads: int | None = None) -> int:
        command, argument = arguments[0], Path(arguments[1])
        self.run.append(f"{command} {argument.name}")
        self.options.append(arguments[2:])
        code = self.code if command == self.failing else 0
        if code == 0:
            made = {
                "train": lambda: argument.parent / argument.stem / "model.h5",
                "md": lambda: argument.parent / "md" / "trajectory.h5",
                "analyze": lambda: argument / "analysis.json",
                "report": lambda: argument / "report.html",
            }[command]()
            made.parent.mkdir(exist_ok=True)
            made.write_text(f"{command} {argument.read_text() if argument.is_file() else ''}")
        return code


@pytest.fixture
def commands(monkeypatch) -> Commands:
    stand_in = Commands()
    monkeypatch.setattr(processes, "run_step", stand_in)
    monkeypatch.setattr(side_by_side, "available_cores", lambda: 1)  # one step after another
    return stand_in


ALL = ["train potential.yaml", "train d.yaml", "md md.yaml", "analyze md", "report md"]


def run_all(folder: Path) -> list[bool]:
    """Whether each step was done already."""
    return [entry.done for entry in run_workflow(load_config(folder / "all.yaml", Workflow))]


def test_steps_in_order_and_not_again(folder, commands):
    assert run_all(folder) == [False] * 5
    assert commands.run == ALL
    assert run_all(folder) == [True] * 5
    assert commands.run == ALL


@pytest.mark.parametrize(
    ("file", "change", "repeated"),
    [
        ("d.xyz", lambda text: text + "more", ["train d.yaml"]),
        ("d.yaml", lambda text: text + "seed: 7\n", ["train d.yaml", "md md.yaml", "analyze md"]),
        ("d.yaml", lambda text: "# a comment\n" + text, []),
        ("start.xyz", lambda text: text + "more", ["md md.yaml"]),
        ("order.xyz", lambda text: text + "more", ["md md.yaml"]),
        ("md.yaml", lambda text: text.replace("duration: 1", "duration: 2"), ["md md.yaml", "analyze md", "report md"]),
        ("md.yaml", lambda text: text + "analysis: {blocks: 9}\n", ["md md.yaml", "analyze md", "report md"]),
    ],
)
def test_a_change_repeats_what_it_concerns(folder, commands, file, change, repeated):
    """The stand-ins' products depend on their own configuration alone: a step whose product is as before ends it."""
    run_all(folder)
    commands.run.clear()
    (folder / file).write_text(change((folder / file).read_text()))
    run_all(folder)
    assert commands.run == repeated


def test_each_run_of_the_dynamics_is_analyzed_and_reported(folder):
    text = MD + "runs:\n  cold: {}\n  hot: {replicas: {temperatures: [300]}, output: warm}\n"
    (folder / "md.yaml").write_text(text)
    steps = steps_of(load_config(folder / "all.yaml", Workflow))[2:]
    assert [step.arguments[0] for step in steps] == 2 * ["md", "analyze", "report"]
    cold, hot = steps[0], steps[3]
    assert cold.arguments == ("md", str(folder / "md.yaml"), "--run", "cold")
    assert cold.makes == (folder / "md" / "cold" / "trajectory.h5",)
    assert hot.makes == (folder / "warm" / "trajectory.h5",)
    assert steps[4].arguments == ("analyze", str(folder / "warm"))
    before = hot.fingerprint()
    (folder / "md.yaml").write_text(text.replace("cold: {}", "cold: {duration: 2}"))
    again = steps_of(load_config(folder / "all.yaml", Workflow))[2:]
    assert again[3].fingerprint() == before
    assert again[0].fingerprint() != cold.fingerprint()


def test_a_lost_product_is_made_again(folder, commands):
    run_all(folder)
    commands.run.clear()
    (folder / "md" / "analysis.json").unlink()
    run_all(folder)
    assert commands.run == ["analyze md"]


def test_the_time_limit_is_that_of_all_steps(folder, commands, monkeypatch):
    workflow = load_config(folder / "all.yaml", Workflow)
    commands.failing, commands.code = "md", 75
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with (
        Interruption(3600.0, "step") as interruption,
        pytest.raises(EndedEarly, match=r"gmtensor md .* has ended early"),
    ):
        for _ in run_workflow(workflow, interruption):
            now[0] += 600.0
    assert commands.options == [("--max-time", limit) for limit in ("0:50:00", "0:40:00", "0:30:00")]
    commands.failing = None
    with Interruption(3600.0, "step") as interruption:
        now[0] += 3600.0
        with pytest.raises(EndedEarly, match="ended by the time limit"):
            list(run_workflow(workflow, interruption))
        now[0] -= 1800.0
        list(run_workflow(workflow, interruption))
    assert commands.options[3:] == [("--max-time", "0:30:00"), (), ()]


def test_goes_on_after_a_failure(folder, commands):
    commands.failing = "md"
    with pytest.raises(
        WorkflowError, match=r"step 3 of 5, gmtensor md .*md\.yaml, failed with exit code 2: fix the problem and"
    ):
        run_all(folder)
    assert list(json.loads((folder / "record" / "workflow.json").read_text())) == [
        step.name for step in steps_of(load_config(folder / "all.yaml", Workflow))[:2]
    ]
    commands.failing = None
    commands.run.clear()
    assert run_all(folder) == [True, True, False, False, False]
    assert commands.run == ALL[2:]


@pytest.mark.parametrize("text", ["", "[]", '{"train": 1}', '{"train": 1e999}', "[" * 100_000, "\0"])
def test_a_damaged_record_is_refused(folder, commands, text):
    record = folder / "record" / "workflow.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(text)
    with pytest.raises(WorkflowError, match=r"workflow.json .*; remove it, and all steps are done again"):
        run_all(folder)
    assert commands.run == []


def test_every_configuration_is_checked_before_the_first_step(folder, commands):
    (folder / "md.yaml").write_text(MD.replace("duration", "duratoin"))
    with pytest.raises(ConfigError, match=r"unknown key 'duratoin'"):
        run_all(folder)
    assert commands.run == []


def test_refuses_what_is_no_workflow():
    with pytest.raises(ConfigError, match=r"needs at least one training \(train\) or a molecular dynamics run \(md\)"):
        parse_config("output: here", kind=Workflow)
    with pytest.raises(ConfigError, match=r"unknown key 'trian' in the workflow; did you mean 'train'"):
        parse_config("output: here\ntrian: []", kind=Workflow)


def test_from_the_command_line(folder, commands):
    done = CliRunner().invoke(app, ["run", str(folder / "all.yaml")])
    assert done.exit_code == 0, done.output
    assert "[1/5] gmtensor train" in done.output and f"written: {folder / 'md' / 'report.html'}" in done.output
    again = CliRunner().invoke(app, ["run", str(folder / "all.yaml")])
    assert again.output.count("(already done)") == 5


def test_one_process_at_a_time(folder, commands):
    """The output of the workflow may be that of a step, whose own lock does not get in the way."""
    pytest.importorskip("fcntl")
    (folder / "all.yaml").write_text("output: d\ntrain: [d.yaml]\n")
    with lock_folder(folder / "d"):
        assert run_all(folder) == [False]
    steps = run_workflow(load_config(folder / "all.yaml", Workflow))
    next(steps)
    with pytest.raises(LockError, match=rf"another process \({os.getpid()}\) is writing to the folder .*d: wait"):
        run_all(folder)
    steps.close()
    assert run_all(folder) == [True]


# The processes of the steps


@pytest.fixture
def traps(tmp_path, monkeypatch) -> Path:
    """Current folder with modules that leave a mark when they are executed."""
    for name in ("yaml", "typer", "html", "secrets", "numpy", "gmkeras"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_step_executes_nothing_of_the_current_folder(traps):
    (traps / "train.yaml").write_text("seed: 1\n")
    assert processes.run_step(("validate", "train.yaml")) == 2
    assert processes.run_step(("--version",)) == 0
    assert not (traps / "executed").exists(), (traps / "executed").read_text()


def test_the_module_executes_nothing_of_the_current_folder(traps):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gmcore", "validate", "missing.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2 and "missing.yaml" in done.stderr, done.stderr
    assert not (traps / "executed").exists(), (traps / "executed").read_text()


STEP = """
import os, signal, sys, time
# a test run in the background of a shell inherits signals that are ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from gmcore.workflow import processes
processes.START = processes.START.split("from gmcore.commands")[0] + '''
import os, sys, time
try:
    print(os.getpid(), flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
'''
try:
    processes.run_step(())
except KeyboardInterrupt:
    print("interrupted too", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are a matter of POSIX")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"])
def test_a_step_ends_with_its_parent(tmp_path, number):
    """The output ends only when both have ended, since both hold it open."""
    number = getattr(signal, number)
    command = [sys.executable, "-c", textwrap.dedent(STEP)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as parent:
        step = int(parent.stdout.readline())
        parent.send_signal(number)
        try:
            rest, _ = parent.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.kill(step, signal.SIGKILL)
            raise
    if number == signal.SIGINT:
        assert rest == "interrupted\ninterrupted too\n" and parent.returncode == 0
    else:
        assert rest == "" and parent.returncode == -number


@pytest.mark.skipif(os.name != "posix", reason="signals are a matter of POSIX")
def test_the_terminal_interrupts_a_step_once(tmp_path):
    """Ctrl-C goes to the whole process group of the terminal; the step hears of it from its parent alone."""
    script = textwrap.dedent(STEP).replace("sys.exit(130)", "time.sleep(0.5); sys.exit(130)")
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as parent:
        parent.stdout.readline()
        os.killpg(parent.pid, signal.SIGINT)
        rest, _ = parent.communicate(timeout=60)
    assert rest == "interrupted\ninterrupted too\n"
