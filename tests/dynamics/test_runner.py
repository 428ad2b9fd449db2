"""Runs from a configuration: what they leave, how they are described, what is refused before anything is written."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read
from typer.testing import CliRunner

import gmcore.commands.app
from gmcore.anisotropy import zfs_parameters
from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import ConfigError, parse_config
from gmcore.config.templates import template
from gmcore.dynamics.export import export
from gmcore.dynamics.recorder import Recorder
from gmcore.dynamics.runner import check_run, run_md
from gmcore.dynamics.tensor_observer import TensorObserver, declared_molecules
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import GMError
from gmcore.model import load_model
from support.md_runs import ENSEMBLES, MOLECULE, assert_same_run, configured, raw


def test_what_a_run_leaves(whole, inputs):
    assert sorted(path.name for path in whole.iterdir()) == ["config.yaml", "state.npz", "trajectory.h5"]
    trajectory = Trajectory(whole)
    assert trajectory.steps("position").tolist() == list(range(0, 41, 4))
    assert trajectory.steps("velocity").tolist() == list(range(0, 41, 3))
    assert trajectory.steps("temperature").tolist() == list(range(0, 41, 6))
    assert trajectory.steps("d_tensor").tolist() == list(range(0, 41, 7))
    assert trajectory.temperatures.tolist() == [100.0, 300.0] and trajectory.ensemble == "langevin"
    assert trajectory.molecule_numbers.tolist() == MOLECULE.numbers.tolist()
    for replica in range(2):
        energies = [trajectory.values(name, replica) for name in ("potential_energy", "kinetic_energy", "temperature")]
        assert all(np.ptp(series) > 0 for series in energies) and (energies[1] > 0).all()
        frames = list(trajectory.frames(replica))
        predicted = load_model(inputs / "potential.h5").predict(frames[::3])  # steps 0, 12, ...: also scalars
        np.testing.assert_allclose(
            predicted["energy"], [frame.get_potential_energy() for frame in frames[::3]], rtol=1e-12
        )
        members = predicted["forces_std"]
        np.testing.assert_allclose(
            np.sqrt((members**2).sum(axis=2).mean(axis=1)),
            [frame.info["forces_deviation"] for frame in frames[::3]],
            rtol=1e-8,
        )
        np.testing.assert_allclose(
            [frame.info["extrapolation"] for frame in frames[::3]], predicted["extrapolation"], rtol=1e-8
        )
    before = (whole / "trajectory.h5").stat().st_mtime_ns
    assert run_md(configured(inputs, whole)) == whole  # nothing is left to do
    assert (whole / "trajectory.h5").stat().st_mtime_ns == before


def test_the_tensors_are_those_of_the_molecule(whole, inputs):
    trajectory, model = Trajectory(whole), load_model(inputs / "d.h5")
    positions = trajectory.values("molecule_position", 1)[:, 0]
    predicted = model.predict([Atoms(trajectory.molecule_numbers, r) for r in positions])
    np.testing.assert_allclose(trajectory.values("d_tensor", 1)[:, 0], predicted["d_tensor"], rtol=1e-10, atol=1e-12)
    members = trajectory.values("d_tensor_members", 1)[:, :, 0]
    assert members.shape[1] == 3
    np.testing.assert_allclose(members.std(axis=1), predicted["d_tensor_std"], rtol=1e-8, atol=1e-12)
    grades = trajectory.values("d_tensor_extrapolation", 1)[:, 0]
    np.testing.assert_allclose(grades, predicted["extrapolation"], rtol=1e-8)
    assert trajectory.unit("d_tensor_extrapolation") == "" and np.ptp(grades) > 0.0


def test_a_single_model_records_the_deviation_of_its_draws(inputs, tmp_path):
    d_tensor = {"model": str(inputs / "d_single.h5"), "every": 6, "molecule": {"metal": "Co"}}
    folder = run_md(configured(inputs, tmp_path, potential=str(inputs / "single.h5"), d_tensor=d_tensor))
    trajectory, potential = Trajectory(folder), load_model(inputs / "single.h5")
    frames = list(trajectory.frames(0))[::3]
    predicted = potential.predict(frames, errors=True)
    of_forces = np.sqrt((predicted["forces_std"] ** 2).sum(axis=2).mean(axis=1))
    np.testing.assert_allclose([f.info["forces_deviation"] for f in frames], of_forces, rtol=1e-6)
    np.testing.assert_allclose([f.info["energy_deviation"] for f in frames], predicted["energy_std"], rtol=1e-6)
    d, draws = trajectory.values("d_tensor", 0), trajectory.values("d_tensor_members", 0)[:, :, 0]
    frames = [Atoms(trajectory.molecule_numbers, r) for r in trajectory.values("molecule_position", 0)[:, 0]]
    expected = load_model(inputs / "d_single.h5").predict(frames)
    np.testing.assert_allclose(np.sqrt(np.mean((draws - d) ** 2, axis=1)), expected["d_tensor_std"], rtol=1e-6)
    (path,) = export(trajectory, tmp_path / "d.csv")
    with open(path, newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["d_tensor_std_xy [cm^-1]"]) == pytest.approx(expected["d_tensor_std"][0, 0, 1])
    assert float(row["d_tensor_extrapolation"]) == pytest.approx(expected["extrapolation"][0])
    assert float(row["extrapolation"]) == pytest.approx(predicted["extrapolation"][0])


def test_the_tensor_in_a_crystal_is_that_of_the_molecule(inputs):
    crystal, model = read(inputs / "crystal.extxyz"), load_model(inputs / "d.h5")
    assert np.linalg.norm(crystal.positions[1:] - crystal.positions[0], axis=1).max() > 5.0  # cut by a boundary
    observer = TensorObserver(model, declared_molecules(crystal, "Co", None))
    moved = np.repeat(crystal.positions[None], 2, axis=0)
    moved[1] += [3.0, -2.0, 1.0]
    moved[1] -= np.floor(moved[1] @ np.linalg.inv(crystal.cell.array)) @ crystal.cell.array
    found = observer(moved, np.repeat(crystal.cell.array[None], 2, axis=0))
    alone = model.predict(MOLECULE)["d_tensor"][0]
    assert found["d_tensor"].shape == (2, 1, 3, 3) and np.abs(alone).max() > 0.01
    for tensor in found["d_tensor"][:, 0]:
        np.testing.assert_allclose(tensor, alone, rtol=1e-9, atol=1e-9 * np.abs(alone).max())
    assert zfs_parameters(alone).d != 0.0
    indices = declared_molecules(crystal, None, list(range(5)), MOLECULE)
    again = TensorObserver(model, indices)(moved, np.repeat(crystal.cell.array[None], 2, axis=0))
    np.testing.assert_allclose(again["d_tensor"], found["d_tensor"], rtol=1e-9, atol=1e-9)


def test_replicas_do_not_depend_on_each_other(whole, inputs, tmp_path):
    alone = run_md(configured(inputs, tmp_path, replicas={"temperatures": [300], "seeds": [1]}))
    np.testing.assert_allclose(
        Trajectory(alone).values("position", 0), Trajectory(whole).values("position", 1), rtol=0, atol=1e-10
    )


def test_fixed_atoms_stay(inputs, tmp_path):
    trajectory = Trajectory(run_md(configured(inputs, tmp_path, duration=0.005, fixed=[0, 2])))
    moved = np.abs(trajectory.values("position", 0) - MOLECULE.positions).max(axis=(0, 2))
    assert (moved[[0, 2]] == 0).all() and (moved[[1, 3, 4]] > 0).all()


def command(*arguments):
    return CliRunner().invoke(gmcore.commands.app.app, [str(argument) for argument in arguments])


def test_command_line(whole, inputs, tmp_path, monkeypatch):
    config = tmp_path / "md.yaml"
    config.write_text(yaml.safe_dump(raw(inputs, tmp_path / "run", stop={"temperature": 30})))
    result = command("md", config)
    assert result.exit_code == 3 and result.stderr.splitlines()[-1].startswith("stopped: replica 300 K"), result.stderr
    config.write_text(yaml.safe_dump(raw(inputs, tmp_path / "run")))
    original = Recorder.take

    def interrupted(self, step, *arguments):
        if step == 25:
            raise KeyboardInterrupt
        original(self, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "take", interrupted)
        result = command("md", config)
    assert result.exit_code == 75 and f"continue with: gmtensor md {config}" in result.stderr
    assert Trajectory(tmp_path / "run").steps("position").max() == 20
    result = command("md", config, "--threads", 1)
    assert result.exit_code == 0 and "written:" in result.stdout
    assert_same_run(tmp_path / "run", whole)
    result = command("convert", tmp_path / "run", "-o", tmp_path / "out.extxyz", "--replica", 1, "--every", 2)
    assert result.exit_code == 0 and len(read(tmp_path / "out.extxyz", ":")) == 6
    config.write_text(yaml.safe_dump(raw(inputs, tmp_path / "run", duration=0.005)))
    assert "duration must be at least 0.02 ps" in command("md", config).stderr
    assert command("md", config, "--no-resume").exit_code == 0
    assert Trajectory(tmp_path / "run").steps("position").max() == 8


def test_chunks_in_which_nothing_is_due(inputs, tmp_path):
    """Their files are there all the same."""
    rare = {"record": {"positions": 20, "velocities": 0, "scalars": 20}, "d_tensor": None, "equilibration": 0}
    run_md(configured(inputs, tmp_path / "run", duration=0.015, **rare))
    trajectory = Trajectory(run_md(configured(inputs, tmp_path / "run", **rare)))
    assert trajectory.steps("temperature").tolist() == trajectory.steps("position").tolist() == [0, 20, 40]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"potential": "d.h5"}, "must predict an energy"),
        ({"potential": "missing.h5"}, "potential: the file .*missing.h5 cannot be read: No such file"),
        (
            {"structure": {"file": "missing.extxyz"}},
            "structure.file: the file .*missing.extxyz cannot be read: No such file",
        ),
        ({"structure": {"file": "molecule.extxyz", "index": 3}}, "has no structure of index 3; indices start at 0"),
        ({"structure": {"file": "potential.h5"}}, "structure.file: structure 0 of the file .* cannot be read"),
        ({"stop": {"forces_deviation": 1.0}, "potential": "bare.h5"}, "needs a potential with several members or with"),
        ({"stop": {"extrapolation": 2.0}, "potential": "bare.h5"}, "needs a potential that knows its training data"),
        ({"fixed": [7]}, "fixed atoms must be indices from 0 to 4"),
        ({"ensemble": {"kind": "npt"}}, "NPT needs a system that is periodic"),
        ({"d_tensor": {"model": "potential.h5", "molecule": {"metal": "Co"}}}, "must predict one D tensor"),
        ({"d_tensor": {"model": "d.h5", "molecule": {"metal": "Fe"}}}, "contains no Fe"),
        ({"d_tensor": {"model": "d.h5", "molecule": {"indices": [0, 9]}}}, "between 0 and 4"),
    ],
)
def test_refuses_before_anything_is_written(inputs, tmp_path, changes, message):
    def located(value):
        if isinstance(value, dict):
            return {key: located(entry) for key, entry in value.items()}
        return str(inputs / value) if isinstance(value, str) and value.endswith((".h5", ".extxyz")) else value

    with pytest.raises(GMError, match=message):
        run_md(configured(inputs, tmp_path / "run", **located(changes)), resume=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_stepp": 1}, "unknown key 'time_stepp' in the configuration; did you mean 'time_step'"),
        ({"ensemble": {"frction": 1}}, "unknown key 'frction' in ensemble; did you mean 'friction'"),
        ({"duration": 0.012}, r"duration must be a whole number of chunks of 0.005 ps, got 0.012 ps"),
        ({"duration": 1e308}, r"duration must be a whole number of chunks of 0.005 ps, got 1e\+308 ps"),
        ({"chunk": 0.0051}, "chunk must be a whole number of steps of 0.5 fs, got 0.0051 ps"),
        ({"chunk": 0.0001}, "chunk must be a whole number of steps"),
        ({"equilibration": 0.0001}, "equilibration must be a whole number of steps"),
        ({"device": "gpu"}, "device: input should be 'cpu' or 'cuda'"),
        ({"ensemble": {"kind": "nve", "friction": 3}}, "ensemble.friction is not used by nve: remove it"),
        ({"ensemble": {"kind": "verlet"}}, "ensemble.kind: input should be 'langevin'"),
        ({"replicas": {"temperatures": [50, 50]}}, r"replicas.temperatures must all be different"),
        (
            {"replicas": {"temperatures": [50], "seeds": [3] * 500}},
            r"replicas.seeds must all be different, got .{,200}$",
        ),
        ({"replicas": {"temperatures": [-1]}}, r"replicas.temperatures.0: input should be greater than 0"),
        ({"d_tensor": {"model": "d.h5", "molecule": {}}}, "needs either metal .* or indices, got neither"),
        (
            {"d_tensor": {"model": "d.h5", "molecule": {"metal": "Cx"}}},
            "must be an element symbol such as Co, got 'Cx'",
        ),
        ({"stop": {"broken_bonds": 0.9}}, "stop.broken_bonds: input should be greater than 1"),
    ],
)
def test_wrong_configurations(inputs, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        configured(inputs, tmp_path, **changes)


def test_a_resolved_configuration_reads_back(inputs, tmp_path):
    for ensemble in ENSEMBLES:
        config = configured(inputs, tmp_path, ensemble=ensemble)
        assert parse_config(config.to_yaml(), kind=MDConfig) == config
    assert parse_config(template("md"), kind=MDConfig).d_tensor.molecule.metal == "Co"


def test_describes_a_run_without_starting_it(inputs, tmp_path):
    lines = check_run(configured(inputs, tmp_path / "run"))
    assert "2 replicas: 100 K, seed 1; 300 K, seed 1" in lines and any(
        "D of 1 molecule of 5 atoms" in line for line in lines
    )
    assert not (tmp_path / "run").exists()
    json.dumps(lines)
