"""The examples of README and docs: every Python block runs, every command of the program and its options exist.

The Python blocks of a page run one after another in one namespace, in a folder that holds what the pages name: the
examples of this repository, a trajectory in runs/md, models with random weights where trainings would put them, and a
train.extxyz. Trainings are short.
A block that cannot run here is marked in the page, `<!-- not run: reason -->` on the line above it.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from gmcore.commands.app import app
from support.models import random_model
from support.places import ROOT
from support.short_trainings import shorten, write_water

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))]
OTHER_PAGES = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*/README.md")]
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
REASONS = {"needs an NVIDIA GPU", "needs several workers", "starts processes", "needs LAMMPS"}
SPECIES = (1, 6, 7, 8, 16, 27)


class Block(NamedTuple):
    """A fenced block: language, text, number of its first line, and why it is not run."""

    language: str
    text: str
    line: int
    not_run: str | None


def blocks_of(text: str) -> list[Block]:
    found, lines, start, above = [], text.splitlines(), None, ""
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            above = line if start is None else above
        elif start is None:
            start = number
        else:
            reason = NOT_RUN.fullmatch(above.strip())
            language, text_of_block = lines[start - 1][3:], "\n".join(lines[start : number - 1]) + "\n"
            found.append(Block(language, text_of_block, start + 1, reason and reason[1]))
            start, above = None, ""
    return found


def read_page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PYTHON = [(name, block) for name in PAGES for block in blocks_of(read_page(name)) if block.language == "python"]


def trains(name: str) -> bool:
    """Whether examples of a page need TensorFlow."""
    return any(page == name and "gmkeras" in block.text and not block.not_run for page, block in PYTHON)


def run_block(block: Block, name: str, namespace: dict) -> None:
    """Run the block, as a doctest where it is one."""
    if ">>>" not in block.text:
        padded = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the page
        exec(compile(padded, name, "exec"), namespace)
        return
    test = doctest.DocTestParser().get_doctest(block.text, namespace, name, name, block.line)
    said: list[str] = []
    results = doctest.DocTestRunner().run(test, out=said.append, clear_globs=False)
    assert results.attempted and not results.failed, "".join(said)


@pytest.fixture
def folder(tmp_path, whole, monkeypatch) -> Path:
    """A folder with everything that the pages name, as the working directory."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copytree(whole, tmp_path / "runs" / "md")
    size = {"species": SPECIES, "hidden": (4,), "n_radial": 1, "r_max": 3.0}
    for job, head in (("co_pdms_d_tensor", "d_tensor"), ("co_pdms_potential", "energy")):
        (tmp_path / "runs" / job).mkdir()
        random_model(tmp_path / "runs" / job / "model.h5", (head,), n_members=2, **size)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Keras still asks variables for arrays in the way that NumPy 2 wants no longer
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if trains(name) else ())
        for name in sorted({name for name, block in PYTHON if not block.not_run})
    ],
)
def test_python_examples_run(name, folder, monkeypatch):
    if trains(name):
        pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
        shorten(monkeypatch)
        write_water(folder / "train.extxyz", 60)
    namespace: dict = {"__name__": "__main__"}
    for page, block in PYTHON:
        if page == name and not block.not_run:
            run_block(block, name, namespace)


def test_every_doctest_is_in_a_python_block():
    for name in PAGES:
        inside = sum(block.text.count(">>>") for page, block in PYTHON if page == name)
        assert read_page(name).count(">>>") == inside, name


def test_blocks_that_are_not_run_say_why():
    """Only marked blocks are left out, for reasons that are listed here; a mark stands above a Python block."""
    skipped = [(name, block.not_run) for name, block in PYTHON if block.not_run]
    assert {reason for _, reason in skipped} == REASONS
    assert len(skipped) == sum(len(NOT_RUN.findall(read_page(name))) for name in PAGES)
    assert {name for name, _ in skipped} == {"docs/cluster.md", "docs/engines.md", "docs/gpu.md", "docs/security.md"}


@pytest.mark.parametrize("block", [block for _, block in PYTHON if block.not_run], ids=lambda block: str(block.line))
def test_blocks_that_are_not_run_import_what_exists(block):
    for node in ast.walk(ast.parse(block.text)):
        if not isinstance(node, ast.ImportFrom | ast.Import):
            continue
        package = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        if package.split(".")[0] == "gmkeras":
            pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
        if package.split(".")[0] not in ("gmcore", "gmkeras"):
            continue
        module = importlib.import_module(package)
        for alias in node.names:
            assert hasattr(module, alias.name), f"{package}.{alias.name}"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("assert 1 == 2", AssertionError),
        ("from gmcore import nothing", ImportError),
        (">>> 1 + 1\n3", AssertionError),
    ],
)
def test_a_wrong_example_is_seen(text, error):
    (block,) = blocks_of(f"Text.\n\n```python\n{text}\n```\n")
    assert block.not_run is None
    with pytest.raises(error):
        run_block(block, "page", {})


def test_the_mark_must_stand_directly_above():
    mark = "<!-- not run: reason -->"
    assert blocks_of(f"{mark}\n```python\n1\n```")[0].not_run == "reason"
    assert blocks_of(f"{mark}\n\n```python\n1\n```")[0].not_run is None
    assert [b.not_run for b in blocks_of(f"{mark}\n```python\n1\n```\n```python\n2\n```")] == ["reason", None]


# --- commands


GROUP = typer.main.get_command(app)


def commands_of(text: str) -> Iterator[list[str]]:
    """Words after `gmtensor` of every command: in blocks for a shell, on indented lines, between backquotes."""
    lines = [line for block in blocks_of(text) if block.language == "bash" for line in block.text.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("    gmtensor ")]
    lines += [" ".join(span.split()) for span in re.findall(r"`(gmtensor [^`]+)`", text)]
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words and words[0].rsplit("/", 1)[-1] == "gmtensor":
                yield words[1:]


def refusal(words: list[str]) -> str | None:
    """Why the program would not understand a command; what is merely left out of it does not count."""
    name, *arguments = [word for word in words if word != "--debug"]
    if name not in GROUP.commands:
        return f"there is no command {name}"
    try:
        GROUP.commands[name].make_context(name, list(arguments))
    except Exception as error:  # of click, which newer versions of typer bring along under another name
        if type(error).__name__ == "MissingParameter":
            return None
        return error.format_message()
    return None


def options_of_all() -> set[str]:
    commands = [GROUP, *GROUP.commands.values()]
    return {option for command in commands for p in command.params for option in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("name", [*PAGES, *OTHER_PAGES])
def test_commands_and_their_options_exist(name):
    for words in commands_of(read_page(name)):
        assert refusal(words) is None, f"gmtensor {' '.join(words)}: {refusal(words)}"


@pytest.mark.parametrize("name", PAGES)
def test_options_that_the_text_names_exist(name):
    named = set(re.findall(r"`(--[a-z][\w-]*)", read_page(name)))
    assert named <= options_of_all()


def test_the_pages_show_every_command():
    shown = {words[0] for name in PAGES for words in commands_of(read_page(name))}
    assert shown == set(GROUP.commands)


@pytest.mark.parametrize(
    "command", ["gmtensor trian config.yaml", "gmtensor train config.yaml --epoch 3", "gmtensor info a.h5 b.h5"]
)
def test_the_checker_sees_a_wrong_command(command):
    (words,) = commands_of(f"Text `{command}` text.")
    assert refusal(words)
