"""What is asked of a GPU: energy and forces, dynamics, neighbor lists and memory, each a function of its own.

Positions, list and results stay on the device; every callable waits for the device before it returns. On a machine
without a usable GPU the rows are there and empty, with the reason. `perf.card` calls the same functions one by one,
with tiny sizes where the simulator stands in for a card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from ase import Atoms

from gmcore.config.presets import PRESETS
from gmcore.device.cuda import CudaError, Device, open_device
from gmcore.device.memory import MAX_CHUNK, chunk_bounds, list_bytes
from gmcore.dynamics.blocks_cuda import BLOCK, Blocks
from gmcore.dynamics.forces_cuda import DeviceForces
from gmcore.dynamics.langevin import Langevin
from gmcore.dynamics.state import initial_state
from gmcore.engine.neighbors_cuda import DeviceNeighborList
from gmcore.engine.structures import Batch
from gmcore.engine.structures_cuda import DeviceBatch
from gmcore.kernels.contractions_cpu import n_features
from gmcore.model import Model
from perf.harness import compare
from perf.peers import apax_energy_forces, installed
from perf.report import Row
from perf.systems import HIDDEN, bulk, model_parts

BUDGET_S = 4.0
"""Seconds of measuring for each comparison."""
APAX_LIMIT = 100_000
"""Atoms beyond which apax is not asked."""
TARGETS = {
    "energy_forces": ("<= 2", "<= 0.15 us/atom"),
    "fast": ("", "<= 0.05 us/atom"),
    "apax": (">= 5", ""),
    "md_step": ("", "<= 80 us"),
    "replicas": ("", "<= 150 us"),
    "neighbors": ("", "<= 6.7 ms"),
    "million": ("", "runs, memory as predicted"),
}
"""On an H100 in float32: of the ratio, and of the value."""


class Sizes(NamedTuple):
    """Of the systems and models: as asked of a card, or as small as the simulator needs them.

    descriptor : of the models, the rest as in the paper.
    replicas : how many, of how many atoms, D every how many steps.
    """

    energy_forces: Sequence[int] = (100, 1_000, 10_000, 100_000)
    md_step: int = 256
    replicas: tuple[int, int, int] = (8, 53, 8)
    neighbors: int = 131_072
    million: int = 1_000_000
    hidden: tuple[int, ...] = HIDDEN
    descriptor: Mapping[str, float] = MappingProxyType({})
    n_neighbors: float = 100.0

    @property
    def largest(self) -> int:
        """Atoms of the largest system of `energy_forces`, to which its targets belong."""
        return self.energy_forces[-1]


CARD = Sizes()
REHEARSAL = Sizes((2,), 2, (2, 2, 1), 3, 3, (6, 5), MappingProxyType({"r_max": 3.0, "n_radial": 1, "n_basis": 2}), 30.0)


def run() -> list[Row]:
    try:
        device = open_device()
    except CudaError as error:
        return _empty_rows(str(error))
    if device.simulated:
        return _empty_rows("a simulator is no GPU")
    return [row for function in BENCHES.values() for row in function(device, CARD)]


class DeviceGemms:
    """The products of the two hidden layers, up and down, in the chunks that an evaluation takes."""

    def __init__(self, device: Device, n_atoms: int, layer_sizes: Sequence[int] = (n_features(5), *HIDDEN)):
        rng = np.random.default_rng(3)
        self._device, self._bounds = device, chunk_bounds(n_atoms, MAX_CHUNK)
        rows = min(n_atoms, MAX_CHUNK)

        def stack(*shape: int):
            return device.upload(rng.normal(size=(1, *shape)).astype(np.float32))

        self._weights = [stack(*shape) for shape in pairwise(layer_sizes)]
        self._inputs = [stack(rows, size) for size in layer_sizes[:-1]]
        self._outputs = [device.empty((1, rows, size), np.float32) for size in layer_sizes[1:]]
        self._down = [device.empty((1, rows, size), np.float32) for size in layer_sizes[:-1]]

    def __call__(self) -> None:
        with self._device.active():
            for first, last in self._bounds:
                n = last - first
                for weight, x, y, g in zip(self._weights, self._inputs, self._outputs, self._down):
                    self._device.matmul(x[:, :n], weight, y[:, :n])
                    self._device.matmul(y[:, :n], weight, g[:, :n], transpose_b=True)
        self._device.synchronize()


def energy_forces(device: Device, sizes: Sizes) -> list[Row]:
    """The paper's model over the number of atoms."""
    model = make_model(sizes)
    return [row for n_atoms in sizes.energy_forces for row in _energy_forces(device, sizes, model, n_atoms, True)]


def fast(device: Device, sizes: Sizes) -> list[Row]:
    """A model of the size of the preset `fast`, for the largest of these systems."""
    if sizes is CARD:
        sizes = sizes._replace(hidden=PRESETS["fast"]["hidden"], descriptor=PRESETS["fast"]["descriptor"])
    return _energy_forces(device, sizes, make_model(sizes), sizes.largest, False)


def _energy_forces(device: Device, sizes: Sizes, model: Model, n_atoms: int, paper: bool) -> list[Row]:
    batch = Batch.from_atoms(bulk(n_atoms, sizes.n_neighbors))
    evaluator = model.evaluator
    pairs = evaluator.find_pairs(batch)

    def run_step() -> None:
        evaluator.step(pairs, forces=True).run(pairs.geometry, pairs.token)
        device.synchronize()

    name = "gmtensor" if paper else "gmtensor, preset fast"
    functions = (
        {"bare GEMMs": DeviceGemms(device, n_atoms, (n_features(model.settings.descriptor.n_radial), *sizes.hidden))}
        if paper
        else {}
    )
    functions[name] = run_step
    with_apax = paper and n_atoms <= APAX_LIMIT and installed("apax") and not device.simulated
    if with_apax:
        from gmcore.engine.neighbors import build_pairs

        functions["apax"] = apax_energy_forces(batch, build_pairs(batch, evaluator.cutoff), model.settings.descriptor)
    timed = compare(functions, budget_s=BUDGET_S)
    system = f"{n_atoms} atoms, {pairs.n_pairs / n_atoms:.0f} neighbors, {evaluator.cutoff:g} A, {device.name}"
    asked = TARGETS["energy_forces" if paper else "fast"] if n_atoms == sizes.largest else ()
    target = "; ".join(filter(None, asked))
    if not paper:
        return [Row.timed(timed, name, system, "us/atom", n_atoms, target=target)]
    rows = [
        Row.timed(timed, "bare GEMMs", system, "us/atom", n_atoms),
        Row.timed(timed, name, system, "us/atom", n_atoms, to="bare GEMMs", target=target),
    ]
    if with_apax:
        rows.append(Row.timed(timed, "apax", system, "us/atom", n_atoms, to="gmtensor", target=TARGETS["apax"][0]))
    else:
        rows.append(Row("apax", system, "us/atom", note="apax: not installed"))
    return rows


def md_step(device: Device, sizes: Sizes) -> list[Row]:
    """One step of Langevin dynamics in blocks, everything on the device."""
    blocks = _dynamics(make_model(sizes), bulk(sizes.md_step, sizes.n_neighbors), 1)
    n_steps = 1 if device.simulated else BLOCK

    def steps() -> None:
        blocks.advance(n_steps)
        device.synchronize()

    system = f"{sizes.md_step} atoms, one replica, {device.name}"
    timed = compare({"MD step": steps}, budget_s=BUDGET_S)
    return [Row.timed(timed, "MD step", system, "us", n_steps, target=TARGETS["md_step"][1])]


def replicas(device: Device, sizes: Sizes) -> list[Row]:
    """A step of many replicas with a committee of three for the forces, and one for D every few steps."""
    n_replicas, n_atoms, every = sizes.replicas
    atoms = bulk(n_atoms, sizes.n_neighbors)
    atoms.pbc = False
    blocks = _dynamics(make_model(sizes, n_members=3), atoms, n_replicas)
    d_model, batch = make_model(sizes, "d_tensor", 3), Batch.from_atoms([atoms] * n_replicas)
    pairs, head = d_model.evaluator.find_pairs(batch), d_model.settings.heads[0]

    def steps() -> None:
        tensors = d_model.evaluator.evaluate_later(pairs, head)
        blocks.advance(every, lambda: tensors(batch.positions))
        device.synchronize()

    system = f"{n_replicas} x {n_atoms} atoms, committee of three, D every {every} steps, {device.name}"
    timed = compare({"MD step": steps}, budget_s=BUDGET_S)
    return [Row.timed(timed, "MD step", system, "us", every, target=TARGETS["replicas"][1])]


def _dynamics(model: Model, atoms: Atoms, n_replicas: int) -> Blocks:
    """Langevin dynamics of replicas. A random potential has no minimum: cold, short steps keep atoms where they are."""
    state = initial_state(atoms, [1.0] * n_replicas, range(n_replicas))
    forces = DeviceForces(model, Batch.from_atoms([atoms] * n_replicas), skin=1.0)
    return Blocks(Langevin(forces, state, time_step=1e-4, temperatures=1.0))


def neighbors(device: Device, sizes: Sizes) -> list[Row]:
    """A neighbor list from positions on the device, 40 pairs per atom."""
    wanted, cutoff = (40.0 if sizes is CARD else sizes.n_neighbors), 5.0
    batch = DeviceBatch(
        device,
        Batch.from_atoms(bulk(sizes.neighbors, wanted, cutoff)),
        make_model(sizes).species,
    )
    search = DeviceNeighborList(device, cutoff)

    def build() -> None:
        search.build(batch)
        device.synchronize()

    timed = compare({"neighbor list": build}, budget_s=BUDGET_S)
    system = f"{sizes.neighbors} atoms, {search.n_pairs / sizes.neighbors:.0f} pairs each, {device.name}"
    return [Row.timed(timed, "neighbor list", system, "ms", target=TARGETS["neighbors"][1])]


def million(device: Device, sizes: Sizes) -> list[Row]:
    """Energy and forces of a million atoms, and the memory that it took beside the plan."""
    model = make_model(sizes)
    batch = Batch.from_atoms(bulk(sizes.million, sizes.n_neighbors))
    pool = None if device.simulated else device.xp.get_default_memory_pool()
    pairs = model.evaluator.find_pairs(batch)

    def run_step() -> None:
        model.evaluator.step(pairs, forces=True).run(pairs.geometry, pairs.token)
        device.synchronize()

    timed = compare({"energy + forces": run_step}, budget_s=BUDGET_S, rounds=(3, 9))
    step = model.evaluator.step(pairs, forces=True)
    planned = list_bytes(batch.n_atoms, pairs.n_pairs) + step.plan.total
    system = f"{sizes.million} atoms, {pairs.n_pairs / sizes.million:.0f} neighbors, {device.name}"
    note = f"planned {planned / 2**30:.3g} GiB, chunks of {step.plan.chunk} atoms"
    rows = [Row.timed(timed, "energy + forces", system, "us/atom", sizes.million, target=TARGETS["million"][1])]
    used = None if pool is None else pool.total_bytes() / 2**30
    return [*rows, Row("memory of the card", system, "GiB", used, target=f"<= {planned / 2**30:.3g}", note=note)]


def make_model(sizes: Sizes, kind: str = "energy", n_members: int = 1) -> Model:
    """Random members with layers and descriptor of `sizes`, on the card in float32."""
    parts = [model_parts(kind, hidden=sizes.hidden, seed=seed, **sizes.descriptor) for seed in range(n_members)]
    return Model(parts[0][0], [member for _, member in parts], "float32", device="cuda")


BENCHES = {
    "energy_forces": energy_forces,
    "fast": fast,
    "md_step": md_step,
    "replicas": replicas,
    "neighbors": neighbors,
    "million": million,
}


def _empty_rows(why: str) -> list[Row]:
    names = [
        (name, f"{n_atoms} atoms", "us/atom")
        for n_atoms in CARD.energy_forces
        for name in ("bare GEMMs", "gmtensor", "apax")
    ]
    names += [
        ("gmtensor, preset fast", f"{CARD.energy_forces[-1]} atoms", "us/atom"),
        ("MD step", f"{CARD.md_step} atoms", "us"),
        ("MD step", f"{CARD.replicas[0]} x {CARD.replicas[1]} atoms, committee of three", "us"),
        ("neighbor list", f"{CARD.neighbors} atoms", "ms"),
        ("energy + forces", f"{CARD.million} atoms", "us/atom"),
    ]
    return [Row(*row, note=f"not measured: {why}") for row in names]
