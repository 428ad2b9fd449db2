"""Small models with random weights, for every test that needs a model and does not care which."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from gmcore.engine.heads import count_outputs
from gmcore.engine.settings import DescriptorSettings, HeadOptions, HeadSettings, Member, ModelSettings
from gmcore.inputs.seal import seal_file
from gmcore.kernels.contractions_cpu import n_features
from gmcore.model_file import checksum, write_model

SPECIES = (1, 6, 7, 8)


def make_head(kind: str, n_radial: int, name: str | None = None, **options) -> HeadSettings:
    """A head with the number of outputs that its options ask for; the basis of tensors is "positions" unless said."""
    if kind in ("d_tensor", "tensor"):
        options.setdefault("basis", "positions")
    options = HeadOptions(**options)
    return HeadSettings(name or kind, kind, count_outputs(kind, options, n_radial), options=options)


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
    scale=1.0,
) -> tuple[ModelSettings, list[Member]]:
    """Settings and members; `heads` are kinds or HeadSettings. Outputs vary by `scale` around values of order one."""
    rng = np.random.default_rng(seed)
    heads = tuple(make_head(head, n_radial) if isinstance(head, str) else head for head in heads)
    descriptor = DescriptorSettings(tuple(species), r_max, 0.5, n_basis, n_radial)
    settings = ModelSettings(descriptor, heads, dtype, {"origin": "random weights"})
    sizes = [n_features(n_radial), *hidden, sum(head.n_outputs for head in heads)]
    shape = (len(species), len(species), n_radial, n_basis)
    members = [
        Member(
            beta=rng.uniform(-1, 1, shape),
            feature_mean=0.1 * rng.normal(size=sizes[0]),
            feature_std=rng.uniform(1.0, 3.0, sizes[0]),
            weights=[rng.normal(size=pair) for pair in pairwise(sizes)],
            biases=[rng.normal(size=size) for size in sizes[1:]],
            scale={head.name: scale * rng.uniform(0.5, 1.5, (len(species), head.n_outputs)) for head in heads},
            shift={head.name: rng.normal(size=(len(species), head.n_outputs)) for head in heads},
        )
        for _ in range(n_members)
    ]
    return settings, members


def random_model(path: str | Path, heads=("energy",), **options) -> Path:
    """Write a random model (arguments of `random_parts`) to `path` and return it."""
    write_model(path, *random_parts(heads, **options))
    return Path(path)


def reseal(path: Path) -> None:
    """Give a model file that was changed the checksum and the seal of its new content, as its writer would."""
    with h5py.File(path, "r+") as file:
        arrays = {}
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        text = arrays.pop("metadata", None)  # damaged files may have none, or another thing of that name
        file.attrs["sha256"] = checksum(text.decode() if isinstance(text, bytes) else "", arrays)
    seal_file(path)
