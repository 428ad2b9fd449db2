"""Checks of molecular dynamics on the device, small enough for the CUDA simulator; `cuda_driver_checks` runs them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from numba import cuda

from gmcore.device.cuda import open_device
from gmcore.dynamics.blocks_cuda import Blocks
from gmcore.dynamics.forces import BatchForces
from gmcore.dynamics.forces_cuda import DeviceForces
from gmcore.dynamics.integrators import Integrator, make_integrator
from gmcore.dynamics.runner import run_md
from gmcore.dynamics.state import DynamicsError, State, initial_state
from gmcore.dynamics.stops import RunStopped
from gmcore.dynamics.tensor_observer import TensorObserver
from gmcore.dynamics.tensor_observer_cuda import CardTensorObserver
from gmcore.dynamics.trajectory import Trajectory
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.step_cuda import DeviceStep
from gmcore.engine.structures import Batch, StructureError
from gmcore.errors import GMError
from gmcore.kernels.philox import philox
from gmcore.model import Model
from gmcore.molecules.molecules import Molecules
from support.cuda_parts import SMALL, crystal, recording
from support.md_runs import assert_same_run, configured, write_weak_model
from support.models import make_head, random_parts
from support.random123 import VECTORS
from support.systems import small_cell, water_molecule
from support.tolerances import same

OPTIONS = {"langevin": {"friction": 0.02}, "nve": {}, "nose_hoover": {"thermostat_time": 10.0}}
TEMPERATURES = [300.0, 500.0]
PARTS = random_parts(("energy",), n_members=2, **SMALL)


def hydroxyl_crystal() -> Atoms:
    """One OH in a skewed cell, cut by its faces."""
    cell = [[2.9, 0.0, 0.0], [0.7, 3.0, 0.0], [-0.5, 0.6, 3.1]]
    atoms = Atoms("OH", [[0.05, 0.04, 0.03], [-0.6, -0.5, 0.4]], cell=cell, pbc=True)
    atoms.wrap()
    return atoms


class Card:
    """A run of two replicas on the device."""

    def __init__(self, kind: str, skin: float = 0.6, start: dict[str, np.ndarray] | None = None):
        start = initial_state(hydroxyl_crystal(), TEMPERATURES, [1, 2]).arrays() if start is None else start
        self.forces = DeviceForces(Model(*PARTS, device="cuda"), [hydroxyl_crystal()] * 2, skin)
        self.integrator = made(kind, self.forces, State.from_arrays(start))
        self.blocks = Blocks(self.integrator)

    def arrays(self) -> dict[str, np.ndarray]:
        """The state of the run."""
        self.integrator.fetch()
        return self.integrator.state.arrays()

    def same_as(self, host: Integrator) -> None:
        """The run of the CPU, to rounding."""
        frame = self.blocks.frame()
        assert frame.state.step == host.state.step and frame.n_degrees == host.n_degrees
        same(frame.state.positions, host.state.positions)
        same(frame.state.velocities, host.state.velocities)
        same(frame.result.energies, host.result.energies)
        same(frame.result.forces, host.result.forces)
        same(frame.result.energy_deviation(), host.result.energy_deviation())
        same(frame.result.forces_deviation(), host.result.forces_deviation())
        same(frame.conserved(), host.conserved())


def made(kind: str, forces, state: State) -> Integrator:
    return make_integrator(kind, forces, state, 0.5, TEMPERATURES, **OPTIONS[kind])


def on_host(kind: str, n_steps: int) -> tuple[Integrator, list[float]]:
    """The same run on the CPU; how far an atom was from its start after each step, A."""
    atoms = hydroxyl_crystal()
    host = made(
        kind, BatchForces(Model(*PARTS), atoms.numbers, atoms.pbc, 2), initial_state(atoms, TEMPERATURES, [1, 2])
    )
    start, moved = host.state.positions.copy(), []
    for _ in range(n_steps):
        host.step()
        moved.append(float(np.linalg.norm(host.state.positions - start, axis=-1).max()))
    return host, moved


def check_blocks_equal_the_cpu_and_restart_bit_for_bit():
    """Every integrator; D along the way; a run that goes on from its arrays; blocks that are launched and replayed."""
    parts = random_parts(("energy", make_head("d_tensor", 1, basis="moments")), n_members=2, **SMALL)
    molecules = Molecules.from_indices(hydroxyl_crystal(), [0, 1])
    observers = [TensorObserver(Model(*parts, device=name), molecules) for name in ("cpu", "cuda")]
    with recording():
        for kind in OPTIONS:
            card, (host, moved) = Card(kind), on_host(kind, 2)
            observe = CardTensorObserver(observers[1], host.state.positions, host.state.cells)
            card.blocks.advance(2)
            card.same_as(host)
            assert moved[-1] > 1e-3
            samples = observe(card.integrator.positions)()
            for name, values in observers[0](host.state.positions, host.state.cells).items():
                same(samples[name], values)
            resumed = Card(kind, start=card.arrays())
            card.integrator.restart()
            for each in (card, resumed):
                each.blocks.advance(2)
            assert [each.blocks.n_replayed for each in (card, resumed)] == [1, 0]
            first, second = card.arrays(), resumed.arrays()
            assert first.keys() == second.keys()
            for name, values in first.items():
                np.testing.assert_array_equal(values, second[name], name)
            np.testing.assert_array_equal(card.blocks.frame().conserved(), resumed.blocks.frame().conserved())


@cuda.jit
def random_words(counters, keys, words):
    i = cuda.grid(1)
    if i < len(words):
        c, k = counters[i], keys[i]
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = philox(c[0], c[1], c[2], c[3], k[0], k[1])


def check_philox_in_a_kernel():
    """The published vectors."""
    device = open_device()
    columns = zip(*VECTORS)
    counters, keys, expected = (np.array([[int(w, 16) for w in row.split()] for row in c], np.uint64) for c in columns)
    words = device.upload(np.zeros_like(expected))
    device.launch(random_words, len(words), device.upload(counters), device.upload(keys), words)
    np.testing.assert_array_equal(device.download(words), expected)


def check_a_block_that_outruns_its_list_is_done_again():
    """With a skin that one block of steps fits and two do not, and with one that no step fits."""
    host, moved = on_host("langevin", 4)
    card = Card("langevin", skin=moved[1] + moved[3])
    for _ in range(2):
        card.blocks.advance(2)
    assert (card.blocks.n_redone, card.blocks.n_single) == (1, 0)
    assert card.forces.n_builds == 3  # when it was set up, at the start of the steps, and in the second block
    card.same_as(host)
    card = Card("langevin", skin=0.5 * moved[0])
    card.blocks.advance(1)
    assert (card.blocks.n_redone, card.blocks.n_single) == (1, 1)
    card.same_as(on_host("langevin", 1)[0])


def check_a_block_whose_forces_are_not_finite_ends_there():
    """Forces that become NaN at the first of two steps: that step is the last one done, and it is shown."""
    card, (host, moved), device = Card("nve"), on_host("nve", 1), open_device()
    start, launch = initial_state(hydroxyl_crystal(), TEMPERATURES, [1, 2]).positions, DeviceStep.launch

    def spoiled(self, *arguments, **options):
        launch(self, *arguments, **options)
        here = device.download(card.forces.positions).reshape(start.shape)
        if np.linalg.norm(here - start, axis=-1).max() > 0.5 * moved[0]:
            self.g_positions[0, 0, 0] = np.nan

    DeviceStep.launch = spoiled
    try:
        card.blocks.advance(2)
    finally:
        DeviceStep.launch = launch
    frame = card.blocks.frame()
    assert card.integrator.state.step == frame.state.step == 1 and card.blocks.n_single == 1
    assert np.isnan(frame.result.forces).any()
    same(frame.state.positions, host.state.positions)
    card.integrator.restart()
    card.forces.machine.shared["velocities"][...] = 1e9
    with pytest.raises(StructureError, match="positions must be finite"):
        card.blocks.advance(1)


def check_npt_takes_its_forces_from_the_device():
    state = initial_state(hydroxyl_crystal(), TEMPERATURES, [1, 2])
    found, expected = (
        BatchForces(Model(*PARTS, device=name), state.numbers, state.pbc, 2)(state.positions, state.cells, True)
        for name in ("cuda", "cpu")
    )
    same(found.stress, expected.stress)
    same(found.forces, expected.forces)
    with pytest.raises(DynamicsError, match="NPT moves atoms and cells on the host and needs BatchForces"):
        make_integrator("npt", DeviceForces(Model(*PARTS, device="cuda"), [hydroxyl_crystal()] * 2), state, 0.5, 300.0)


def check_molecules_are_made_whole_as_on_the_host():
    """In cells so small that the nearest image must be searched for, and periodic along some axes only."""
    parts, rng = random_parts(("d_tensor",), **SMALL), np.random.default_rng(4)
    model = Model(*parts, device="cuda")
    cells = 2.1 * np.array([[[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]] * 2) / np.sqrt(2.0)
    for pbc in ((True, True, True), (True, False, True), (False, False, False)):
        atoms = water_molecule() + water_molecule()
        atoms.positions[3:] += [4.0, 5.0, 6.0]
        atoms.set_cell(np.diag([11.0, 12.0, 13.0]))
        atoms.pbc = pbc
        molecules = Molecules.from_indices(atoms, [0, 1, 2])
        molecules.indices = np.array([[0, 1, 2], [3, 5, 4]])  # to find that out needs networkx
        observer = TensorObserver(model, molecules)
        shifts = rng.integers(-2, 3, (2, 6, 3)) * pbc
        positions = atoms.positions + 0.05 * rng.normal(size=(2, 6, 3)) + shifts @ cells
        found = CardTensorObserver(observer, positions, cells)(open_device().upload(positions))()
        whole = observer.molecules.extract(positions, cells)
        same(found["molecule_position"], whole)
        same(np.linalg.norm(whole[:, :, 1:] - whole[:, :, :1], axis=-1), np.full((2, 2, 2), 0.96), 0.5)
        same(found["d_tensor"], observer(positions, cells)["d_tensor"])


def check_a_run_from_a_configuration():
    """`gmtensor md` on the device: the run of the CPU, and the same bits when it goes on after an end and a stop."""
    with tempfile.TemporaryDirectory() as name, recording(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmcore.model.verify_golden", lambda *arguments: None)  # has a test, and takes its time here
        folder = Path(name)
        sizes = {"r_max": 2.4, "n_radial": 1, "n_basis": 3, "hidden": (4,), "species": (1, 8)}
        for head, n_members in (("energy", 2), ("d_tensor", 2)):
            write_weak_model(folder / f"{head}.h5", head, n_members, molecule=hydroxyl_crystal(), **sizes)
        write(folder / "crystal.extxyz", hydroxyl_crystal())

        def config(output: str, **changes):
            options = {
                "potential": str(folder / "energy.h5"),
                "structure": {"file": str(folder / "crystal.extxyz")},
                "record": {"positions": 2, "velocities": 2, "scalars": 2, "precision": "float64"},
                "d_tensor": {"model": str(folder / "d_tensor.h5"), "every": 2, "molecule": {"indices": [0, 1]}},
                "equilibration": 0.0,
                "chunk": 0.001,
                "duration": 0.002,
                "device": "cuda",
            }
            return configured(folder, folder / output, **options | changes)

        expected = Trajectory(run_md(config("host", device="cpu")))
        whole = Trajectory(run_md(config("whole")))
        assert whole.names() == expected.names() and "d_tensor_extrapolation" in whole.names()
        for name in expected.names():
            np.testing.assert_array_equal(whole.steps(name), expected.steps(name))
            for replica in range(2):
                same(whole.values(name, replica), expected.values(name, replica), 1e-9)
        parts = folder / "parts"
        run_md(config("parts", duration=0.001))
        with pytest.raises(RunStopped, match=r"the temperature is .* above stop.temperature = 0.5 \(at 0.002 ps\)"):
            run_md(config("parts", stop={"temperature": 0.5, "every": 3}))
        frames = read(parts / "stopped.extxyz", ":")
        assert len(frames) == 2 and all(frame.get_forces().any() for frame in frames)
        assert [frame.info["step"] for frame in frames] == [4, 4]  # the third step lies in the block that ends there
        run_md(config("parts"))
        assert_same_run(parts, folder / "whole", least=3)


def check_forces_along_a_trajectory():
    """Positions moved on the device; graphs are recorded, replayed, and given up when the list outgrows its arrays."""
    parts = random_parts(("energy",), **SMALL)
    atoms, rng = crystal(), np.random.default_rng(8)
    cpu = Model(*parts)
    with recording():
        forces = DeviceForces(Model(*parts, device="cuda"), atoms, skin=0.3)
        device = open_device()
        for step in range(6):
            result = forces.evaluate()
            expected = cpu.evaluate(Batch.from_atoms(atoms), build_pairs(Batch.from_atoms(atoms), cpu.cutoff))
            same(device.download(result.energy), expected["energy"])
            same(device.download(result.forces), expected["forces"])
            strain = device.download(result.strain)[0]
            same(0.5 * (strain + strain.T) / atoms.cell.volume, expected["stress"][0])
            assert result.member_forces.shape == (1, len(atoms), 3)
            move = rng.normal(scale=0.04, size=atoms.positions.shape)
            if step == 2:
                atoms.set_cell(atoms.cell.array * 1.01)
                forces.set_cells(atoms.cell.array)
            if step == 3:
                shrunk = atoms.cell.array * 0.8
                move += atoms.positions @ np.linalg.solve(atoms.cell.array, shrunk) - atoms.positions
                atoms.set_cell(shrunk)
                forces.set_cells(shrunk)
            atoms.positions += move
            with device.active():
                forces.positions[...] += device.upload(move)
        step = forces.step
    assert 1 < forces.n_builds < 6
    assert step.n_recorded >= 2
    assert step.n_replayed >= 2


def check_replay_equals_eager():
    parts = random_parts(("energy",), n_members=2, **SMALL)
    device = open_device()
    with recording():
        graph = DeviceForces(Model(*parts, device="cuda"), small_cell(), skin=0.3)
        eager = DeviceForces(Model(*parts, device="cuda"), small_cell(), skin=0.3)
        results = []
        for forces in (graph, eager):
            for _ in range(4):
                if forces is eager:
                    forces.step._can_record = False
                result = forces.evaluate()
            results.append([device.download(array) for array in result])
    assert graph.step.n_replayed == 2
    assert eager.step.n_replayed == 0
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


def check_where_nothing_can_be_recorded_steps_go_on():
    device = open_device()
    forces = DeviceForces(Model(*random_parts(("energy",), **SMALL), device="cuda"), water_molecule())
    device.capture = lambda function: None
    try:
        energies = [device.download(forces.evaluate().energy)[0] for _ in range(3)]
    finally:
        del device.capture
    assert forces.step.n_recorded == forces.step.n_replayed == 0
    assert len(set(energies)) == 1


def check_forces_refuse_what_has_none():
    with pytest.raises(GMError, match=r"needs a model loaded with device='cuda', got a model on the CPU"):
        DeviceForces(Model(*random_parts(("energy",), **SMALL)), water_molecule())
    with pytest.raises(GMError, match=r"needs a model with an energy, got a model of charges, dipole"):
        DeviceForces(Model(*random_parts(("charges",), **SMALL), device="cuda"), water_molecule())
