"""Networks with random parameters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gmcore.engine.settings import Member


def make_member(rng, sizes) -> Member:
    return Member(
        beta=np.zeros((1, 1, 1, 1)),
        feature_mean=rng.normal(size=sizes[0]),
        feature_std=rng.uniform(0.5, 2.0, sizes[0]),
        weights=[rng.normal(size=pair) for pair in pairwise(sizes)],
        biases=[rng.normal(size=size) for size in sizes[1:]],
        scale={},
        shift={},
    )
