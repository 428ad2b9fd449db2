"""The quantities that structures are labeled with and models predict, one row each.

Everything that differs from quantity to quantity only by a name, a unit or a shape is taken from this table: units and
labels of data files, outputs of heads, metrics, figures, tables of predictions, labels of a training batch. A new
quantity needs a row here, a head that predicts it (`gmcore.engine.heads`, `gmkeras.heads` and the head's section of
`gmcore.config.training`) and, where the square of its error is not the loss, a term in `gmkeras.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes
    ----------
    name : name of the label, of the prediction and of its column.
    unit : internal unit; empty where each model has its own.
    shape : of the value of one structure, or of one atom if `per_atom`; (3, 3) is a symmetric tensor.
    per_atom : whether there is one value for each atom.
    title : what a figure shows.
    head : kind of the head that predicts it.
    traceless : whether a tensor has no trace.
    aliases : other names in common use, tried after `name`.
    """

    name: str
    unit: str
    shape: tuple[int, ...]
    title: str
    head: str
    per_atom: bool = False
    traceless: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def is_tensor(self) -> bool:
        """Whether a value is a symmetric tensor."""
        return self.shape == (3, 3)


QUANTITIES = (
    Quantity("energy", "eV", (), "energy relative to the mean", "energy", aliases=("E", "energies")),
    Quantity("forces", "eV/A", (3,), "force components", "energy", per_atom=True, aliases=("F",)),
    Quantity("stress", "eV/A^3", (3, 3), "stress elements", "energy"),
    Quantity("charges", "e", (), "atomic charges", "charges", per_atom=True),
    Quantity("dipole", "e*A", (3,), "dipole components", "charges"),
    Quantity("d_tensor", "cm^-1", (3, 3), "D tensor elements", "d_tensor", traceless=True, aliases=("D",)),
    Quantity("tensor", "", (3, 3), "tensor elements", "tensor"),
)
"""All quantities, in the order of reports."""

BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}
PER_ATOM = tuple(quantity.name for quantity in QUANTITIES if quantity.per_atom)
TENSORS = tuple(quantity.name for quantity in QUANTITIES if quantity.is_tensor)
HEAD_KINDS = tuple(dict.fromkeys(quantity.head for quantity in QUANTITIES))

UNIQUE = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Independent elements of a symmetric tensor."""

ELEMENTS = tuple("xyz"[i] + "xyz"[j] for i, j in UNIQUE)
"""Names of `UNIQUE`: xx, xy, xz, yy, yz, zz."""


GRADE = "extrapolation"
PER_ATOM_GRADE = "extrapolation_atoms"
"""Predictions that are no quantities: extrapolation grades of the structures and of every atom, no unit."""


def quantity_of(key: str) -> str:
    """Return the output that a key of predictions belongs to: forces for forces_std and forces_error."""
    return key.removesuffix("_std").removesuffix("_error")


def unit_of(key: str, units: Mapping[str, str]) -> str:
    """Return the unit of a key of predictions, from those of the outputs; empty for a grade."""
    return "" if key in (GRADE, PER_ATOM_GRADE) else units[quantity_of(key)]


def is_per_atom(key: str) -> bool:
    """Whether a key of predictions has values for each atom."""
    return key == PER_ATOM_GRADE or quantity_of(key) in PER_ATOM


def predicted_by(head: str) -> tuple[Quantity, ...]:
    """Return the quantities that a head of this kind predicts.

    Examples
    --------
    >>> [quantity.name for quantity in predicted_by("charges")]
    ['charges', 'dipole']
    """
    return tuple(quantity for quantity in QUANTITIES if quantity.head == head)
