"""From YAML to a checked configuration, or to one sentence that says what is wrong and where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from gmcore.config.section import Section
from gmcore.config.training import TrainConfig
from gmcore.errors import GMError


class ConfigError(GMError):
    """A configuration that cannot be used."""


Config = TypeVar("Config", bound=Section)


def load_config(path: str | os.PathLike, kind: type[Config] = TrainConfig) -> Config:
    """Read a YAML file as the `kind` of configuration; paths in it are relative to its folder.

    Raises
    ------
    ConfigError : not readable, not YAML (with the line), or a key or value that is wrong (with its place).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from error
    return parse_config(text, folder=path.resolve().parent, name=str(path), kind=kind)


def parse_config(
    text: str, folder: Path | None = None, name: str = "configuration", kind: type[Config] = TrainConfig
) -> Config:
    """Check the YAML `text`; relative paths in it are taken from `folder`, `name` stands in messages."""
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name}{place}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{name} must hold keys and values, got {'nothing' if raw is None else repr(raw)}")
    try:
        return kind.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(f"{name}: {_sentence(error)}") from error


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the plain loader keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                message = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _sentence(error: ValidationError) -> str:
    """Return the first thing that is wrong, with its place; further ones are counted."""
    errors = error.errors(include_url=False)
    # an unknown key is the likeliest cause of a missing one: say it first
    first = min(errors, key=lambda e: "unknown" not in e["msg"])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
    elif first["type"] == "missing":
        message = f"{place} is missing"
    else:
        got = first["input"]
        shown = f", got {got!r}" if isinstance(got, (str, int, float, bool)) else f", got a {type(got).__name__}"
        message = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}"
    rest = len(errors) - 1
    return message + (f" (and {rest} more)" if rest else "")
