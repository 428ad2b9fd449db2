"""Read and check YAML configurations; an error is one sentence that says what is wrong and where."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import yaml
from pydantic import ValidationError

from gmcore.config.section import Section
from gmcore.config.training import TrainConfig
from gmcore.config.yaml_text import MAX_BYTES, load_yaml
from gmcore.errors import LONGEST, GMError, excerpt, shortened


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
    return _validated(read_yaml(path), path.resolve().parent, str(path), kind)


def load_runs(path: str | os.PathLike[str], kind: type[Config]) -> dict[str, Config]:
    """Read a configuration file that may describe several runs: what `runs` says of each replaces what stands outside.

    The output of a run is a folder of its name in that of the file, unless the run has one of its own.

    Returns
    -------
    The configuration of each run by its name; of a file without `runs`, its configuration under "".

    Raises
    ------
    ConfigError : the file cannot be read, is not YAML, or a key or value is wrong.
    """
    path = Path(path)
    raw = read_yaml(path)
    if not isinstance(raw, dict) or "runs" not in raw:
        return {"": load_config(path, kind)}
    runs, common = raw["runs"], {key: value for key, value in raw.items() if key != "runs"}
    if not isinstance(runs, dict) or not runs or not all(isinstance(own, (dict, type(None))) for own in runs.values()):
        raise ConfigError(
            f"{path}: runs must have a name and keys for each run, for example runs: {{a: {{time_step: 1}}}}"
        )
    found = {}
    for name, own in runs.items():
        if not re.fullmatch(r"\w[\w.-]*", str(name)):
            raise ConfigError(f"{path}: the name of a run must have letters, digits, _, . and -, got {excerpt(name)}")
        content = _merged(common, own or {})
        if "output" in common and "output" not in (own or {}):
            content["output"] = os.path.join(str(common["output"]), str(name))
        found[str(name)] = cast(Config, _validated(content, path.resolve().parent, f"{path}, run {name}", kind))
    outputs = [str(config.output) for config in found.values() if hasattr(config, "output")]
    if len(set(outputs)) < len(outputs):
        raise ConfigError(f"{path}: each run needs an output of its own")
    return found


def _merged(common: dict[Any, Any], own: dict[Any, Any]) -> dict[Any, Any]:
    """Return what a run says, and what stands outside where it says nothing, section by section."""
    both = dict(common)
    for key, value in own.items():
        earlier = both.get(key)
        both[key] = _merged(earlier, value) if isinstance(earlier, dict) and isinstance(value, dict) else value
    return both


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file: dictionaries, lists, texts, numbers, None.

    Raises
    ------
    ConfigError : the file cannot be read, is too large, or is not YAML.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"the configuration file {shortened(str(path))} does not exist") from None
    except (OSError, ValueError) as error:
        name = shortened(str(path))
        raise ConfigError(f"the configuration file {name} cannot be read: {shortened(str(error))}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"the configuration file {path} must not be larger than {MAX_BYTES} bytes")
    return _parsed(text, str(path))


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
    return _validated(_parsed(text, name), folder, name, kind)


def _parsed(text: str, name: str) -> Any:
    try:
        return load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name}{place}: {shortened(str(error.problem or error.context), 2 * LONGEST)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}, line {line}: {shortened(str(error))}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{name} cannot be read as YAML: {shortened(str(error))}") from error


def _validated(raw: Any, folder: Path | None, name: str, kind: type[Section]) -> Section:
    if not isinstance(raw, dict):
        raise ConfigError(f"{name} must contain keys and values, got {'none' if raw is None else excerpt(raw)}")
    try:
        return kind.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(f"{name}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    """Describe the first error and its place; further errors are only counted."""
    errors = error.errors(include_url=False)
    # a misspelled key is the most likely reason why a key is missing, so report unknown keys first
    first = min(errors, key=lambda e: "unknown" not in e["msg"])
    place = shortened(".".join(str(part) for part in first["loc"]))
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
    elif first["type"] == "missing":
        message = f"{place} is missing"
    else:
        got = first["input"]
        shown = f", got {excerpt(got)}" if isinstance(got, (str, int, float, bool)) else f", got a {type(got).__name__}"
        message = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}"
    rest = len(errors) - 1
    return message + (f" (and {rest} more)" if rest else "")
