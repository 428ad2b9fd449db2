"""Bounds of the training configuration: the schema refuses what lies beyond, the engine accepts what they allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from pydantic import ValidationError

from gmcore.config.section import Section
from gmcore.config.training import Descriptor, LearningRates, NetworkSection, Training
from gmcore.model import Model
from support.models import random_parts

ELSEWHERE = {
    ("training.learning_rates", key): "trained in tests/gmkeras" for key in ("network", "radial", "scale", "shift")
} | {
    ("training", "batch_size"): "trained in tests/gmkeras",
    ("training", "epochs"): "the lower bound is trained in tests/gmkeras, the upper one would take days",
    ("training", "threads"): "the engine refuses more threads than the machine has, with their number",
}
"""Bounds that are not those of a model, and where they are tried."""

KINDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minItems", "maxItems")


def bounds_of(schema: dict[str, Any], wrap=lambda value: value) -> Iterator[tuple[str, Any, Any]]:
    """Kind of each bound in the JSON schema of a key, the last value that it allows and the first that it refuses."""
    step = 1 if schema.get("type") in ("integer", "array") else None
    for kind in KINDS:
        if kind not in schema:
            continue
        bound, outward = schema[kind], -1 if kind in ("minimum", "exclusiveMinimum", "minItems") else 1
        if kind.startswith("exclusive"):
            inside, outside = float(np.nextafter(bound, -outward * np.inf)), bound
        else:
            inside, outside = bound, bound + outward if step else float(np.nextafter(bound, outward * np.inf))
        if schema["type"] == "array":
            inside, outside = [2] * inside, [2] * outside
        yield kind, wrap(inside), wrap(outside)
    for choice in schema.get("anyOf", ()):
        yield from bounds_of(choice, wrap)
    if isinstance(schema.get("items"), dict):
        yield from bounds_of(schema["items"], lambda value: [value])


def all_bounds() -> list[Any]:
    return [
        pytest.param(section, key, inside, outside, id=f"{section.section}.{key}-{kind}")
        for section in (Descriptor, NetworkSection, LearningRates, Training)
        for key, schema in section.model_json_schema()["properties"].items()
        for kind, inside, outside in bounds_of(schema)
    ]


def test_the_bounds_are_found():
    found = {(case.values[0].section, case.values[1]) for case in all_bounds()}
    assert found > {("descriptor", "n_radial"), ("network", "hidden"), ("training", "members"), *ELSEWHERE}


@pytest.mark.parametrize("section, key, inside, outside", all_bounds())
def test_the_schema_refuses_what_lies_beyond(section: type[Section], key: str, inside: Any, outside: Any):
    assert getattr(section.model_validate({key: inside}), key) == inside
    with pytest.raises(ValidationError):
        section.model_validate({key: outside})


@pytest.mark.parametrize(
    "section, key, inside, outside",
    [case for case in all_bounds() if (case.values[0].section, case.values[1]) not in ELSEWHERE],
)
def test_the_engine_accepts_what_they_allow(section: type[Section], key: str, inside: Any, outside: Any):
    assert_evaluates(**{key: inside})


def test_the_engine_accepts_all_lower_bounds_of_the_descriptor_together():
    assert_evaluates(r_max=float(np.nextafter(0.5, 1.0)), r_min=0.0, n_basis=1, n_radial=1)


def assert_evaluates(hidden: Sequence[int] = (2,), members: int = 1, **descriptor: Any) -> None:
    """Energy, forces and D of a molecule, with a small model but for what is given."""
    sizes = {"r_max": 3.0, "r_min": 0.5, "n_basis": 2, "n_radial": 1} | descriptor
    r_min = sizes.pop("r_min")
    heads = ("energy", "d_tensor")
    settings, parts = random_parts(heads, species=(1, 8), hidden=hidden, n_members=members, **sizes)
    settings = replace(settings, descriptor=replace(settings.descriptor, r_min=r_min))
    molecule = Atoms("OHH", [[0.0, 0.0, 0.0], [0.0, 0.3, 0.35], [0.0, -0.3, 0.35]])
    for name, values in Model(settings, parts).predict(molecule, ["energy", "forces", "d_tensor"]).items():
        assert np.isfinite(values).all(), name
