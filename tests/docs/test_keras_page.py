"""docs/keras.md: its tables are those of the code; its examples run in `test_examples.py`."""

from __future__ import annotations

import re

from gmcore.config.training import Properties
from gmcore.quantities import predicted_by
from support.pages import page, tables

TABLES = tables(page("keras.md"))
SUPERSCRIPT = {"e*A": "e A"}


def test_heads_quantities_and_units():
    for head, quantities, units in TABLES["Heads and quantities"]:
        rows = predicted_by(head)
        assert [name.strip("` ") for name in quantities.split(",")] == [row.name for row in rows]
        known = [SUPERSCRIPT.get(row.unit, row.unit) or "that of the labels" for row in rows]
        assert [unit.strip() for unit in units.split(",")] == known
    assert [row[0] for row in TABLES["Heads and quantities"]] == list(Properties.model_fields)


def test_default_weights():
    stated = {name: float(row[2]) for row in TABLES["Losses"] for name in re.split(", ", row[0])}
    learned = Properties(**{name: {} for name in Properties.model_fields}).loss_weights
    assert stated == learned | {"stress": 0.0}
