"""The parameters of a network with all that is constant multiplied in, for the networks of both machines.

    h_0 = G - mean;  z_l = h_(l-1) W_l + b_l;  h_l = phi(z_l);  y = z_last

The factors 1/sqrt(n_in), 0.1 and 1/std of `gmcore.engine.settings.Member` go into weights and biases. The mean is
subtracted from the features rather than folded into the first bias: with features that hardly vary, as along molecular
dynamics, the folded form would lose in single precision the digits that matter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gmcore.engine.settings import Member


class FoldedNetwork(NamedTuple):
    """mean (n_features,); per layer weights (n_in, n_out) and biases (n_out,), float64."""

    mean: np.ndarray
    weights: list[np.ndarray]
    biases: list[np.ndarray]

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Columns of the features, of each hidden layer and of the outputs."""
        return len(self.weights[0]), *(weights.shape[1] for weights in self.weights)


def fold(member: Member) -> FoldedNetwork:
    """The network of a member with its constant factors multiplied in."""
    weights = [np.asarray(w, np.float64) / math.sqrt(len(w)) for w in member.weights]
    weights[0] = weights[0] / np.asarray(member.feature_std, np.float64)[:, None]
    biases = [0.1 * np.asarray(b, np.float64) for b in member.biases]
    return FoldedNetwork(np.asarray(member.feature_mean, np.float64), weights, biases)
