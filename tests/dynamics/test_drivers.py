"""When a GPU looks at a run: every sample ends a block, and what is due inside of one is checked at its end."""

from __future__ import annotations

from itertools import pairwise

from gmcore.config.dynamics import Stop
from gmcore.dynamics.drivers import CardDriver
from gmcore.dynamics.recorder import Recorder
from gmcore.dynamics.stops import StopConditions
from support.md_runs import MOLECULE, configured


def test_blocks_end_where_something_is_recorded(inputs, tmp_path):
    """Positions every 40 steps, velocities every 15, scalars every 10."""
    recorder = Recorder(configured(inputs, tmp_path, d_tensor=None, record={"positions": 40, "velocities": 15}))
    driver = CardDriver.__new__(CardDriver)  # no GPU is needed for this
    driver._longest = 8
    step, ends = -13, [-13]
    while step < 45:
        step += driver.block_length(recorder.steps_to_next(step))
        ends.append(step)
    lengths = [b - a for a, b in pairwise(ends)]
    assert {0, 10, 15, 20, 30, 40, 45} <= set(ends) and 1 <= min(lengths) and max(lengths) <= 8
    assert lengths[:5] == [7, 6, 5, 5, 5]
    assert [s for s in range(-2, 31) if recorder.is_due(s)] == [0, 10, 15, 20, 30]


def test_conditions_that_are_due_in_a_block_are_checked_at_its_end():
    stops = StopConditions(Stop(temperature=900.0, every=10), MOLECULE, ["one"])
    ends = [(5, 5), (12, 7), (20, 8), (21, 1), (29, 8), (36, 7)]
    assert [end for end, n_steps in ends if stops.is_due(end, n_steps)] == [12, 20, 36]
    assert [step for step in range(31) if stops.is_due(step)] == [0, 10, 20, 30]
    assert not StopConditions(Stop(), MOLECULE, ["one"]).is_due(10)
