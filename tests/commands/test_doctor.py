"""`gmtensor doctor`: what works is said to work, and what does not has a sentence and exit code 1."""

from __future__ import annotations

import json
import sys

import numba
import pytest

from gmcore.device.cuda import open_device
from gmcore.engine import machine
from gmcore.evaluation import examination
from gmcore.evaluation.self_test import SelfTest
from gmcore.model import Model
from support.command_line import refused, run
from support.places import ROOT

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = None


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """CuPy cannot be imported, whatever is installed."""
    monkeypatch.setattr(numba.config, "ENABLE_CUDASIM", 0)
    monkeypatch.setitem(sys.modules, "cupy", None)
    open_device.cache_clear()
    yield
    open_device.cache_clear()


def test_an_installation_that_works():
    result = run("doctor", "--json")
    assert result.code == 0, result.out
    found = json.loads(result.out)
    assert found["problems"] == []
    assert found["self_test"]["cpu"]["passed"] and found["self_test"]["cpu"]["forces_error"] < 1e-5
    assert found["cache"]["bytes"] > 0 and found["blas"] and found["threads"]["layer"]
    assert not found["gpu"]["usable"]
    text = run("doctor").out
    assert "BLAS                 numpy: " in text and text.endswith("\neverything that is installed works\n")
    assert "needs CuPy: pip install 'gmtensor[cuda12]'" in text


def test_wrong_numbers_are_found(monkeypatch):
    evaluate = Model.evaluate

    def off_by_a_thousandth(self, *arguments, **options):
        return {key: 1.001 * values for key, values in evaluate(self, *arguments, **options).items()}

    monkeypatch.setattr(Model, "evaluate", off_by_a_thousandth)
    result = run("doctor")
    assert result.code == 1
    assert "the self-test on the CPU gave wrong numbers: energy off by 1.0e-03, forces by 1.0e-03" in result.out


def test_what_should_work_and_does_not(monkeypatch):
    monkeypatch.setattr(machine, "CACHE_FOLDER", None)
    monkeypatch.setitem(examination.DISTRIBUTIONS, "jinja2", ("no-such-package",))
    monkeypatch.setitem(examination.MODULES, "jinja2", "no_such_module")
    monkeypatch.setattr(examination, "self_test", lambda device: 1 / 0)
    result = run("doctor", "--device", "cuda")
    assert result.code == 1
    for sentence in (
        "jinja2 is not installed: pip install jinja2",
        "the GPU cannot be used: device='cuda' needs CuPy",
        "the self-test on the CPU failed: ZeroDivisionError",
        "compiled kernels cannot be kept",
    ):
        assert sentence in result.out
    assert refused("doctor", "--device", "tpu").startswith("--device must be cpu or cuda")


def test_a_gpu_is_tested_too(monkeypatch):
    monkeypatch.setattr(machine, "gpu", lambda: {"usable": True, "present": True, "name": "A card", "free_bytes": 8e9})
    errors = {"cpu": 1e-7, "cuda": float("inf")}
    monkeypatch.setattr(
        examination, "self_test", lambda device: SelfTest(errors[device], 0.0, 1.0, 0.1, errors[device] < 1e-4)
    )
    result = run("doctor")
    assert result.code == 1
    assert "GPU                  A card, 8000 MB free" in result.out
    assert "the self-test on the GPU gave wrong numbers: energy off by inf" in result.out
    assert "self-test            CPU: passed, energy within 1.0e-07" in result.out


@pytest.mark.skipif(tomllib is None, reason="Python 3.10 cannot read pyproject.toml")
def test_the_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {item.replace(">", "[").split("[")[0] for item in requirements}

    assert names(project["dependencies"]) == set(examination.REQUIRED)
    for extra, (_, packages) in examination.EXTRAS.items():
        distributions = {examination.DISTRIBUTIONS.get(name, (name,))[0] for name in packages}
        assert names(project["optional-dependencies"][extra]) == distributions
