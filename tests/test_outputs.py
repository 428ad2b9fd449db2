"""What may be written where: no input, no file of other results, no name twice."""

from __future__ import annotations

import os

import pytest

from gmcore.outputs import MODES, REPORT, RUN, TRAINING, OutputError, check_outputs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an input; also the working folder."""
    (tmp_path / "water.extxyz").write_text("atoms")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_input_is_recognized_under_other_names(folder):
    os.symlink(folder / "water.extxyz", folder / "link.extxyz")
    os.symlink(folder, folder / "sub" / "up")
    os.link(folder / "water.extxyz", folder / "hard.extxyz")
    spellings = ["water.extxyz", "./sub/../water.extxyz", "link.extxyz", "sub/up/water.extxyz", "hard.extxyz"]
    for output in [*spellings, folder / "water.extxyz"]:
        for read in ("water.extxyz", "link.extxyz"):
            with pytest.raises(
                OutputError, match=r"the output .* must not be a file that is read.*choose another name"
            ):
                check_outputs([output], [None, read])
    check_outputs(["other.extxyz"], ["water.extxyz", "missing.extxyz", None])
    with pytest.raises(OutputError, match=r"must not be a file that is read as sub/\.\./missing"):
        check_outputs(["missing.extxyz"], ["sub/../missing.extxyz"])


def test_two_outputs_have_two_names(folder):
    os.symlink(folder, folder / "sub" / "up")
    for one, other in (("x.m", "x.m"), ("x.m", "sub/../x.m"), ("x.m", "sub/up/x.m"), ("x.m", "X.m")):
        with pytest.raises(OutputError, match=r"each output needs a file of its own, got .* and"):
            check_outputs([one, other])
    check_outputs(["x.m", "y.m"])


def test_suffixes_folders_and_devices(folder):
    with pytest.raises(OutputError, match=r"the suffix of the output must be .html or .htm, got 'y.json'"):
        check_outputs(["y.json"], suffixes=(".html", ".htm"))
    check_outputs(["Y.HTML"], suffixes=(".html", ".htm"))
    with pytest.raises(OutputError, match="the output sub must be a file, but is a folder: choose another name"):
        check_outputs(["sub"])
    os.mkfifo("pipe.csv")
    for special in ("pipe.csv", "/dev/null"):
        with pytest.raises(OutputError, match="must be a file, but is a device or a pipe: choose another name"):
            check_outputs([special])


@pytest.mark.parametrize(
    ("marks", "names", "free"),
    [
        (
            ["state.npz"],
            "state.npz trajectory.h5 Trajectory.h5 trajectory/000000.h5 trajectory/new.csv config.yaml stopped.extxyz "
            "analysis.json report.html report.json".split(),
            ["frames.extxyz", "summary.html", "sub/trajectory.h5"],
        ),
        (["trajectory.h5"], ["trajectory.h5", "state.npz"], ["frames.csv"]),
        (
            ["splits.json"],
            ["model.h5", "config.yaml", "splits.json", "metrics.json", "parity_energy.png", "member_2/history.csv"],
            ["set.h5", "p.csv"],
        ),
        (["member_0"], ["model.h5", "member_0/checkpoint.npz"], ["p.npz"]),
        (["model.h5"], ["model.h5"], ["config.yaml", "metrics.json"]),
        (["modes.h5"], ["modes.json", "relaxed.extxyz", "modes.xyz"], ["dsi.dat"]),
        (["workflow.json"], ["workflow.json"], ["config.yaml"]),
        (["learning_curve.json"], ["learning_curve.json", "learning_curve_energy.png"], ["metrics.json"]),
        ([], [], ["config.yaml", "model.h5", "trajectory.h5", "report.html", "relaxed.extxyz"]),
    ],
)
def test_files_of_results(folder, marks, names, free):
    results = folder / "results"
    (results / "sub").mkdir(parents=True)
    for name in marks:
        (results / name).touch()
    os.symlink(results, folder / "link")
    for name in names:
        for path in (results / name, folder / "link" / name):
            with pytest.raises(OutputError, match=r"is a file of a.* in .*results: choose another name or folder"):
                check_outputs([path])
        shortcut = folder / f"to_{name.replace('/', '_')}"
        os.symlink(results / name, shortcut)
        with pytest.raises(OutputError, match="is a file of"):
            check_outputs([shortcut])
    for name in free:
        check_outputs([results / name])


def test_a_command_writes_its_own_results(folder):
    for name in ("mine", "other"):
        (folder / name / "energy").mkdir(parents=True)
        for mark in ("state.npz", "splits.json", "modes.h5", "energy/member_0"):
            (folder / name / mark).touch()
    check_outputs(["mine/report.html"], makes=(REPORT, "mine"))
    check_outputs(["mine/modes.json", "mine/relaxed.extxyz"], makes=(MODES, folder / "mine"))
    check_outputs(["mine/model.h5", "mine/energy/model.h5"], makes=(TRAINING, "mine"))
    for output, makes in [
        ("other/report.html", (REPORT, "mine")),
        ("mine/analysis.json", (REPORT, "mine")),
        ("mine/config.yaml", (TRAINING, "mine")),  # also the file of a run
        ("mine/model.h5", (RUN, "mine")),
        ("mine/model.h5", (TRAINING, "mine/energy")),
    ]:
        with pytest.raises(OutputError, match="is a file of"):
            check_outputs([output], makes=makes)
