"""Self-describing numbers, the building blocks of analysis.json and report.json.

A quantity is {"value", "unit", "about"} and, if known, "error" (one standard error from blocks of all replicas),
"committee" (the deviation between the members or draws of the D model), "model" (the calibrated error of the D model,
see `gmcore.analysis.model_errors`), "total" (error and model in quadrature), "interval" ([low, high], 95 %).

A curve is {"about", "x": axis, "y": axis[, "low", "high", "model"]}, an axis {"name", "unit", "values"}. Values that
are not finite become null, because JSON has no NaN. Paths are relative to the folder of the run.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from gmcore.errors import GMError
from gmcore.files import atomic_path, fitting, read_json, relative_path

DIGITS = 7  # of plotted curves: their files stay small
ANALYSIS_FILE = "analysis.json"
FORMAT = "gmtensor-analysis"
SCHEMA = 1
_ABSOLUTE = re.compile(r"(?:(?<=[\s'\"(=])|^)/[^\s'\"():;,]+")
_NUMBERS = re.compile(r"\[((?:\s+(?:-?[\d.]+(?:e[-+]?\d+)?|null),?)+)\s+\]")


class RecordError(GMError):
    """A file of results that is missing or was not written by this program."""


class _Analysis(BaseModel):
    """What every analysis holds, of any schema that this version reads."""

    model_config = ConfigDict(extra="allow")
    date: str
    gmtensor: str
    unit: str
    run: dict[str, Any]
    states: list[dict[str, Any]]
    training: dict[str, dict[str, Any]]
    missing: dict[str, str]


def quantity(
    value: ArrayLike | Mapping[str, ArrayLike],
    unit: str,
    about: str,
    *,
    error: ArrayLike | None = None,
    committee: ArrayLike | None = None,
    model: ArrayLike | None = None,
    interval: ArrayLike | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a self-describing number, array or mapping of arrays; entries that are None are left out.

    With `error` and `model` it also has "total", both in quadrature.
    """
    total = None if error is None or model is None else np.hypot(error, model)
    entries = {"value": value, "unit": unit, "error": error, "committee": committee, "model": model, "total": total}
    entries |= {"interval": interval, **more, "about": about}
    return {key: plain(entry) for key, entry in entries.items() if entry is not None}


def axis(name: str, unit: str, values: ArrayLike, digits: int = DIGITS) -> dict[str, Any]:
    """Return one axis of a curve, its values rounded to `digits` significant digits."""
    return {"name": name, "unit": unit, "values": plain(rounded(values, digits))}


def curve(x: dict[str, Any], y: dict[str, Any], about: str, **bands: ArrayLike) -> dict[str, Any]:
    """Return a curve of two axes; bands (low, high) are in the unit of y."""
    return {"about": about, "x": x, "y": y} | {name: plain(rounded(band, 4)) for name, band in bands.items()}


def rounded(values: ArrayLike, digits: int = DIGITS) -> np.ndarray:
    """Return values rounded to `digits` significant digits; zeros and values that are not finite stay as they are."""
    exact = np.asarray(values, dtype=np.float64)
    usual = np.isfinite(exact) & (exact != 0.0)
    power = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(exact, where=usual, out=np.ones_like(exact)))))
    return np.where(usual, np.round(exact * power) / power, exact)


def thinned(n: int, at_most: int) -> np.ndarray:
    """Return evenly spaced indices of at most `at_most` of n values, including the first and the last.

    Examples
    --------
    >>> thinned(9, 5).tolist()
    [0, 2, 4, 6, 8]
    """
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int)) if n else np.zeros(0, int)


def plain(value: Any) -> Any:
    """Return the value as types that JSON can hold: lists, numbers, None in place of numbers that are not finite."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def relative_paths(content: Any, folder: str | PathLike) -> Any:
    """Return the content with absolute paths made relative to a folder, also those inside sentences.

    Results can then be published without naming folders of the machine that computed them.

    Examples
    --------
    >>> relative_paths({"file": "/data/models/e.h5", "words": "no file /data/run/a.xyz", "unit": "eV/A"}, "/data/run")
    {'file': '../models/e.h5', 'words': 'no file a.xyz', 'unit': 'eV/A'}
    """
    root = os.path.abspath(folder)
    if isinstance(content, dict):
        return {key: relative_paths(entry, root) for key, entry in content.items()}
    if isinstance(content, (list, tuple)):
        return [relative_paths(entry, root) for entry in content]
    if isinstance(content, Path) or (isinstance(content, str) and os.path.isabs(content)):
        return relative_path(str(content), root)
    if isinstance(content, str):
        return _ABSOLUTE.sub(lambda found: relative_path(found[0], root), content)
    return content


def write_json(path: str | PathLike, content: dict[str, Any]) -> Path:
    """Write the content with lists of numbers on one line, completely or not at all, and return the path."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: "[" + ", ".join(found[1].replace(",", " ").split()) + "]", text)
    with atomic_path(path) as temporary:
        # half a surrogate pair, which JSON can hold, is written as JSON does: with a backslash
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return Path(path)


def read_analysis(run: str | PathLike) -> dict[str, Any]:
    """Read RUN/analysis.json.

    Raises
    ------
    RecordError : if the file is missing, is not JSON, was written by another program, or has a newer schema.
    """
    path, again = Path(run) / ANALYSIS_FILE, f"write it again with: gmtensor analyze {run}"
    try:
        content = read_json(path, Any, RecordError, again)
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist; write it with: gmtensor analyze {run}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordError(f"{path} is not an analysis written by gmtensor; {again}")
    if not isinstance(content.get("schema"), int):
        raise RecordError(f"{path} must state its schema, a whole number; {again}")
    if content["schema"] > SCHEMA:
        raise RecordError(
            f"{path} has schema {content['schema']}, this version of gmtensor reads up to {SCHEMA}: update gmtensor"
        )
    fitting(content, _Analysis, path, RecordError, again)
    return content
