"""Small models with random weights, for every test that needs a model and does not care which."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from gmcore.engine.heads import head_width, n_moment_channels
from gmcore.engine.settings import DescriptorSettings, HeadSettings, Member, ModelSettings
from gmcore.kernels.contractions_cpu import n_features
from gmcore.model_file import write_model

SPECIES = (1, 6, 7, 8)


def make_head(kind: str, n_radial: int, name: str | None = None, **options) -> HeadSettings:
    """A head with the width that its options ask for; the basis of tensors is "positions" unless said."""
    if kind in ("d_tensor", "tensor"):
        options.setdefault("basis", "positions")
    return HeadSettings(name=name or kind, kind=kind, width=head_width(kind, options, n_radial), options=options)


def random_parts(
    heads=("energy",),
    *,
    species=SPECIES,
    hidden=(12, 10),
    n_members=1,
    r_max=4.2,
    n_basis=5,
    n_radial=3,
    dtype="float64",
    seed=0,
) -> tuple[ModelSettings, list[Member]]:
    """Settings and members; `heads` are kinds or HeadSettings. Outputs are of order one."""
    rng = np.random.default_rng(seed)
    heads = tuple(make_head(head, n_radial) if isinstance(head, str) else head for head in heads)
    descriptor = DescriptorSettings(tuple(species), r_max, 0.5, n_basis, n_radial)
    settings = ModelSettings(descriptor, heads, dtype, {"origin": "random weights"})
    widths = [n_features(n_radial), *hidden, sum(head.width for head in heads)]
    shape = (len(species), len(species), n_radial, n_basis)
    members = [
        Member(
            beta=rng.uniform(-1, 1, shape),
            feature_mean=0.1 * rng.normal(size=widths[0]),
            feature_std=rng.uniform(1.0, 3.0, widths[0]),
            weights=[rng.normal(size=pair) for pair in pairwise(widths)],
            biases=[rng.normal(size=width) for width in widths[1:]],
            scale={head.name: rng.uniform(0.5, 1.5, (len(species), head.width)) for head in heads},
            shift={head.name: rng.normal(size=(len(species), head.width)) for head in heads},
        )
        for _ in range(n_members)
    ]
    return settings, members


def random_model(path: str | Path, heads=("energy",), **options) -> Path:
    """Write a random model (arguments of `random_parts`) to `path` and return it."""
    write_model(path, *random_parts(heads, **options))
    return Path(path)


def unit_norms(n_radial: int) -> list[float]:
    """Channel norms that are not all one."""
    return list(np.linspace(0.5, 2.0, n_moment_channels(n_radial)))
