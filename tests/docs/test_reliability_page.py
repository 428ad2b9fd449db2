"""docs/reliability.md names tests that exist, and every promise has one."""

from __future__ import annotations

import re

from fuzz.readers import KINDS

from support.pages import page, tables
from support.places import ROOT


def test_every_promise_has_tests_that_exist():
    rows = tables(page("reliability.md"))["Promises"]
    assert len(rows) >= 10
    for promise, tests in rows:
        named = re.findall(r"(tests/[\w/]+\.py)::(test_\w+)", tests)
        assert named, promise
        for path, name in named:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", text, flags=re.M), f"{path}::{name}"


def test_every_kind_of_damaged_file_is_named():
    text = " ".join(page("reliability.md").split())
    for kind in KINDS.values():
        name = kind.file.rpartition("/")[2]
        if name.partition(".")[0] not in ("data", "config", "start", "job"):
            assert name in text, name


def test_every_figure_says_how_it_is_measured():
    for what, figure, command in tables(page("reliability.md"))["Figures of the last full run"]:
        assert figure and command.startswith("python -m pytest"), what
