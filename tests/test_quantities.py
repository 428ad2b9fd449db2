"""The table of quantities: what it says of itself, and that a row added to a copy of it is seen everywhere."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from gmcore.config.training import Properties
from gmcore.quantities import BY_NAME, HEAD_KINDS, QUANTITIES, predicted_by
from gmcore.units import UNITS
from support.more_quantities import copy_with_more_quantities, run_in

pytestmark = pytest.mark.slow

DATA = """
import json
from pathlib import Path
import numpy as np
from ase import Atoms
from ase.io import write
from gmcore.data.datasets import read_dataset

rng = np.random.default_rng(1)
frames = []
for formula in ("HO", "OH2"):
    n = {"HO": 2, "OH2": 3}[formula]
    frames.append(Atoms(formula, rng.normal(size=(n, 3)) * 3.0))
    q = rng.normal(size=(3, 3))
    frames[-1].info["quadrupole"] = q + q.T
    frames[-1].arrays["T"] = rng.normal(size=(n, 3))
write("data.extxyz", frames)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_with_more_quantities(tmp_path_factory.mktemp("copy"))


def test_rows_are_frozen_and_have_names_of_their_own():
    assert len(BY_NAME) == len(QUANTITIES)
    with pytest.raises(FrozenInstanceError):
        QUANTITIES[0].unit = "meV"
    taken = [name for quantity in QUANTITIES for name in (quantity.name, *quantity.aliases)]
    assert len(set(taken)) == len(taken)


def test_every_head_is_a_property_of_the_configuration():
    assert HEAD_KINDS == tuple(Properties.model_fields)
    for kind in HEAD_KINDS:
        weights = Properties.model_validate({kind: {}}).loss_weights
        assert weights and weights.keys() <= {quantity.name for quantity in predicted_by(kind)}


def test_every_quantity_has_units():
    assert list(UNITS) == ["length", *BY_NAME]


def test_a_new_quantity_has_units_labels_and_a_weight(copy):
    found = run_in(
        copy,
        """
import json
from gmcore.config.training import Data, Properties, Tensor
from gmcore.engine.heads import output_units
from gmcore.engine.settings import HeadSettings
from gmcore.units import UNITS, conversion

data = Data(files="x.npz", units={"torques": "meV"}, keys={"quadrupole": "Q"}, split={"validation": 1})

class MoreProperties(Properties):
    quadrupole: Tensor | None = None

print(json.dumps({
    "units": UNITS["quadrupole"],
    "meV": conversion("torques", "meV"),
    "keys": data.keys,
    "weights": MoreProperties(quadrupole={"weight": 3.0}).loss_weights,
    "outputs": output_units([HeadSettings("torques", "torques")]),
}))
""",
    )
    assert found["units"] == {"e*A^2": 1.0} and found["meV"] == [1e-3, "eV"]
    assert found["keys"] == {"quadrupole": "Q"} and found["weights"] == {"quadrupole": 3.0}
    assert found["outputs"] == {"torques": "eV"}


def test_a_new_quantity_is_read_turned_written_and_read_again(copy):
    found = run_in(
        copy,
        DATA
        + """
units = {"length": "A", "torques": "meV", "quadrupole": "e*A^2"}
dataset = read_dataset("data.extxyz", ["torques", "quadrupole"], units=units)
dataset.write("set.h5")
again = read_dataset("set.h5", ["torques", "quadrupole"])
rotated = dataset.rotated(1)
print(json.dumps({
    "torques": [np.allclose(v, 1e-3 * f.arrays["T"]) for v, f in zip(dataset.labels["torques"], frames)],
    "traces": [abs(np.trace(v)) < 1e-6 for v in dataset.labels["quadrupole"]],
    "again": [np.allclose(a, b, rtol=0.0, atol=1e-14)
              for name in again.labels for a, b in zip(again.labels[name], dataset.labels[name])],
    "lengths": [np.allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)) and not np.allclose(a, b)
                for a, b in zip(rotated.labels["torques"], dataset.labels["torques"])],
    "spectra": [np.allclose(np.linalg.eigvalsh(a), np.linalg.eigvalsh(b)) and not np.allclose(a, b)
                for a, b in zip(rotated.labels["quadrupole"], dataset.labels["quadrupole"])],
}, default=bool))
""",
    )
    assert {name: all(values) for name, values in found.items()} == dict.fromkeys(found, True)
    assert len(found["again"]) == 4


def test_a_new_quantity_is_judged_drawn_and_tabulated(copy):
    found = run_in(
        copy,
        DATA
        + """
from gmcore.evaluation import figures
from gmcore.evaluation.metrics import evaluate_arrays
from gmcore.evaluation.predictions import write_predictions

reference = {"torques": [f.arrays["T"] for f in frames], "quadrupole": [f.info["quadrupole"] for f in frames]}
predicted = {name: [value + 0.5 for value in values] for name, values in reference.items()}
titles = []
figures._save = lambda figure, path: titles.append([path.name, figure.axes[0].get_title()])
figures.parity_figures(".", reference, predicted)
units = {"torques": "eV", "quadrupole": "e*A^2"}
left_out = write_predictions("table.csv", frames, predicted, units)
write_predictions("table.npz", frames, predicted, units)
print(json.dumps({
    "metrics": evaluate_arrays(reference, predicted),
    "titles": titles,
    "left_out": left_out,
    "columns": Path("table.csv").read_text().splitlines()[0].split(","),
    "rows": len(np.load("table.npz")["torques"]),
    "unit": figures._column_unit("mae_quadrupole"),
}))
""",
    )
    assert found["metrics"]["torques"].items() >= {"mae": 0.5, "rmse": 0.5, "unit": "eV", "n": 15}.items()
    assert found["metrics"]["quadrupole"].items() >= {"mae": 0.5, "rmse": 0.5, "unit": "e*A^2", "n": 12}.items()
    assert found["titles"] == [
        ["parity_torques.png", "torque components"],
        ["parity_quadrupole.png", "quadrupole elements"],
    ]
    assert found["left_out"] == ["torques"] and found["rows"] == 5
    names = [f"quadrupole_{element} [e*A^2]" for element in ("xx", "xy", "xz", "yy", "yz", "zz")]
    assert found["columns"] == ["structure", "formula", *names]
    assert found["unit"] == "e*A^2"
