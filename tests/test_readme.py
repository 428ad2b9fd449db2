"""README: its commands are those of CI, links lead somewhere; and the doctests of all modules."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import pytest

from support.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_ci_runs_the_test_command_as_it_stands():
    (command,) = [block.strip() for block in blocks("bash") if "pytest" in block]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_commands_name_files_that_exist():
    for block in blocks("bash"):
        for path in re.findall(r"examples/\S+", block):
            assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(
    "page", [*sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")), "README.md"]
)
def test_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def _modules(package: str) -> list[str]:
    found = pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
    return [module.name for module in found if not module.name.endswith("__main__")]


ROOMS = ("gmcore", "gmcore.analysis", "gmcore.dynamics", "gmcore.data.readers", "gmcore.report", "gmkeras")


@pytest.mark.parametrize("name", [*_modules("gmcore"), *_modules("gmkeras")])
def test_doctests(name):
    if name.startswith("gmkeras"):
        pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
