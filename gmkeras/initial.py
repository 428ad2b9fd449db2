"""Where a training starts: constants that standardize the features, scale and shift of every head.

A head is linear in the outputs m, so what scale s and shift mu of each species contribute is known beforehand:
prediction = constant + s u + X mu, where u, the raw prediction, is what the network predicts with scale 1 and shift 0,
and X the response to the shifts: how many atoms of each species a structure has for energies and for the isotropic part
of a tensor, which species an atom is for charges. Dipoles and traceless tensors start from shift 0: with few data their
responses are nearly dependent and mu would be huge.

"spread" (default): mu is the ridge regression of the references on X, minus s times that of u, and s is 0.4 times the
ratio of the two residual spreads (of the forces where they are trained): the first prediction has the mean of the data
and not quite their spread, from where training takes the least time.

"reference" (the paper's): energies: mu = ridge regression of E_k - N_k Ebar, plus Ebar; s = sqrt(sum_k y_k^2/N_k /
sum_k N_k) over its residuals y. Tensors and charges: standard deviation and mean of the reference elements i >= j; of a
traceless tensor one diagonal element is left out (P, section 2.2.2). Heads over moments start from shift 0.

The ridge parameter is scaled to the data: a fixed one would leave residuals of keV on all-electron energies.

Formulas: docs/method.md, section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gmcore.engine.heads import head_columns
from gmcore.engine.settings import HeadSettings, Member, ModelSettings
from gmcore.errors import GMError
from gmkeras.data import PreparedData, tensors
from gmkeras.heads import IDENTITY
from gmkeras.statistics import BATCH_SIZE, channel_norms, feature_statistics
from gmkeras.trainer import StructureModel

RIDGE = 1e-9
"""Ridge parameter in units of the mean squared singular value of X."""
START = 0.4
"""Spread of the first prediction in units of that of the data."""
SAMPLE = 512
"""Structures that the spread of the first prediction is measured on."""
REFIT = 10.0
"""Energies whose errors fall by more than this factor with other shifts have another zero."""


def initialize(model: StructureModel, data: PreparedData, *, standardize: bool, initial_scale: str) -> None:
    """Set the constants, scales and shifts of a model from the training data.

    Parameters
    ----------
    standardize : whether features are shifted and scaled to mean 0 and deviation 1, and partly decorrelated if the
        model was made with `decorrelate=True`.
    initial_scale : "spread" or "reference".

    Raises
    ------
    ValueError : another initial_scale.
    """
    if initial_scale not in ("spread", "reference"):
        raise ValueError(f"initial_scale must be 'spread' or 'reference', got {initial_scale!r}")
    if standardize:
        statistics = feature_statistics(model.moments_layer, data)
        model.standardization.set_constants(statistics.mean, statistics.scale)
        if model.decorrelate:
            model.dense_layers[0].decorrelation.assign(statistics.decorrelation)
    for head in model.head_settings:
        _reset(model, head, data)
    responses, forces = _measure(model, data, SAMPLE)
    _fit_heads(model, model.head_settings, responses, forces, initial_scale)


def take_over(
    model: StructureModel,
    trained: ModelSettings,
    member: Member,
    data: PreparedData,
    *,
    initial_scale: str,
    refit: bool,
) -> list[str]:
    """Set the parameters of a model to those of a trained member; returns notes on what the member had to be given.

    What the member does not know starts as in a new model: radial coefficients of new pairs of species, and new heads.
    A new species has the mean scale of the others, and the shift that its structures ask for. The decorrelation, which
    only makes the training fast, is that of the data.

    Parameters
    ----------
    trained, member : the trained model; `model` has all of its species, its hidden layers, and maybe other heads.
    initial_scale : of new heads.
    refit : whether the shifts of the energy are fitted again where that lowers its error by more than REFIT.
    """
    old_heads = {head.name for head in trained.heads}
    known = np.searchsorted(model.descriptor.species, trained.descriptor.species)
    extended = _extended(model, trained.heads, member, known)
    layer = model.moments_layer
    layer.beta.assign(extended.beta)
    if model.decorrelate:
        statistics = feature_statistics(layer, data, extended.feature_std.astype(np.float64))
        model.dense_layers[0].decorrelation.assign(statistics.decorrelation)
    model.set_member(extended, relative=initial_scale == "spread")
    new_heads = [head for head in model.head_settings if head.name not in old_heads]
    for head in new_heads:
        _reset(model, head, data)
    new = np.setdiff1d(np.arange(len(model.descriptor.species)), known)
    responses, forces = _measure(model, data, data.n_structures if len(new) else SAMPLE)
    _fit_heads(model, new_heads, responses, forces, initial_scale)
    notes = []
    for head in model.head_settings:
        response, base = responses[head.name], model.scale_shift[head.name].base
        if head in new_heads or response.reference is None:
            continue
        left = response.reference - response.raw
        change = np.zeros(base.shape[0])
        change[new] = ridge(response.design[:, new], left) if len(new) else 0.0
        left = left - response.design @ change
        if head.kind == "energy" and refit:
            again = ridge(response.design, left)
            if np.sqrt(np.mean(left**2)) > REFIT * np.sqrt(np.mean((left - response.design @ again) ** 2)):
                change += again
                notes.append("the energies have another zero than those of the model: shifts fitted again")
        base.assign(base.numpy() + np.pad(change[:, None], ((0, 0), (head.n_outputs - 1, 0))))
    return notes


def _extended(model: StructureModel, heads: Sequence[HeadSettings], member: Member, known: np.ndarray) -> Member:
    """The member with the species and heads of `model`, whose own parameters fill in what it does not know."""
    fresh = model.member()
    beta = fresh.beta.copy()
    beta[np.ix_(known, known)] = member.beta
    weights, biases = list(member.weights), list(member.biases)
    weights[-1], biases[-1] = fresh.weights[-1].copy(), fresh.biases[-1].copy()
    own = {head.name: columns for head, columns in head_columns(model.head_settings)}
    scale, shift = dict(fresh.scale), dict(fresh.shift)
    for head, columns in head_columns(heads):
        if head.name not in own:
            continue
        weights[-1][:, own[head.name]] = member.weights[-1][:, columns]
        biases[-1][own[head.name]] = member.biases[-1][columns]
        scale[head.name] = np.tile(member.scale[head.name].mean(axis=0), (len(model.descriptor.species), 1))
        scale[head.name][known] = member.scale[head.name]
        shift[head.name] = np.zeros_like(scale[head.name])
        shift[head.name][known] = member.shift[head.name]
    return Member(beta, member.feature_mean, member.feature_std, weights, biases, scale, shift)


def _reset(model: StructureModel, head: HeadSettings, data: PreparedData) -> None:
    """Scale 1 and shift 0; outputs over moments in units that bring them to one order of magnitude."""
    factors = np.ones(head.n_outputs)
    if head.options.basis == "moments":
        factors = 1.0 / channel_norms(model.moments_layer, data)
        factors = factors if head.kind == "d_tensor" else np.append(factors, 1.0)
    model.scale_shift[head.name].set_effective(factors, np.zeros(head.n_outputs))


def _fit_heads(
    model: StructureModel,
    heads: Sequence[HeadSettings],
    responses: dict[str, _Response],
    forces: list | None,
    initial_scale: str,
) -> None:
    """Set scale and shift of heads whose responses were measured with scale 1 and shift 0."""
    for head in heads:
        response = responses[head.name]
        if initial_scale == "spread" or response.reference is None:
            scale, shift = _from_spread(response, forces if head.kind == "energy" else None)
        else:
            scale, shift = _from_reference(head, response)
        layer = model.scale_shift[head.name]
        factors, _ = layer.effective()
        shifts = np.concatenate([np.zeros((len(shift), head.n_outputs - 1)), shift[:, None]], axis=1)
        layer.set_effective(scale * factors, factors * shifts, relative=initial_scale == "spread")


def ridge(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """mu = (X^T X + lambda 1)^-1 X^T y; without any response mu is 0.

    >>> ridge(np.array([[2.0], [4.0]]), np.array([1.0, 2.0])).round(6).tolist()
    [0.5]
    """
    n_columns = design.shape[1]
    strength = np.sqrt(RIDGE * np.square(design).sum() / n_columns)
    augmented = np.concatenate([design, strength * np.eye(n_columns)])
    return np.linalg.lstsq(augmented, np.concatenate([values, np.zeros(n_columns)]), rcond=None)[0]


class _Response(NamedTuple):
    """How one head answers: prediction less its constant part = s raw + design mu, row by row.

    reference (n_rows,), None where the quantity has no label; raw (n_rows,); design (n_rows, n_species), of the last
    output; n_atoms (n_rows,): atoms of the structure that a row belongs to.
    """

    reference: np.ndarray | None
    raw: np.ndarray
    design: np.ndarray
    n_atoms: np.ndarray


def _measure(model: StructureModel, data: PreparedData, sample: int) -> tuple[dict[str, _Response], list | None]:
    """Responses of all heads, and (reference, raw) forces where forces are trained, over `sample` structures."""
    parts: dict[str, list[_Response]] = {head.name: [] for head in model.head_settings}
    forces: list[tuple[np.ndarray, np.ndarray]] = []
    with_forces = "forces" in data.labels and any(head.kind == "energy" for head in model.head_settings)
    for inputs, labels in data.sample(sample, BATCH_SIZE):
        outputs = {name: value.numpy() for name, value in model.quantities(tensors(inputs), with_forces).items()}
        for head in model.head_settings:
            parts[head.name].append(_response(model, head, inputs, labels, outputs))
        if with_forces:
            forces.append((labels["forces"], outputs["forces"]))
    responses = {
        name: _Response(
            _joined([batch.reference for batch in batches]),
            *(np.concatenate(column) for column in zip(*(batch[1:] for batch in batches))),
        )
        for name, batches in parts.items()
    }
    return responses, [np.concatenate(column) for column in zip(*forces)] or None


def _response(model: StructureModel, head: HeadSettings, inputs, labels, outputs) -> _Response:
    structure, n_structures = inputs["structure"], len(inputs["strain"])
    n_atoms = np.bincount(structure, minlength=n_structures)
    species = np.eye(len(model.descriptor.species))[inputs["species"]]

    def per_structure(values: np.ndarray) -> np.ndarray:
        total = np.zeros((n_structures, *values.shape[1:]))
        np.add.at(total, structure, values)
        return total

    if head.kind == "energy":
        return _Response(labels.get("energy"), outputs["energy"], per_structure(species), n_atoms)
    if head.kind == "charges":
        constant = np.zeros(len(structure))
        if head.options.conserve:
            species = species - (per_structure(species) / n_atoms[:, None])[structure]
            constant = (inputs["total_charge"] / n_atoms)[structure]
        if "charges" in labels:
            return _Response(labels["charges"] - constant, outputs["charges"] - constant, species, n_atoms[structure])
        offset = per_structure(inputs["positions"] * constant[:, None])  # the origin does not matter for a spread
        raw = (outputs["dipole"] - offset).ravel()
        design = np.zeros((raw.size, species.shape[1]))
        return _Response((labels["dipole"] - offset).ravel(), raw, design, np.repeat(n_atoms, 3))
    elements = (slice(None), *np.triu_indices(3))
    reference, raw = labels[head.kind][elements].ravel(), outputs[head.kind][elements].ravel()
    isotropic = {"d_tensor": 0.0, "tensor": 1.0 if head.options.basis == "moments" else 1.0 / 3.0}[head.kind]
    design = isotropic * np.kron(per_structure(species), np.reshape(IDENTITY, (6, 1)))
    return _Response(reference, raw, design, np.repeat(n_atoms, 6))


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    """The parts one after another; None where there are no labels."""
    labeled = [part for part in parts if part is not None]
    return np.concatenate(labeled) if labeled else None


def _from_spread(response: _Response, forces: list | None) -> tuple[float, np.ndarray]:
    mu_raw = ridge(response.design, response.raw)
    if response.reference is None:  # forces alone are trained
        return START * (1.0 if forces is None else _ratio(*forces)), np.zeros_like(mu_raw)
    mu = ridge(response.design, response.reference)
    if forces is None:
        scale = _ratio(response.reference - response.design @ mu, response.raw - response.design @ mu_raw)
    else:
        scale = _ratio(*forces)
    scale *= START
    return scale, mu - scale * mu_raw


def _from_reference(head: HeadSettings, response: _Response) -> tuple[float, np.ndarray]:
    reference, n_atoms = response.reference, response.n_atoms
    if reference is None:
        raise GMError(f"initial_scale 'reference' needs labels of {head.name}, got none: use 'spread'")
    if head.kind == "energy":
        mean = reference.sum() / n_atoms.sum()
        deviation = reference - mean * n_atoms
        mu = ridge(response.design, deviation)
        left = deviation - response.design @ mu
        return np.sqrt(np.sum(np.square(left) / n_atoms) / n_atoms.sum()), mu + mean
    if head.kind == "d_tensor":
        reference = reference.reshape(-1, 6)[:, :5]
    shift = np.full(response.design.shape[1], reference.mean() if head.n_outputs == 1 else 0.0)
    return reference.std(), shift


def _ratio(reference: np.ndarray, raw: np.ndarray) -> float:
    """Ratio of root mean squares; 1 where the data do not vary."""
    wanted, given = np.sqrt(np.mean(np.square(reference))), np.sqrt(np.mean(np.square(raw)))
    return float(wanted / given) if wanted > 0.0 and given > 0.0 else 1.0
