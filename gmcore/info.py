"""What is in a model file, for people: `gmtensor info MODEL`."""

from __future__ import annotations

import os
from typing import Any

from ase.data import chemical_symbols

from .consistency import member_arrays
from .evaluator import Evaluator
from .model_file import read_metadata, read_model, verify_golden


def model_description(path: str | os.PathLike) -> dict[str, Any]:
    """Settings, sizes, units, provenance and the result of the golden check as plain data.

    Errors
    ------
    ModelFileError : the file cannot be read or does not reproduce its golden output.
    """
    settings, members = read_model(path)
    metadata = read_metadata(path)
    deviations = verify_golden(path, Evaluator(settings, members))
    first = members[0]
    return {
        "file": str(path),
        "species": [chemical_symbols[z] for z in settings.descriptor.species],
        "descriptor": metadata["descriptor"],
        "layers": [len(first.feature_mean), *(len(bias) for bias in first.biases)],
        "heads": metadata["heads"],
        "units": metadata["units"],
        "members": len(members),
        "parameters per member": sum(array.size for array in member_arrays(first).values()),
        "dtype": settings.dtype,
        "golden output": f"reproduced within a relative {max(deviations.values()):.1e}",
        "written by": metadata["written_by"],
        "provenance": metadata["provenance"],
    }


def describe_model(path: str | os.PathLike) -> str:
    """`model_description` as indented text; raises as it does."""
    return "\n".join(_lines(model_description(path), ""))


def _lines(value: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        elif isinstance(item, list) and item and all(isinstance(entry, dict) for entry in item):
            lines += [f"{indent}{key}:"]
            lines += [f"{indent}  - " + ", ".join(f"{k} {_short(v)}" for k, v in entry.items()) for entry in item]
        else:
            lines.append(f"{indent}{key}: {_short(item)}")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        if len(value) > 12:
            return f"{len(value)} values"
        return " ".join(_short(item) for item in value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    return str(value)
