"""Runs of molecular dynamics: killed, resumed, extended and stopped ones give the data of an uninterrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read, write
from models import random_parts
from typer.testing import CliRunner

import gmcore.cli
from gmcore.anisotropy import invariants
from gmcore.config import ConfigError, parse_config
from gmcore.dynamics.checkpoint import RunError, read_checkpoint
from gmcore.dynamics.config import MDConfig
from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.langevin import Langevin
from gmcore.dynamics.recorder import Recorder
from gmcore.dynamics.run_folder import alone_in
from gmcore.dynamics.runner import describe_run, run_md
from gmcore.dynamics.stops import RunStopped
from gmcore.dynamics.tensor_observer import TensorObserver, declared_molecules
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import GMError
from gmcore.model import load_model
from gmcore.model_file import write_model
from gmcore.structures import StructureError
from gmcore.templates import template

MOLECULE = Atoms("CoN2H2", [[0, 0, 0], [1.9, 0, 0], [-1.9, 0.1, 0], [2.3, 0.9, 0], [-2.3, 0, 0.9]])
SIZE = {"species": (1, 7, 27), "hidden": (6,), "r_max": 3.0, "n_basis": 4, "n_radial": 2}


def write_weak_model(path: Path, head: str, n_members: int, seed: int = 0) -> None:
    """A random model whose forces are so weak that atoms never meet within a test."""
    settings, members = random_parts((head,), n_members=n_members, seed=seed, **SIZE)
    members = [replace(m, scale={name: 0.05 * scale for name, scale in m.scale.items()}) for m in members]
    write_model(path, settings, members)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_weak_model(folder / "potential.h5", "energy", 2)
    write_weak_model(folder / "single.h5", "energy", 1)
    write_weak_model(folder / "d.h5", "d_tensor", 3)
    write(folder / "molecule.extxyz", MOLECULE)
    crystal = MOLECULE.copy()
    crystal.set_cell([[7.0, 0, 0], [1.0, 7.5, 0], [-0.5, 1.0, 8.0]])
    crystal.pbc = True
    crystal.translate([0.95, 0.9, 0.02] @ crystal.cell.array)
    crystal.wrap()
    write(folder / "crystal.extxyz", crystal)
    return folder


def raw(inputs: Path, output: Path, **changes) -> dict:
    """Two replicas, 15 steps of equilibration and 40 of production; intervals that do not divide a chunk."""
    return {
        "output": str(output),
        "potential": str(inputs / "potential.h5"),
        "structure": {"file": str(inputs / "molecule.extxyz")},
        "replicas": {"temperatures": [100, 300], "seeds": [1]},
        "ensemble": {"kind": "langevin", "friction": 20},
        "equilibration": 0.0075,
        "duration": 0.02,
        "chunk": 0.005,
        "record": {"positions": 4, "velocities": 3, "scalars": 6, "precision": "float64"},
        "d_tensor": {"model": str(inputs / "d.h5"), "every": 7, "molecule": {"metal": "Co"}},
        "threads": 1,
        **changes,
    }


def configured(*arguments, **changes) -> MDConfig:
    return parse_config(yaml.safe_dump(raw(*arguments, **changes)), kind=MDConfig)


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> Path:
    """The uninterrupted run."""
    return run_md(configured(inputs, tmp_path_factory.mktemp("whole")))


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: every sample, and the state to go on from."""
    first, second = Trajectory(one), Trajectory(other)
    assert first.names() == second.names() and len(first.steps("position")) > 5
    for name in first.names():
        np.testing.assert_array_equal(first.steps(name), second.steps(name))
        for replica in range(first.n_replicas):
            np.testing.assert_array_equal(first.values(name, replica), second.values(name, replica), err_msg=name)
    with np.load(one / "state.npz") as a, np.load(other / "state.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


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
    assert invariants(alone).d != 0.0
    indices = declared_molecules(crystal, None, list(range(5)), MOLECULE)
    again = TensorObserver(model, indices)(moved, np.repeat(crystal.cell.array[None], 2, axis=0))
    np.testing.assert_allclose(again["d_tensor"], found["d_tensor"], rtol=1e-9, atol=1e-9)


DRIVER = """
import os, random, signal, sys
from pathlib import Path
from gmcore.config import load_config
from gmcore.dynamics.config import MDConfig
from gmcore.dynamics.langevin import Langevin
from gmcore.dynamics.run_folder import alone_in
from gmcore.dynamics.runner import run_md

config = load_config(sys.argv[1], MDConfig)

def attempt(fatal):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0
    def counted(name, function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == fatal:
                os.write(1, f"{name}\\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call
    os.replace, os.fsync = counted("replace", os.replace), counted("fsync", os.fsync)
    Path.unlink, Langevin.step = counted("unlink", Path.unlink), counted("step", Langevin.step)
    run_md(config)
    os._exit(0)

rng = random.Random(7)
for _ in range(8):
    if attempt(rng.randint(3, 50)) != signal.SIGKILL:
        break
assert attempt(0) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_random_moments(whole, inputs, tmp_path):
    (tmp_path / "md.yaml").write_text(yaml.safe_dump(raw(inputs, tmp_path / "run")))
    environment = os.environ | {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "md.yaml")],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    killed_in = result.stdout.split()
    assert len(killed_in) >= 5 and len(set(killed_in)) >= 3, killed_in
    assert_same_run(tmp_path / "run", whole)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "state.npz", "trajectory.h5"]


ENSEMBLES = [
    {"kind": "langevin", "friction": 20},
    {"kind": "nose_hoover", "thermostat_time": 20},
    {"kind": "nve"},
    {"kind": "npt", "barostat_time": 200},
]


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=lambda ensemble: ensemble["kind"])
def test_an_extended_run_is_one_long_run(inputs, tmp_path, ensemble):
    changes = {"ensemble": ensemble, "structure": {"file": str(inputs / "crystal.extxyz")}}
    long = run_md(configured(inputs, tmp_path / "long", **changes))
    run_md(configured(inputs, tmp_path / "short", duration=0.01, **changes))
    assert Trajectory(tmp_path / "short").steps("position")[-1] == 20
    extended = run_md(configured(inputs, tmp_path / "short", **changes))
    assert_same_run(extended, long)
    assert not (extended / "trajectory").exists()
    trajectory = Trajectory(extended)
    assert ("stress" in trajectory.names()) == (ensemble["kind"] == "npt")
    boxes = trajectory.values("box", 0)
    assert (np.ptp(boxes, axis=0).max() > 0) == (ensemble["kind"] == "npt")
    assert np.isnan(trajectory.temperatures).all() == (ensemble["kind"] == "nve")


def test_every_chunk_begins_with_a_new_neighbor_list(inputs, tmp_path, monkeypatch):
    """What bit-exact continuation rests on: the order of pairs depends on where a list was built."""
    calls, forget = [], Langevin.restart

    def restart(self):
        calls.append(self.state.step)
        forget(self)

    monkeypatch.setattr(Langevin, "restart", restart)
    run_md(configured(inputs, tmp_path))
    assert calls == [0, 0, 10, 15, 25, 35, 45]  # set up, then 10 + 5 steps of equilibration and four chunks


def test_replicas_do_not_depend_on_each_other(whole, inputs, tmp_path):
    alone = run_md(configured(inputs, tmp_path, replicas={"temperatures": [300], "seeds": [1]}))
    np.testing.assert_allclose(
        Trajectory(alone).values("position", 0), Trajectory(whole).values("position", 1), rtol=0, atol=1e-10
    )


def test_fixed_atoms_stay(inputs, tmp_path):
    trajectory = Trajectory(run_md(configured(inputs, tmp_path, duration=0.005, fixed=[0, 2])))
    moved = np.abs(trajectory.values("position", 0) - MOLECULE.positions).max(axis=(0, 2))
    assert (moved[[0, 2]] == 0).all() and (moved[[1, 3, 4]] > 0).all()


# --- stops


def nan_at(call: int):
    """`BatchForces.__call__` that gives NaN for replica 1 from a call on."""
    count, original = 0, BatchForces.__call__

    def forces(self, positions, cells, want_stress=False):
        nonlocal count
        count += 1
        result = original(self, positions, cells, want_stress)
        if count >= call:
            result.forces[1, 2, 0] = np.nan
        return result

    return forces


def refused_at(call: int):
    """`BatchForces.__call__` that refuses the structure at a call."""
    count, original = 0, BatchForces.__call__

    def forces(self, *arguments):
        nonlocal count
        count += 1
        if count == call:
            raise StructureError("positions must be finite, got [nan, 0, 0]")
        return original(self, *arguments)

    return forces


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ({"temperature": 30, "every": 4}, r"replica 300 K, seed 1.*: the temperature must stay below stop.temperature"),
        ({"forces_deviation": 1e-6}, r"the deviation of the force on atom \d \((Co|N|H)\) must stay below"),
        ({"broken_bonds": 1.0001}, r"the length of bond (Co|N) \d - (N|H) \d must stay below .* times that at the st"),
    ],
)
def test_stops(inputs, tmp_path, stop, message):
    with pytest.raises(RunStopped, match=message):
        run_md(configured(inputs, tmp_path, equilibration=0.0, stop=stop))
    frames = read(tmp_path / "stopped.extxyz", ":")
    assert all(frame.get_forces().any() and frame.info["name"].endswith("seed 1") for frame in frames)


@pytest.mark.parametrize(
    ("patched", "message", "n_frames"),
    [
        (nan_at(34), "replica 300 K, seed 1: energies, forces and stress must be finite", 1),
        (refused_at(34), "positions", 2),
    ],
)
def test_what_was_recorded_before_a_stop_is_kept(whole, inputs, tmp_path, monkeypatch, patched, message, n_frames):
    # calls: one when the run is set up, then per chunk one and one for each step; the 34th is step 14 of the production
    with monkeypatch.context() as patch, pytest.raises(RunStopped, match=message) as stopped:
        patch.setattr(BatchForces, "__call__", patched)
        run_md(configured(inputs, tmp_path))
    assert "at 0.007 ps; see" in str(stopped.value) and len(read(tmp_path / "stopped.extxyz", ":")) == n_frames
    kept, expected = Trajectory(tmp_path), Trajectory(whole)
    assert kept.steps("position").tolist() == [0, 4, 8, 12] and kept.steps("velocity").tolist() == [0, 3, 6, 9, 12]
    for replica in range(2):
        np.testing.assert_array_equal(kept.values("velocity", replica), expected.values("velocity", replica)[:5])
    run_md(configured(inputs, tmp_path))
    assert_same_run(tmp_path, whole)
    assert not (tmp_path / "stopped.extxyz").exists()


def test_stress_that_is_not_finite_stops_the_run(inputs, tmp_path, monkeypatch):
    original = BatchForces.__call__

    def forces(*arguments):
        result = original(*arguments)
        result.stress[0, 1, 1] = np.inf
        return result

    monkeypatch.setattr(BatchForces, "__call__", forces)
    changes = {"ensemble": {"kind": "npt"}, "structure": {"file": str(inputs / "crystal.extxyz")}, "equilibration": 0.0}
    with pytest.raises(RunStopped, match="replica 100 K, seed 1: energies, forces and stress must be finite"):
        run_md(configured(inputs, tmp_path, **changes))


def test_a_thermostat_that_overflows_stops_the_run(inputs, tmp_path):
    changes = {"ensemble": {"kind": "nose_hoover", "thermostat_time": 0.001}, "equilibration": 0.0}
    with pytest.raises(RunStopped, match=r"a Nose-Hoover chain needs .*, at 0.0005 ps; see .*stopped.extxyz"):
        run_md(configured(inputs, tmp_path, **changes))
    assert len(read(tmp_path / "stopped.extxyz", ":")) == 2 and Trajectory(tmp_path).steps("position").tolist() == [0]


def command(*arguments):
    return CliRunner().invoke(gmcore.cli.app, [str(argument) for argument in arguments])


def test_command_line(whole, inputs, tmp_path, monkeypatch):
    config = tmp_path / "md.yaml"
    config.write_text(yaml.safe_dump(raw(inputs, tmp_path / "run", stop={"temperature": 30})))
    result = command("md", config)
    assert result.exit_code == 3 and result.stderr.splitlines()[-1].startswith("stopped: replica 300 K"), result.stderr
    config.write_text(yaml.safe_dump(raw(inputs, tmp_path / "run")))
    original = Recorder.take

    def interrupted(self, step, integrator):
        if step == 25:
            raise KeyboardInterrupt
        original(self, step, integrator)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "take", interrupted)
        result = command("md", config)
    assert result.exit_code == 130 and f"continue with: gmtensor md {config}" in result.stderr
    assert Trajectory(tmp_path / "run").steps("position").max() == 20
    result = command("md", config, "--threads", 1)
    assert result.exit_code == 0 and "written:" in result.stdout and "ns/day x 2" in result.stderr
    assert_same_run(tmp_path / "run", whole)
    result = command("convert", tmp_path / "run", "-o", tmp_path / "out.extxyz", "--replica", 1, "--every", 2)
    assert result.exit_code == 0 and len(read(tmp_path / "out.extxyz", ":")) == 6
    config.write_text(yaml.safe_dump(raw(inputs, tmp_path / "run", duration=0.005)))
    assert "duration must not be below the 0.02 ps" in command("md", config).stderr
    assert command("md", config, "--no-resume").exit_code == 0
    assert Trajectory(tmp_path / "run").steps("position").max() == 8


# --- refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_step": 0.25}, r"time_step \(was 0.5, is 0.25\)"),
        ({"ensemble": {"friction": 5}}, r"ensemble.friction \(was 20.0, is 5.0\)"),
        ({"d_tensor": None}, r"d_tensor.every \(was 7, is not given\), .*the contents of d_tensor.model"),
        ({"potential": "single.h5"}, "got changes in the contents of potential; choose another output"),
        ({"duration": 0.01}, "duration must not be below the 0.02 ps"),
    ],
)
def test_refuses_to_go_on_with_other_settings(whole, inputs, changes, message):
    if "potential" in changes:
        changes = {"potential": str(inputs / changes["potential"])}
    before = (whole / "state.npz").read_bytes()
    with pytest.raises(RunError, match=message):
        run_md(configured(inputs, whole, **changes))
    assert (whole / "state.npz").read_bytes() == before


def test_a_moved_folder_goes_on(whole, inputs, tmp_path):
    for name in ("potential.h5", "d.h5", "molecule.extxyz"):
        (tmp_path / name).write_bytes((inputs / name).read_bytes())
    run_md(configured(inputs, tmp_path / "old", duration=0.005))
    (tmp_path / "old").rename(tmp_path / "new")
    run_md(configured(tmp_path, tmp_path / "new"))
    assert_same_run(tmp_path / "new", whole)


def test_refuses_folders_of_something_else(inputs, tmp_path):
    (tmp_path / "config.yaml").write_text("data:")
    for resume in (True, False):
        with pytest.raises(RunError, match=r"must be empty or hold a run, it holds a config.yaml without state.npz"):
            run_md(configured(inputs, tmp_path), resume=resume)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "trajectory").mkdir()
    with pytest.raises(
        RunError, match=r"holds a trajectory without state.npz: start over with gmtensor md --no-resume"
    ):
        run_md(configured(inputs, tmp_path))
    for damaged in (b"PK no archive", b""):
        (tmp_path / "state.npz").write_bytes(damaged)
        with pytest.raises(RunError, match=r"state.npz is damaged or no state of a run: put it back, or start over"):
            read_checkpoint(tmp_path)
    for resume in (True, False):
        with pytest.raises(RunError, match=r"output must be a folder, .*state.npz is a file"):
            run_md(configured(inputs, tmp_path / "state.npz"), resume=resume)


def test_refuses_to_go_on_without_its_samples(inputs, tmp_path):
    """Those of a finished run, and of one of its chunks, lost or damaged."""
    config = configured(inputs, tmp_path / "run", duration=0.01)
    joined = run_md(config) / "trajectory.h5"
    whole = joined.read_bytes()
    longer = configured(inputs, tmp_path / "run")
    joined.write_bytes(whole[: len(whole) // 2])
    for again in (config, longer):
        with pytest.raises(RunError, match=r"trajectory.h5 is no trajectory .* put it back, or start over"):
            run_md(again)
    joined.unlink()
    for again in (config, longer):
        with pytest.raises(RunError, match=r"trajectory/000000.h5 does not exist, but the run in .* put it back"):
            run_md(again)


def test_samples_after_the_end_are_not_joined(whole, inputs, tmp_path, monkeypatch):
    """A run that stopped within a chunk and is declared finished before it, and later goes on after all."""
    with monkeypatch.context() as patch:
        patch.setattr(BatchForces, "__call__", nan_at(44))
        with pytest.raises(RunStopped):
            run_md(configured(inputs, tmp_path / "run"))
    assert Trajectory(tmp_path / "run").steps("velocity")[-1] > 20
    run_md(configured(inputs, tmp_path / "run", duration=0.01))
    assert Trajectory(tmp_path / "run").steps("velocity")[-1] == 18
    assert_same_run(run_md(configured(inputs, tmp_path / "run")), whole)


def test_one_process_at_a_time(inputs, tmp_path):
    pytest.importorskip("fcntl")
    with (
        alone_in(tmp_path / "run"),
        pytest.raises(RunError, match=r"one process at a time may run in .*, got a second"),
    ):
        run_md(configured(inputs, tmp_path / "run"))
    assert not list((tmp_path / "run").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"must be a folder that can be made, .* cannot: Not a directory"):
        run_md(configured(inputs, tmp_path / "file" / "run"))


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
        ({"potential": "missing.h5"}, "potential .*missing.h5 cannot be read: No such file"),
        ({"structure": {"file": "missing.extxyz"}}, "structure.file .*missing.extxyz cannot be read: No such file"),
        ({"structure": {"file": "molecule.extxyz", "index": 3}}, "must hold a structure of index 3, it holds fewer"),
        ({"structure": {"file": "potential.h5"}}, "structure.file: structure 0 of .* cannot be read"),
        ({"stop": {"forces_deviation": 1.0}, "potential": "single.h5"}, "needs a committee, got a potential with one"),
        ({"fixed": [7]}, "fixed atoms must be indices below 5"),
        ({"ensemble": {"kind": "npt"}}, "NPT needs a system that is periodic"),
        ({"d_tensor": {"model": "potential.h5", "molecule": {"metal": "Co"}}}, "must predict one D tensor"),
        ({"d_tensor": {"model": "d.h5", "molecule": {"metal": "Fe"}}}, "holds no Fe"),
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
        ({"chunk": 0.0051}, "chunk must be a whole number of steps of 0.5 fs, got 0.0051 ps"),
        ({"chunk": 0.0001}, "chunk must be a whole number of steps"),
        ({"equilibration": 0.0001}, "equilibration must be a whole number of steps"),
        ({"device": "cuda"}, "device must be 'cpu', dynamics does not run on other devices yet, got 'cuda'"),
        ({"ensemble": {"kind": "nve", "friction": 3}}, "ensemble.friction has no meaning for kind nve: leave it out"),
        ({"ensemble": {"kind": "verlet"}}, "ensemble.kind: input should be 'langevin'"),
        ({"replicas": {"temperatures": [50, 50]}}, r"replicas.temperatures must differ from each other"),
        ({"replicas": {"temperatures": [-1]}}, r"replicas.temperatures.0: input should be greater than 0"),
        ({"d_tensor": {"model": "d.h5", "molecule": {}}}, "must be declared in one way"),
        (
            {"d_tensor": {"model": "d.h5", "molecule": {"metal": "Cx"}}},
            "must be a chemical symbol such as Co, got 'Cx'",
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
    lines = describe_run(configured(inputs, tmp_path / "run"))
    assert "2 replicas: 100 K, seed 1; 300 K, seed 1" in lines and any("D of 1 x 5 atoms" in line for line in lines)
    assert not (tmp_path / "run").exists()
    json.dumps(lines)
