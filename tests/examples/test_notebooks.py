"""The notebooks: cells as Jupyter reads them, and every one runs, with few structures and epochs."""

from __future__ import annotations

import re
import runpy
import tempfile
from pathlib import Path

import numpy as np
import pytest

from support.places import ROOT
from support.short_trainings import shorten

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.py"))
LONGEST = 20
"""Lines of a cell."""


def cells_of(text: str) -> list[tuple[bool, list[str]]]:
    """Whether each cell is text, and its lines."""
    parts = re.split(r"^# %%( \[markdown\])?\n", text, flags=re.M)
    assert parts[0] == ""
    return [(mark is not None, body.strip().splitlines()) for mark, body in zip(parts[1::2], parts[2::2], strict=True)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_of_code_is_short_and_explained(path):
    cells = cells_of(path.read_text(encoding="utf-8"))
    assert len(cells) > 10
    for (before, _), (is_text, lines) in zip([(False, []), *cells], cells):
        assert is_text != before, lines[0]
        assert len(lines) <= LONGEST, lines[0]
        assert not is_text or all(line.startswith("#") for line in lines), lines[0]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a notebook; return its variables."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    import matplotlib.pyplot as plt

    shorten(monkeypatch, epochs=2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(ROOT / "examples" / "notebooks")
    plt.switch_backend("agg")
    yield lambda name: runpy.run_path(f"{name}.py", run_name="__main__")
    plt.close("all")


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.slow
def test_first_potential(run):
    found = run("first_potential")
    files = {path.name for path in Path(found["output"]).iterdir()}
    assert files == {"curves.png", "parity.png", "model.h5"}
    assert found["atoms"].get_potential_energy() < found["before"]
    assert len(found["predicted"]["forces"]) == sum(map(len, found["test"].atoms))


@pytest.mark.slow
def test_custom_loss(run):
    found = run("custom_loss")
    files = {path.name for path in Path(found["output"]).iterdir()}
    assert files == {"losses.png", "cold.h5", "fine_tuned.h5"}
    assert found["found"]["standard"] != found["found"]["robust"]
    before, after = (found["models"][name].get_weights() for name in ("before", "old and new"))
    assert found["model"] is found["models"]["old and new"]
    changed = [not np.array_equal(a, b) for a, b in zip(before, after)]
    assert any(changed) and not changed[0]  # radial coefficients are frozen
