"""Numbers that describe themselves, as they stand in analysis.json and report.json.

A quantity is {"value", "unit", "about"} and, where they are known, "error" (one standard error from blocks of all
replicas), "committee" (what the spread of the D models over their members adds), "interval" ([low, high], 95 %). A
curve is {"about", "x": axis, "y": axis[, "low", "high"]}, an axis {"name", "unit", "values"}. What is not finite is
null: JSON has no NaN.
"""

from __future__ import annotations

import json
import math
import re
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gmcore.errors import GMError
from gmcore.files import atomic_path

DIGITS = 7  # of plotted curves: their files stay small
ANALYSIS_FILE = "analysis.json"
FORMAT = "gmtensor-analysis"
SCHEMA = 1
_NUMBERS = re.compile(r"\[((?:\s+(?:-?[\d.]+(?:e[-+]?\d+)?|null),?)+)\s+\]")


class RecordError(GMError):
    """A file of results that is missing or not of this program."""


def quantity(
    value: ArrayLike,
    unit: str,
    about: str,
    *,
    error: ArrayLike | None = None,
    committee: ArrayLike | None = None,
    interval: ArrayLike | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a self-describing number or array; what is None is left out."""
    entries = {"value": value, "unit": unit, "error": error, "committee": committee, "interval": interval, **more}
    entries["about"] = about
    return {key: plain(entry) for key, entry in entries.items() if entry is not None}


def axis(name: str, unit: str, values: ArrayLike, digits: int = DIGITS) -> dict[str, Any]:
    """Return one axis of a curve, its values rounded to `digits` significant digits."""
    return {"name": name, "unit": unit, "values": plain(rounded(values, digits))}


def curve(x: dict[str, Any], y: dict[str, Any], about: str, **bands: ArrayLike) -> dict[str, Any]:
    """Return a curve of two axes; bands (low, high) are in the unit of y."""
    return {"about": about, "x": x, "y": y} | {name: plain(rounded(band, 4)) for name, band in bands.items()}


def rounded(values: ArrayLike, digits: int = DIGITS) -> np.ndarray:
    """Return values with so many significant digits; zeros and what is not finite stay as they are."""
    values = np.asarray(values, dtype=np.float64)
    usual = np.isfinite(values) & (values != 0.0)
    power = 10.0 ** (digits - 1 - np.floor(np.log10(np.abs(values, where=usual, out=np.ones_like(values)))))
    return np.where(usual, np.round(values * power) / power, values)


def thinned(n: int, at_most: int) -> np.ndarray:
    """Return evenly spaced indices of at most `at_most` of n values, first and last among them.

    >>> thinned(9, 5).tolist()
    [0, 2, 4, 6, 8]
    """
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(int)) if n else np.zeros(0, int)


def plain(value: Any) -> Any:
    """Return the value as what JSON can hold: lists, numbers, null in place of what is not finite."""
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


def write_json(path: str | PathLike, content: dict[str, Any]) -> Path:
    """Write the content, lists of numbers on one line, whole or not at all and return the path."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    text = _NUMBERS.sub(lambda found: "[" + ", ".join(found[1].replace(",", " ").split()) + "]", text)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def read_analysis(run: str | PathLike) -> dict[str, Any]:
    """Read RUN/analysis.json.

    Raises
    ------
    RecordError : missing, not JSON, of another program or of a newer schema.
    """
    path = Path(run) / ANALYSIS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist; write it with: gmtensor analyze {run}") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordError(f"{path} is no analysis of gmtensor")
    if content["schema"] > SCHEMA:
        raise RecordError(f"{path} has schema {content['schema']}, this program knows up to {SCHEMA}: update gmtensor")
    return content
