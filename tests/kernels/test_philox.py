"""Random numbers: the published vectors, and that what is made of them is normal and independent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gmcore.kernels.compile import exact_jit
from gmcore.kernels.philox import ATOMS, CELL, box_muller, philox, three_normals
from support.random123 import VECTORS


def words(text: str) -> list[np.uint64]:
    return [np.uint64(int(word, 16)) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), VECTORS)
def test_published_vectors(counter, key, result):
    assert list(philox(*words(counter), *words(key))) == words(result)
    assert list(philox.py_func(*words(counter), *words(key))) == words(result)  # what the simulator runs


@exact_jit
def draw(key0, key1, step, purpose, out):
    for i in range(out.shape[0]):
        out[i, 0], out[i, 1], out[i, 2] = three_normals(key0, key1, step, i, purpose)


def test_deviates_are_normal_and_independent():
    draws = {}
    for name, arguments in {"first": (3, 4, 7, ATOMS), "key": (3, 5, 7, ATOMS), "step": (3, 4, 8, ATOMS),
                            "late": (3, 4, 7 + 2**32, ATOMS), "cell": (3, 4, 7, CELL)}.items():  # fmt: skip
        draws[name] = np.empty((50_000, 3))
        draw(*arguments, draws[name])
    columns = np.concatenate(list(draws.values()), axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(correlation).max() < 5.0 / np.sqrt(len(columns))
    squares = np.corrcoef(columns.T**2) - np.eye(columns.shape[1])
    assert np.abs(squares).max() < 5.0 / np.sqrt(len(columns))
    for column in columns.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    everything = columns.ravel()
    assert abs((everything**4).mean() - 3.0) < 5.0 * np.sqrt(96.0 / everything.size)


def test_the_extreme_words():
    last = np.uint64(2**32 - 1)
    for a, b in ((0, 0), (0, last), (last, 0), (last, last)):
        pair = box_muller(np.uint64(a), np.uint64(b))
        assert np.isfinite(pair).all()
        assert np.hypot(*pair) == pytest.approx(np.sqrt(-2.0 * np.log((float(a) + 0.5) / 2.0**32)))
