"""The command line: what each command does, and one sentence with exit code 2 for everything a user can get wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

import gmcore.commands.app
from gmcore.config.training import TrainConfig
from gmcore.model_file import write_model
from gmcore.version import __version__
from support.command_line import refused, run
from support.models import make_head, random_model, random_parts

HEADS = ("energy", make_head("charges", 3, conserve=True), "d_tensor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a model, structures, a data set that the model fits exactly, and a configuration."""
    path = tmp_path_factory.mktemp("cli")
    random_model(path / "model.h5", HEADS, n_members=2)
    rng = np.random.default_rng(3)
    frames = []
    for _ in range(12):
        frames.append(Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
        frames[-1].rattle(0.1, rng=rng)
        frames[-1].info["charge"] = -1.0
    write(path / "water.extxyz", frames)
    assert (
        run("predict", path / "model.h5", path / "water.extxyz", "-o", path / "set.h5", "--total-charge", "-1").code
        == 0
    )
    (path / "config.yaml").write_text(
        """
output: out
data:
  files: set.h5
  split: {train: 6, validation: 2, test: 3}
properties: {energy: , d_tensor: }
"""
    )
    return path


# --- what the commands do


def test_help_and_version():
    result = run("--help")
    assert result.code == 0
    for command in ("template", "validate", "schema", "train", "evaluate", "predict", "info", "learning-curve"):
        assert command in result.out
    assert run("--version").out == f"gmtensor {__version__}\n"


@pytest.mark.parametrize("kind", ["d-tensor", "potential", "charges", "tensor"])
def test_template_is_valid(tmp_path, kind):
    path = tmp_path / "config.yaml"
    assert run("template", kind, "-o", path).code == 0
    assert run("validate", path, "--no-data").out == f"{path} is valid\n"
    assert run("template", kind).out == path.read_text().replace(str(path), "config.yaml")
    assert refused("template", kind, "-o", path) == f"{path} exists already: choose another name or remove the file"


def test_validate_reads_the_data(folder):
    result = run("validate", folder / "config.yaml")
    assert result.code == 0 and "test:\n  3 structures, 9 atoms, 0 periodic: 3 x H2O\n" in result.out
    assert not (folder / "out").exists()


def test_schema():
    assert json.loads(run("schema").out) == TrainConfig.model_json_schema()


def test_evaluate_data_files(folder, tmp_path):
    result = run("evaluate", folder / "model.h5", folder / "set.h5", "-o", tmp_path)
    assert result.code == 0 and result.out.startswith("set.h5: 12 structures\n")
    metrics = json.loads((tmp_path / "metrics.json").read_text())["set.h5"]
    assert set(metrics) >= {"energy", "forces", "charges", "dipole", "d_tensor"}
    assert all(entry["rmse"] < 1e-4 for entry in metrics.values())
    assert (tmp_path / "parity_d_tensor.png").is_file()


def test_evaluate_and_validate_believe_the_units_of_a_file(folder, tmp_path):
    """Predictions are data again, without any --unit and without data.units."""
    predicted = run(
        "predict", folder / "model.h5", folder / "water.extxyz", "-o", tmp_path / "p.extxyz", "--total-charge", "-1"
    )
    assert predicted.code == 0
    result = run("evaluate", folder / "model.h5", tmp_path / "p.extxyz", "-o", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())["p.extxyz"]
    assert result.code == 0 and set(metrics) >= {"energy", "forces", "charges", "dipole", "d_tensor"}
    assert all(entry["rmse"] < 1e-4 for entry in metrics.values())
    text = (folder / "config.yaml").read_text().replace("set.h5", "p.extxyz")
    (tmp_path / "config.yaml").write_text(text)
    assert run("validate", tmp_path / "config.yaml").code == 0
    (tmp_path / "config.yaml").write_text(text.replace("data:\n", "data:\n  units: {energy: Hartree}\n"))
    assert "the unit of energy is eV in the file" in refused("validate", tmp_path / "config.yaml")


def test_evaluate_turned_structures(folder):
    """Labels that the model itself has made stay right when structures and labels turn together."""
    straight = run("evaluate", folder / "model.h5", folder / "set.h5")
    turned = run("evaluate", folder / "model.h5", folder / "set.h5", "--rotate", "3")
    assert turned.code == 0 and turned.out != straight.out
    rows = [line.split() for line in turned.out.splitlines() if line.startswith("  ")][1:]
    assert {row[0] for row in rows} >= {"forces", "dipole", "d_tensor"} and rows.pop()[:2] == ["wrong", "sign"]
    assert all(float(row[2]) < 1e-4 for row in rows), turned.out


def test_evaluate_with_units_and_keys(folder, tmp_path):
    frames = read(folder / "water.extxyz", ":")
    for frame in frames:
        frame.info["e_ref"] = 0.0
    write(tmp_path / "zero.extxyz", frames)
    predicted = run(
        "evaluate", folder / "model.h5", tmp_path / "zero.extxyz", "--unit", "energy=meV", "--key", "energy=e_ref"
    )
    assert predicted.code == 0 and "energy " in predicted.out and "forces" not in predicted.out


@pytest.mark.parametrize("part, sizes", [("test", [3]), ("train", [6]), ("all", [6, 2, 3])])
def test_evaluate_the_parts_of_a_configuration(folder, part, sizes):
    result = run("evaluate", folder / "model.h5", folder / "config.yaml", "--part", part)
    assert result.code == 0
    heads = [line for line in result.out.splitlines() if line.endswith("structures") and line[0] != " "]
    assert [int(line.split()[1]) for line in heads] == sizes


@pytest.mark.parametrize("suffix", ["extxyz", "h5", "npz", "csv"])
def test_predict(folder, tmp_path, suffix):
    output = tmp_path / f"p.{suffix}"
    options = ("--property", "energy", "--property", "d_tensor")
    result = run("predict", folder / "model.h5", folder / "water.extxyz", "-o", output, *options)
    assert result.code == 0 and output.stat().st_size > 0
    assert result.out == f"written: {output} (12 structures: energy, d_tensor, energy_std, d_tensor_std)\n"


def test_predict_with_the_charge_that_the_file_has(folder, tmp_path):
    output = tmp_path / "p.npz"
    arguments = ("predict", folder / "model.h5", folder / "water.extxyz", "-o", output, "--property", "charges")
    assert run(*arguments, "--total-charge", "charge").code == 0
    with np.load(output) as file:
        np.testing.assert_allclose(file["charges"].reshape(12, 3).sum(axis=1), -1.0, atol=1e-12)
    assert "total charge, which must be given" in refused(*arguments)


def test_csv_says_what_it_leaves_out(folder, tmp_path):
    result = run(
        "predict", folder / "model.h5", folder / "water.extxyz", "-o", tmp_path / "p.csv", "--total-charge", "0"
    )
    assert result.code == 0 and "not written, because CSV has one row per structure: forces, charges" in result.err


def test_info_shows_paths_as_seen_from_the_model(tmp_path):
    settings, members = random_parts()
    data = [str(tmp_path / "data" / "set.h5"), "../data/other.h5"]
    settings.provenance["config"] = {"output": str(tmp_path / "runs"), "data": {"files": data}}
    write_model(tmp_path / "runs" / "model.h5", settings, members)
    facts = json.loads(run("info", tmp_path / "runs" / "model.h5", "--json").out)
    assert facts["provenance"]["config"] == {"output": ".", "data": {"files": ["../data/set.h5", "../data/other.h5"]}}
    assert str(tmp_path) not in run("info", tmp_path / "runs" / "model.h5").out


def test_info(folder):
    text = run("info", folder / "model.h5").out
    assert "predicts: energy [eV], forces [eV/A], stress [eV/A^3], charges [e], dipole [e*A], d_tensor [cm^-1]" in text
    assert "members: 2 (" in text and "species: H C N O" in text and "origin: random weights" in text
    facts = json.loads(run("info", folder / "model.h5", "--json").out)
    assert facts["units"]["d_tensor"] == "cm^-1" and facts["network"] == [94, 12, 10, 3]


# --- training; the function that trains is replaced, its own tests are those of gmkeras


@pytest.fixture
def training(monkeypatch):
    calls = []

    def train(config, resume=True, interruption=None):
        calls.append((config, resume))
        error = {"mae": 1.0 / config.data.split.train, "rmse": 2.0, "unit": "cm^-1", "n": 6}
        models = (config.output / "model.h5",)
        return SimpleNamespace(metrics={"test": {"d_tensor": error}}, models=models, advice=("Take more data.",))

    monkeypatch.setattr(gmcore.commands.training, "_training", lambda: train)
    return calls


def test_train(folder, training):
    result = run("train", folder / "config.yaml")
    assert result.code == 0 and "d_tensor" in result.out and str(folder / "out" / "model.h5") in result.out
    assert "advice: Take more data." in result.out
    run("train", folder / "config.yaml", "--no-resume")
    assert [resume for _, resume in training] == [True, False]


def test_learning_curve(folder, training):
    result = run("learning-curve", folder / "config.yaml", "--sizes", "6, 3")
    assert result.code == 0 and "learning_curve_d_tensor.png" in result.out
    assert [config.data.split.train for config, _ in training] == [3, 6]


@pytest.mark.parametrize("command", [("train",), ("learning-curve", "--sizes", "3")])
def test_interrupted_training_says_how_to_go_on(folder, monkeypatch, command):
    def train(config, resume=True, interruption=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(gmcore.commands.training, "_training", lambda: train)
    result = run(command[0], folder / "config.yaml", *command[1:])
    assert result.code == 75
    assert "continue" in result.err and "Traceback" not in result.err


def test_training_without_tensorflow(folder, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # set by the command; put back afterwards
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))
    assert (
        refused("train", folder / "config.yaml")
        == "training needs TensorFlow: install it with pip install 'gmtensor[train]'"
    )


# --- what users get wrong


def test_wrong_configurations(folder, tmp_path):
    assert "does not exist" in refused("validate", tmp_path / "no.yaml")
    text = (folder / "config.yaml").read_text()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text + "descriptor: {r_maxx: 3}\n")
    for command in ("validate", "train"):
        assert refused(command, wrong) == f"{wrong}: unknown key 'r_maxx' in descriptor; did you mean 'r_max'?"
    wrong.write_text(text)
    assert refused("validate", wrong) == f"data file {tmp_path / 'set.h5'} does not exist"
    assert refused("template", "d_tensor") == "unknown template 'd_tensor'; did you mean 'd-tensor'?"
    sizes = refused("learning-curve", folder / "config.yaml", "--sizes", "10,many")
    assert sizes == "--sizes must be whole numbers, for example 100,200,400, got '10,many'"


def test_wrong_models(folder, tmp_path):
    (tmp_path / "text.h5").write_text("not a model")
    for command in (
        ("info",),
        ("predict", folder / "water.extxyz", "-o", tmp_path / "p.csv"),
        ("evaluate", folder / "set.h5"),
    ):
        for name in ("text.h5", "missing.h5"):
            assert name in refused(command[0], tmp_path / name, *command[1:])
    assert refused("info", folder / "set.h5")  # HDF5, but no model


def test_wrong_predictions(folder, tmp_path):
    model, water = folder / "model.h5", folder / "water.extxyz"
    assert "suffix of the output" in refused("predict", model, water, "-o", tmp_path / "p.txt")
    assert "'enrgy'" in refused("predict", model, water, "-o", tmp_path / "p.csv", "--property", "enrgy")
    write(tmp_path / "iron.xyz", Atoms("Fe"))
    assert "Fe" in refused("predict", model, tmp_path / "iron.xyz", "-o", tmp_path / "p.csv")
    (tmp_path / "bad.xyz").write_text("1\n\nO 0 0 nan\n")
    assert "must be finite" in refused("predict", model, tmp_path / "bad.xyz", "-o", tmp_path / "p.csv")
    write(tmp_path / "twice.xyz", Atoms("O2"))
    assert "Error" not in refused("predict", model, tmp_path / "twice.xyz", "-o", tmp_path / "p.csv")
    np.savez(tmp_path / "r.npz", R=np.zeros((1, 1, 3)), Z=np.array([8]))
    assert "the unit of length is not stated" in refused("predict", model, tmp_path / "r.npz", "-o", tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_wrong_evaluations(folder, tmp_path):
    model, water = folder / "model.h5", folder / "water.extxyz"
    assert "give the unit of each label to compare, for example --unit energy=eV" in refused("evaluate", model, water)
    assert "energy found in 0 of 12 frames" in refused("evaluate", model, water, "--unit", "energy=eV")
    assert "known: eV" in refused("evaluate", model, water, "--unit", "energy=ev")
    assert "must have the form NAME=VALUE, got 'energy'" in refused("evaluate", model, water, "--unit", "energy")
    bad_key = refused("evaluate", model, water, "--unit", "energy=eV", "--key", "enrgy=e")
    assert "unknown name 'enrgy' in --key; did you mean 'energy'?" in bad_key
    assert "--part must be one of" in refused("evaluate", model, folder / "config.yaml", "--part", "tset")
    assert "are only for data files" in refused("evaluate", model, folder / "config.yaml", "--unit", "energy=eV")


def test_usage_errors():
    assert run("predict").code == 2
    assert run("nonsense").code == 2
    assert run().code in (0, 2)  # help


# --- as a process


def gmtensor(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "gmcore", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_exit_codes_of_a_process(folder):
    assert gmtensor("--version").stdout == f"gmtensor {__version__}\n"
    wrong = gmtensor("validate", folder / "no.yaml")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == f"error: the configuration file {folder / 'no.yaml'} does not exist\n"
    shown = gmtensor("--debug", "validate", folder / "no.yaml")
    assert shown.returncode == 1 and "Traceback" in shown.stderr and "ConfigError" in shown.stderr


def test_a_pipe_without_utf8_gets_plain_spellings(folder, tmp_path):
    config = tmp_path / "D −1 cm⁻¹ ± é.yaml"
    config.write_text((folder / "config.yaml").read_text())
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = gmtensor("validate", "--no-data", config, env=environment, encoding="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/D -1 cm-¹ ± é.yaml is valid\n"


def test_help_imports_nothing_heavy():
    script = (
        "import sys, gmcore.commands.app\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'ase', 'pydantic', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_prediction_needs_no_tensorflow(folder, tmp_path):
    """TensorFlow and Keras are made impossible to import; everything but training still works."""
    script = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from gmcore.commands.app import app\n"
        "app(sys.argv[1:])\n"
    )
    arguments = [
        "predict",
        folder / "model.h5",
        folder / "water.extxyz",
        "-o",
        tmp_path / "p.csv",
        "--property",
        "energy",
    ]
    command = [sys.executable, "-c", script, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.csv").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent to a process in the POSIX way")
def test_a_real_interrupt(folder):
    """Ctrl-C in a process whose training waits for ever: the first one would wait for the end of an epoch."""
    script = (
        "import signal, sys, time, gmcore.commands.app\n"
        # a test run in the background of a shell inherits interrupts that are ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def train(config, resume=True, interruption=None):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "gmcore.commands.training._training = lambda: train\n"
        "gmcore.commands.app.app(['train', sys.argv[1]])\n"
    )
    command = [sys.executable, "-c", script, str(folder / "config.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "SIGINT: ending after this epoch; a second signal ends at once\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors.strip() == f"interrupted; continue with: gmtensor train {folder / 'config.yaml'}"


def test_too_little_memory_is_one_sentence(folder, monkeypatch):
    def greedy(*args, **options):
        raise MemoryError("Unable to allocate 12. GiB")

    monkeypatch.setattr("gmcore.model_file.read_content", greedy)
    words = "this needs more memory than the machine has left (Unable to allocate 12. GiB): use a smaller input"
    assert refused("info", folder / "model.h5").startswith(words)
