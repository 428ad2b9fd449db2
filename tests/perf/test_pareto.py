"""Error against cost: frames, rows, their file and their figure; nothing is trained, installed or timed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.units import kcal, mol
from matplotlib.image import imread

from perf.pareto import environments, runs, table, worker
from perf.pareto.__main__ import main
from perf.pareto.figure import STYLES, draw, front
from perf.pareto.frames import N_ATOMS, NoDataError, Sizes, read_frames

SIZES = Sizes(train=6, validation=2, test=3)
ROW = {
    "training_minutes": 1.0,
    "training_foreign": 0.0,
    "energy_mae": 3.0,
    "forces_mae": 20.123456,
    "details": {"epochs": 3},
    "versions": {},
    "cost_us": 4.0,
    "cost_quartiles_us": [3.9, 4.1],
    "cost_foreign": 0.0,
    "cost_disturbed": False,
    "box_atoms": 513,
}


@pytest.fixture
def folder(tmp_path, rng):
    """Files like those of revised MD17: ten distorted molecules of three atoms."""
    for part in ("train", "test"):
        positions = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + 0.02 * rng.normal(size=(10, 3, 3))
        labels = {"energies": rng.normal(-1e5, 1.0, 10), "forces": rng.normal(size=(10, 3, 3))}
        path = tmp_path / f"rmd17_water_{part}_01.npz"
        np.savez(path, nuclear_charges=np.array([8, 1, 1], np.uint8), coords=positions, **labels)
    return tmp_path


def test_frames(folder):
    frames = read_frames(folder, "water", SIZES)
    assert [len(frames[f"{part}_energies"]) for part in ("train", "validation", "test")] == [6, 2, 3]
    assert abs(frames["train_energies"].mean()) < 1e-9
    with np.load(folder / "rmd17_water_test_01.npz") as test:
        np.testing.assert_allclose(frames["test_forces"], test["forces"][:3] * kcal / mol)
        gaps = np.diff(test["energies"][:3]) * kcal / mol
    np.testing.assert_allclose(np.diff(frames["test_energies"]), gaps, atol=1e-8)
    with np.load(folder / "rmd17_water_train_01.npz") as train:
        used = np.concatenate([frames["train_positions"], frames["validation_positions"]])
        found = (train["coords"][:, None] == used[None]).all((2, 3))
    assert found.any(0).all() and found.sum() == 8  # none twice
    last = worker.labeled(frames, "validation")[-1]
    assert last.get_potential_energy() == frames["validation_energies"][-1]
    np.testing.assert_array_equal(last.get_forces(), frames["validation_forces"][-1])


def test_the_box_is_of_whole_molecules_apart(folder):
    frames = read_frames(folder, "water", SIZES)
    positions, side = frames["box_positions"], frames["box_cell"][0, 0]
    n_molecules = len(positions) // 3
    assert abs(len(positions) - N_ATOMS) <= 2 and (frames["box_numbers"] == [8, 1, 1] * n_molecules).all()
    arm = positions[:, None] - positions[None]
    distance = np.linalg.norm(arm - side * np.round(arm / side), axis=-1)
    molecule = np.arange(len(positions)) // 3
    assert distance[molecule[:, None] != molecule].min() > 1.0
    assert distance[molecule[:, None] == molecule].max() < 2.0


def test_missing_data_and_too_few_frames(folder, capsys):
    with pytest.raises(NoDataError, match="give the folder"):
        read_frames(folder, "ethanol", SIZES)
    with pytest.raises(ValueError, match="more frames"):
        read_frames(folder, "water", Sizes())
    main(["--molecules", "ethanol", "--data", str(folder), "--results", str(folder)])
    assert "ethanol is skipped" in capsys.readouterr().err


def test_a_killed_run_goes_on(tmp_path):
    model = table.MODELS[0]
    settings = runs.settings_of(model, SIZES, 1.0, 2)
    results = runs.Results(tmp_path)
    assert results.missing("water", model, settings) == "all"
    results.keep("water", model, ROW | {"settings": settings, "cost_disturbed": True})
    results.keep("water", table.MODELS[1], {"absent": "stopped after 3 minutes"})
    again = runs.Results(tmp_path)
    assert again.molecules["water"][model.name]["forces_mae"] == 20.12
    assert again.missing("water", model, settings) == "cost"
    assert again.missing("water", model, settings | {"minutes": 2.0}) == "all"
    assert again.missing("water", table.MODELS[1], settings) == "all"
    again.keep("water", model, ROW | {"settings": settings})
    assert runs.Results(tmp_path).missing("water", model, settings) == ""


def test_names():
    assert len({model.name for model in table.MODELS}) == len(table.MODELS)
    assert {model.peer for model in table.MODELS} == set(table.PEERS) == set(STYLES)
    assert {model.peer for model in table.chosen(["nep", table.MODELS[0].name])} == {"nep", table.MODELS[0].peer}
    with pytest.raises(ValueError, match="got 'nothing'"):
        table.chosen(["nothing"])


def test_a_worker_that_fails_is_a_row_with_its_last_line(tmp_path, monkeypatch):
    peer = table.Peer(versions=("no-such-package",))
    monkeypatch.setitem(table.PEERS, "broken", peer)
    model = table.Model("broken", "broken")
    row = runs.run(model, {}, runs.settings_of(model, SIZES, 0.1, 1), tmp_path, tmp_path / "run", 0.0)
    assert row["absent"].startswith("failed: ModuleNotFoundError: No module named 'perf.pareto.fit_broken'")


def test_an_environment_is_used_again(tmp_path):
    python = tmp_path / "bin" / "python"
    (tmp_path / environments.MARK).write_text("a>=1\nb<2")
    assert environments.interpreter(tmp_path, ("a>=1", "b<2")) == python


class Trial:
    """A training with a clock of its own: 10 s of preparation, then so many epochs of 2 s."""

    def __init__(self, log, n_epochs):
        self.now, self._log, self._n_epochs, self.ended = 0.0, log, n_epochs, False

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += 3.1 * seconds  # late, as on a busy machine
        n_epochs = int(min((self.now - 10.0) // 2.0, self._n_epochs))
        if n_epochs >= 0:
            self._log.write_text("epoch\n" + "1\n" * n_epochs)

    def poll(self):
        return 0 if self.now > 10.0 + 2.0 * self._n_epochs else None

    def terminate(self):
        self.ended = True

    def wait(self):
        assert self.ended


@pytest.mark.parametrize("n_epochs", [100, 1])
def test_epochs_fill_the_time(tmp_path, monkeypatch, n_epochs):
    trial = Trial(tmp_path / "log.csv", n_epochs)
    monkeypatch.setattr(worker, "time", trial)
    monkeypatch.setattr(worker.subprocess, "Popen", lambda command, **options: trial)
    if n_epochs == 1:
        with pytest.raises(RuntimeError, match="a trial of train me to see its pace gave 1 epochs"):
            worker.epochs_for(2.0, ["train", "me"], tmp_path / "log.csv")
    else:
        assert worker.epochs_for(2.0, ["train", "me"], tmp_path / "log.csv") in (54, 55)  # of 110 s
    assert trial.ended


def test_figure(tmp_path):
    rows = {
        f"{peer} {k}": ROW | {"peer": peer, "cost_us": 4.0 + k, "forces_mae": 20.0 - k, "cost_disturbed": k == 1}
        for peer in STYLES
        for k in range(2)
    }
    rows["gone"] = {"peer": "mtp", "absent": "no"}
    draw({"water": rows, "nothing": {"gone": rows["gone"]}}, tmp_path / "pareto.png")
    assert imread(tmp_path / "pareto.png").shape[0] == 150 * 4.2
    draw({"nothing": {"gone": rows["gone"]}}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    assert front([(1.0, 3.0), (2.0, 4.0), (3.0, 1.0)]) == [(1.0, 3.0), (3.0, 1.0)]


def test_results_are_shown(tmp_path, folder, capsys, monkeypatch):
    monkeypatch.setattr("perf.pareto.__main__.run", lambda *arguments, **options: dict(ROW, settings={}))
    sizes = ["--train", "6", "--validation", "2", "--test", "3"]
    model = table.MODELS[0].name
    common = ["--only", model, "--molecules", "water", "--data", str(folder), "--results", str(tmp_path / "out")]
    main([*common, *sizes])
    shown = capsys.readouterr().out
    assert "20.1" in shown and "3 epochs" in shown
    file = json.loads(next((tmp_path / "out").glob("pareto-*.json")).read_text())
    assert set(file["molecules"]["water"]) == {model}
    assert (tmp_path / "out" / "pareto.png").is_file()
