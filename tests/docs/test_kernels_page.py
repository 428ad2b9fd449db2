"""kernels/README.md knows every file, every decorator in use and every array that the stages and the network take."""

from __future__ import annotations

import inspect
import re

import pytest

from gmcore.kernels import arguments, compile, contractions_cpu, moments_cpu, network_cpu
from support.pages import tables
from support.places import ROOT

KERNELS = ROOT / "kernels"
PAGE = (KERNELS / "README.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"`([\w.]+)`", PAGE))
TABLES = tables(PAGE)


def signature(kernel) -> list[str]:
    return list(inspect.signature(kernel.py_func).parameters)


def test_every_file():
    listed = {name for row in TABLES["Files"] for name in re.findall(r"\w+\.py", row[0])}
    assert listed == {path.name for path in KERNELS.glob("*.py")}


def test_every_decorator_in_use():
    files = [path.read_text(encoding="utf-8") for path in KERNELS.glob("*.py") if path.name != "compile.py"]
    used = {name for text in files for name in re.findall(r"^@(\w*jit)\b", text, flags=re.M)}
    assert {row[0] for row in TABLES["Compiling"]} == used
    assert all(callable(getattr(compile, name)) for name in used)


STAGES = (moments_cpu, contractions_cpu, network_cpu)
ORDERS = ("forward", "backward", "double_backward")
LOOPS = [getattr(stage, order) for stage in STAGES for order in ORDERS if hasattr(stage, order)]


def test_all_loops_are_seen():
    assert len(LOOPS) == 8  # the network of prediction has no second order


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: f"{loop.__module__}.{loop.__name__}")
def test_every_argument(loop):
    assert not set(signature(loop)) - NAMES - {"geometry", "radial"}


def test_every_field_of_the_geometry():
    assert not set(arguments.Geometry._fields) - NAMES
    assert {f"radial.{field}" for field in arguments.RadialBasis._fields} <= NAMES
    assert set(arguments.Blocks._fields) <= NAMES


def test_numbers_on_the_page():
    assert f"`MAX_RADIAL` = {moments_cpu.MAX_RADIAL}" in PAGE
    assert f"(n_centers, n_radial, {moments_cpu.N_COMPONENTS})" in PAGE
