"""What a model is made of, as plain data: the vocabulary that training, model file and prediction share.

Nothing here computes. `gmkeras` writes these objects at the end of a training, `gmcore.model_file` stores them,
`gmcore.model` evaluates them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DescriptorSettings:
    """Settings of the Gaussian-moment descriptor (symbols of P, section 2.1).

    Attributes
    ----------
    species : atomic numbers that the model knows, ascending; the position in this tuple is the species index.
    r_max, r_min : cutoff radius and first Gaussian center, A.
    n_basis, n_radial : N_b Gaussians contracted to N_r radial functions.
    """

    species: tuple[int, ...]
    r_max: float
    r_min: float = 0.5
    n_basis: int = 7
    n_radial: int = 5


@dataclass(frozen=True)
class HeadSettings:
    """One output of a model; `name` is also the key of its scale and shift.

    kind, options and the number of network outputs m per atom (`width`):

    ==========  ==========================================================  =====================================
    kind        options                                                     width
    ==========  ==========================================================  =====================================
    energy      none                                                        1
    charges     conserve (bool): total charge reproduced exactly;           1
                origin "coordinates" | "center_of_mass" for the dipole
    d_tensor    basis "positions" (P eq. 7) | "moments" (no origin)         1 | n_moment_channels(n_radial)
    tensor      basis "positions" | "moments": symmetric, not traceless     1 | n_moment_channels(n_radial) + 1
    ==========  ==========================================================  =====================================
    """

    name: str
    kind: str
    width: int = 1
    unit: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Member:
    """Parameters of one committee member, float64 or float32 arrays.

    Attributes
    ----------
    beta : (n_species, n_species, n_radial, n_basis), ordered pair (center, neighbor).
    feature_mean, feature_std : (n_features,) constants; the network sees (G - mean) / std.
    weights, biases : per layer (n_in, n_out) and (n_out,), the *bare* NTK parameters:
        z = (h @ W) / sqrt(n_in) + 0.1 b, scaled swish between the layers, linear last layer whose columns are the
        heads' outputs one after another in the order of `ModelSettings.heads`.
    scale, shift : per head name (n_species, width): m_i -> scale[Z_i] m_i + shift[Z_i].
    """

    beta: np.ndarray
    feature_mean: np.ndarray
    feature_std: np.ndarray
    weights: list[np.ndarray]
    biases: list[np.ndarray]
    scale: dict[str, np.ndarray]
    shift: dict[str, np.ndarray]


@dataclass
class ModelSettings:
    """Everything about a committee but its numbers.

    provenance: free JSON metadata (training config, data files, package versions, metrics, dates).
    """

    descriptor: DescriptorSettings
    heads: tuple[HeadSettings, ...]
    dtype: str = "float32"
    provenance: dict[str, Any] = field(default_factory=dict)
