"""Trajectories: the documented layout, reading back what was written, export to extended XYZ and CSV."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from ase.io import read

from gmcore.anisotropy import zfs_parameters
from gmcore.dynamics.export import export
from gmcore.dynamics.h5md import QUANTITIES, merge_segments
from gmcore.dynamics.trajectory import Header, Trajectory, TrajectoryError, segment_path, write_segment
from gmcore.units import ASE_TIME
from support.places import ROOT

N_REPLICAS, N_ATOMS, N_MOLECULES, N_MEMBERS = 2, 5, 2, 3


def header(periodic=True, molecules=True, **changes) -> Header:
    parts = {
        "numbers": np.array([27, 7, 1, 7, 1], np.int32),
        "masses": np.array([58.9, 14.0, 1.0, 14.0, 1.0]),
        "pbc": np.array([periodic] * 3),
        "time_step": 0.5,
        "ensemble": "langevin",
        "temperatures": np.array([25.0, 50.0]),
        "seeds": np.array([1, 2]),
    }
    if molecules:
        parts |= {"molecule_numbers": np.array([7, 1]), "molecules": np.array([[1, 2], [3, 4]])}
    return Header(**parts | changes)


def samples(rng, first: int, last: int, periodic=True, every=2, d_every=4):
    """Random samples of every quantity at multiples of the interval from first + 1, or 0, to last."""
    sizes = {"n_atoms": N_ATOMS, "n_molecules": N_MOLECULES, "n_molecule_atoms": 2, "n_members": N_MEMBERS}
    data = {}
    for name, quantity in QUANTITIES.items():
        if name == "box" and not periodic:
            continue
        interval = d_every if name.startswith(("d_tensor", "molecule")) else every
        steps = np.arange(0 if first == 0 else first + 1, last + 1)
        steps = steps[steps % interval == 0]
        values = rng.normal(size=(N_REPLICAS, len(steps), *(sizes.get(size, size) for size in quantity.shape)))
        if values.ndim > 3 and name.startswith("d_tensor"):
            values = values + np.swapaxes(values, -1, -2)
        if name == "box":
            values = values * 0.1 + 8.0 * np.eye(3)
        data[name] = (steps, values)
    return data


def joined(*parts):
    return {
        name: (
            np.concatenate([part[name][0] for part in parts]),
            np.concatenate([part[name][1] for part in parts], axis=1),
        )
        for name in parts[0]
    }


def check(trajectory: Trajectory, expected):
    assert trajectory.names() == tuple(name for name in QUANTITIES if name in expected)
    for name, (steps, values) in expected.items():
        np.testing.assert_array_equal(trajectory.steps(name), steps)
        np.testing.assert_array_equal(trajectory.times(name), steps * 0.5)
        for replica in range(N_REPLICAS):
            np.testing.assert_array_equal(trajectory.values(name, replica), values[replica])
            for start, stop in ((0, 1), (1, None), (len(values[replica]) - 1, None), (1, len(values[replica]) - 1)):
                np.testing.assert_array_equal(
                    trajectory.values(name, replica, start, stop), values[replica, start:stop]
                )


@pytest.fixture
def run(tmp_path, rng):
    """A run of three chunks and what is in it."""
    parts = [samples(rng, first, first + 8) for first in (0, 8, 16)]
    for number, part in enumerate(parts):
        write_segment(segment_path(tmp_path, number), header(), part)
    return tmp_path, parts


def test_layout_is_h5md(tmp_path, rng):
    data = samples(rng, 0, 8)
    write_segment(tmp_path / "part.h5", header(), data)
    with h5py.File(tmp_path / "part.h5") as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert file["h5md/creator"].attrs["name"] == "gmtensor" and "name" in file["h5md/author"].attrs
        assert file["h5md/modules/units"].attrs["version"].tolist() == [1, 0]
        particles = file["particles/replica_001"]
        assert particles["species"][()].tolist() == [27, 7, 1, 7, 1] and particles["mass"].attrs["unit"] == "u"
        assert particles["box"].attrs["dimension"] == 3 and list(particles["box"].attrs["boundary"]) == ["periodic"] * 3
        np.testing.assert_array_equal(particles["position/value"], data["position"][1][1])
        np.testing.assert_array_equal(particles["box/edges/step"], particles["position/step"])
        assert particles["position/value"].attrs["unit"] == "Angstrom"
        assert particles["velocity/value"].attrs["unit"] == "Angstrom fs-1"
        assert particles["velocity/time"].attrs["unit"] == "fs"
        observed = file["observables/replica_001/d_tensor"]
        assert observed["value"].attrs["unit"] == "cm-1" and observed["value"].shape == (3, N_MOLECULES, 3, 3)
        assert observed["step"][()].tolist() == [0, 4, 8] and observed["time"][()].tolist() == [0.0, 2.0, 4.0]
        assert observed["step"] == file["observables/replica_000/d_tensor/step"]  # one dataset, linked


def test_reads_back_a_run_its_parts_and_the_joined_file(run):
    folder, parts = run
    check(Trajectory(folder), joined(*parts))
    check(Trajectory(segment_path(folder, 1)), parts[1])
    paths = [segment_path(folder, number) for number in range(3)]
    merge_segments(folder / "trajectory.h5", header(), paths[:2], 2)  # killed before the parts were removed
    check(Trajectory(folder), joined(*parts))
    for path in paths[:2]:
        path.unlink()
    check(Trajectory(folder), joined(*parts))
    check(Trajectory(folder / "trajectory.h5"), joined(*parts[:2]))
    merge_segments(folder / "trajectory.h5", header(), [folder / "trajectory.h5", paths[2]], 3)
    paths[2].unlink()
    check(Trajectory(folder), joined(*parts))
    trajectory = Trajectory(folder)
    for name in ("numbers", "masses", "pbc", "temperatures", "seeds", "molecule_numbers", "molecules"):
        np.testing.assert_array_equal(getattr(trajectory, name), getattr(header(), name))
    assert (trajectory.ensemble, trajectory.n_atoms, trajectory.n_replicas) == ("langevin", N_ATOMS, N_REPLICAS)
    assert trajectory.unit("d_tensor") == "cm^-1" and trajectory.unit("velocity") == "A/fs"


def test_joining_in_small_blocks_is_the_same(run, monkeypatch):
    folder, parts = run
    monkeypatch.setattr("gmcore.dynamics.h5md.MERGE_BYTES", 500)
    merge_segments(folder / "all.h5", header(), [segment_path(folder, number) for number in range(3)], 3)
    check(Trajectory(folder / "all.h5"), joined(*parts))


def test_frames(run):
    folder, parts = run
    data = joined(*parts)
    frames = list(Trajectory(folder).frames(1, every=3))
    steps = data["position"][0][::3]
    assert [frame.info["step"] for frame in frames] == steps.tolist() and len(frames) > 3
    with_tensor = 0
    for frame, step in zip(frames, steps):
        at = int(np.flatnonzero(data["position"][0] == step)[0])
        np.testing.assert_array_equal(frame.positions, data["position"][1][1, at])
        np.testing.assert_array_equal(frame.cell.array, data["box"][1][1, at])
        np.testing.assert_allclose(frame.get_velocities() / ASE_TIME, data["velocity"][1][1, at], rtol=1e-12)
        assert frame.get_potential_energy() == data["potential_energy"][1][1, at]
        assert frame.info["time"] == 0.5 * step and frame.info["temperature"] == data["temperature"][1][1, at]
        assert ("d_tensor" in frame.info) == (step % 4 == 0)
        with_tensor += "d_tensor" in frame.info
    assert with_tensor


def test_a_molecule_has_no_box(tmp_path, rng):
    data = samples(rng, 0, 8, periodic=False)
    write_segment(tmp_path / "part.h5", header(periodic=False), data)
    frame = next(Trajectory(tmp_path / "part.h5").frames(0))
    assert not frame.pbc.any() and frame.cell.rank == 0
    with h5py.File(tmp_path / "part.h5") as file:
        assert list(file["particles/replica_000/box"].attrs["boundary"]) == ["none"] * 3
        assert "edges" not in file["particles/replica_000/box"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data | {"spin": data["temperature"]}, "'spin' is not among them"),
        (lambda data: data | {"temperature": ([0, 2], np.ones((2, 3)))}, r"temperature must have shape \(2, 2\)"),
        (
            lambda data: data | {"temperature": ([2, 0], np.ones((2, 2)))},
            "the steps of temperature must increase and not be negative",
        ),
        (lambda data: data | {"position": ([0], np.ones((2, 1, 4, 3)))}, r"shape \(2, 1, 5, 3\), got \(2, 1, 4, 3\)"),
        (lambda data: {k: v for k, v in data.items() if k != "box"}, "positions of a periodic system need a box"),
        (
            lambda data: data | {"box": ([0], np.ones((2, 1, 3, 3)))},
            "box must be given at the same steps as the positions",
        ),
    ],
)
def test_refuses_to_write(tmp_path, rng, change, message):
    with pytest.raises(TrajectoryError, match=message):
        write_segment(tmp_path / "part.h5", header(), change(samples(rng, 0, 8)))
    assert not (tmp_path / "part.h5").exists()


def test_refuses_to_read(run, tmp_path_factory):
    folder, _ = run
    trajectory = Trajectory(folder)
    empty = tmp_path_factory.mktemp("empty")
    (empty / "text.h5").write_text("no HDF5")
    (empty / "dump.lammpstrj").write_text("ITEM: TIMESTEP")
    with h5py.File(empty / "other.h5", "w"):
        pass
    for call, message in [
        (lambda: Trajectory(empty), "has no trajectory: neither trajectory.h5 nor files in trajectory/"),
        (lambda: Trajectory(empty / "missing.h5"), "does not exist"),
        (lambda: Trajectory(empty / "text.h5"), "is not a trajectory of gmtensor"),
        (lambda: Trajectory(empty / "other.h5"), "is not a trajectory of gmtensor"),
        (lambda: Trajectory(empty / "dump.lammpstrj"), "make a run of it with gmtensor convert, and use that"),
        (lambda: trajectory.values("temprature", 0), "no 'temprature'"),
        (lambda: trajectory.unit("temprature"), "did you mean 'temperature'"),
        (lambda: trajectory.values("temperature", 2), "replica must be 0 to 1, got 2"),
        (lambda: trajectory.frames(0, every=0), "every must be at least 1"),
    ]:
        with pytest.raises(TrajectoryError, match=message):
            call()


def test_refuses_to_join_on_a_full_disk(run, monkeypatch):
    folder, _ = run
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(TrajectoryError, match="the files of the chunks are complete"):
        merge_segments(folder / "all.h5", header(), [segment_path(folder, 0)], 1)
    assert not (folder / "all.h5").exists()


LIMITED = """
import resource, sys
from pathlib import Path

import numpy as np

from dynamics.test_trajectory import header
from gmcore.dynamics.h5md import merge_segments
from gmcore.dynamics.trajectory import segment_path
from gmcore.files import WriteError

folder = Path(sys.argv[1])
sources = [segment_path(folder, number) for number in range(3)]
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in np.linspace(100, int(sys.argv[2]) - 1, 25).astype(int):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
    try:
        merge_segments(folder / "trajectory.h5", header(), sources, 3)
    except WriteError as error:
        print(error)
    else:
        sys.exit(f"{limit} bytes were enough")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
merge_segments(folder / "trajectory.h5", header(), sources, 3)
"""


def test_joining_beyond_the_largest_size_of_a_file(run):
    """At many places of the file, in one process: HDF5 must not be left with objects that it cannot close."""
    pytest.importorskip("resource", reason="limits of processes are a matter of POSIX")
    folder, parts = run
    merge_segments(folder / "all.h5", header(), [segment_path(folder, number) for number in range(3)], 3)
    before = [segment_path(folder, number).read_bytes() for number in range(3)]
    command = [sys.executable, "-c", LIMITED, str(folder), str((folder / "all.h5").stat().st_size)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    sentence = (
        "could not be written: the file would be larger than the system allows; an older file of that name is "
        "unchanged. No samples"
    )
    assert len(done.stdout.splitlines()) == 25 and all(sentence in line for line in done.stdout.splitlines())
    assert [segment_path(folder, number).read_bytes() for number in range(3)] == before
    check(Trajectory(folder / "trajectory.h5"), joined(*parts))
    assert not list(folder.glob(".*"))


# --- export


def test_extended_xyz_is_read_by_ase(run):
    folder, parts = run
    trajectory, data = Trajectory(folder), joined(*parts)
    paths = export(trajectory, folder / "out.extxyz", every=2)
    assert [path.name for path in paths] == ["out_replica_000.extxyz", "out_replica_001.extxyz"]
    frames = read(paths[1], ":")
    expected = list(trajectory.frames(1, every=2))
    assert len(frames) == len(expected) > 5
    for frame, other in zip(frames, expected):
        np.testing.assert_allclose(frame.positions, other.positions, atol=1e-8)
        np.testing.assert_allclose(frame.get_velocities(), other.get_velocities(), rtol=1e-6, atol=1e-8)
        assert frame.get_potential_energy() == other.get_potential_energy()
        assert frame.info["time"] == other.info["time"] and frame.info["units"].startswith("positions=A time=fs")
        at = np.flatnonzero(data["d_tensor"][0] == frame.info["step"])
        assert len(at) == 1  # every second structure is at a step of the tensors
        for molecule in range(N_MOLECULES):
            tensor = data["d_tensor"][1][1, at[0], molecule]
            np.testing.assert_allclose(frame.info[f"d_tensor_{molecule}"], tensor, rtol=1e-12)
            assert frame.info[f"D_{molecule}"] == pytest.approx(float(zfs_parameters(tensor).d))
    assert export(trajectory, folder / "one.xyz", [1]) == [folder / "one.xyz"]
    assert len(read(folder / "one.xyz", ":", format="extxyz")) == len(data["position"][0])


def test_csv_holds_every_sample(run):
    folder, parts = run
    data = joined(*parts)
    (path,) = export(Trajectory(folder), folder / "out.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    steps = data["temperature"][0]
    assert len(rows) == N_REPLICAS * len(steps)
    for k, row in enumerate(rows):
        replica, at = divmod(k, len(steps))
        assert (int(row["replica"]), int(row["step"]), float(row["time [fs]"])) == (replica, steps[at], 0.5 * steps[at])
        assert float(row["temperature [K]"]) == data["temperature"][1][replica, at]
        assert float(row["stress_xy [eV/A^3]"]) == data["stress"][1][replica, at, 0, 1]
        here = np.flatnonzero(data["d_tensor"][0] == steps[at])
        if not len(here):
            assert row["D_1 [cm^-1]"] == row["d_tensor_std_0_xx [cm^-1]"] == ""
            continue
        tensor = data["d_tensor"][1][replica, here[0], 1]
        found = zfs_parameters(tensor)
        assert float(row["d_tensor_1_yz [cm^-1]"]) == tensor[1, 2]
        assert float(row["D_1 [cm^-1]"]) == float(found.d) and float(row["E/|D|_1"]) == float(found.e_over_d)
        assert [float(row[f"axis_1_{axis}"]) for axis in "xyz"] == found.axis.tolist()
        members, recorded = (data[name][1][replica, here[0]] for name in ("d_tensor_members", "d_tensor"))
        deviation = np.sqrt(np.mean((members - recorded) ** 2, axis=0))
        assert float(row["d_tensor_std_0_xz [cm^-1]"]) == pytest.approx(deviation[0, 0, 2], rel=1e-12)
    assert rows[0]["target_temperature [K]"] == "25.0" and rows[-1]["seed"] == "2"
    (path,) = export(Trajectory(folder), folder / "few.csv", [1], every=5)
    assert len(path.read_text().splitlines()) == 1 + -(-len(steps) // 5)


def test_refuses_to_export(run):
    folder, _ = run
    trajectory = Trajectory(folder)
    write_segment(folder / "bare.h5", header(False, False), {"position": ([0], np.ones((N_REPLICAS, 1, N_ATOMS, 3)))})
    for arguments, message in [
        ((trajectory, "out.pdb"), "suffix of the output must be one of .extxyz, .xyz, .csv, got 'out.pdb'"),
        ((trajectory, "out.csv", [2]), "replica must be 0 to 1, got 2"),
        ((trajectory, "out.csv", [0], 0), "every must be at least 1, got 0"),
        ((Trajectory(folder / "bare.h5"), folder / "out.csv"), "has no scalars and no tensors"),
    ]:
        with pytest.raises(TrajectoryError, match=message):
            export(*arguments)
