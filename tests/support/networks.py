"""Networks with random parameters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gmcore.engine.settings import Member


def make_member(rng, widths) -> Member:
    return Member(
        beta=np.zeros((1, 1, 1, 1)),
        feature_mean=rng.normal(size=widths[0]),
        feature_std=rng.uniform(0.5, 2.0, widths[0]),
        weights=[rng.normal(size=pair) for pair in pairwise(widths)],
        biases=[rng.normal(size=width) for width in widths[1:]],
        scale={},
        shift={},
    )
