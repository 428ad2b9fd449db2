"""`gmtensor run`: order of the steps, what is repeated and what is not, failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gmcore import workflow as workflow_module
from gmcore.commands.app import app
from gmcore.config.loading import ConfigError, load_config, parse_config
from gmcore.config.workflow import Workflow
from gmcore.workflow import WorkflowError, run_workflow, steps_of

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
    (tmp_path / "potential.yaml").write_text(
        "output: potential\ndata: {files: [e.xyz], units: {length: A, energy: eV, forces: eV/A}, "
        "split: {train: 8, validation: 2}}\nproperties: {energy: }\n"
    )
    (tmp_path / "d.yaml").write_text(
        "output: d\ndata: {files: [d.xyz], units: {length: A, d_tensor: cm^-1}, split: {train: 8, validation: 2}}\n"
        "properties: {d_tensor: }\n"
    )
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

    def __call__(self, arguments: list[str], check: bool):
        command, argument = arguments[3], Path(arguments[4])
        self.run.append(f"{command} {argument.name}")
        code = 2 if command == self.failing else 0
        if code == 0:
            made = {
                "train": lambda: argument.parent / argument.stem / "model.h5",
                "md": lambda: argument.parent / "md" / "trajectory.h5",
                "analyze": lambda: argument / "analysis.json",
                "report": lambda: argument / "report.html",
            }[command]()
            made.parent.mkdir(exist_ok=True)
            made.write_text(f"{command} {argument.read_text() if argument.is_file() else ''}")
        return type("Done", (), {"returncode": code})


@pytest.fixture
def commands(monkeypatch) -> Commands:
    stand_in = Commands()
    monkeypatch.setattr(workflow_module.subprocess, "run", stand_in)
    return stand_in


ALL = ["train potential.yaml", "train d.yaml", "md md.yaml", "analyze md", "report md"]


def run_all(folder: Path) -> list[bool]:
    """Whether each step was done already."""
    return [done for *_, done in run_workflow(load_config(folder / "all.yaml", Workflow))]


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


def test_a_lost_product_is_made_again(folder, commands):
    run_all(folder)
    commands.run.clear()
    (folder / "md" / "analysis.json").unlink()
    run_all(folder)
    assert commands.run == ["analyze md"]


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
