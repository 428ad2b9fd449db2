"""Draws of the last layer: their statistics, and what an evaluator makes of them."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from gmcore.engine.evaluator import FORCE_DRAWS, Evaluator
from gmcore.engine.structures import Batch
from gmcore.model import Model, load_model
from gmcore.model_file import model_identity, read_model, write_model
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.environments import learn_environments
from gmcore.uncertainty.last_layer import N_DRAWS, _posterior, with_draws
from gmcore.uncertainty.uncertainty import Uncertainty
from support.models import make_head, random_parts


@pytest.mark.parametrize("n_parameters", [20, 90])
def test_draws_have_the_covariance_of_the_posterior(n_parameters, monkeypatch):
    rows = np.random.default_rng(1).normal(size=(60, n_parameters)) * np.linspace(1.0, 0.2, n_parameters)
    monkeypatch.setattr("gmcore.uncertainty.last_layer.N_DRAWS", 40000)
    monkeypatch.setattr("gmcore.uncertainty.last_layer.RIDGE", 0.1)
    draws = _posterior(rows, np.random.default_rng(2))
    squares = np.linalg.eigvalsh(rows.T @ rows)
    ridge = 0.1 * squares.sum() / min(60, n_parameters)
    expected = np.linalg.inv(rows.T @ rows + ridge * np.eye(n_parameters))
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(np.cov(draws.T) / scale, expected / scale, atol=0.03)


@pytest.fixture(scope="module", params=["moments", "positions"])
def single(request):
    heads = (
        make_head("energy", 3),
        make_head("charges", 3, conserve=True),
        make_head("d_tensor", 3, basis=request.param),
        make_head("tensor", 3, basis=request.param),
    )
    settings, members = random_parts(heads, species=(1, 6, 8))
    rng = np.random.default_rng(3)
    frames = []
    for _ in range(6):
        atoms = molecule("CH3CH2OH")
        atoms.info["total_charge"] = 0.0
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        frames.append(atoms)
    return settings, with_draws(settings, members[0], frames), frames


def test_a_draw_is_a_model_with_another_last_layer(single):
    """Every output, forces and stress too, equals that of the network whose last layer the draw has changed."""
    settings, member, frames = single
    frames = [frame.copy() for frame in frames[:2]]
    frames[1].set_cell(7.0 * np.eye(3))
    frames[1].pbc = True
    batch = Batch.from_atoms(frames)
    evaluator = Evaluator(settings, [member], "float64")
    pairs, charge = evaluator.find_pairs(batch), np.zeros(2)
    found = evaluator.evaluate(batch, pairs, None, charge, evaluator.units)
    for k in range(N_DRAWS):
        weights, biases = list(member.weights), list(member.biases)
        draw = member.draws[k].astype(np.float64)
        weights[-1] = weights[-1] + np.sqrt(len(weights[-1])) * draw[:-1]
        biases[-1] = biases[-1] + 10.0 * draw[-1]
        drawn = Evaluator(settings, [replace(member, weights=weights, biases=biases, draws=None)], "float64")
        for key, values in drawn.evaluate(batch, pairs, None, charge).items():
            if key in ("forces", "stress") and k >= FORCE_DRAWS:
                continue
            np.testing.assert_allclose(found[f"{key}_draws"][k], values[0], rtol=1e-6, atol=1e-8, err_msg=key)


def test_predictions_stay_and_have_deviations_on_request(single):
    settings, member, frames = single
    model, plain = Model(settings, [member]), Model(settings, [replace(member, draws=None)])
    without, usual, every = (model.predict(frames, errors=errors) for errors in (False, None, True))
    assert without.keys() == plain.predict(frames).keys()
    for key, values in plain.predict(frames).items():
        for found in (without, usual, every):
            np.testing.assert_array_equal(found[key], values)
        assert f"{key}_std" in every and (f"{key}_std" in usual) == (key not in ("forces", "stress"))
        assert every[f"{key}_std"].shape == values.shape
    assert np.all(every["d_tensor_std"].max(axis=(1, 2)) > 0.0) and np.all(every["energy_std"] > 0.0)


def test_errors_are_calibrated_deviations_times_the_grade(single, tmp_path):
    settings, member, frames = single
    evaluator = Evaluator(settings, [replace(member, draws=None)])
    batch = Batch.from_atoms(frames)
    features, species = evaluator.hidden(batch, evaluator.find_pairs(batch))[0], batch.species(evaluator.species)
    environments = learn_environments(features, species, batch.offsets, 3)
    of_energy = Calibration("last_layer", 2.0, 0.1, 0.3, 20, (0.4, 0.8), (0.68, 0.95))
    of_forces = replace(of_energy, factor=3.0, floor=0.0)
    known = Uncertainty({"energy": of_energy, "forces": of_forces}, environments)
    model = Model(settings, [member], uncertainty=known)
    outside = frames[0].copy()
    outside.positions[0] += 0.8
    found = model.predict([*frames, outside], errors=True)
    grades, of_atoms = found["extrapolation"], found["extrapolation_atoms"]
    assert grades.shape == (7,) and of_atoms.shape == (7, 9) and grades[-1] > 2.0
    np.testing.assert_allclose(found["energy_error"], 2.0 * np.hypot(found["energy_std"], 0.3) * np.maximum(grades, 1))
    deviation = np.sqrt(np.mean(found["forces_std"] ** 2, axis=-1))
    np.testing.assert_allclose(found["forces_error"], 3.0 * deviation * np.maximum(of_atoms, 1.0))
    path = tmp_path / "model.h5"
    write_model(path, settings, [member], frames[0], known)
    again = load_model(path)
    for key, values in again.predict([*frames, outside], errors=True).items():
        np.testing.assert_array_equal(values, found[key], err_msg=key)
    assert again.uncertainty.calibrations == known.calibrations
    assert model_identity(*read_model(path)) == model_identity(settings, [replace(member, draws=None)])
    assert "dipole_error" not in found and "extrapolation" not in model.predict(frames, errors=False)
