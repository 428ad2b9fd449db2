"""Can the results of a run be trusted? One line for each question, from the content of analysis.json alone.

A line is {"name", "level": "green" | "amber" | "red", "words": sentence with its number, "value", "advice"}. A question
that cannot be judged has no line, unless the user should do something about it; such a line is amber and its value is
null. Each question is asked at every temperature, and the worst answer counts. The limits, and the reason of each:

model_error
    Calibrated model error of <D> over the thermal width of D, or over 5 % of |D| if that is more. The width goes to
    zero with the temperature, and 5 % is what levels of theory commonly differ by. Amber above 0.5: the error is no
    longer small beside the effect that the run was made for. Red above 1: it is larger. Amber without a calibration.
extrapolation
    Share of frames outside the training data. It is 1 % for the training data themselves, by definition of the grade,
    and up to 2 % for data like them. Amber above 5 %: the run visits other structures. Red above 50 %: most frames are
    such, so the average itself is an extrapolation.
temperature
    Kinetic temperature against the target. Thermal widths grow as the square root of the temperature. Red above 10 %
    (5 % of a width), whatever the error bar: the averages belong to another temperature. Amber above 3 % if the
    deviation is also more than two standard errors.
length
    Effective number of independent values of D: length over interval + 2 correlation times. A standard error from n
    values is uncertain by 1/sqrt(2 n). Amber below 100 (7 %), red below 20 (16 %).
equilibration
    Difference of the mean of D between the halves of each replica, over its standard error, largest of all replicas.
    Amber above 3: this happens by chance in 0.3 % of the replicas. Red above 5: it does not happen by chance.
harmonic
    Sampled averages against those of classical harmonic modes. Amber if the widths differ by more than a factor of 1.5
    or the means by more than the sampled width: the motion is not harmonic. Red above a factor of 3 or three widths:
    the run has left the minimum to which the modes belong, or the models are not smooth there.
explained
    Share of the variance of D that the expansion in the modes explains. Amber below 50 %: modes are not the cause of
    most of the motion of D. Red below zero: the expansion is worse than a constant.
test_error
    RMSE for structures that were not trained on, over that of predicting the mean of their reference values. Amber
    above 0.3 (the model explains less than 91 % of the variance), red above 0.7 (less than half of it).
sign
    Frames with D < 0. Amber from 1 to 99 %, if E/|D| is above 0.28 (1/3 is the rhombic limit, where D changes sign),
    or if |D| is less than two total errors. Red from 10 to 90 %, or if |D| is less than one total error: the mean of D
    mixes two signs and describes no frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LEVELS = ("green", "amber", "red")
MODELS = {"d_tensor": "D model", "potential": "potential"}

LITTLE_OF_D = 0.05
MODEL_ERROR = (0.5, 1.0)
OUTSIDE = (0.05, 0.5)
TEMPERATURE = (0.03, 0.1)
INDEPENDENT = (100.0, 20.0)
DRIFT = (3.0, 5.0)
WIDTH_RATIO = (1.5, 3.0)
MEAN_SHIFT = (1.0, 3.0)
EXPLAINED = (0.5, 0.0)
TEST_ERROR = (0.3, 0.7)
MIXED_SIGNS = (0.01, 0.1)
RHOMBIC = 0.28

Judged = tuple[float, dict[str, Any]]
"""A line, and a number that grows the worse it is, which decides between lines of one level."""


def trust_lines(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines for the content of analysis.json, in the order of the table above."""
    makers: tuple[Callable[[Mapping[str, Any]], Iterator[Judged]], ...] = (
        _model_error,
        _extrapolation,
        _temperature,
        _length,
        _equilibration,
        _harmonic,
        _explained,
        _test_error,
        _sign,
    )
    lines = []
    for maker in makers:
        found = list(maker(content))
        if found:
            lines.append(max(found, key=lambda one: (LEVELS.index(one[1]["level"]), one[0]))[1])
    return lines


def _line(name: str, level: int, words: str, value: float | None, advice: str = "") -> dict[str, Any]:
    return {"name": name, "level": LEVELS[level], "words": words, "value": value, "advice": advice if level else ""}


def _above(value: float, limits: tuple[float, float]) -> int:
    """Return 0, 1 or 2 for a value up to the first limit, up to the second, and beyond."""
    return (value > limits[0]) + (value > limits[1])


def _text(value: float) -> str:
    """Return a number with two digits, or without decimals."""
    return f"{value:.0f}" if abs(value) >= 10.0 else f"{value:.2g}"


def _number(entry: Any, key: str = "value") -> float | None:
    """Return a number of a quantity, None if it is not known."""
    found = entry.get(key) if isinstance(entry, Mapping) else None
    return float(found) if isinstance(found, (int, float)) and math.isfinite(found) else None


def _with_d(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [state for state in content["states"] if _number(state.get("anisotropy", {}).get("D")) is not None]


def _model_error(content: Mapping[str, Any]) -> Iterator[Judged]:
    unit = content["unit"]
    for state in _with_d(content):
        d, width = state["anisotropy"]["D"], _number(state["anisotropy"].get("D_width")) or 0.0
        error, scale = _number(d, "model"), max(width, LITTLE_OF_D * abs(d["value"]))
        if error is None:
            committee = _number(d, "committee")
            words = "The model error of <D> is not known, because the D model has no calibration"
            words += "." if committee is None else f" (its members differ by {_text(committee)} {unit})."
            advice = "Train the D model again with this version; older model files have no calibration."
            yield 0.0, _line("model_error", 1, words, None, advice)
        elif scale > 0.0:
            words = (
                f"The model error of <D> at {state['label']} is {_text(error)} {unit}; "
                f"the thermal width is {_text(width)} {unit}."
            )
            advice = "Compute D for some frames of this run, add them to the data of the D model, and train it again."
            yield error / scale, _line("model_error", _above(error / scale, MODEL_ERROR), words, error / scale, advice)


def _extrapolation(content: Mapping[str, Any]) -> Iterator[Judged]:
    recorded = False
    for state in content["states"]:
        for model, found in state.get("extrapolation", {}).items():
            share, largest = _number(found.get("share")), _number(found.get("largest"))
            if share is None:
                continue
            recorded = True
            words = (
                f"{_text(100 * share)} % of the frames at {state['label']} lie outside the training data of the "
                f"{MODELS[model]}"
            )
            details = [f"largest grade {_text(largest)}"] if largest is not None else []
            leading = [entry["atom"] for entry in found.get("atoms", [])[:3]]
            details += [f"most often {', '.join(leading)}"] if leading and share > OUTSIDE[0] else []
            words += f" ({'; '.join(details)})." if details else "."
            advice = f"Add such frames, with reference values, to the data of the {MODELS[model]} and train it again."
            yield share, _line("extrapolation", _above(share, OUTSIDE), words, share, advice)
    if not recorded and content.get("calibration"):
        words = "It is not known whether the run left the training data, because the run has no record of it."
        yield 0.0, _line("extrapolation", 1, words, None, "Run the dynamics again with this version.")


def _temperature(content: Mapping[str, Any]) -> Iterator[Judged]:
    for state in content["states"]:
        target, found = _number(state.get("target")), state.get("thermodynamics", {}).get("temperature")
        value, error = _number(found), _number(found, "error") or 0.0
        if target is None or value is None or target <= 0.0:
            continue
        off = abs(value - target) / target
        level = 2 if off > TEMPERATURE[1] else int(off > TEMPERATURE[0] and off * target > 2.0 * error)
        words = f"The mean kinetic temperature is {value:.4g} K where {target:g} K was asked for."
        advice = "Equilibrate longer, run longer, or couple the thermostat more strongly."
        yield off, _line("temperature", level, words, value / target, advice)


def _length(content: Mapping[str, Any]) -> Iterator[Judged]:
    run = content["run"]
    interval = _number(run.get("recorded", {}).get("d_tensor", {}).get("interval"))
    duration, discarded = _number(run.get("duration")), _number(run.get("discarded")) or 0.0
    for state in _with_d(content):
        time = _number(state["anisotropy"].get("correlation_time"))
        if time is None or duration is None or interval is None or not state.get("replicas"):
            continue
        n = len(state["replicas"]) * (duration - discarded) / (interval / 1000.0 + 2.0 * time)
        words = f"The run holds about {_text(n)} independent values of D at {state['label']}"
        words += f" (correlation time {_text(time)} ps)."
        advice = "Run longer or with more replicas; sampling errors from so few values are themselves uncertain."
        yield -n, _line("length", (n < INDEPENDENT[0]) + (n < INDEPENDENT[1]), words, n, advice)


def _equilibration(content: Mapping[str, Any]) -> Iterator[Judged]:
    for state in _with_d(content):
        found = state["anisotropy"].get("D_drift")
        pairs = zip(found["value"], found["error"]) if found else ()
        ratios = [(abs(drift) / error, drift) for drift, error in pairs if drift is not None and error]
        if not ratios:
            continue
        ratio, drift = max(ratios)
        words = (
            f"Between the halves of a replica at {state['label']}, the mean of D changes by at most "
            f"{_text(ratio)} of its standard errors ({_text(drift)} {content['unit']})."
        )
        advice = "Discard more at the beginning (analysis.discard), or equilibrate and run longer."
        yield ratio, _line("equilibration", _above(ratio, DRIFT), words, ratio, advice)


def _harmonic(content: Mapping[str, Any]) -> Iterator[Judged]:
    unit = content["unit"]
    for state in _with_d(content):
        expected = state.get("modes", {}).get("expected", {}).get("classical", {})
        pairs = [
            (_number(state["anisotropy"].get(name)), _number(expected.get(name))) for name in ("D_width", "D_of_mean")
        ]
        (width, harmonic), (mean, other) = pairs
        if width is None or harmonic is None or mean is None or other is None or min(width, harmonic) <= 0.0:
            continue
        ratio, shift = width / harmonic, abs(mean - other) / width
        level = max(_above(max(ratio, 1.0 / ratio), WIDTH_RATIO), _above(shift, MEAN_SHIFT))
        words = (
            f"At {state['label']} the width of D is {_text(ratio)} times that of harmonic modes, and D of the averaged "
            f"tensor differs from theirs by {_text(abs(mean - other))} {unit}."
        )
        advice = (
            "The motion is not harmonic: use the averages of the run, and look at the structure for another minimum."
        )
        yield max(ratio, 1.0 / ratio), _line("harmonic", level, words, ratio, advice)


def _explained(content: Mapping[str, Any]) -> Iterator[Judged]:
    for state in content["states"]:
        share = _number(state.get("modes", {}).get("explained"))
        if share is None:
            continue
        level = (share < EXPLAINED[0]) + (share < EXPLAINED[1])
        words = f"The harmonic modes explain {_text(100 * share)} % of the variance of D at {state['label']}"
        words += ", which is worse than a constant." if share < 0.0 else "."
        advice = (
            "Do not interpret dD/dq. The run has left the minimum of the modes, or the models are not accurate there."
            if share < 0.0
            else "Interpret dD/dq and the modes with care; most of the motion of D has another cause."
        )
        yield -share, _line("explained", level, words, share, advice)


def _test_error(content: Mapping[str, Any]) -> Iterator[Judged]:
    for model, names in (("d_tensor", ("d_tensor_D", "d_tensor")), ("potential", ("forces", "energy"))):
        metrics = (content["training"].get(model) or {}).get("metrics") or {}
        part = next((name for name in ("test", "validation") if metrics.get(name)), None)
        for name in names if part else ():
            found = metrics[part].get(name)
            rmse, other = _number(found, "rmse"), _number(found, "mean_rmse")
            if rmse is None or not other:
                continue
            of = {"d_tensor_D": "D", "d_tensor": "elements of D"}.get(name, name)
            words = (
                f"The {MODELS[model]} has an error (RMSE) of {_text(rmse)} {found['unit']} for {of} of {part} "
                f"structures; predicting the mean has {_text(other)} {found['unit']}."
            )
            advice = (
                f"Train the {MODELS[model]} longer or with more data; its learning curve shows how many are needed."
            )
            yield rmse / other, _line("test_error", _above(rmse / other, TEST_ERROR), words, rmse / other, advice)


def _sign(content: Mapping[str, Any]) -> Iterator[Judged]:
    for state in _with_d(content):
        found = state["anisotropy"]
        d, total = found["D"]["value"], _number(found["D"], "total") or _number(found["D"], "error") or 0.0
        negative, rhombicity = _number(found.get("negative_fraction")), _number(found.get("E_over_D"))
        if negative is None:
            continue
        level = _above(min(negative, 1.0 - negative), MIXED_SIGNS)
        level = max(level, int(rhombicity is not None and rhombicity > RHOMBIC))
        level = max(level, (abs(d) < 2.0 * total) + (abs(d) < total))
        share = 100.0 * max(negative, 1.0 - negative)
        words = (
            f"D is {'negative' if negative >= 0.5 else 'positive'} in {share:.3g} % of the frames at {state['label']}"
        )
        words += f", with a mean E/|D| of {_text(rhombicity)}." if rhombicity is not None else "."
        if abs(d) < 2.0 * total:
            words += " Its mean is not larger than two of its errors."
        advice = (
            "The sign of D is not settled: report the eigenvalues, J2 and D of the averaged tensor, not the mean of D."
        )
        yield min(negative, 1.0 - negative), _line("sign", level, words, negative, advice)
