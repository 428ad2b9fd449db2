"""Callbacks of Keras that a configuration names: their form only, because nothing is imported when one is checked."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from gmcore.config.section import IMPORT_PATH
from gmcore.errors import excerpt
from gmcore.suggest import did_you_mean

Callback = TypedDict("Callback", {"class": str, "arguments": dict[str, Any]})
"""Import path of a class, and what it is called with."""


def _spelled_out(entries: Any) -> Any:
    """One entry instead of a list of one; "path" instead of {"class": "path"}; no arguments instead of none."""
    if isinstance(entries, (str, dict)):
        entries = [entries]
    return [_entry(entry) for entry in entries] if isinstance(entries, list) else entries


def _entry(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        entry = {"class": entry}
    for key in entry:
        if key not in Callback.__annotations__:
            raise ValueError(
                f"unknown key {excerpt(key)} in training.callbacks{did_you_mean(key, Callback.__annotations__)}"
            )
    path, arguments = entry.get("class"), entry.get("arguments")
    if not isinstance(path, str) or not re.fullmatch(IMPORT_PATH, path) or "." not in path:
        raise ValueError(
            "training.callbacks must have the import path of a class in each entry, such as "
            f"keras.callbacks.TerminateOnNaN, got {excerpt(path)}"
        )
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict) or not _is_plain(arguments):
        raise ValueError(
            f"the arguments of {excerpt(path)} in training.callbacks must be names with numbers, texts, true, false, "
            f"null, lists or mappings of these, got {excerpt(arguments)}"
        )
    return {"class": path, "arguments": arguments}


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value; the fingerprint of a training and the model file need that."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))


_WITH_ARGUMENTS = {
    "type": "object",
    "properties": {"class": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["class"],
    "additionalProperties": False,
}
Callbacks = Annotated[
    list[Callback],
    BeforeValidator(_spelled_out),
    WithJsonSchema({"type": "array", "items": {"anyOf": [{"type": "string"}, _WITH_ARGUMENTS]}}),
]
