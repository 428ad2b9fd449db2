"""Settings of an analysis from a file and from options given by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gmcore.config.analysis import Analysis
from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import load_config, parse_config


def read_settings(path: Path) -> Analysis:
    """Return the settings of a YAML file: the keys of an analysis alone, or a run's whole configuration.

    ConfigError: not readable, or a key or value that is wrong.
    """
    of_a_run = path.is_file() and any(line.startswith("potential:") for line in path.read_text("utf-8").splitlines())
    return load_config(path, MDConfig).analysis if of_a_run else load_config(path, Analysis)


def with_options(settings: Analysis, options: dict[str, Any]) -> Analysis:
    """Return the settings with some replaced; ConfigError for a value that is wrong."""
    if not options:
        return settings
    text = yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True) | options)
    return parse_config(text, name="the options", kind=Analysis)
