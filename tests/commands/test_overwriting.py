"""No command destroys what it reads, or what another command has written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import write

import gmcore.commands.training
from gmcore.model_file import write_model
from gmcore.report.html import FORMAT
from support.command_line import refused, run
from support.md_runs import raw
from support.models import random_parts
from support.synthetic_runs import synthetic_run
from support.systems import water_molecule


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Models and structures; not to be changed."""
    path = tmp_path_factory.mktemp("source")
    for name, head in (("potential.h5", "energy"), ("d.h5", "d_tensor")):
        write_model(path / name, *random_parts((head,), n_members=1))
    write(path / "water.extxyz", water_molecule())
    return path


@pytest.fixture
def folder(source, tmp_path, monkeypatch):
    """A working folder with inputs whose contents must not change, under further names too, and a training."""
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "splits.json").write_text("{}")
    for name in ("model.h5", "metrics.json"):
        (tmp_path / "training" / name).write_bytes((source / "d.h5").read_bytes())
    os.symlink(tmp_path / "d.h5", tmp_path / "link.h5")
    os.link(tmp_path / "water.extxyz", tmp_path / "hard.extxyz")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    yield tmp_path
    assert {path: path.read_bytes() for path in before} == before


READ = "must not be a file that is read"
OWNED = "is a file of a"


@pytest.mark.parametrize("output", ["d.h5", "water.extxyz", "link.h5", "hard.extxyz", "./training/../d.h5"])
def test_predict_keeps_its_inputs(folder, output):
    assert READ in refused("predict", "d.h5", "water.extxyz", "-o", output)


def test_predict_keeps_trainings(folder):
    assert OWNED in refused("predict", "d.h5", "water.extxyz", "-o", "training/model.h5")
    assert OWNED in refused("predict", "d.h5", "water.extxyz", "-o", "training/member_0/p.npz")


def test_evaluate(folder):
    arguments = ("--unit", "d_tensor=cm^-1", "-o")
    assert OWNED in refused("evaluate", "d.h5", "water.extxyz", *arguments, "training")
    (folder / "metrics.json").write_bytes(b"data")
    assert READ in refused("evaluate", "d.h5", "metrics.json", *arguments, ".")
    configuration = {
        "output": "new",
        "data": {"files": ["metrics.json"], "units": {"length": "A", "d_tensor": "cm^-1"}},
    }
    configuration["data"]["split"] = {"train": 1, "validation": 1}
    configuration["properties"] = {"d_tensor": None}
    (folder / "training.yaml").write_text(yaml.safe_dump(configuration))
    assert READ in refused("evaluate", "d.h5", "training.yaml", "-o", ".")
    assert (folder / "metrics.json").read_bytes() == b"data"


def test_import(folder):
    (folder / "water.xyz").write_bytes((folder / "water.extxyz").read_bytes())
    (folder / "water.txt").write_text("1 0 0\n0 1 0\n0 0 -2\n")
    before = (folder / "water.xyz").read_bytes()
    arguments = ("import", "water.txt", "--unit", "d_tensor=cm^-1", "-o")
    assert READ in refused(*arguments, "water.xyz")  # the geometry that is read without being named
    assert READ in refused(*arguments, "water.extxyz", "--geometry", "water.extxyz")
    assert OWNED in refused(*arguments, "training/model.h5")
    assert (folder / "water.xyz").read_bytes() == before
    assert run(*arguments, "set.h5").code == 0


def test_export(folder):
    arguments = ("export", "water.extxyz", "--d-tensor", "d.h5")
    for option, names in (("--easyspin", ("d.h5", "x.txt")), ("--molforge", ("water.extxyz", "d.h5"))):
        for name in names:
            assert "the suffix of the output must be" in refused(*arguments, option, name)
    (folder / "model.m").write_bytes((folder / "d.h5").read_bytes())
    assert READ in refused("export", "water.extxyz", "--d-tensor", "model.m", "--easyspin", "model.m")
    for option, suffix in (("--easyspin", "m"), ("--molforge", "dat")):
        (folder / f"model.{suffix}").write_bytes((folder / "d.h5").read_bytes())
        read = f"model.{suffix}"
        assert READ in refused("export", "water.extxyz", "--d-tensor", read, option, read)
        assert (folder / read).read_bytes() == (folder / "d.h5").read_bytes()


def test_modes(folder):
    (folder / "relaxed.extxyz").write_bytes((folder / "water.extxyz").read_bytes())
    assert READ in refused("modes", "relaxed.extxyz", "--potential", "potential.h5", "-o", ".")
    (folder / "modes.h5").write_bytes((folder / "potential.h5").read_bytes())
    assert READ in refused("modes", "water.extxyz", "--potential", "modes.h5", "-o", ".")


def test_template(folder):
    assert "the suffix of the output must be .yaml or .yml" in refused("template", "md", "-o", "water.h5")
    (folder / "training" / "config.yaml").unlink(missing_ok=True)
    assert OWNED in refused("template", "md", "-o", "training/config.yaml")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("run/trajectory.h5", "the suffix of the output must be .html or .htm"),
        ("run/state.npz", "the suffix of the output must be .html or .htm"),
        ("y.json", "the suffix of the output must be .html or .htm"),
        ("run/analysis.html", READ),
        ("run/link/analysis.html", READ),
        ("other/report.html", OWNED),
        ("training/metrics.html", OWNED),
        ("foreign.html", "would replace foreign.json, which no report has written"),
    ],
)
def test_report(folder, output, message):
    for name in ("run", "other"):
        (folder / name).mkdir()
        for own in ("state.npz", "trajectory.h5", "analysis.json"):
            (folder / name / own).write_text(own)
    os.symlink(folder / "run", folder / "run" / "link")
    (folder / "foreign.json").write_text("{}")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert message in refused("report", "run", "-o", output)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_report_writes_its_own_files_again(folder):
    (folder / "run").mkdir()
    (folder / "run" / "state.npz").touch()
    (folder / "run" / "report.html").touch()
    (folder / "page.json").write_text(json.dumps({"format": FORMAT}))
    for arguments in ((), ("-o", "run/report.html"), ("-o", "page.html")):
        assert "analysis.json does not exist" in refused("report", "run", *arguments)


def test_convert(folder):
    synthetic_run(folder / "run", seeds_each=1, n_samples=4)
    (folder / "run" / "trajectory.h5").rename(folder / "frames.csv")
    assert READ in refused("convert", "frames.csv", "-o", "frames.csv")
    (folder / "run" / "state.npz").touch()
    (folder / "run" / "trajectory.h5").write_bytes((folder / "frames.csv").read_bytes())
    for name in ("stopped.extxyz", "trajectory/new.csv"):
        assert OWNED in refused("convert", "run", "-o", f"run/{name}", "--replica", 0)
    assert run("convert", "run", "-o", "run/frames.csv").code == 0


def test_analyze(folder):
    (folder / "run").mkdir()
    (folder / "run" / "analysis.json").write_text("{}")
    assert READ in refused("analyze", "run", "-c", "run/analysis.json")


def test_training(folder, monkeypatch):
    def never(config, resume=True, interruption=None):
        raise AssertionError("the training has started")

    monkeypatch.setattr(gmcore.commands.training, "_training", lambda: never)
    configuration = {"output": ".", "data": {"files": ["water.extxyz"], "units": {"length": "A", "d_tensor": "cm^-1"}}}
    configuration["data"]["split"] = {"train": 1, "validation": 1}
    configuration["properties"] = {"d_tensor": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    assert READ in refused("train", "config.yaml")
    configuration["output"] = "run"
    (folder / "run").mkdir()
    (folder / "run" / "state.npz").touch()
    (folder / "train.yaml").write_text(yaml.safe_dump(configuration))
    assert OWNED in refused("train", "train.yaml")
    configuration["output"], configuration["data"]["files"] = "new", ["new/metrics.json"]
    (folder / "train.yaml").write_text(yaml.safe_dump(configuration))
    assert READ in refused("train", "train.yaml")
    (folder / "training" / "config.yaml").write_text(yaml.safe_dump(configuration | {"output": "."}))
    with pytest.raises(AssertionError, match="the training has started"):
        run("train", "training/config.yaml")
    configuration["data"]["files"] = ["new/learning_curve/learning_curve.json"]
    (folder / "train.yaml").write_text(yaml.safe_dump(configuration))
    assert READ in refused("learning-curve", "train.yaml", "--sizes", "1")


def test_workflow(folder):
    (folder / "workflow.json").write_text(yaml.safe_dump({"output": ".", "train": ["train.yaml"]}))
    before = (folder / "workflow.json").read_bytes()
    assert READ in refused("run", "workflow.json")
    assert (folder / "workflow.json").read_bytes() == before


# --- molecular dynamics


@pytest.fixture
def dynamics(inputs, tmp_path):
    """A configuration of a run, and a folder with the names of an earlier run."""
    (tmp_path / "md.yaml").write_text(yaml.safe_dump(raw(inputs, tmp_path / "run", duration=0.005)))
    (tmp_path / "run" / "trajectory").mkdir(parents=True)
    (tmp_path / "run" / "trajectory" / "000000.h5").write_text("a chunk")
    (tmp_path / "run" / "trajectory.h5").write_text("a trajectory")
    np.savez(tmp_path / "run" / "state.npz")
    return tmp_path


@pytest.mark.parametrize("name", ["mine.h5", "1.h5", "000000.h5.txt", "notes", "0000000.h5", ".hidden.part.h5"])
def test_starting_over_keeps_files_of_others(dynamics, name):
    foreign = dynamics / "run" / "trajectory" / name
    foreign.write_text("mine")
    before = {path: path.read_bytes() for path in dynamics.rglob("*") if path.is_file()}
    message = refused("md", dynamics / "md.yaml", "--no-resume")
    assert f"has files that no run has written, {name}: move them away" in message
    assert {path: path.read_bytes() for path in dynamics.rglob("*") if path.is_file()} == before


def test_starting_over_removes_what_the_run_has_written(dynamics):
    folder = dynamics / "run"
    (folder / "notes.part.txt").write_text("mine")
    (folder / ".mine.part.h5").write_text("mine")
    left = [folder / ".state.0123456789ab.part.npz", folder / "trajectory" / ".000001.0123456789ab.part.h5"]
    for path in left:
        path.write_text("left by a kill")
        os.utime(path, (0, 0))  # on another machine, long ago
    assert run("md", dynamics / "md.yaml", "--no-resume").code == 0
    names = [".mine.part.h5", "config.yaml", "notes.part.txt", "state.npz", "trajectory.h5"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_run_keeps_its_inputs(inputs, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "state.npz").touch()
    (folder / "stopped.extxyz").write_bytes((inputs / "molecule.extxyz").read_bytes())
    changes = {"structure": {"file": str(folder / "stopped.extxyz")}}
    (tmp_path / "md.yaml").write_text(yaml.safe_dump(raw(inputs, folder, **changes)))
    assert READ in refused("md", tmp_path / "md.yaml", "--no-resume")
    (folder / "config.yaml").write_text(yaml.safe_dump(raw(inputs, folder)))
    assert READ in refused("md", folder / "config.yaml", "--no-resume")
    (folder / "state.npz").unlink()
    (folder / "config.yaml").unlink()
    (tmp_path / "md.yaml").write_text(yaml.safe_dump(raw(inputs, folder)))
    for option in ("--resume", "--no-resume"):
        assert "has a stopped.extxyz and no state.npz: choose another output" in refused(
            "md", tmp_path / "md.yaml", option
        )
    assert (folder / "stopped.extxyz").read_bytes() == (inputs / "molecule.extxyz").read_bytes()
