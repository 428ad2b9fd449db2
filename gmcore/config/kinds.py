"""The kinds of configuration files: of a training, of a molecular dynamics run, of a workflow."""

from __future__ import annotations

from pathlib import Path

import yaml

from gmcore.config.dynamics import MDConfig
from gmcore.config.section import Section
from gmcore.config.training import TrainConfig
from gmcore.config.workflow import Workflow
from gmcore.errors import GMError
from gmcore.suggest import did_you_mean

KINDS: dict[str, type[Section]] = {"train": TrainConfig, "md": MDConfig, "workflow": Workflow}


def kind_named(name: str) -> type[Section]:
    """The kind of configuration of this name, one of `KINDS`."""
    if name not in KINDS:
        raise GMError(f"there is no configuration of kind {name!r}{did_you_mean(name, KINDS)}")
    return KINDS[name]


def kind_of(path: Path) -> type[Section]:
    """The kind that knows most of the top-level keys of a file; a training where nothing can be told.

    Reading the file as that kind then says what is wrong with it.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return TrainConfig
    keys = set(raw) if isinstance(raw, dict) else set()
    return max(KINDS.values(), key=lambda kind: len(keys & set(kind.model_fields)))
