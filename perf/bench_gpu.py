"""Energy and forces on a GPU, 1e2 to 1e6 atoms: the bare cuBLAS GEMMs, gmtensor, apax on the same card; and an MD step.

Positions, list and results stay on the device; every callable waits for the device before it returns. On a machine
without a usable GPU the rows are there and empty, with the reason.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gmcore.device.cuda import CudaError, Device, open_device
from gmcore.device.memory import MAX_CHUNK, chunk_bounds
from gmcore.engine.structures import Batch
from gmcore.kernels.contractions_cpu import n_features
from gmcore.model import Model
from perf.harness import compare
from perf.peers import apax_energy_forces, installed
from perf.report import Row
from perf.systems import HIDDEN, bulk, model_parts

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
APAX_SIZES = SIZES[:-1]
TARGETS = {100_000: "<= 2"}
MD_ATOMS = 256


def run() -> list[Row]:
    try:
        device = open_device()
    except CudaError as error:
        return _empty_rows(str(error))
    if device.simulated:
        return _empty_rows("a simulator is no GPU")
    return [row for n_atoms in SIZES for row in _rows(device, n_atoms)] + _md_rows(device)


class DeviceGemms:
    """The products of the two hidden layers, up and down, in the chunks that an evaluation takes."""

    def __init__(self, device: Device, n_atoms: int, matmul: str = "float32"):
        rng = np.random.default_rng(3)
        self._device, self._tf32, self._bounds = device, matmul == "tf32", chunk_bounds(n_atoms, MAX_CHUNK)
        rows = min(n_atoms, MAX_CHUNK)

        def stack(*shape: int):
            return device.upload(rng.normal(size=(1, *shape)).astype(np.float32))

        sizes = (n_features(5), *HIDDEN)
        self._weights = [stack(*shape) for shape in pairwise(sizes)]
        self._inputs = [stack(rows, size) for size in sizes[:-1]]
        self._outputs = [device.empty((1, rows, size), np.float32) for size in sizes[1:]]
        self._down = [device.empty((1, rows, size), np.float32) for size in sizes[:-1]]

    def __call__(self) -> None:
        with self._device.active():
            for first, last in self._bounds:
                n = last - first
                for weight, x, y, g in zip(self._weights, self._inputs, self._outputs, self._down):
                    self._device.matmul(x[:, :n], weight, y[:, :n], tf32=self._tf32)
                    self._device.matmul(y[:, :n], weight, g[:, :n], transpose_b=True, tf32=self._tf32)
        self._device.synchronize()


def _rows(device: Device, n_atoms: int) -> list[Row]:
    settings, member = model_parts()
    batch = Batch.from_atoms(bulk(n_atoms))
    evaluator = Model(settings, [member], "float32", device="cuda").evaluator
    pairs = evaluator.find_pairs(batch)

    def energy_forces() -> None:
        evaluator.step(pairs, forces=True).run(pairs.geometry, pairs.token)
        device.synchronize()

    functions = {"bare GEMMs": DeviceGemms(device, n_atoms), "gmtensor": energy_forces}
    if n_atoms in APAX_SIZES and installed("apax"):
        from gmcore.engine.neighbors import build_pairs

        functions["apax"] = apax_energy_forces(batch, build_pairs(batch, evaluator.cutoff), settings.descriptor)
    timed = compare(functions, sample_s=0.05, budget_s=10.0)
    system = f"{n_atoms} atoms, {pairs.n_pairs / n_atoms:.0f} neighbors, 6.5 A, {device.name}"
    target = TARGETS.get(n_atoms, "")
    rows = [
        Row.timed(timed, "bare GEMMs", system, "us/atom", n_atoms),
        Row.timed(timed, "gmtensor", system, "us/atom", n_atoms, to="bare GEMMs", target=target),
    ]
    if "apax" in functions:
        rows.append(Row.timed(timed, "apax", system, "us/atom", n_atoms, to="gmtensor", target=">= 5"))
    else:
        rows.append(Row("apax", system, "us/atom", note="apax: not installed"))
    return rows


def _md_rows(device: Device) -> list[Row]:
    """One step of a trajectory: the test of the list, energy, forces, everything on the device."""
    from gmcore.dynamics.forces_cuda import DeviceForces

    settings, member = model_parts()
    forces = DeviceForces(Model(settings, [member], "float32", device="cuda"), bulk(MD_ATOMS), skin=1.0)

    def step() -> None:
        forces.evaluate()
        device.synchronize()

    system = f"{MD_ATOMS} atoms, one replica, {device.name}"
    timed = compare({"MD step": step}, sample_s=0.05, budget_s=5.0)
    return [Row.timed(timed, "MD step", system, "us", target="<= 200")]


def _empty_rows(reason: str) -> list[Row]:
    names = [(name, f"{n_atoms} atoms", "us/atom") for n_atoms in SIZES for name in ("bare GEMMs", "gmtensor", "apax")]
    return [Row(*row, note=f"not measured: {reason}") for row in (*names, ("MD step", f"{MD_ATOMS} atoms", "us"))]
