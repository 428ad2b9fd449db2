"""Evaluation, prediction files and learning curves: what is written is what was computed, with its units."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms

from gmcore.anisotropy import zfs_parameters
from gmcore.config.loading import parse_config
from gmcore.data.datasets import Dataset, read_dataset
from gmcore.data.reading import read_frames
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.evaluation.evaluation import EvaluationError, evaluate_model, metrics_table, write_evaluation
from gmcore.evaluation.learning_curve import run_learning_curve, with_training_size
from gmcore.evaluation.outside import Outside, stated_values
from gmcore.evaluation.predictions import PredictionFileError, check_suffix, write_predictions
from gmcore.evaluation.trust import training_environments
from gmcore.model import Model
from gmcore.uncertainty.calibration import Calibration
from gmcore.uncertainty.uncertainty import Uncertainty
from support.models import make_head, random_parts
from support.systems import water_molecule

HEADS = ("energy", make_head("charges", 3, conserve=True), "d_tensor")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(*random_parts(HEADS, n_members=3))


@pytest.fixture(scope="module")
def atoms() -> list[Atoms]:
    """Two molecules and a crystal of different sizes."""
    rng = np.random.default_rng(5)
    frames = [
        Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]),
        Atoms("CH4", [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [0.63, -0.63, -0.63], [-0.63, 0.63, -0.63]]),
        Atoms("N2", [[0, 0, 0], [0, 0, 1.1]], cell=[4.0, 4.2, 4.4], pbc=True),
    ]
    for frame in frames:
        frame.rattle(0.05, rng=rng)
        frame.info["total_charge"] = -1.0
    return frames


def labeled(model: Model, atoms: list[Atoms], shift: float = 0.0) -> Dataset:
    predictions = model.predict(atoms)
    labels = {key: [np.asarray(v) + shift for v in predictions[key]] for key in model.units}
    return Dataset(atoms, labels, dict(model.units), np.full(len(atoms), -1.0))


def test_a_model_agrees_with_itself(model, atoms):
    evaluation = evaluate_model(model, labeled(model, atoms))
    assert {"energy", "energy_per_atom", "forces", "stress", "charges", "dipole", "d_tensor_D"} <= set(
        evaluation.metrics
    )
    assert all(entry["rmse"] < 1e-5 for entry in evaluation.metrics.values())
    assert evaluation.metrics["stress"]["n"] == 6  # one crystal
    assert "committee_std" in evaluation.metrics["d_tensor"]


def test_errors_are_those_of_the_labels(model, atoms):
    metrics = evaluate_model(model, labeled(model, atoms, shift=0.5)).metrics
    for key in ("energy", "forces", "charges"):
        assert metrics[key]["mae"] == pytest.approx(0.5) and metrics[key]["unit"] == model.units[key]


def test_one_model_per_property(model, atoms):
    models = [Model(*random_parts((head,), seed=1)) for head in ("energy", "d_tensor")]
    labels = models[0].predict(atoms, ["energy"]) | models[1].predict(atoms, ["d_tensor"])
    dataset = Dataset(atoms, labels, {"energy": "eV", "d_tensor": "cm^-1"}, np.zeros(3))
    metrics = evaluate_model(models, dataset).metrics
    assert metrics["energy"]["mae"] == metrics["d_tensor"]["mae"] == 0.0


def test_labels_that_the_model_does_not_predict(atoms):
    model = Model(*random_parts(("d_tensor",)))
    dataset = Dataset(atoms, {"energy": [np.array(0.0)] * 3}, {"energy": "eV"}, np.zeros(3))
    with pytest.raises(EvaluationError, match="the model predicts d_tensor, but the labels of the data are energy"):
        evaluate_model(model, dataset)


def test_a_tensor_of_another_kind(atoms):
    model = Model(*random_parts(("tensor",)))
    dataset = Dataset(atoms, {"tensor": [np.eye(3)] * 3}, {"tensor": "A^3"}, np.zeros(3))
    with pytest.raises(EvaluationError, match=r"predicts tensor in 1, but the data have another kind of unit, A\^3"):
        evaluate_model(model, dataset)


def test_report(tmp_path, model, atoms):
    evaluations = {part: evaluate_model(model, labeled(model, atoms, 0.1)) for part in ("train", "test")}
    path = write_evaluation(tmp_path, evaluations, {"epochs": 3})
    content = json.loads(path.read_text())
    assert content["epochs"] == 3 and content["test"]["energy"]["mae"] == pytest.approx(0.1)
    assert (tmp_path / "parity_d_tensor.png").is_file() and (tmp_path / "parity_energy.png").is_file()
    table = metrics_table(content["test"])
    assert table[0].split() == "quantity MAE RMSE RMSE of mean R^2 unit values committee".split()
    assert table[1].startswith("energy ") and " 0.1 " in table[1]
    assert table[-1] == f"wrong sign of D: 0 of {len(atoms)} structures"


# --- errors and extrapolation


@pytest.fixture(scope="module")
def calibrated() -> tuple[Model, list[Atoms]]:
    """A committee of energy and D with factors and the environments of rattled water, and such molecules."""
    settings, members = random_parts(("energy", "d_tensor"), species=(1, 8), n_members=3)
    settings = replace(settings, provenance={"total_charges": [0.0], "multiplicities": [1.0]})
    frames = [water_molecule() for _ in range(80)]
    for k, frame in enumerate(frames):
        frame.rattle(0.05, seed=k)
    known = {"energy": 2.0, "d_tensor": 1.5, "D": 3.0, "E": 0.5, "axis": 1.2}
    factors = {
        name: Calibration("committee", factor, 0.1, 0.0, 50, (0.3, 0.6), (0.7, 0.9)) for name, factor in known.items()
    }
    environments = training_environments(settings, members[0], Dataset(frames, {}, {}, np.zeros(80)))
    return Model(settings, members, uncertainty=Uncertainty(factors, environments)), frames


def test_coverage_is_the_share_of_errors_within_the_stated_ones(calibrated, tmp_path):
    model, frames = calibrated
    predicted = model.predict(frames)
    shifts = np.repeat([0.5, 1.5, 2.5, 2.5], 20) * predicted["energy_error"]  # a quarter within one, half within two
    labels = {"energy": list(predicted["energy"] + shifts), "d_tensor": list(predicted["d_tensor"])}
    dataset = Dataset(frames, labels, {"energy": "eV", "d_tensor": "cm^-1"}, np.zeros(80))
    evaluation = evaluate_model(model, dataset)
    energy = evaluation.metrics["energy"]
    assert energy["error_coverage"] == [0.25, 0.5]
    assert energy["error_mean"] == pytest.approx(predicted["energy_error"].mean())
    for name in ("d_tensor", "d_tensor_D", "d_tensor_E", "d_tensor_axis_angle"):
        assert evaluation.metrics[name]["error_coverage"] == [1.0, 1.0] and evaluation.metrics[name]["error_mean"] > 0
    (entry,) = evaluation.outside.values()
    assert entry["n"] == 80 and entry["share"] == np.mean(predicted["extrapolation"] > 1.0)
    assert metrics_table(evaluation.metrics)[1].endswith("25 %, 50 %")
    content = json.loads(write_evaluation(tmp_path, {"test": evaluation}).read_text())
    assert content["extrapolation"]["test"] == evaluation.outside


def test_predictions_carry_errors_and_grades(calibrated, tmp_path):
    model, frames = calibrated
    predicted = model.predict(frames[:2])
    for suffix in ("csv", "h5", "npz", "extxyz"):
        write_predictions(tmp_path / f"p.{suffix}", frames[:2], predicted, model.units, model.uncertainty)
    with open(tmp_path / "p.csv", newline="") as file:
        row = next(csv.DictReader(file))
    deviation = np.sqrt(np.mean(predicted["d_tensor_std"][0] ** 2)) * max(predicted["extrapolation"][0], 1.0)
    assert float(row["D_error [cm^-1]"]) == pytest.approx(3.0 * deviation)
    assert float(row["E_error [cm^-1]"]) == pytest.approx(0.5 * deviation) and float(row["axis_error [deg]"]) > 0.0
    assert float(row["extrapolation"]) == predicted["extrapolation"][0]
    dataset = read_dataset(tmp_path / "p.h5", ["energy", "d_tensor"])
    np.testing.assert_allclose(dataset.labels["energy"], predicted["energy"])
    frame = next(iter(read_frames(tmp_path / "p.h5")))
    assert np.shape(frame.fields["extrapolation_atoms"]) == (3,)
    frame = next(iter(read_frames(tmp_path / "p.extxyz")))
    assert frame.fields["extrapolation"] == pytest.approx(predicted["extrapolation"][0])
    with np.load(tmp_path / "p.npz") as file:
        np.testing.assert_array_equal(file["energy_error"], predicted["energy_error"])
        assert file["extrapolation_atoms"].shape == (6,)


def test_what_lies_outside_is_said(calibrated):
    model, _ = calibrated
    inside, stretched, charged = (water_molecule() for _ in range(3))
    stretched.positions[1] *= 1.5
    charged.info |= {"total_charge": 1.0, "multiplicity": 2}
    inside.info |= {"total_charge": 0.0, "multiplicity": 1}
    atoms = [inside, stretched, charged]

    def counted(frames) -> Outside:
        batch = Batch.from_atoms(frames)
        return Outside.count(
            batch,
            [frame.info for frame in frames],
            model.predict_arrays(batch.numbers, batch.positions, offsets=batch.offsets),
        )

    parts = [Outside.from_plain(json.loads(json.dumps(counted([frame]).plain()))) for frame in atoms]
    assert sum(parts, Outside()) == counted(atoms)
    sentences = counted(atoms).sentences(model)
    assert sentences[0].startswith(
        "1 of 3 structures lies outside the training data (extrapolation above 1), most often"
    )
    assert sentences[1:] == [
        "1 of 3 structures lies outside the training data by total charge: 1, where the data had 0",
        "1 of 3 structures lies outside the training data by multiplicity: 2, where the data had 1",
    ]
    assert counted([inside]).sentences(model) == []
    provenance = model.settings.provenance | {"start_from": {"replayed": False}}
    trained_on = SimpleNamespace(settings=replace(model.settings, provenance=provenance))
    assert "those of the last training only" in counted(atoms).sentences(trained_on)[0]
    assert stated_values(atoms) == {"total_charges": [0.0, 1.0], "multiplicities": [1.0, 2.0]}


# --- prediction files


@pytest.fixture(scope="module")
def predictions(model, atoms) -> dict:
    return model.predict(atoms)


def test_hdf5_is_a_data_set_again(tmp_path, model, atoms, predictions):
    write_predictions(tmp_path / "p.h5", atoms, predictions, model.units)
    dataset = read_dataset(tmp_path / "p.h5", ["energy", "forces", "charges", "dipole", "d_tensor"])
    for key in dataset.labels:
        for got, wanted in zip(dataset.labels[key], predictions[key]):
            np.testing.assert_allclose(got, wanted, atol=1e-12)
    assert dataset.total_charge.tolist() == [-1.0] * 3
    frames = list(read_frames(tmp_path / "p.h5"))
    assert frames[0].units["d_tensor_std"] == "cm^-1" and np.isnan(frames[0].fields["stress"]).all()


def test_extended_xyz_is_a_data_set_again(tmp_path, model, atoms, predictions):
    write_predictions(tmp_path / "p.extxyz", atoms, predictions, model.units)
    units = {"length": "A", **model.units}
    dataset = read_dataset(tmp_path / "p.extxyz", list(model.units), units=units)
    for key in model.units:
        for got, wanted in zip(dataset.labels[key], predictions[key]):
            np.testing.assert_allclose(got, wanted, atol=2e-8, err_msg=key)
    header = (tmp_path / "p.extxyz").read_text().splitlines()[1]
    assert (
        'units="positions=A energy=eV ' in header and "d_tensor_std=cm^-1" in header and "total_charge=-1.0" in header
    )


def test_npz(tmp_path, model, atoms, predictions):
    write_predictions(tmp_path / "p.npz", atoms, predictions, model.units)
    with np.load(tmp_path / "p.npz") as file:
        units = json.loads(str(file["units"]))
        assert units["forces_std"] == "eV/A" and file["offsets"].tolist() == [0, 3, 8, 10]
        np.testing.assert_array_equal(file["forces"][3:8], predictions["forces"][1])
        np.testing.assert_array_equal(file["d_tensor"], predictions["d_tensor"])


def test_csv(tmp_path, model, atoms, predictions):
    left_out = write_predictions(tmp_path / "p.csv", atoms, predictions, model.units)
    assert set(left_out) == {"forces", "charges", "forces_std", "charges_std"}
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["H2O", "CH4", "N2"]
    found = zfs_parameters(predictions["d_tensor"])
    for k, row in enumerate(rows):
        assert float(row["energy [eV]"]) == predictions["energy"][k]
        assert float(row["d_tensor_xz [cm^-1]"]) == predictions["d_tensor"][k, 0, 2]
        assert float(row["dipole_y [e*A]"]) == predictions["dipole"][k, 1]
        assert float(row["D [cm^-1]"]) == found.d[k] and float(row["E/|D|"]) == found.e_over_d[k]
        assert float(row["d_tensor_std_xx [cm^-1]"]) == predictions["d_tensor_std"][k, 0, 0]


def test_unknown_suffix():
    with pytest.raises(PredictionFileError, match=r"must be one of .extxyz, .xyz, .h5, .hdf5, .npz, .csv, got 'p.txt'"):
        check_suffix("p.txt")


# --- learning curves


def learning_config(tmp_path):
    text = """
output: out
data: {files: a.npz, units: {length: A, d_tensor: cm^-1}, split: {train: 40, validation: 5, test: 5}}
properties: {d_tensor: }
"""
    return parse_config(text, folder=tmp_path)


def test_learning_curve_follows_the_trainings(tmp_path):
    config, trained = learning_config(tmp_path), []

    def train(run):
        trained.append(run.data.split.train)
        error = {"mae": 8.0 / run.data.split.train, "rmse": 16.0 / run.data.split.train, "unit": "cm^-1", "n": 30}
        return SimpleNamespace(metrics={"validation": {}, "test": {"d_tensor": error, "d_tensor_D": error}})

    paths = run_learning_curve(config, [20, 10, 40], train)
    assert trained == [10, 20, 40]
    assert [path.name for path in paths] == ["learning_curve.json", "learning_curve_d_tensor.png"]
    content = json.loads(paths[0].read_text())
    assert content["d_tensor"]["sizes"] == [10, 20, 40] and content["d_tensor"]["mae"] == [0.8, 0.4, 0.2]
    assert content["d_tensor"]["slopes"] == {"mae": pytest.approx(-1.0), "rmse": pytest.approx(-1.0)}
    assert "slopes" not in content["d_tensor_D"]


def test_each_size_has_its_own_folder(tmp_path):
    config = learning_config(tmp_path)
    run = with_training_size(config, 7)
    assert run.data.split.train == 7 and run.output == tmp_path / "out" / "learning_curve" / "train_7"
    assert config.data.split.train == 40 and run.data.split.test == 5


@pytest.mark.parametrize("sizes", [[], [0, 5], [5, 5]])
def test_wrong_sizes(tmp_path, sizes):
    with pytest.raises(GMError, match="training sizes must be different and positive"):
        run_learning_curve(learning_config(tmp_path), sizes, None)
