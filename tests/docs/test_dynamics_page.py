"""docs/dynamics.md says what the code does: every key, every quantity of a trajectory, an example that is valid."""

from __future__ import annotations

import re

import pytest

from gmcore.config import dynamics as config
from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import parse_config
from gmcore.dynamics.h5md import QUANTITIES, group_path
from support.pages import default_of, page, tables

SECTIONS = [part for part in vars(config).values() if getattr(part, "__module__", "") == config.__name__]
SECTIONS = [part for part in SECTIONS if isinstance(part, type)]


def test_all_sections_are_seen():
    assert {MDConfig, config.Stop, config.Molecule} <= set(SECTIONS) and len(SECTIONS) == 8


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.section)
def test_every_key_with_default_and_meaning(section):
    rows = tables(page("dynamics.md"))["top level" if section is MDConfig else section.section]
    assert rows == [[key, default_of(section, key), field.description] for key, field in section.model_fields.items()]


def test_every_quantity_of_a_trajectory():
    rows = tables(page("dynamics.md"))["Trajectories"]
    expected = []
    for name, quantity in QUANTITIES.items():
        shape = ", ".join(str(size) for size in quantity.shape) or "one number"
        expected.append([group_path(name, 0), name, shape, quantity.unit])
    assert rows == expected


def test_the_example_is_valid():
    (block,) = re.findall(r"```yaml\n(output:.*?)```", page("dynamics.md"), flags=re.S)
    assert parse_config(block, kind=MDConfig).d_tensor.molecule.metal == "Co"
