"""`predict`, `evaluate` and `info` on models that know their errors, and on those that do not."""

from __future__ import annotations

import csv
import json

from ase.io import write

from gmcore.model_file import read_content, write_model
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.uncertainty import Uncertainty
from support.command_line import refused, run
from support.md_runs import MOLECULE


def test_errors_and_what_lies_outside(inputs, tmp_path):
    content = read_content(inputs / "single.h5")
    known = {"energy": Calibration("last_layer", 2.0, 0.25, 0.0, 50, (0.31, 0.62), (0.7, 0.94))}
    uncertainty = Uncertainty(known, content.uncertainty.environments)
    write_model(tmp_path / "model.h5", content.settings, content.members, uncertainty=uncertainty)
    stretched = MOLECULE.copy()
    stretched.positions[3] += [0.5, 0.5, 0.0]
    write(tmp_path / "s.extxyz", [MOLECULE, stretched])

    def predicted(*options) -> tuple[set, str]:
        found = run("predict", tmp_path / "model.h5", tmp_path / "s.extxyz", "-o", tmp_path / "p.csv", *options)
        assert found.code == 0
        with open(tmp_path / "p.csv", newline="") as file:
            return set(next(csv.DictReader(file))), found.err

    columns, said = predicted()
    assert {
        "energy_std [eV]",
        "energy_error [eV]",
        "extrapolation",
    } <= columns and "stress_std_xx [eV/A^3]" not in columns
    assert said.startswith("1 of 2 structures lies outside the training data (extrapolation above 1), most often by ")
    assert "stress_std_xx [eV/A^3]" in predicted("--errors", "all")[0]
    columns, said = predicted("--errors", "none")
    assert "extrapolation" not in columns and "outside" not in said
    message = refused(
        "predict", tmp_path / "model.h5", tmp_path / "s.extxyz", "-o", tmp_path / "p.csv", "--errors", "a"
    )
    assert message == "--errors must be one of default, all, none, got 'a'"
    lines = run("info", tmp_path / "model.h5").out
    assert "error of energy: 2 +- 0.25 times the deviation of draws of the last layer, from 50 structures" in lines
    assert "within 1 and 2 errors 70 % and 94 % (raw deviations: 31 % and 62 %)" in lines
    facts = json.loads(run("info", tmp_path / "model.h5", "--json").out)
    assert facts["errors"]["energy"]["factor"] == 2.0 and facts["knows_training_data"]
    assert "extrapolation grades: none" in run("info", inputs / "bare.h5").out
    run("predict", inputs / "single.h5", tmp_path / "s.extxyz", "-o", tmp_path / "data.h5", "--errors", "all")
    found = run("evaluate", tmp_path / "model.h5", tmp_path / "data.h5")
    assert found.code == 0 and "within 1, 2 errors" in found.out and "100 %, 100 %" in found.out
    assert "outside the training data of energy, forces: 1 of 2 structures, largest extrapolation" in found.out
