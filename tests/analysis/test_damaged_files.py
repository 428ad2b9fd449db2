"""Damaged files that an analysis reads are refused in one sentence that names them: modes, metrics, learning curves."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from gmcore.analysis.mode_files import load_expansion, write_mode_files
from gmcore.analysis.modes import ModesError
from gmcore.evaluation.evaluation import EvaluationError, read_metrics
from gmcore.evaluation.learning_curve import read_curves
from support.synthetic_runs import synthetic_run


@pytest.fixture(scope="module")
def modes_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modes")
    answer = synthetic_run(folder / "run", n_samples=10, seeds_each=1)
    write_mode_files(folder, answer.modes, answer.expansion())
    return folder / "modes.h5"


def replaced(name, values):
    def damage(file):
        del file[name]
        if values is not None:
            file[name] = values

    return damage


def huge(file):
    del file["rigid_frequencies"]
    file.create_dataset("rigid_frequencies", (10**12,), "f8", chunks=True)


@pytest.mark.parametrize(
    "damage, message",
    [
        (replaced("masses", None), r"masses must be numbers of shape \(9\), got none"),
        (lambda f: (replaced("masses", None)(f), f.create_group("masses")), "masses must be numbers"),
        (replaced("numbers", 5), r"numbers must be numbers of shape \(any\)"),
        (replaced("numbers", np.full(9, 2**40)), "numbers must be those of elements"),
        (replaced("numbers", np.full(9, 6.5)), "numbers must be those of elements"),
        (replaced("masses", np.full(9, np.nan)), "masses positive"),
        (replaced("vectors", np.zeros((2, 9, 3))), r"vectors must be numbers of shape \(6, 9, 3\), got \(2, 9, 3\)"),
        (replaced("frequencies", np.array([b"a"] * 6)), "frequencies must be numbers"),
        (replaced("cell", h5py.SoftLink("/cell")), "modes.h5"),
        (huge, "rigid_frequencies claims 8000000000000 bytes"),
        (replaced("d_tensor/gradient", None), "gradient must be numbers"),
        (replaced("d_tensor/first", np.zeros((6, 3))), "first must be numbers of shape"),
        (replaced("d_tensor", np.zeros(3)), "modes.h5"),
        (lambda f: f["d_tensor"].attrs.__delitem__("left_out"), "modes.h5"),
        (lambda f: f["d_tensor"].attrs.create("left_out", [99]), "left_out must be indices of its 9 atoms"),
        (lambda f: f["d_tensor"].attrs.modify("unit", "furlong"), "furlong"),
    ],
)
def test_modes(modes_file, tmp_path, damage, message):
    path = tmp_path / "modes.h5"
    path.write_bytes(modes_file.read_bytes())
    assert len(load_expansion(path).frequencies) == 6
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises((ModesError, ValueError), match=message) as caught:
        load_expansion(path)
    assert type(caught.value) is not ValueError and "\n" not in str(caught.value)


ERRORS = {"mae": 0.3, "rmse": 0.6, "unit": "cm^-1", "n": 30}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"1" * 5000,
        {"test": 5},
        {"test": {"d_tensor": {key: value for key, value in ERRORS.items() if key != "rmse"}}},
        {"validation": {"d_tensor": ERRORS | {"mae": "a" * 5000}}},
    ],
)
def test_metrics(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"test": {"d_tensor": ERRORS}, "n_structures": {"test": 5}}))
    assert read_metrics(path)["test"] == {"d_tensor": ERRORS}
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(EvaluationError, match=r"metrics.json is damaged") as caught:
        read_metrics(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


CURVE = {"sizes": [100, 300], "mae": [0.9, 0.5], "rmse": [1.5, 1.1], "unit": "cm^-1", "slopes": {"mae": -0.5}}


@pytest.mark.parametrize("change", [{"sizes": [1]}, {"sizes": [0, 1]}, {"mae": "a"}, {"rmse": [1, None]}, {"unit": 5}])
def test_learning_curves(tmp_path, change):
    path = tmp_path / "learning_curve.json"
    path.write_text(json.dumps({"d_tensor": CURVE}))
    assert read_curves(path)["d_tensor"].mae == [0.9, 0.5]
    path.write_text(json.dumps({"d_tensor": CURVE | change}))
    with pytest.raises(EvaluationError, match=r"learning_curve.json is damaged"):
        read_curves(path)
