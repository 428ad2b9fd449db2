"""Errors of the model in averages: what is the same in all frames stays, what differs averages out; draws."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gmcore.analysis.analyze import analyze
from gmcore.analysis.model_errors import are_draws, deviation, model_errors
from gmcore.analysis.records import quantity
from gmcore.config.analysis import Analysis
from gmcore.dynamics.runner import run_md
from gmcore.model_file import read_content, write_model
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.uncertainty import Uncertainty
from support.md_runs import configured

FRAME = np.diag([40.0, 30.0, -70.0])
GOOD = (0.3, 0.6), (0.68, 0.95)


def symmetric(rng, *shape) -> np.ndarray:
    values = rng.normal(size=(*shape, 3, 3))
    return 0.5 * (values + values.swapaxes(-1, -2))


def calibrations(factor: float) -> dict[str, Calibration]:
    return {name: Calibration("committee", factor, 0.1, 0.0, 50, *GOOD) for name in ("d_tensor", "D", "axis")}


def test_what_is_the_same_in_all_frames_stays(rng):
    shared, own = 0.4 * symmetric(rng, 100), 0.3 * symmetric(rng, 500, 100)  # 100 members show all of it
    members = FRAME + symmetric(rng, 500)[:, None] + shared + own
    tensors = members.mean(axis=1)
    errors = model_errors(tensors, members, calibrations(2.5))
    assert not errors.draws and errors.of_average("E") is None
    expected = 2.5 * np.sqrt(np.mean((shared - shared.mean(axis=0)) ** 2))
    assert errors.of_average("D") == errors.of_average("d_tensor") == pytest.approx(expected, rel=0.02)
    assert errors.of_average("axis") == pytest.approx(np.degrees(expected / 100.0), rel=0.1)
    assert errors.scaled("D", 2.0) == pytest.approx(5.0)
    in_other_unit = model_errors(10.0 * tensors, 10.0 * members, calibrations(2.5), factor=10.0)
    assert in_other_unit.of_average("D") == pytest.approx(10.0 * errors.of_average("D"))
    outside = model_errors(tensors, members, calibrations(2.5), grades=np.full(500, 3.0))
    assert outside.of_average("D") == pytest.approx(3.0 * errors.of_average("D"))


def test_draws_deviate_from_the_model_itself(rng):
    tensors = FRAME + symmetric(rng, 50)
    members = tensors[:, None] + symmetric(rng, 2)  # their mean is not the model
    errors = model_errors(tensors, members, calibrations(1.0))
    assert errors.draws and are_draws(tensors, members) and not are_draws(members.mean(axis=1), members)
    assert errors.averaged == pytest.approx(np.sqrt(np.mean((members - tensors[:, None]) ** 2)))
    assert deviation(np.array([3.0, 5.0]), np.array(0.0), True) == pytest.approx(np.sqrt(17.0))
    assert deviation(np.array([3.0, 5.0]), np.array(0.0), False) == pytest.approx(1.0)


def test_three_members_that_agree_by_chance_are_not_believed_entirely(rng):
    own = 0.3 * symmetric(rng, 400, 3)
    own -= own.mean(axis=0)  # every average is the same
    members = FRAME + own
    errors = model_errors(members.mean(axis=1), members, calibrations(1.0))
    of_frames = np.mean(np.sqrt(np.mean(own.var(axis=1), axis=(-1, -2))))
    assert errors.averaged == pytest.approx(of_frames * np.sqrt(0.5 / 3.0), rel=1e-6)


def test_both_parts_of_an_error_are_named():
    entry = quantity(1.0, "cm^-1", "D", error=0.3, model=0.4)
    assert (entry["error"], entry["model"], entry["total"]) == (0.3, 0.4, pytest.approx(0.5))
    assert "total" not in quantity(1.0, "cm^-1", "D", error=0.3)


@pytest.mark.slow
def test_a_run_carries_the_errors_of_a_single_model(inputs, tmp_path):
    content = read_content(inputs / "d_single.h5")
    known = {name: Calibration("last_layer", 2.0, 0.1, 0.0, 50, *GOOD) for name in ("d_tensor", "D", "E", "axis")}
    for name, entries in (("calibrated.h5", known), ("raw.h5", {})):
        uncertainty = Uncertainty(entries, content.uncertainty.environments)
        write_model(tmp_path / name, content.settings, content.members, uncertainty=uncertainty)
    d_tensor = {"model": str(tmp_path / "calibrated.h5"), "every": 1, "molecule": {"metal": "Co"}}
    record = {"positions": 1, "velocities": 0, "scalars": 1}
    run = run_md(configured(inputs, tmp_path / "run", d_tensor=d_tensor, record=record, equilibration=0.0))
    settings = Analysis(blocks=2, modes=False, unit="GHz")
    found = analyze(run, settings)
    assert set(found["calibration"]) == {"d_tensor"} and found["calibration"]["d_tensor"]["D"]["factor"] == 2.0
    assert "model_errors" not in found["missing"]
    for state in found["states"]:
        d, committee = state["anisotropy"]["D"], state["committee"]["d_tensor"]["mean"]["value"]
        assert d["total"] == pytest.approx(np.hypot(d["error"], d["model"]))
        largest = max(state["extrapolation"]["d_tensor"]["largest"]["value"], 1.0)
        assert 0.5 * committee < d["model"] < 2.5 * committee * largest  # one structure: nothing averages out
        assert state["anisotropy"]["D_width"]["model"] > 0.0 and state["elements"]["xy"]["mean"]["model"] > 0.0
        assert state["anisotropy"]["axis_error"]["model"] > 0.0
        for entry in state["extrapolation"].values():
            assert 0.0 <= entry["share"]["value"] <= 1.0 and ("atoms" in entry) == (entry["share"]["value"] > 0.0)
    text = (run / "config.yaml").read_text().replace("calibrated.h5", "raw.h5")
    (run / "config.yaml").write_text(text)
    found = analyze(run, settings)
    assert "no calibration of D; train it again" in found["missing"]["model_errors"]
    assert '"model":' not in json.dumps(found["states"]) and found["calibration"] == {}
