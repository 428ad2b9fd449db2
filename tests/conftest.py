"""Fixtures that every room shares: shared data, the tolerance table, fixed thread counts."""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pytest

# Largest relative error allowed, by quantity: fast path against the slow twin, or derivative against differences.
TOLERANCE = {
    ("value", "float64"): 1e-12,
    ("value", "float32"): 2e-5,
    ("gradient", "float64"): 1e-11,
    ("gradient", "float32"): 1e-4,
    ("second", "float64"): 1e-10,
    ("second", "float32"): 1e-3,
    ("difference", "float64"): 1e-8,
    ("identity", "float64"): 1e-12,
}


def relative_error(value, expected) -> float:
    """Largest deviation over the largest magnitude of what is expected; never a ratio element by element (0/0)."""
    value, expected = np.asarray(value), np.asarray(expected)
    if value.shape != expected.shape:
        raise AssertionError(f"shapes differ: {value.shape} and {expected.shape}")
    if not (np.isfinite(value).all() and np.isfinite(expected).all()):
        raise AssertionError("a value is not finite")
    scale = np.abs(expected).max(initial=0.0)
    return float(np.abs(value - expected).max(initial=0.0) / (scale if scale > 0 else 1.0))


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    """Two Numba threads, or what there is."""
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of data sets that lies beside a checkout during development; tests that need it are skipped elsewhere."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
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
    from md_runs import write_inputs

    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def whole(inputs, tmp_path_factory) -> Path:
    """An uninterrupted run of `md_runs.configured`; not to be changed."""
    from md_runs import configured

    from gmcore.dynamics.runner import run_md

    return run_md(configured(inputs, tmp_path_factory.mktemp("whole")))
