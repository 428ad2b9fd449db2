"""docs/rounds.md says what the code does: every key, and an example that is valid."""

from __future__ import annotations

import re

import pytest

from gmcore.config.loading import parse_config
from gmcore.config.workflow import Improvement, Rounds, Workflow
from support.pages import default_of, page, tables


@pytest.mark.parametrize("section", [Rounds, Improvement], ids=lambda section: section.section)
def test_every_key_with_default_and_meaning(section):
    rows = tables(page("rounds.md"))[section.section]
    assert rows == [[key, default_of(section, key), field.description] for key, field in section.model_fields.items()]


def test_the_example_is_valid():
    (block,) = re.findall(r"```yaml\n(output:.*?)```", page("rounds.md"), flags=re.S)
    assert parse_config(block, kind=Workflow).rounds.improve[0].target == 1.0
