"""The pages in docs/ say what the code does: every key, default and meaning, every unit, every example."""

from __future__ import annotations

import re

import pytest

from gmcore.config import training as config_sections
from gmcore.config.loading import parse_config
from gmcore.config.presets import PRESETS
from gmcore.config.section import Section
from gmcore.config.training import TrainConfig
from gmcore.evaluation.predictions import SUFFIXES as OUTPUT_SUFFIXES
from gmcore.formats import SUFFIXES
from gmcore.quantities import BY_NAME
from gmcore.units import UNITS, conversion
from support.pages import default_of, page, tables

SECTIONS = [
    TrainConfig,
    *(c for c in vars(config_sections).values() if isinstance(c, type) and issubclass(c, Section) and c is not Section),
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.section)
def test_every_key_with_default_and_meaning(section):
    name = "top level" if section is TrainConfig else section.section
    rows = tables(page("configuration.md"))[name]
    expected = [[key, default_of(section, key), field.description] for key, field in section.model_fields.items()]
    assert rows == expected


def test_presets():
    rows = tables(page("configuration.md"))["Presets"]
    rates = ("network", "radial", "scale", "shift")
    expected = []
    for name, preset in PRESETS.items():
        for energy in (False, True):
            learning = [f"{preset['learning_rates'][energy][group]:g}" for group in rates]
            constants = (preset["standardize"], preset["decorrelate"][energy])
            settings = [
                str(value).lower()
                for value in (*constants, *(preset[k] for k in ("initial_scale", "basis", "batch_size", "optimizer")))
            ]
            expected.append([name, "yes" if energy else "no", *settings, *learning])
    assert rows == expected


def test_sizes_of_the_presets():
    expected = [
        [name, *map(str, preset["descriptor"].values()), str(preset["hidden"]), preset["initial_radial"]]
        for name, preset in PRESETS.items()
    ]
    assert tables(page("configuration.md"))["Sizes of the presets"] == expected


def test_examples_of_configurations_are_valid():
    for name in ("configuration.md", "data.md"):
        for block in re.findall(r"```yaml\n(output:.*?)```", page(name), flags=re.S):
            assert parse_config(block).labels


def test_units():
    rows = tables(page("data.md"))["Units"]
    assert [row[0] for row in rows] == list(UNITS)
    for quantity, internal, units in rows:
        named = [unit.strip("` ") for unit in units.split(",")]
        assert named == list(UNITS[quantity])
        assert internal == conversion(quantity, named[0])[1]


def test_formats():
    text = page("data.md")
    rows = tables(text)["Formats"]
    stated = {suffix: row[0] for row in rows for suffix in row[1].replace("`", "").split()}
    assert stated == SUFFIXES
    outputs = {suffix for row in tables(text)["Predictions"] for suffix in row[0].replace("`", "").split()}
    assert outputs == set(OUTPUT_SUFFIXES)


def test_labels():
    assert [row[0] for row in tables(page("data.md"))["Labels"]] == list(BY_NAME)
