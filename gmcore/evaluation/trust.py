"""What a finished training learns about the errors of its model, for the model file.

Draws of the last layer for a single model, the environments of the training data, and the calibrations: deviations
compared with errors on data that were not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gmcore.anisotropy import axis_angle, zfs_parameters
from gmcore.data.datasets import Dataset
from gmcore.engine.evaluator import Evaluator
from gmcore.engine.heads import head_columns, output_units
from gmcore.engine.settings import Member, ModelSettings
from gmcore.engine.structures import Batch
from gmcore.evaluation.metrics import compared, flat_values
from gmcore.model import Model, batches
from gmcore.quantities import BY_NAME, GRADE, PER_ATOM_GRADE, is_per_atom, quantity_of
from gmcore.uncertainty.calibration import Calibration, anisotropy_deviations, calibrate, pooled
from gmcore.uncertainty.environments import TrainingEnvironments, learn_environments
from gmcore.uncertainty.last_layer import with_draws
from gmcore.uncertainty.uncertainty import Uncertainty

MIN_STRUCTURES = 5
"""Labeled structures that a calibration needs."""


def learn_uncertainty(
    settings: ModelSettings, members: Sequence[Member], training: Dataset, validation: Dataset
) -> tuple[list[Member], Uncertainty]:
    """Return the members, a single one with draws of its last layer, and what is known of their errors.

    Parameters
    ----------
    training : structures that the members were trained on.
    validation : labeled structures that they were not trained on; a quantity with labels in fewer than MIN_STRUCTURES
        of them gets no calibration.
    """
    members = list(members)
    if len(members) == 1:
        members = [with_draws(settings, members[0], training.atoms)]
    environments = training_environments(settings, members[0], training)
    calibrations = _calibrations(settings, members, validation)
    if len(members) == 1:
        members = [_rescaled(settings, members[0], calibrations)]
        calibrations = _calibrations(settings, members, validation)
    return members, Uncertainty(calibrations, environments)


def _calibrations(settings: ModelSettings, members: list[Member], validation: Dataset) -> dict[str, Calibration]:
    model = Model(settings, members)
    keys = [key for key in validation.labels if key in model.units]
    predicted = model.predict(validation.atoms, keys, errors=True)
    return calibrations_of(validation.labels, predicted, "committee" if len(members) > 1 else "last_layer")


def _rescaled(settings: ModelSettings, member: Member, calibrations: dict[str, Calibration]) -> Member:
    """The member with draws as wide as its errors: a posterior knows its shape, but not its width."""
    draws = np.array(member.draws)
    for head, columns in head_columns(settings.heads):
        factors = [calibrations[key].factor for key in output_units([head]) if key in calibrations]
        if factors:
            draws[..., columns] *= float(np.exp(np.mean(np.log(factors))))
    return replace(member, draws=draws)


def training_environments(settings: ModelSettings, member: Member, training: Dataset) -> TrainingEnvironments:
    """Return the training structures in the space of the features of one member."""
    evaluator = Evaluator(settings, [member])
    batch = Batch.from_atoms(training.atoms)
    batch.species(evaluator.species)
    parts = [batch.part(*ends) for ends in batches(batch.offsets, None, evaluator.batch_atoms)]
    features = [evaluator.features(part, evaluator.find_pairs(part)) for part in parts]
    species = batch.species(evaluator.species)
    return learn_environments(np.concatenate(features), species, batch.offsets, len(evaluator.species))


def calibrations_of(reference: dict[str, Any], predicted: dict[str, Any], source: str) -> dict[str, Calibration]:
    """Return the calibration of every quantity that has labels and deviations.

    Parameters
    ----------
    reference, predicted : labels, and the result of `Model.predict` with `_std`.
    source : see `Calibration`.
    """
    found = {}
    for key, values in reference.items():
        if f"{key}_std" not in predicted:
            continue
        for name, (deviations, errors, raw, groups) in deviations_and_errors(key, values, predicted).items():
            if len(np.unique(groups)) >= MIN_STRUCTURES and np.any(deviations > 0.0):
                found[name] = calibrate(source, deviations, errors, groups, raw)
    return found


def coverages(
    key: str, reference: Any, predicted: dict[str, Any], uncertainty: Uncertainty
) -> dict[str, dict[str, Any]]:
    """Return how well the calibrated errors of a quantity do: {name: {"error_coverage", "error_mean"}}.

    The coverage is the share of errors within one and two calibrated errors (0.68 and 0.95 would be right), the mean
    that of the calibrated errors. Names are `key`, and D, E and axis for a D tensor; what is not calibrated is missing.
    """
    if f"{key}_std" not in predicted:
        return {}
    grades = predicted.get(PER_ATOM_GRADE if is_per_atom(key) else GRADE)
    _, _, labeled = compared(key, reference, predicted[key])
    rows = None if grades is None else np.concatenate([np.atleast_1d(grade) for grade in grades])[labeled]
    found = {}
    for name, (deviations, errors, _, groups) in deviations_and_errors(key, reference, predicted).items():
        calibration = uncertainty.calibrations.get(name)
        if calibration is None or not len(errors):
            continue
        own = rows if name == key or grades is None else np.asarray(grades)[groups]
        sizes = calibration.error(deviations, own)[:, None]
        within = [float(np.mean(np.abs(errors) <= n * sizes)) for n in (1, 2)]
        found[name] = {"error_coverage": within, "error_mean": float(sizes.mean())}
    return found


def deviations_and_errors(
    key: str, reference: Any, predicted: dict[str, Any]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Return pooled deviations (n,), errors and raw deviations (n, n_components), and structure (n,) of labeled rows.

    The result has an entry for `key`, and for a D tensor also for D, E and axis.
    """
    quantity = BY_NAME[quantity_of(key)]
    expected, value, labeled = compared(key, reference, predicted[key])
    raw = flat_values(key, predicted[f"{key}_std"])[labeled]
    rows = [np.asarray(entry, np.float64).reshape(-1, *quantity.shape) for entry in predicted[f"{key}_std"]]
    deviations = pooled(np.concatenate(rows), len(quantity.shape))[labeled]
    groups = np.repeat(np.arange(len(rows)), [len(entry) for entry in rows])[labeled]
    found = {key: (deviations, value - expected, raw, groups)}
    if key == "d_tensor":
        tensors = [np.asarray(entries, np.float64)[labeled] for entries in (reference, predicted[key])]
        before, after = (zfs_parameters(entries) for entries in tensors)
        angle = axis_angle(before.axis, after.axis)
        own = anisotropy_deviations(tensors[1], deviations)
        for name, errors in (("D", after.d - before.d), ("E", after.e - before.e), ("axis", angle)):
            rows_known = np.isfinite(errors)
            kept = own[name][rows_known], errors[rows_known, None], own[name][rows_known, None], groups[rows_known]
            found[name] = kept
    return found
