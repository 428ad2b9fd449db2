"""The base class of all sections: unknown keys are errors, and paths are relative to the configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
    model_validator,
)

from gmcore.errors import excerpt
from gmcore.files import relative_path
from gmcore.suggest import did_you_mean


def resolved(path: Path, info: ValidationInfo) -> Path:
    """Return a path, joined to the folder of the configuration file if that is known."""
    folder = (info.context or {}).get("folder")
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in str(path)):
        raise ValueError(f"{info.field_name} must be a path without unprintable characters, got {excerpt(str(path))}")
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError(f"{info.field_name} must be in a folder that exists, got {excerpt(str(path))}") from None
    return path if folder is None else Path(os.path.normpath(folder / path))  # no "examples/x/../../runs" in messages


def _written(path: Path, info: SerializationInfo) -> str:
    """Return the path as text, seen from the folder of the context where there is one."""
    folder = (info.context or {}).get("relative_to")
    return str(path) if folder is None else relative_path(path, folder)


def listed(value: Any) -> Any:
    """Allow one path or name instead of a list of them."""
    return [value] if isinstance(value, (str, Path)) else value


ConfigPath = Annotated[Path, AfterValidator(resolved), PlainSerializer(_written, return_type=str, when_used="json")]
ConfigPaths = Annotated[list[ConfigPath], BeforeValidator(listed)]
IMPORT_PATH = r"[^:./\s\x00-\x1f]+(\.[^:./\s\x00-\x1f]+)*"
"""Dotted name of something in a Python module."""
Weight = Annotated[float, Field(ge=0.0, le=1e9)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A section of a configuration; for an unknown key, the error message suggests the most similar known key."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)
    section: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if value is None:  # "energy:" with nothing after it means the defaults
            return {}
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"{cls.section} must contain keys and values, got {excerpt(value)}")
        for key in value:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {excerpt(key)} in {cls.section}{did_you_mean(key, cls.model_fields)}")
        return value
