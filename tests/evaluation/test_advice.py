"""Advice after a training: errors that still fall, rise or stand, and training errors beside validation errors."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gmcore.evaluation.advice import of_data, of_epochs, training_advice


def errors(train: float, validation: float) -> dict:
    return {"train": {"d_tensor": {"mae": train}}, "validation": {"d_tensor": {"mae": validation, "unit": "cm^-1"}}}


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (-0.01, "was still falling, by 9.5 % between the last two tenths of the 100 epochs: .*, for example 200"),
        (0.01, r"rose by 10.5 % .* the weights of an earlier epoch were kept \(1, 1\): more epochs would not help"),
        (-0.001, r"hardly changed .* \(-1.0 %\). The learning rates decay to zero, so only a longer training can show"),
    ],
)
def test_epochs(rate, words):
    """Exponential curves: one tenth of the epochs changes them by exp(10 rate)."""
    curve = np.exp(rate * np.arange(100))
    found = of_epochs([curve, 3.0 * curve])
    assert found["about"] == "epochs" and found["value"] == pytest.approx(np.expm1(10 * rate))
    assert re.search(words, found["words"])


def test_few_epochs():
    assert of_epochs([]) is None
    assert "One epoch shows no trend" in of_epochs([[1.0]])["words"]
    assert (
        "by 50.0 % between the last two epochs: train for more epochs, for example 6" in of_epochs([[4, 2, 1]])["words"]
    )


def test_data():
    alike = of_data(["d_tensor"], errors(1.0, 1.2), 450)
    assert alike["value"] == pytest.approx(1.2) and "are alike (d_tensor: MAE 1 and 1.2 cm^-1)" in alike["words"]
    apart = of_data(["d_tensor"], errors(0.2, 0.6), 450)["words"]
    assert "is 3.0 times the training error (0.2): more data would lower it" in apart
    assert apart.endswith("-0.50, halving it takes 4 times as many structures, about 1800 instead of 450.")
    flat = of_data(["d_tensor"], errors(0.2, 0.6), 450, {"d_tensor": 0.02})["words"]
    assert flat.endswith("the learning curve is flat (power -0.02), so more data would hardly lower it.")
    assert of_data(["d_tensor"], errors(float("nan"), float("nan")), 450) is None


def test_files_of_a_training(tmp_path):
    """The history of each member, and the learning curve of the training; damaged ones count as missing."""
    (tmp_path / "member_0").mkdir()
    (tmp_path / "member_0" / "history.csv").write_text("epoch,val_error\n1,2.0\n2,1.0\n")
    (tmp_path / "learning_curve").mkdir()
    table = tmp_path / "learning_curve" / "learning_curve.json"
    curve = {"sizes": [100, 400], "mae": [4.0, 1.0], "rmse": [5.0, 2.0]}
    table.write_text(json.dumps({"d_tensor": curve}))
    epochs, data = training_advice(tmp_path, 2, ["d_tensor"], errors(0.2, 0.6), 100, tmp_path)
    assert epochs["value"] == -0.5
    assert data["words"].endswith(
        "power of the learning curve, -1.00, halving it takes 2 times as many structures, about 200 instead of 100."
    )
    table.write_text("[")
    (tmp_path / "member_0" / "history.csv").write_text("epoch\n1\n")
    (only,) = training_advice(tmp_path, 2, ["d_tensor"], errors(0.2, 0.6), 100, tmp_path)
    assert "typical power of a learning curve" in only["words"]
