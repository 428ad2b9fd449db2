"""Whether the numbers of a model fit its settings: asked when a model is assembled, written and read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gmcore.engine.heads import check_heads
from gmcore.engine.settings import Member, ModelSettings
from gmcore.errors import GMError
from gmcore.kernels.contractions_cpu import n_features


def member_arrays(member: Member) -> dict[str, np.ndarray]:
    """All arrays of a member by the names that they have in a model file."""
    arrays = {"beta": member.beta, "feature_mean": member.feature_mean, "feature_std": member.feature_std}
    arrays |= {f"weights/{k}": weight for k, weight in enumerate(member.weights)}
    arrays |= {f"biases/{k}": bias for k, bias in enumerate(member.biases)}
    arrays |= {f"scale/{name}": scale for name, scale in member.scale.items()}
    arrays |= {f"shift/{name}": shift for name, shift in member.shift.items()}
    return arrays if member.draws is None else arrays | {"draws": member.draws}


def expected_shapes(settings: ModelSettings, member: Member) -> dict[str, tuple[int, ...]]:
    """Shape that each array must have; sizes of hidden layers are those of the biases."""
    d, n_species = settings.descriptor, len(settings.descriptor.species)
    layer_sizes = [n_features(d.n_radial), *(np.size(bias) for bias in member.biases[:-1])]
    layer_sizes.append(sum(head.n_outputs for head in settings.heads))
    shapes: dict[str, tuple[int, ...]] = {"beta": (n_species, n_species, d.n_radial, d.n_basis)}
    shapes |= {"feature_mean": (layer_sizes[0],), "feature_std": (layer_sizes[0],)}
    shapes |= {f"weights/{k}": (layer_sizes[k], layer_sizes[k + 1]) for k in range(len(layer_sizes) - 1)}
    shapes |= {f"biases/{k}": (layer_sizes[k + 1],) for k in range(len(layer_sizes) - 1)}
    for head in settings.heads:
        shapes |= {f"scale/{head.name}": (n_species, head.n_outputs), f"shift/{head.name}": (n_species, head.n_outputs)}
    if member.draws is not None:
        shapes["draws"] = (len(member.draws), layer_sizes[-2] + 1, layer_sizes[-1])
    return shapes


def check_model(settings: ModelSettings, members: Sequence[Member]) -> None:
    """Refuse a model whose parts do not fit together.

    Raises
    ------
    GMError : species not ascending, wrong heads, no member, a missing, surplus or misshapen array, a number that is not
        finite, or a feature_std that is not positive.
    """
    species = settings.descriptor.species
    if not species or any(a >= b for a, b in pairwise(species)):
        raise GMError(f"the species of a model must be ascending atomic numbers, got {list(species)}")
    check_heads(settings.heads, settings.descriptor.n_radial)
    if not members:
        raise GMError("a model must have at least one member, got none")
    for k, member in enumerate(members):
        arrays, shapes = member_arrays(member), expected_shapes(settings, member)
        if arrays.keys() != shapes.keys():
            odd = ", ".join(sorted(arrays.keys() ^ shapes.keys()))
            raise GMError(f"member {k} must have exactly the arrays that its settings ask for, they differ in {odd}")
        for name, array in arrays.items():
            if np.shape(array) != shapes[name]:
                raise GMError(f"{name} of member {k} must have shape {shapes[name]}, got {np.shape(array)}")
            if not np.isfinite(array).all():
                raise GMError(f"{name} of member {k} must be finite, got NaN or infinity")
        if not np.all(np.asarray(member.feature_std) > 0.0):
            raise GMError(f"feature_std of member {k} must be positive, got {np.min(member.feature_std)}")
