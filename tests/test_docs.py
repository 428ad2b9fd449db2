"""The pages in docs/ say what the code does: every key, default and meaning, every unit, every example."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from gmcore import config_sections
from gmcore.config import PRESETS, TrainConfig, parse_config
from gmcore.config_sections import Section
from gmcore.prediction_files import SUFFIXES as OUTPUT_SUFFIXES
from gmcore.readers import SUFFIXES
from gmcore.units import UNITS, conversion

DOCS = Path(__file__).resolve().parents[1] / "docs"
SECTIONS = [
    TrainConfig,
    *(c for c in vars(config_sections).values() if isinstance(c, type) and issubclass(c, Section) and c is not Section),
]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows of the table under each heading, header and rule left out, marks of code taken off."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.strip("# `")
        elif line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            found.setdefault(heading, []).append([cell.strip().strip("`") for cell in cells])
    return {heading: rows[2:] for heading, rows in found.items()}


def default_of(section: type[BaseModel], key: str) -> str:
    """Default as YAML writes it."""
    field = section.model_fields[key]
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return "section"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


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
            settings = [str(value).lower() for value in (*constants, preset["initial_scale"], preset["batch_size"])]
            expected.append([name, "yes" if energy else "no", *settings, *learning])
    assert rows == expected


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


@pytest.mark.parametrize("name", ["configuration.md", "data.md"])
def test_doctests(name, monkeypatch):
    monkeypatch.chdir(DOCS.parent)  # examples name files as seen from the top of the repository
    assert doctest.testfile(str(DOCS / name), module_relative=False).failed == 0


def test_labels():
    assert [row[0] for row in tables(page("data.md"))["Labels"]] == list(config_sections.LABELS)
