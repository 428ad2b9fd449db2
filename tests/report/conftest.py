"""A run with everything, its report and figures, made once for all tests of the report."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import gmcore.commands.app
from gmcore.analysis import analyze as module
from gmcore.model import load_model
from gmcore.model_file import write_model
from gmcore.report.html import write_report
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.uncertainty import Uncertainty
from support.models import random_model, random_parts
from support.synthetic_runs import complex_molecule, synthetic_run
from support.training_folders import ERRORS, write_training_folder

CALIBRATED = ("d_tensor", "D", "E", "axis")
REFERENCE = """
mesa_order: 30
blocks: 4
bonds: [[0, 5]]
reference:
  source: Somebody 2020
  note: At another level of theory.
  values:
    - {quantity: D, value: -100.5, unit: cm^-1, temperature: 50}
    - {quantity: E, value: 30.0, unit: GHz, temperature: 25}
    - {quantity: correlation_D_order, value: 0.88, temperature: 100}
    - {quantity: d_deviation, value: [0.11, 0.2], unit: cm^-1}
    - {quantity: forces_deviation, value: 0.1, unit: kcal/mol/A, temperature: 50}
    - {quantity: distance, value: 2.0, unit: A, temperature: 50}
    - {quantity: training_rmse, value: 0.58, unit: cm^-1}
"""


def training(folder, rng) -> None:
    """Write a training folder like those of gmkeras: model, metrics, configuration, data, learning curve."""
    known = {name: Calibration("committee", 1.5, 0.1, 0.0, 50, (0.5, 0.8), (0.7, 0.95)) for name in CALIBRATED}
    parts = random_parts(("d_tensor",), species=(1, 7, 27), n_members=2)
    write_model(folder / "model.h5", *parts, uncertainty=Uncertainty(known))
    frames = []
    for _ in range(12):
        atoms = complex_molecule()
        atoms.rattle(0.05, rng=rng)
        tensor = load_model(folder / "model.h5").predict(atoms)["d_tensor"][0]
        noise = 0.1 * rng.normal(size=(3, 3))
        atoms.info["D"] = tensor + noise + noise.T
        frames.append(atoms)
    of_d = {**ERRORS, "n": 5, "mean_rmse": 1.2, "r2": 0.75, "wrong_sign": 1}
    write_training_folder(folder, frames, (5, 2, 5), d_tensor_D=of_d)


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    """Return a run with everything, its report, and the figures that were saved for it."""
    folder = tmp_path_factory.mktemp("report")
    answer = synthetic_run(folder / "run", n_samples=500)
    (folder / "d_model").mkdir()
    training(folder / "d_model", np.random.default_rng(5))
    random_model(folder / "potential.h5", ("energy",), species=(1, 7, 27))
    (folder / "run" / "config.yaml").write_text(
        "output: .\npotential: ../potential.h5\nstructure: {file: start.xyz}\nreplicas: {temperatures: [50, 100]}\n"
        "duration: 2\nd_tensor: {model: ../d_model/model.h5, molecule: {metal: Co}}\n"
        f"analysis: {{{', '.join(REFERENCE.strip().splitlines()[:3])}}}\n"
    )
    (folder / "settings.yaml").write_text(REFERENCE)
    seen, patch = [], pytest.MonkeyPatch()
    save = Figure.savefig
    patch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: (save(figure, *args, **kwargs), seen.append(figure))
    )
    patch.setattr(module, "find_modes", lambda *args: answer.modes)
    patch.setattr(module, "expand_tensor", lambda *args, **kwargs: answer.expansion())
    result = CliRunner().invoke(
        gmcore.commands.app.app,
        ["--debug", "analyze", str(folder / "run"), "-c", str(folder / "settings.yaml"), "--threads", "1"],
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert "50 K: D −1" in result.stdout and "written: " in result.stdout
    paths = write_report(folder / "run")
    patch.undo()
    return folder / "run", paths, seen
