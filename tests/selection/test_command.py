"""`gmtensor select`: from runs and files to chosen frames, and what it refuses."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.io import read, write

from gmcore.dynamics.trajectory import Trajectory
from gmcore.model import load_model
from support.command_line import refused, run
from support.md_runs import MOLECULE
from support.selection import BROKEN


def test_frames_of_a_run(folder, tmp_path):
    arguments = ("select", folder / "run", "--model", folder / "d.h5", "-n", 8, "--threads", 1, "-o")
    done = run(*arguments, tmp_path / "chosen.extxyz")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "candidates: 240" and lines[1] == f"broken, left out: {len(BROKEN)}"
    trajectory = Trajectory(folder / "run")
    for line, ((replica, frame), kind) in zip(lines[2:6], sorted(BROKEN.items())):
        time = trajectory.times("position")[frame] / 1000.0
        assert line.startswith(f"  {folder / 'run'}, replica {replica}, {time:g} ps: ") and kind in line
    header, *rows = (line.split("  ") for line in lines[-10:-1])
    assert [text.strip() for text in header if text.strip()] == [
        "source", "frame", "replica", "time [ps]", "T [K]", "error [cm^-1]", "grade", "distance", "why",
    ]  # fmt: skip
    assert len(rows) == 8 and lines[-1] == f"written: {tmp_path / 'chosen.extxyz'} (8 structures)"
    chosen = read(tmp_path / "chosen.extxyz", ":")
    result = load_model(folder / "d.h5").predict(chosen, ["d_tensor"])
    for k, frame in enumerate(chosen):
        info = frame.info
        recorded = trajectory.values("position", info["replica"])[info["frame"]]
        np.testing.assert_allclose(frame.positions, recorded, atol=1e-6)
        assert info["time"] == trajectory.times("position")[info["frame"]]
        assert info["temperature"] == trajectory.temperatures[info["replica"]]
        assert (info["total_charge"], info["multiplicity"]) == (-2.0, 4)
        assert info["d_tensor_error"] == pytest.approx(result["d_tensor_error"][k], rel=1e-5)
        assert info["d_tensor_extrapolation"] == pytest.approx(result["extrapolation"][k], rel=1e-5)
        assert (info["replica"], info["frame"]) not in BROKEN and "d_tensor" not in info
        assert "x median" in info["reason"] or "grade" in info["reason"]
        assert info["units"] == "positions=A time=fs temperature=K d_tensor_error=cm^-1"
    assert run(*arguments, tmp_path / "again.extxyz").out.splitlines()[:-1] == lines[:-1]
    assert (tmp_path / "again.extxyz").read_bytes() == (tmp_path / "chosen.extxyz").read_bytes()


def test_a_run_knows_its_models_and_their_training_data(folder, tmp_path):
    for name in ("run", "d.h5", "potential.h5", "labeled.extxyz"):
        (shutil.copytree if name == "run" else shutil.copyfile)(folder / name, tmp_path / name)
    write(tmp_path / "start.extxyz", next(Trajectory(folder / "run").frames(0)))
    config = {
        "output": str(tmp_path / "run"),
        "potential": str(tmp_path / "potential.h5"),
        "structure": {"file": str(tmp_path / "start.extxyz")},
        "replicas": {"temperatures": [10, 20], "seeds": [1, 2]},
        "duration": 0.5,
        "d_tensor": {"model": str(tmp_path / "d.h5"), "molecule": {"metal": "Co"}},
    }
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("labeled.extxyz", "run/../labeled.extxyz"):  # the training data, which no option names
        assert "must not be a file that is read" in refused("select", tmp_path / "run", "-o", tmp_path / name)
    assert "the suffix of the output must be" in refused("select", tmp_path / "run", "-o", tmp_path / "d.h5")
    assert "is a file of a run" in refused("select", tmp_path / "run", "-o", tmp_path / "run" / "stopped.extxyz")
    done = run("select", tmp_path / "run", "--for", "both", "-n", 5, "-o", tmp_path / "both.extxyz")
    assert done.code == 0, done.err
    frames = read(tmp_path / "both.extxyz", ":")
    assert len(frames) == 5 and all(frame.info["distance"] > 0.5 for frame in frames)
    forces = load_model(folder / "potential.h5").predict(frames, ["forces"])["forces_error"].max(axis=1)
    np.testing.assert_allclose([frame.info["forces_error_largest"] for frame in frames], forces, rtol=1e-5)
    assert {path: path.read_bytes() for path in before} == before


def test_runs_and_files_together(folder, tmp_path):
    frames = read(folder / "labeled.extxyz", ":6")
    for k, frame in enumerate(frames[:4]):
        frame.rattle(0.07, seed=k)
        frame.info = {"total_charge": 1.0, "multiplicity": 2, "units": "positions=nm"}
        frame.set_cell(0.1 * frame.cell.array)
        frame.positions *= 0.1
    for frame in frames[4:]:  # the training data themselves, turned
        frame.rotate(40.0, "x")
        frame.info = {}
    write(tmp_path / "four.extxyz", frames[:4])
    write(tmp_path / "two.extxyz", frames[4:])
    done = run(
        "select", folder / "run", tmp_path / "four.extxyz", tmp_path / "two.extxyz", "--model", folder / "d.h5",
        "--min-error", 0, "-n", 300, "-o", tmp_path / "chosen.extxyz",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "near-duplicates of the 40 labeled structures, left out: " in done.out
    chosen = read(tmp_path / "chosen.extxyz", ":")
    assert done.out.endswith(f"({len(chosen)} structures, fewer than the 300 asked for)\n") and 20 < len(chosen) < 240
    assert not any(frame.info["source"].endswith("two.extxyz") for frame in chosen)
    own = [frame for frame in chosen if frame.info["source"].endswith("four.extxyz")]
    assert sorted(frame.info["frame"] for frame in own) == [0, 1, 2, 3]
    assert all(frame.info["total_charge"] == 1.0 and frame.info["multiplicity"] == 2 for frame in own)
    lengths = sorted(frame.get_distance(0, 1) for frame in own)
    np.testing.assert_allclose(lengths, sorted(10 * frame.get_distance(0, 1) for frame in frames[:4]), rtol=1e-6)


def test_training_data_say_nothing_of_the_charge_of_other_molecules(folder, tmp_path):
    write(tmp_path / "other.extxyz", molecule("NH3"))
    models = ("--model", folder / "d.h5", "--min-error", 0)
    assert run("select", tmp_path / "other.extxyz", *models, "-o", tmp_path / "x.extxyz").code == 0
    assert not {"total_charge", "multiplicity"} & read(tmp_path / "x.extxyz").info.keys()


def test_lost_training_data_are_named(folder, tmp_path):
    shutil.copyfile(folder / "d.h5", tmp_path / "d.h5")
    done = run("select", folder / "run", "--model", tmp_path / "d.h5", "-n", 2, "-o", tmp_path / "x.extxyz")
    assert done.code == 0 and f"training data of {tmp_path / 'd.h5'} not found: {tmp_path}" in done.err


def test_random_frames_are_a_baseline(folder, tmp_path):
    arguments = ("select", folder / "run", "--model", folder / "d.h5", "-n", 10, "-o", tmp_path / "x.extxyz")

    def errors(*more) -> tuple[list, float]:
        assert run(*arguments, *more).code == 0
        chosen = read(tmp_path / "x.extxyz", ":")
        return [(f.info["replica"], f.info["frame"]) for f in chosen], np.mean(
            [f.info["d_tensor_error"] for f in chosen]
        )

    best, largest = errors()
    drawn = [errors("--random", "--seed", seed) for seed in (1, 1, 2)]
    assert drawn[0][0] == drawn[1][0] != drawn[2][0] and not set(drawn[0][0]) & set(BROKEN)
    assert all(mean < largest for _, mean in drawn) and drawn[0][0] != best
    assert {frame.info["reason"] for frame in read(tmp_path / "x.extxyz", ":")} == {"drawn at random"}


def test_a_crystal_gives_molecules_for_d_and_cells_for_forces(folder, tmp_path):
    models = ("--model", folder / "d.h5", "--model", folder / "potential.h5", "-n", 3, "-o", tmp_path / "x.extxyz")
    assert run("select", folder / "crystal", "--for", "d_tensor", *models).code == 0
    assert not any(frame.pbc.any() or frame.cell.array.any() for frame in read(tmp_path / "x.extxyz", ":"))
    assert run("select", folder / "crystal", "--for", "forces", *models).code == 0
    for frame in read(tmp_path / "x.extxyz", ":"):
        assert frame.pbc.all() and frame.cell.lengths() == pytest.approx([7.0, 7.0, 7.0])
    assert "belong to different structures" in refused("select", folder / "crystal", "--for", "both", *models)


@pytest.mark.parametrize("system", ["crystal", "run"])
def test_stopped_frames_are_frames_of_their_run(folder, tmp_path, system):
    shutil.copytree(folder / system, tmp_path / "md")
    frames = list(Trajectory(tmp_path / "md").frames(1))[-2:]
    frames[1].positions[8] *= 1.3
    write(tmp_path / "md" / "stopped.extxyz", frames)
    stopped, output = tmp_path / "md" / "stopped.extxyz", tmp_path / "x.extxyz"
    models = ("--model", folder / "d.h5", "--min-error", 0, "-n", 200, "-o", output)
    done = run("select", tmp_path / "md", stopped, *models)
    assert done.code == 0, done.err
    (line,) = (line for line in done.out.splitlines() if str(stopped) in line and "the bond N 4 - H 8 is" in line)
    assert line.endswith("times as long as at the start")
    lone = run("select", stopped, *models)  # without its run it is a file like any other
    assert lone.code == 0 and "the bond" not in lone.out
    chosen = read(output, ":")
    assert any(frame.info["frame"] == 0 for frame in chosen) and chosen[0].pbc.all() == (system == "crystal")


def test_nothing_qualifies(folder, tmp_path):
    output = tmp_path / "x.extxyz"
    done = run("select", folder / "run", "--model", folder / "d.h5", "--min-error", 1e9, "-o", output)
    assert done.code == 4 and done.err == "no frame qualifies: nothing is written\n" and not output.exists()
    (tmp_path / "broken.xyz").write_text("2\n\nN 0 0 0\nN 0 0 0.3\n")
    done = run("select", tmp_path / "broken.xyz", "--model", folder / "d.h5", "-o", output)
    assert done.code == 4 and "frame 0: the atoms N 0 and N 1 overlap: 0.3 A" in done.out


def test_what_is_refused(folder, inputs, tmp_path):
    d, potential, output = folder / "d.h5", folder / "potential.h5", ("-o", tmp_path / "x.extxyz")
    labeled = folder / "labeled.extxyz"
    assert "give the model with --model" in refused("select", labeled, *output)
    assert "must predict forces" in refused("select", labeled, "--model", d, "--for", "forces", *output)
    assert "one model must predict d_tensor" in refused(
        "select", labeled, "--model", d, "--model", inputs / "d.h5", *output
    )
    assert "--for must be one of d_tensor, forces, both" in refused(
        "select", labeled, "--model", d, "--for", "D", *output
    )
    both = ("--model", d, "--model", potential, "--for", "both")
    assert "which error it is about" in refused("select", labeled, *both, "--min-error", 1, *output)
    assert "not negative, got 'much'" in refused("select", labeled, "--model", d, "--min-error", "much", *output)
    assert "--random draws frames" in refused("select", labeled, "--model", d, "--random", "--min-grade", 1, *output)
    bare = tmp_path / "bare.npz"
    np.savez(bare, R=MOLECULE.positions[None], Z=MOLECULE.numbers)
    assert 'bare.npz must state its unit of length: add units="positions=A"' in refused(
        "select", bare, "--model", d, *output
    )
    assert "has no trajectory" in refused("select", tmp_path, "--model", d, *output)
    write(tmp_path / "molecule.extxyz", MOLECULE)
    message = refused("select", tmp_path / "molecule.extxyz", "--model", inputs / "bare.h5", *output)
    assert "must say how large its errors are" in message
