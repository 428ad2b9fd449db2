"""Numbers as text: no more digits than the error allows, a true minus sign, units as usually written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

MISSING = "–"
PLUS_MINUS = "\u00a0±\u00a0"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNITS = {
    "A": "Å",
    "eV/A": "eV/Å",
    "cm^-1": "cm⁻¹",
    "deg": "°",
    "ueV/(atom ps)": "µeV/(atom·ps)",
    "(cm^-1)^2": "cm⁻²",
}


def unit_text(unit: str) -> str:
    """Return a unit as it is written in text."""
    return UNITS.get(unit, unit)


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with `digits` significant digits, with a power of ten below 1e-4 and from 1e6.

    Examples
    --------
    >>> number(-105.7123), number(0.0), number(None), number(1.25e-7, 2)
    ('−105.7', '0', '–', '1.2·10⁻⁷')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0.0:
        return "0"
    decimals = _decimals(value, digits)
    if decimals is None:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return _minus(mantissa) + "·10" + str(int(power)).translate(SUPERSCRIPTS)
    return _minus(f"{value:.{decimals}f}")


def with_error(value: float | None, error: float | None, decimals: int | None = None) -> str:
    """Return value ± error, the error with two digits and the value with as many decimals, or both with `decimals`.

    Examples
    --------
    >>> with_error(-105.7123, 0.0834).split(), with_error(1234.0, 56.0).split(), with_error(1.5, None)
    (['−105.712', '±', '0.083'], ['1234', '±', '56'], '1.500')
    """
    if value is None or error is None or not (math.isfinite(value) and math.isfinite(error)) or error == 0.0:
        return number(value) if decimals is None else fixed(value, decimals)
    own = _error_decimals(error)
    if own is None:
        return f"{number(value)}{PLUS_MINUS}{number(error, 2)}"
    decimals = own if decimals is None else decimals
    return _minus(f"{_rounded(value, decimals)}{PLUS_MINUS}{error:.{decimals}f}")


def _error_decimals(error: float) -> int | None:
    """Return the decimals of an error with two digits, None if it is written with a power of ten."""
    if not 1e-6 <= error < 1e6:
        return None
    decimals = max(0, 1 - math.floor(math.log10(error)))
    if float(f"{error:.{decimals}f}") >= 10.0 ** (2 - decimals):  # 0.0996 rounds up to 0.100
        decimals = max(0, decimals - 1)
    return decimals


def with_interval(value: float | None, interval: list[float] | None, decimals: int = 2) -> str:
    """Return value [low, high].

    Examples
    --------
    >>> with_interval(0.881, [-0.001, 0.9001])
    '0.88 [0.00, 0.90]'
    """
    if value is None:
        return MISSING
    text = _rounded(value, decimals)
    if interval is not None and None not in interval:
        text += f" [{_rounded(interval[0], decimals)}, {_rounded(interval[1], decimals)}]"
    return _minus(text)


def quantity_text(entry: dict[str, Any] | None, digits: int = 4) -> str:
    """Return a quantity of `gmcore.analysis.records` without its unit, with its total error if that is known."""
    return row_texts([entry], digits)[0]


def row_texts(entries: Sequence[dict[str, Any] | None], digits: int = 4) -> list[str]:
    """Return the quantities of a row, all with as many decimals as the one with the smallest error needs.

    Examples
    --------
    >>> entries = [{"value": -46.668, "error": 0.31}, {"value": -47.96, "error": 1.2}, None]
    >>> [text.split()[0] for text in row_texts(entries)]
    ['−46.67', '−47.96', '–']
    """
    known = [entry for entry in entries if entry and entry["value"] is not None and not _is_interval(entry)]
    errors = [error for entry in known if (error := _error(entry))]
    wanted = [_error_decimals(error) for error in errors] or [
        _decimals(entry["value"], digits) for entry in known if entry["value"]
    ]
    counts = [count for count in wanted if count is not None]
    decimals = None
    if counts and len(counts) == len(wanted):
        decimals = max(counts) if errors else min(max(counts), min(counts) + 2)
    texts = []
    for entry in entries:
        if not entry:
            texts.append(MISSING)
        elif _is_interval(entry):
            texts.append(with_interval(entry["value"], entry["interval"]))
        elif _error(entry) is None and decimals is None:
            texts.append(number(entry["value"], digits))
        else:
            texts.append(with_error(entry["value"], _error(entry), decimals))
    return texts


def _is_interval(entry: dict[str, Any]) -> bool:
    return entry.get("interval") is not None and entry.get("error") is None


def _error(entry: dict[str, Any]) -> float | None:
    """Return the total error of a quantity, else its sampling error."""
    return entry["total"] if entry.get("total") is not None else entry.get("error")


def _decimals(value: float, digits: int) -> int | None:
    """Return the decimals of a number with `digits` significant digits, None if it is written with a power of ten."""
    if not 1e-4 <= abs(value) < 1e6:
        return None
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def fixed(value: float | None, n: int) -> str:
    """Return a number with n decimals."""
    return MISSING if value is None else _minus(_rounded(value, n))


def as_given(values: Sequence[float], factor: float = 1.0) -> list[str]:
    """Return published numbers, times a factor, all with the same number of decimals.

    The largest keeps its number of significant digits. A trailing zero counts as significant if the decimal point or
    the other end of a range shows it.

    Examples
    --------
    >>> as_given([-106.0]), as_given([0.1, 0.15], 0.0433641), as_given([1.2], 29979.2458)
    (['−106.0'], ['0.0043', '0.0065'], ['36000'])
    """
    decimals = max(-int(Decimal(str(value)).as_tuple().exponent) for value in values)
    largest = max(abs(value) for value in values)
    if largest > 0.0 and factor != 1.0:
        # keep the digits: one more decimal for each place that the first digit moves down
        decimals += math.floor(math.log10(largest)) - math.floor(math.log10(factor * largest))
    return [_minus(_rounded(factor * value, decimals)) for value in values]


def _rounded(value: float, decimals: int) -> str:
    """Return a value with so many decimals, zero without a sign."""
    return f"{round(value, decimals) + 0.0:.{max(decimals, 0)}f}"


def with_unit(label: str, unit: str) -> str:
    """Return "label / unit", with parentheses if the unit is a ratio itself."""
    return f"{label} / ({unit})" if "/" in unit else f"{label} / {unit}" if unit else label


def _minus(text: str) -> str:
    return text.replace("-", "−")
