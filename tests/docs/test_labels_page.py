"""docs/labels.md says what the code does: every key of every section, examples that are valid, the exit codes."""

from __future__ import annotations

import re

import pytest

from gmcore.commands.labeling import NOT_FINISHED
from gmcore.commands.options import USER_ERROR
from gmcore.config import labeling as config
from gmcore.config.labeling import METHODS, LabelConfig
from gmcore.config.loading import parse_config
from gmcore.labeling.openmolcas_input import STATES
from gmcore.running.interruption import AGAIN
from support.pages import default_of, page, tables

SECTIONS = [part for part in vars(config).values() if getattr(part, "__module__", "") == config.__name__]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.section)
def test_every_key_with_default_and_meaning(section):
    rows = tables(page("labels.md"))["Configuration" if section is LabelConfig else section.section]
    assert rows == [[key, default_of(section, key), field.description] for key, field in section.model_fields.items()]


def test_the_examples_are_valid():
    blocks = re.findall(r"```yaml\n(method:.*?)```", page("labels.md"), flags=re.S)
    assert {parse_config(block, kind=LabelConfig).method for block in blocks} >= {"python", "ase", "orca"}
    assert [row[0] for row in tables(page("labels.md"))["Labels"]] == list(METHODS)


def test_page_of_openmolcas():
    (block,) = re.findall(r"```yaml\n(method:.*?)```", page("openmolcas.md"), flags=re.S)
    assert parse_config(block, kind=LabelConfig).openmolcas.basis == "ANO-RCC-VDZ"
    named = {
        int(n): row for row in tables(page("openmolcas.md"))["What is computed"] for n in re.findall(r"d(\d)", row[0])
    }
    assert {n: tuple(int(cell.split()[0]) for cell in row[1:]) for n, row in named.items()} == STATES


def test_exit_codes():
    rows = tables(page("labels.md"))["Interruptions"]
    assert [int(row[0]) for row in rows] == [0, USER_ERROR, NOT_FINISHED, AGAIN]
