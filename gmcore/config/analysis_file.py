"""Settings of an analysis from a file and from options of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gmcore.config.analysis import Analysis
from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import load_config, parse_config, read_yaml


def read_settings(path: Path) -> Analysis:
    """Read the settings from a YAML file with the keys of an analysis, or with the configuration of a run.

    Raises
    ------
    ConfigError : the file cannot be read, or a key or value is wrong.
    """
    content = read_yaml(path)
    of_a_run = isinstance(content, dict) and "potential" in content
    return load_config(path, MDConfig).analysis if of_a_run else load_config(path, Analysis)


def with_options(settings: Analysis, options: dict[str, Any]) -> Analysis:
    """Return the settings with some of them replaced by `options`, key -> value.

    Raises
    ------
    ConfigError : a value is wrong.
    """
    if not options:
        return settings
    text = yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True) | options)
    return parse_config(text, name="the options", kind=Analysis)
