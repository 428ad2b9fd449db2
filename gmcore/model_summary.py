"""What is in a model file, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from gmcore.engine.heads import output_units
from gmcore.engine.settings import Member, ModelSettings
from gmcore.files import relative_path
from gmcore.uncertainty.uncertainty import Uncertainty


def model_facts(
    settings: ModelSettings,
    members: Sequence[Member],
    folder: Path | None = None,
    uncertainty: Uncertainty | None = None,
) -> dict[str, Any]:
    """Return plain data ready for JSON: species, descriptor, network, heads, units, members, errors, provenance.

    Parameters
    ----------
    folder : folder of the model file. Absolute paths in the provenance, written by earlier versions, are shown relative
        to it.
    uncertainty : what the model file says about errors; calibrations are under "errors", by quantity.
    """
    descriptor, member = settings.descriptor, members[0]
    n_parameters = sum(
        array.size
        for array in (
            member.beta,
            *member.weights,
            *member.biases,
            *member.scale.values(),
            *member.shift.values(),
        )
    )
    return {
        "species": [chemical_symbols[z] for z in descriptor.species],
        "descriptor": {
            "r_max": descriptor.r_max,
            "r_min": descriptor.r_min,
            "n_basis": descriptor.n_basis,
            "n_radial": descriptor.n_radial,
            "n_features": int(member.weights[0].shape[0]),
        },
        "network": [int(member.weights[0].shape[0]), *(int(weights.shape[1]) for weights in member.weights)],
        "heads": [{key: value for key, value in head.to_dict().items() if key != "unit"} for head in settings.heads],
        "units": output_units(settings.heads),
        "members": len(members),
        "parameters_per_member": int(n_parameters),
        "dtype": settings.dtype,
        "errors": {key: asdict(entry) for key, entry in (uncertainty or Uncertainty()).calibrations.items()},
        "knows_training_data": uncertainty is not None and uncertainty.environments is not None,
        "provenance": settings.provenance if folder is None else _seen_from(settings.provenance, folder),
    }


def _seen_from(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _seen_from(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [_seen_from(entry, folder) for entry in value]
    return relative_path(value, folder) if isinstance(value, str) and Path(value).is_absolute() else value


def model_lines(facts: dict[str, Any]) -> list[str]:
    """Return the facts as lines of text."""
    descriptor = facts["descriptor"]
    lines = [
        f"predicts: {', '.join(f'{key} [{unit}]' for key, unit in facts['units'].items())}",
        f"members: {facts['members']} ({facts['parameters_per_member']} parameters each, {facts['dtype']})",
        f"species: {' '.join(facts['species'])}",
        f"descriptor: r_max {descriptor['r_max']:g} A, r_min {descriptor['r_min']:g} A, "
        f"n_basis {descriptor['n_basis']}, n_radial {descriptor['n_radial']}",
        f"network: {'-'.join(str(size) for size in facts['network'])}",
    ]
    for head in facts["heads"]:
        options = ", ".join(f"{key} {value}" for key, value in head["options"].items())
        lines.append(f"head {head['name']}: {head['kind']}, {options or 'no options'}")
    lines += [_calibration_line(key, entry) for key, entry in facts["errors"].items()]
    if not facts["knows_training_data"]:
        lines.append("extrapolation grades: none, because the file does not describe its training data")
    lines += _entries("", facts["provenance"])
    return lines


def _calibration_line(key: str, entry: dict[str, Any]) -> str:
    """Return one line about the calibrated error of a quantity."""
    source = {"committee": "deviation between members", "last_layer": "deviation of draws of the last layer"}
    before, after = (
        " and ".join(f"{100 * share:.0f} %" for share in entry[name]) for name in ("coverage_raw", "coverage")
    )
    return (
        f"error of {key}: {entry['factor']:.3g} +- {entry['factor_error']:.2g} times the {source[entry['source']]}, "
        f"from {entry['n_structures']} structures; within 1 and 2 errors {after} (raw deviations: {before})"
    )


def _entries(prefix: str, entries: dict[str, Any]) -> list[str]:
    """Return one line per value of nested metadata: "config.training.epochs: 300"."""
    lines = []
    for key, value in entries.items():
        if isinstance(value, dict) and value:
            lines += _entries(f"{prefix}{key}.", value)
        else:
            lines.append(f"{prefix}{key}: {value}")
    return lines
