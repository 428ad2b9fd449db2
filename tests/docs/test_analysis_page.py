"""docs/analysis.md says what the code does: every key of an analysis and of a workflow, an example that is valid."""

from __future__ import annotations

import re

import pytest

from gmcore.config import analysis as config
from gmcore.config.loading import parse_config
from gmcore.config.section import Section
from gmcore.config.workflow import Workflow
from support.pages import default_of, page, tables

OWN = [part for part in vars(config).values() if getattr(part, "__module__", "") == config.__name__]
SECTIONS = [Workflow, *(part for part in OWN if isinstance(part, type) and issubclass(part, Section))]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.section)
def test_every_key_with_default_and_meaning(section):
    rows = tables(page("analysis.md"))[section.section]
    assert rows == [[key, default_of(section, key), field.description] for key, field in section.model_fields.items()]


def test_all_sections_are_seen():
    assert len(SECTIONS) == 4


def test_the_example_is_valid():
    (block,) = re.findall(r"```yaml\n(output:.*?)```", page("analysis.md"), flags=re.S)
    assert parse_config(block, kind=Workflow).md.name == "md.yaml"
