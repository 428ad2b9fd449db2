"""The memory of a device, planned in advance: the same arithmetic on every machine."""

from __future__ import annotations

import pytest

from gmcore.device.memory import (
    MIN_CHUNK,
    DeviceMemoryError,
    ModelSize,
    chunk_bounds,
    evaluation_bytes,
    list_bytes,
    plan_evaluation,
)

PAPER = ModelSize(n_members=1, n_radial=5, n_outputs=1, n_columns=360 + 3 * 512, itemsize=4)
GIB = 2**30


def test_a_million_atoms_of_the_papers_model_fit_a_card_of_eight_gib():
    n_atoms, n_pairs = 1_000_000, 100_000_000
    plan = plan_evaluation(PAPER, n_atoms, 1, True, 8 * GIB)
    assert list_bytes(n_atoms, n_pairs) + plan.total < 8 * GIB
    assert plan.chunk == 32768


def test_memory_is_linear_in_atoms():
    small, large = (evaluation_bytes(PAPER, n, 1, True) for n in (1000, 11000))
    assert (large - small) / 10_000 == pytest.approx(small / 1000, rel=0.01)
    assert list_bytes(2000, 0) == 2 * list_bytes(1000, 0)


def test_forces_and_members_cost_what_they_cost():
    energy, forces = (evaluation_bytes(PAPER, 100, 1, wanted) for wanted in (False, True))
    assert energy < forces / 1.9
    three = ModelSize(3, 5, 1, PAPER.n_columns, 4)
    assert evaluation_bytes(three, 100, 1, True) == 3 * forces


@pytest.mark.parametrize("budget", [60_000_000, 30_000_000, 12_000_000])
def test_chunks_shrink_until_they_fit(budget):
    plan = plan_evaluation(PAPER, 10_000, 4, True, budget)
    assert plan.total <= budget
    assert MIN_CHUNK <= plan.chunk < 10_000
    assert plan_evaluation(PAPER, 10_000, 4, True, 2 * budget).chunk > plan.chunk


def test_no_chunk_is_longer_than_the_batch():
    assert plan_evaluation(PAPER, 21, 1, True, GIB).chunk == 21
    assert plan_evaluation(PAPER, 0, 1, True, GIB).chunk == 0


def test_what_does_not_fit_is_refused_in_numbers():
    message = r"the device must have 719 MiB of free memory for this input, got 100 MiB: use fewer atoms"
    with pytest.raises(DeviceMemoryError, match=message):
        plan_evaluation(PAPER, 1_000_000, 1, True, 100 * 2**20)


def test_chunks_cover_all_atoms_once():
    bounds = chunk_bounds(1000, 300)
    assert bounds == [(0, 300), (300, 600), (600, 900), (900, 1000)]
    assert chunk_bounds(0, 300) == []
