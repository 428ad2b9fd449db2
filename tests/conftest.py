"""Fixtures that every room shares: shared data, fixed thread counts, small runs."""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pytest

from support.places import ROOT


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are marked `fuzz` unless -m names the mark; other marks do not bring them back."""
    if "fuzz" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("fuzz")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    """Two Numba threads, or what there is."""
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of data sets that lies beside a checkout during development; tests that need it are skipped elsewhere."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"development data not found ({folder.parent.name}/{folder.name} beside the repository)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(20221101)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    """Models and structures of small runs of molecular dynamics; not to be changed."""
    from support.md_runs import write_inputs

    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def whole(inputs, tmp_path_factory) -> Path:
    """An uninterrupted run of `md_runs.configured`; not to be changed."""
    from gmcore.dynamics.runner import run_md
    from support.md_runs import configured

    return run_md(configured(inputs, tmp_path_factory.mktemp("whole")))
