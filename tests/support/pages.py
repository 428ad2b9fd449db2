"""The pages of docs/ and the tables in them."""

from __future__ import annotations

import re

from pydantic import BaseModel

from gmcore.config.section import Section
from support.places import ROOT

DOCS = ROOT / "docs"


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
