"""What a model is made of, as plain data: the vocabulary that training, model file and prediction share.

Nothing here computes. `gmkeras` writes these objects at the end of a training, `gmcore.model_file` stores them,
`gmcore.model` evaluates them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from gmcore.errors import GMError, excerpt


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
class HeadOptions:
    """What a head can be told; each kind of head reads its own (`HEAD_OPTIONS`), the others keep their defaults.

    Attributes
    ----------
    conserve : charges: whether they sum up exactly to the total charge of the structure.
    origin : charges: of the dipole, "coordinates" or "center_of_mass".
    total_charge : charges: e, used where a structure does not state its own.
    basis : d_tensor and tensor: "positions" (P eq. 7) or "moments" (no origin). It must be given.
    core_radius : d_tensor and tensor of positions: A, atoms closer to the mean position contribute nothing.
    """

    conserve: bool = False
    origin: str = "coordinates"
    total_charge: float | None = None
    basis: str | None = None
    core_radius: float | None = None

    def check(self, name: str, kind: str) -> None:
        """Refuse options that head `name`, of a kind in `HEAD_KINDS`, cannot have.

        Raises
        ------
        GMError : an option of another kind of head, or a value that it cannot have.
        """
        for option in fields(self):
            if option.name not in HEAD_OPTIONS[kind] and getattr(self, option.name) != option.default:
                raise GMError(f"head {name} is of kind {kind}, which has no option {option.name}: leave it out")
        if HEAD_OPTIONS[kind] == TENSOR_OPTIONS and self.basis not in ("positions", "moments"):
            raise GMError(f"the basis of head {name} must be 'positions' or 'moments', got {excerpt(self.basis)}")
        if self.origin not in ("coordinates", "center_of_mass"):
            raise GMError(
                f"the origin of head {name} must be 'coordinates' or 'center_of_mass', got {excerpt(self.origin)}"
            )
        if not isinstance(self.conserve, bool):
            raise GMError(f"conserve of head {name} must be true or false, got {excerpt(self.conserve)}")
        if self.total_charge is not None and not _is_finite(self.total_charge):
            raise GMError(f"total_charge of head {name} must be a finite number, got {excerpt(self.total_charge)}")
        if self.core_radius is not None and not (_is_finite(self.core_radius) and self.core_radius >= 0.0):
            raise GMError(f"core_radius of head {name} must be a length in A, got {excerpt(self.core_radius)}")


TENSOR_OPTIONS = ("basis", "core_radius")
HEAD_OPTIONS = {
    "energy": (),
    "charges": ("conserve", "origin", "total_charge"),
    "d_tensor": TENSOR_OPTIONS,
    "tensor": TENSOR_OPTIONS,
}
"""Options that each kind of head reads."""


@dataclass(frozen=True)
class HeadSettings:
    """One output of a model; `name` is also the key of its scale and shift.

    Attributes
    ----------
    kind : one of `HEAD_KINDS`.
    n_outputs : outputs m of the network per atom that the head takes, see `gmcore.engine.heads.count_outputs`.
    unit : of a tensor; empty for the unit that its kind has.
    """

    name: str
    kind: str
    n_outputs: int = 1
    unit: str = ""
    options: HeadOptions = HeadOptions()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, as in model files (schema 1, where `n_outputs` is called "width")."""
        named = {option: getattr(self.options, option) for option in HEAD_OPTIONS[self.kind]}
        options = {option: value for option, value in named.items() if value is not None}
        return {
            "name": self.name, "kind": self.kind, "width": self.n_outputs, "unit": self.unit, "options": options
        }  # fmt: skip

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> HeadSettings:
        """The head that `to_dict` gave; GMError for an option that does not exist."""
        options, known = content["options"], [option.name for option in fields(HeadOptions)]
        for option in options:
            if option not in known:
                raise GMError(
                    f"the options of head {content['name']} must be among {', '.join(known)}, got {excerpt(option)}"
                )
        return cls(content["name"], content["kind"], content["width"], content["unit"], HeadOptions(**options))


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
    scale, shift : per head name (n_species, n_outputs): m_i -> scale[Z_i] m_i + shift[Z_i].
    draws : (n_draws, n_hidden + 1, n_outputs) or None: changes of the last layer that the training data allow, drawn
        at random (`gmcore.uncertainty.last_layer`). With h the last hidden layer, y = z_last becomes y + [h, 1] @ draw.
    """

    beta: np.ndarray
    feature_mean: np.ndarray
    feature_std: np.ndarray
    weights: list[np.ndarray]
    biases: list[np.ndarray]
    scale: dict[str, np.ndarray]
    shift: dict[str, np.ndarray]
    draws: np.ndarray | None = None


@dataclass
class ModelSettings:
    """Everything about a committee but its numbers.

    provenance: free JSON metadata (training config, data files, package versions, metrics, dates).
    """

    descriptor: DescriptorSettings
    heads: tuple[HeadSettings, ...]
    dtype: str = "float32"
    provenance: dict[str, Any] = field(default_factory=dict)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
