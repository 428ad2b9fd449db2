"""Derivatives of a predicted tensor in the positions of the atoms, dD/dx: the linear spin-phonon coupling.

A tensor has five (traceless) or six independent elements. For each of them, D_ab, one copy of the structure carries the
cotangent W = sym(e_a e_b^T), and all copies go through the evaluator as one batch: one gradient of the scalar
sum <W, D> per element, by hand through head, network, contractions and moments (`gmcore.engine.evaluator`), no
differences. The copies repeat the forward pass, a third of the work, and in return fill the threads of a single small
molecule.

    sum over atoms of dD/dx = 0          (translation; also in the basis "positions", for an unwrapped molecule)

The directions of the basis "positions" have no derivative at the mean position rbar: an atom near it, often the metal
of a symmetric complex, has a term whose derivative grows as 1/|r - rbar| without meaning (`near_center`).
`without_core` gives a model in which such atoms contribute nothing; their term is even in r - rbar, so that its
derivative averaged over a small ball around rbar is zero as well.

In a periodic structure the derivative is the one of all images of an atom together: that of a phonon at Gamma.

Not supported: models on a GPU, second derivatives (see `gmcore.analysis.couplings` for those along modes).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from gmcore.engine.evaluator import Evaluator
from gmcore.engine.settings import HeadSettings
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.model import Model
from gmcore.quantities import BY_NAME, UNIQUE


def d_tensor_gradient(model: Model, atoms: Atoms, name: str | None = None) -> np.ndarray:
    """Return the mean of `member_gradients` over the committee: (n_atoms, 3, 3, 3), cm^-1/A for a D tensor.

    Raises
    ------
    GMError : as for `member_gradients`.
    """
    return member_gradients(model, atoms, name).mean(axis=0)


def member_gradients(model: Model, atoms: Atoms, name: str | None = None) -> np.ndarray:
    """Return dD/dx of every member of a committee.

    Parameters
    ----------
    model : on the CPU.
    atoms : one structure; for the basis "positions" a molecule that no cell boundary cuts.
    name : the head; may be left out where the model has only one tensor.

    Returns
    -------
    (n_members, n_atoms, 3, 3, 3) float64, unit of the tensor per A: [member, atom, direction, row, column].

    Raises
    ------
    GMError : the model has no such tensor or is on a GPU, or `Model.predict` would refuse the structure.
    """
    head = tensor_head(model, name)
    if not isinstance(model.evaluator, Evaluator):
        raise GMError("the gradient of a tensor is computed on the CPU: load the model with device='cpu'")
    elements = UNIQUE[:5] if BY_NAME[head.kind].traceless else UNIQUE
    n_copies = len(elements)
    batch = Batch.of_frames(atoms, np.repeat(atoms.positions[None], n_copies, axis=0))
    cotangents = np.zeros((n_copies, 3, 3))
    for w, (a, b) in zip(cotangents, elements):
        w[a, b] += 0.5
        w[b, a] += 0.5
    flat = model.evaluator.tensor_gradients(batch, model.evaluator.find_pairs(batch), head, cotangents)
    by_element = flat.reshape(model.n_members, n_copies, len(atoms), 3)
    gradients = np.zeros((model.n_members, len(atoms), 3, 3, 3))
    for k, (a, b) in enumerate(elements):
        gradients[..., a, b] = gradients[..., b, a] = by_element[:, k]
    if head.kind == "d_tensor":
        gradients[..., 2, 2] = -gradients[..., 0, 0] - gradients[..., 1, 1]
    return gradients


def near_center(model: Model, atoms: Atoms, radius: ArrayLike, name: str | None = None) -> np.ndarray:
    """Return the indices of the atoms closer to the mean position than `radius` (A, one value or one per atom).

    Empty for the basis "moments", which has no center.

    Raises
    ------
    GMError : as for `tensor_head`.
    """
    if tensor_head(model, name).options.basis != "positions":
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1) < radius)


def without_core(model: Model, radius: float, name: str | None = None) -> Model:
    """Return the model without the terms of atoms within `radius` (A) of the mean position, for basis "positions".

    Raises
    ------
    GMError : as for `tensor_head`.
    """
    wanted = tensor_head(model, name)
    heads = tuple(
        replace(head, options=replace(head.options, core_radius=float(radius))) if head is wanted else head
        for head in model.settings.heads
    )
    return Model(replace(model.settings, heads=heads), model.evaluator.members, model.evaluator.dtype.name)


def tensor_head(model: Model, name: str | None = None) -> HeadSettings:
    """Return the tensor head `name` of a model, or its only one.

    Raises
    ------
    GMError : there is no such head, or there are several and no name is given.
    """
    heads = {head.name: head for head in model.settings.heads if head.kind in ("d_tensor", "tensor")}
    if not heads:
        raise GMError(f"the model must predict a tensor, but it predicts {', '.join(model.units)}")
    if name is None:
        if len(heads) > 1:
            raise GMError(f"this model predicts several tensors, {', '.join(heads)}: name one of them")
        return next(iter(heads.values()))
    if name not in heads:
        raise GMError(f"the tensors of this model are {', '.join(heads)}, got {name!r}")
    return heads[name]
