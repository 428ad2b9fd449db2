"""Read and check YAML configurations; an error is one sentence that says what is wrong and where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar, overload

import yaml
from pydantic import ValidationError

from gmcore.config.section import Section
from gmcore.config.training import TrainConfig
from gmcore.errors import GMError


class ConfigError(GMError):
    """A configuration cannot be used."""


Config = TypeVar("Config", bound=Section)


@overload
def load_config(path: str | os.PathLike[str]) -> TrainConfig: ...
@overload
def load_config(path: str | os.PathLike[str], kind: type[Config]) -> Config: ...
def load_config(path: str | os.PathLike[str], kind: type[Section] = TrainConfig) -> Section:
    """Read a configuration file. Relative paths in it start from its folder.

    Parameters
    ----------
    path : YAML file.
    kind : class of the configuration.

    Raises
    ------
    ConfigError : the file cannot be read, is not YAML, or a key or value is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"the configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    return parse_config(text, folder=path.resolve().parent, name=str(path), kind=kind)


@overload
def parse_config(text: str, folder: Path | None = None, name: str = "configuration") -> TrainConfig: ...
@overload
def parse_config(
    text: str, folder: Path | None = None, name: str = "configuration", *, kind: type[Config]
) -> Config: ...
def parse_config(
    text: str, folder: Path | None = None, name: str = "configuration", *, kind: type[Section] = TrainConfig
) -> Section:
    """Check a configuration given as text.

    Parameters
    ----------
    text : YAML.
    folder : folder from which relative paths start (default: they stay relative).
    name : name of the configuration, for messages.
    kind : class of the configuration.

    Raises
    ------
    ConfigError : the text is not YAML, or a key or value is wrong.
    """
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name}{place}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{name} must contain keys and values, got {'none' if raw is None else repr(raw)}")
    try:
        return kind.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(f"{name}: {_sentence(error)}") from error


class _Loader(yaml.SafeLoader):
    """YAML loader that raises an error for duplicate keys; the plain loader silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Construct a mapping after checking that its keys are unique."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                message = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _sentence(error: ValidationError) -> str:
    """Describe the first error and its place; further errors are only counted."""
    errors = error.errors(include_url=False)
    # a misspelled key is the most likely reason why a key is missing, so report unknown keys first
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
