"""Damaged trajectories, checkpoints and modes: one sentence that names the file, whatever is wrong inside."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from ase import Atoms

from gmcore.analysis.couplings import TensorExpansion
from gmcore.analysis.mode_files import load_expansion, write_mode_files
from gmcore.analysis.modes import Modes, ModesError
from gmcore.dynamics.checkpoint import Checkpoint, RunError, read_checkpoint, write_checkpoint
from gmcore.dynamics.h5md import Header, TrajectoryError, merge_segments, write_segment
from gmcore.dynamics.state import initial_state
from gmcore.dynamics.trajectory import Trajectory
from gmcore.errors import GMError
from gmcore.inputs.seal import is_sealed, seal_file

pytestmark = pytest.mark.slow

HUGE = 3 * 10**9
FIRST = "particles/replica_000"


@pytest.fixture
def path(tmp_path, rng):
    """A trajectory with positions, velocities and D tensors of two replicas."""
    header = Header(
        numbers=np.array([8, 1, 1], np.int32),
        masses=np.array([16.0, 1.0, 1.0]),
        pbc=np.zeros(3, bool),
        time_step=0.5,
        ensemble="nve",
        temperatures=np.full(2, np.nan),
        seeds=np.array([1, 2]),
        molecule_numbers=np.array([8, 1]),
        molecules=np.array([[0, 1]]),
    )
    steps = np.arange(4)
    data = {name: (steps, rng.normal(size=(2, 4, 3, 3))) for name in ("position", "velocity")}
    data["potential_energy"] = steps, rng.normal(size=(2, 4))
    data["d_tensor"] = steps, rng.normal(size=(2, 4, 1, 3, 3))
    write_segment(tmp_path / "part.h5", header, data)
    return tmp_path / "part.h5"


def read_all(path) -> None:
    trajectory = Trajectory(path)
    for replica in range(trajectory.n_replicas):
        for name in trajectory.names():
            trajectory.times(name), trajectory.steps(name), trajectory.values(name, replica)
        for _ in trajectory.frames(replica):
            pass


def put(name, value):
    """A change of an HDF5 file: another dataset, an empty group for None."""

    def change(file):
        if name in file:
            del file[name]
        if value is None:
            file.create_group(name)
        else:
            file[name] = value

    return change


def zeros(name, shape):
    def change(file):
        del file[name]
        file.create_dataset(name, shape, "f8", chunks=tuple(min(n, 100) for n in shape))

    return change


def attribute(where, name, value):
    return lambda file: file[where].attrs.__setitem__(name, value)


DAMAGES = {
    **{f"no {name}": (lambda file, name=name: file.__delitem__(name)) for name in ("parameters", "particles", FIRST)},
    "no box": lambda file: file.__delitem__(f"{FIRST}/box"),
    "no second replica": lambda file: file.__delitem__("particles/replica_001"),
    "parameters an array": put("parameters", [1.0]),
    "species a group": put(f"{FIRST}/species", None),
    "species texts": put(f"{FIRST}/species", ["O", "H", "H"]),
    "species real": put(f"{FIRST}/species", [8.0, 1.0, 1.0]),
    "species unknown": put(f"{FIRST}/species", [8, 1, 2**32 + 1]),
    "species too many": put(f"{FIRST}/species", [8, 1, 1, 1]),
    "species huge": zeros(f"{FIRST}/species", (HUGE,)),
    "mass": put(f"{FIRST}/mass", [16.0, 1.0]),
    "seeds": put("parameters/seeds", 3),
    "seeds empty": put("parameters/seeds", np.zeros(0, int)),
    "temperatures": put("parameters/temperatures", [[300.0, 300.0]]),
    "molecules beyond": put("parameters/molecules", [[0, 3]]),
    "molecules flat": put("parameters/molecules", [0, 1]),
    "molecules without species": lambda file: file.__delitem__("parameters/molecule_species"),
    "time step a text": attribute("parameters", "time_step", "half"),
    "time step 0": attribute("parameters", "time_step", 0.0),
    "time step a list": attribute("parameters", "time_step", [0.5, 0.5]),
    "boundary": attribute(f"{FIRST}/box", "boundary", "none"),
    "position an array": put(f"{FIRST}/position", np.zeros((4, 3, 3))),
    "value a group": put(f"{FIRST}/position/value", None),
    "value texts": put(f"{FIRST}/position/value", ["a"] * 4),
    "value of other atoms": put(f"{FIRST}/position/value", np.zeros((4, 2, 3))),
    "value short": put(f"{FIRST}/velocity/value", np.zeros((3, 3, 3))),
    "value a number": put("observables/replica_001/potential_energy/value", 1.0),
    "step short": put(f"{FIRST}/position/step", [0, 1]),
    "step real": put(f"{FIRST}/position/step", np.arange(4.0)),
    "no time": lambda file: file.__delitem__(f"{FIRST}/velocity/time"),
    "d of other molecules": put("observables/replica_000/d_tensor/value", np.zeros((4, 2, 3, 3))),
    "loop": put("observables/loop", h5py.SoftLink("/observables/loop")),
    "other file": put("observables/other", h5py.ExternalLink("/etc/passwd", "/")),
}


@pytest.mark.parametrize("seal", [False, True], ids=["foreign", "sealed"])
@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_trajectories(path, case, seal):
    with h5py.File(path, "r+") as file:
        DAMAGES[case](file)
    if seal:
        seal_file(path)
    with pytest.raises(TrajectoryError, match=r"part\.h5") as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


def test_a_trajectory_that_claims_too_much_memory(path):
    with h5py.File(path, "r+") as file:
        for key in ("step", "time", "value"):
            shape = (HUGE, *file[f"{FIRST}/position/{key}"].shape[1:])
            dtype = file[f"{FIRST}/position/{key}"].dtype
            del file[f"{FIRST}/position/{key}"]
            file.create_dataset(f"{FIRST}/position/{key}", shape, dtype, chunks=tuple(min(n, 100) for n in shape))
    with pytest.raises(TrajectoryError, match=r"part\.h5 .* would take \d+\.\d GB of memory, the file itself has"):
        Trajectory(path).values("position", 0)


def test_joined_trajectories_are_sealed(path, tmp_path):
    target = tmp_path / "joined.h5"
    merge_segments(target, Trajectory(path).header, [path], 1)
    assert is_sealed(target) and is_sealed(path)
    merge_segments(target, Trajectory(path).header, [target], 2)
    assert is_sealed(target)
    read_all(target)
    content = target.read_bytes()
    target.write_bytes(content[:3000] + bytes(8) + content[3000:])
    with pytest.raises(TrajectoryError, match=r"joined\.h5 is not a trajectory .*: it is truncated or damaged"):
        Trajectory(target)


# --- checkpoints

WRONG = {
    "identity a list": {"identity": np.array("[1]")},
    "identity brackets": {"identity": np.array("[" * 100000)},
    "identity no text": {"identity": np.arange(3)},
    "step a list": {"state/step": np.arange(3)},
    "step a text": {"state/step": np.array("one")},
    "step negative": {"state/step": np.array(-1)},
    "masses structured": {"state/masses": np.zeros(3, "f8,i4")},
    "masses texts": {"state/masses": np.array(["a", "b", "c"])},
    "numbers wide": {"state/numbers": np.array([8, 1, 2**32 + 1])},
    "numbers real": {"state/numbers": np.array([8.0, 1.0, 1.0])},
    "positions flat": {"state/positions": np.zeros(9)},
    "start of other atoms": {"start/positions": np.zeros((2, 3))},
    "start infinite": {"start/positions": np.full((3, 3), np.inf)},
    "start texts": {"start/positions": np.array([["a"] * 3] * 3)},
    "cell": {"start/cell": np.zeros(9)},
    "keys of one": {"state/keys": np.zeros((1, 2), np.uint32)},
    "keys real": {"state/keys": np.zeros((2, 2))},
    "extended": {"state/carried/friction": np.zeros(5)},
    "extended texts": {"state/carried/friction": np.array(["a", "b"])},
}


@pytest.mark.parametrize("case", [*WRONG, "missing", "truncated", "claims"])
def test_damaged_checkpoints(tmp_path, case):
    atoms = Atoms("OHH", [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    write_checkpoint(tmp_path, Checkpoint(initial_state(atoms, [300.0, 310.0], [1, 2]), atoms, {"a": 1}))
    path = tmp_path / "state.npz"
    assert read_checkpoint(tmp_path).identity == {"a": 1}
    arrays = dict(np.load(path))
    if case == "missing":
        arrays.pop("state/velocities")
    arrays |= WRONG.get(case, {})
    if case == "claims":
        arrays["state/carried/friction"] = np.zeros((2, 2 * 10**7))
    np.savez_compressed(path, **arrays)
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"state\.npz is damaged or is not a checkpoint: restore the file"):
        read_checkpoint(tmp_path)


def test_a_run_with_the_random_numbers_of_earlier_versions(tmp_path):
    """A checkpoint with the generators of NumPy in place of keys."""
    atoms = Atoms("OHH", [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    write_checkpoint(tmp_path, Checkpoint(initial_state(atoms, [300.0, 310.0], [1, 2]), atoms, {"a": 1}))
    arrays = dict(np.load(tmp_path / "state.npz"))
    arrays["state/generators"] = arrays.pop("state/keys")
    np.savez(tmp_path / "state.npz", **arrays)
    with pytest.raises(
        RunError, match=r"began with an earlier version of gmtensor, whose random numbers .* --no-resume"
    ):
        read_checkpoint(tmp_path)


# --- modes


@pytest.fixture
def modes(tmp_path, rng):
    atoms = Atoms("OHH", rng.normal(size=(3, 3)))
    found = Modes(atoms, np.array([100.0, 200.0, 300.0]), rng.normal(size=(3, 3, 3)), np.zeros(6), 0.0)
    first = rng.normal(size=(3, 3, 3))
    first = first + np.swapaxes(first, 1, 2)
    tensors = TensorExpansion(found.frequencies, first[0], rng.normal(size=(3, 3, 3, 3)), first, first, first, "cm^-1")
    path = write_mode_files(tmp_path, found, tensors)[0]
    load_expansion(path)
    return path


MODES = {
    "no vectors": lambda file: file.__delitem__("vectors"),
    "vectors a group": put("vectors", None),
    "vectors of other atoms": put("vectors", np.zeros((3, 2, 3))),
    "vectors huge": zeros("vectors", (HUGE, 3, 3)),
    "numbers unknown": put("numbers", [8, 1, 119]),
    "numbers texts": put("numbers", ["O", "H", "H"]),
    "masses": put("masses", [1.0]),
    "cell": put("cell", np.zeros(3)),
    "force a list": put("max_force", [1.0, 2.0]),
    "layout a list": attribute("/", "layout", ["gmtensor modes 1"] * 2),
    "loop": put("d_tensor/loop", h5py.SoftLink("/d_tensor/loop")),
}
TENSORS = {
    "no d_tensor": lambda file: file.__delitem__("d_tensor"),
    "d_tensor an array": put("d_tensor", np.zeros(3)),
    "no value": lambda file: file.__delitem__("d_tensor/value"),
    "first of other modes": put("d_tensor/first", np.zeros((2, 3, 3))),
    "second a group": put("d_tensor/second", None),
    "no unit": lambda file: file["d_tensor"].attrs.__delitem__("unit"),
    "left out texts": attribute("d_tensor", "left_out", ["a"]),
}


@pytest.mark.parametrize("seal", [False, True], ids=["foreign", "sealed"])
@pytest.mark.parametrize("case", [*MODES, *TENSORS])
def test_damaged_modes(modes, case, seal):
    with h5py.File(modes, "r+") as file:
        (MODES | TENSORS)[case](file)
    if seal:
        seal_file(modes)
    with pytest.raises(ModesError if case in MODES else GMError, match=r"modes\.h5") as caught:
        load_expansion(modes)
    assert "\n" not in str(caught.value) and json.dumps(str(caught.value)).isascii()
