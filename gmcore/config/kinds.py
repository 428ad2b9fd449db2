"""The kinds of configuration files: training, molecular dynamics, labels, workflow, analysis."""

from __future__ import annotations

from pathlib import Path

from gmcore.config.analysis import Analysis
from gmcore.config.dynamics import MDConfig
from gmcore.config.labeling import LabelConfig
from gmcore.config.loading import ConfigError, read_yaml
from gmcore.config.section import Section
from gmcore.config.training import TrainConfig
from gmcore.config.workflow import Workflow
from gmcore.errors import GMError, excerpt
from gmcore.suggest import did_you_mean

KINDS: dict[str, type[Section]] = {
    "train": TrainConfig,
    "md": MDConfig,
    "label": LabelConfig,
    "workflow": Workflow,
    "analysis": Analysis,
}


def kind_named(name: str) -> type[Section]:
    """Return the class of the kind of configuration called `name`, one of `KINDS`.

    Raises
    ------
    GMError : there is no such kind.
    """
    if name not in KINDS:
        raise GMError(f"unknown kind of configuration {excerpt(name)}{did_you_mean(name, KINDS)}")
    return KINDS[name]


def kind_of(path: Path) -> type[Section]:
    """Guess the kind of a configuration file: the one that knows most of its top-level keys.

    If the file cannot be read, it counts as a training; loading it as such then reports what is wrong.
    """
    try:
        raw = read_yaml(path)
    except ConfigError:
        return TrainConfig
    keys = set(raw) if isinstance(raw, dict) else set()
    return max(KINDS.values(), key=lambda kind: len(keys & set(kind.model_fields)))
