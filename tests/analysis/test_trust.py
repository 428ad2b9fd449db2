"""The lines that say whether results can be trusted: each level of each question, and what is left out."""

from __future__ import annotations

import copy

import pytest

from gmcore.analysis.sections.trust import trust_lines

STATE = {
    "label": "100 K",
    "target": {"value": 100.0},
    "replicas": [0, 1],
    "thermodynamics": {"temperature": {"value": 101.0, "error": 1.5}},
    "anisotropy": {
        "D": {"value": -48.0, "error": 0.3, "committee": 1.2, "model": 1.5, "total": 1.53},
        "D_width": {"value": 6.0},
        "D_of_mean": {"value": -47.0},
        "D_drift": {"value": [0.2, -0.5], "error": [0.4, 0.4]},
        "E_over_D": {"value": 0.03},
        "negative_fraction": {"value": 1.0},
        "correlation_time": {"value": 0.05},
    },
    "extrapolation": {"d_tensor": {"share": {"value": 0.02}, "largest": {"value": 1.1}, "atoms": []}},
    "modes": {
        "expected": {"classical": {"D_width": {"value": 5.5}, "D_of_mean": {"value": -49.0}}},
        "explained": {"value": 0.8},
    },
}
CONTENT = {
    "unit": "cm^-1",
    "run": {"duration": {"value": 8.0}, "recorded": {"d_tensor": {"interval": {"value": 4.0}}}},
    "calibration": {"d_tensor": {}},
    "training": {"d_tensor": {"metrics": {"test": {"d_tensor_D": {"rmse": 1.0, "mean_rmse": 8.0, "unit": "cm^-1"}}}}},
    "states": [STATE],
}
NAMES = "model_error extrapolation temperature length equilibration harmonic explained test_error sign".split()


def judged(**changes) -> dict:
    """The lines by name, after some entries of the state were replaced: section__name__key=value."""
    content = copy.deepcopy(CONTENT)
    for path, value in changes.items():
        *keys, last = path.split("__")
        entry = content["states"][0]
        for key in keys:
            entry = entry[key]
        entry[last] = value
    return {line["name"]: line for line in trust_lines(content)}


def test_a_good_run_is_green_and_every_question_has_a_line():
    lines = judged()
    assert list(lines) == NAMES
    assert all(line["level"] == "green" and line["advice"] == "" for line in lines.values()), lines
    assert lines["model_error"]["value"] == pytest.approx(0.25)
    assert lines["length"]["value"] == pytest.approx(2 * 8.0 / 0.104)
    assert lines["equilibration"]["value"] == pytest.approx(1.25)
    assert lines["test_error"]["value"] == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("name", "path", "amber", "red"),
    [
        ("model_error", "anisotropy__D__model", 4.0, 7.0),
        ("extrapolation", "extrapolation__d_tensor__share__value", 0.1, 0.9),
        ("temperature", "thermodynamics__temperature__value", 95.0, 70.6),
        ("length", "anisotropy__correlation_time__value", 0.2, 1.0),
        ("equilibration", "anisotropy__D_drift__value", [0.1, 1.5], [-3.0, 0.0]),
        ("harmonic", "anisotropy__D_width__value", 9.0, 1.5),
        ("explained", "modes__explained__value", 0.3, -0.765),
        ("sign", "anisotropy__negative_fraction__value", 0.95, 0.5),
        ("sign", "anisotropy__D__total", 30.0, 50.0),
    ],
)
def test_each_question_has_three_answers(name, path, amber, red):
    for value, level in ((amber, "amber"), (red, "red")):
        line = judged(**{path: value})[name]
        assert line["level"] == level and line["words"].endswith(".") and line["advice"].endswith("."), line


def test_the_worst_temperature_counts():
    content = copy.deepcopy(CONTENT)
    worse = copy.deepcopy(STATE) | {"label": "300 K", "target": {"value": 300.0}}
    worse["thermodynamics"]["temperature"]["value"] = 200.0
    content["states"].append(worse)
    line = next(line for line in trust_lines(content) if line["name"] == "temperature")
    assert line["level"] == "red" and "200 K where 300 K" in line["words"]


def test_an_error_of_the_width_is_judged_by_d_where_the_width_is_small():
    lines = judged(anisotropy__D_width__value=0.3, anisotropy__D__model=0.6)
    assert lines["model_error"]["level"] == "green"


def test_what_is_not_known_has_no_line_unless_the_user_should_act():
    content = copy.deepcopy(CONTENT) | {"training": {}, "calibration": {}}
    content["states"] = [
        {
            "label": "0",
            "target": {"value": None},
            "replicas": [0],
            "thermodynamics": {},
            "anisotropy": {"D": {"value": 5.0}},
        }
    ]
    (line,) = trust_lines(content)
    assert (line["name"], line["level"], line["value"]) == ("model_error", "amber", None) and "Train" in line["advice"]
    content["calibration"] = {"d_tensor": {}}
    assert [line["name"] for line in trust_lines(content)] == ["model_error", "extrapolation"]
    content["states"] = [{"label": "0", "target": {"value": None}, "thermodynamics": {}}]
    content["calibration"] = {}
    assert trust_lines(content) == []
