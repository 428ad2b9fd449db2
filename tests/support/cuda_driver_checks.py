"""Checks of the whole device path, small enough for the CUDA simulator and run on a real device too.

As a script (in a process of its own, since the simulator is chosen before Numba is imported) it runs all of them and
prints one line of JSON per check: its name, its seconds and its traceback, if any.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from gmcore import GaussianMoments, GMCalculator, load_model
from gmcore.device import memory
from gmcore.device.cuda import open_device
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.neighbors_cuda import DeviceNeighborList
from gmcore.engine.structures import Batch
from gmcore.engine.structures_cuda import DeviceBatch
from gmcore.engines.mliap import UnifiedPotential
from gmcore.errors import GMError
from gmcore.model import Model
from support import cuda_dynamics_checks, cuda_list_checks
from support.cuda_list_checks import SPECIES
from support.cuda_parts import SMALL, crystal, limited_memory
from support.mliap_data import MLIAPData
from support.models import make_head, random_model, random_parts
from support.simulator import prepare
from support.systems import SYSTEMS, small_cell, water_molecule
from support.tolerances import same


def frames() -> list[Atoms]:
    """Mixed sizes and periodicities, an empty structure in between."""
    return [water_molecule(), Atoms(), crystal(), SYSTEMS["single_atom"]()]


# models --------------------------------------------------------------------------------------------------------------


def check_every_output_equals_the_cpu():
    heads = ("energy", make_head("charges", 2, conserve=True), make_head("d_tensor", 2, basis="moments"))
    parts = random_parts(heads, n_members=2, **SMALL | {"n_radial": 2})
    expected = Model(*parts).predict(frames(), total_charge=1.0)
    found = Model(*parts, device="cuda").predict(frames(), total_charge=1.0)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        for value, other in zip(found[key], values):
            same(value, other)


def check_vectors_to_neighbors_give_the_energies_and_forces_of_the_cpu():
    """As LAMMPS hands them over: on the device, through the interface of ML-IAP."""
    atoms = crystal(4)
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(Path(folder) / "model.h5", n_members=2, **SMALL)
        potential = UnifiedPotential(path, "float64", "cuda")
        data, device = MLIAPData(atoms, potential, shuffled=True), open_device()
        on_host = dict(vars(data))
        for name in ("rij", "pair_i", "jelems", "ielems", "iatoms", "written"):
            setattr(data, name, device.upload(on_host[name]))
        taken = data.update_pair_forces
        data.update_pair_forces = lambda fij: on_host.update(fij=device.download(fij))
        potential.compute_forces(data)
        for name in ("rij", "pair_i"):
            setattr(data, name, on_host[name])
        taken(on_host["fij"])
        expected = Model(*random_parts(n_members=2, **SMALL)).predict(atoms)
        same(data.energy, expected["energy"][0])
        same(float(device.download(data.written).sum()), expected["energy"][0])
        same(data.forces(), expected["forces"][0])


def check_float32_agrees_with_float64():
    parts = random_parts(("energy",), **SMALL)
    expected = Model(*parts).predict(crystal())
    found = Model(*parts, dtype="float32", device="cuda").predict(crystal())
    for key, values in expected.items():
        for value, other in zip(found[key], values):
            same(value, other, 1e-4)


def check_only_what_is_asked_for():
    model = Model(*random_parts(("energy", "charges"), **SMALL), device="cuda")
    found = model.predict(water_molecule(), ["energy"])
    assert list(found) == ["energy"]
    assert model.evaluator._step.g_positions is None
    with pytest.raises(GMError, match=r"it cannot predict 'magic'"):
        model.predict(water_molecule(), ["magic"])


def check_features_equal_the_cpu():
    options = {"species": [1, 6, 8], "r_max": 2.4, "n_radial": 2, "n_basis": 3, "dtype": "float64"}
    frames = [water_molecule(), crystal()]
    same(GaussianMoments(**options, device="cuda").features(frames), GaussianMoments(**options).features(frames))


def check_committees_are_their_members():
    settings, members = random_parts(("energy",), n_members=3, **SMALL)
    wide = random_parts(("energy",), **SMALL | {"hidden": (7,), "seed": 4})[1]
    members = [members[0], *wide, members[1], members[2]]
    batch = Batch.from_atoms(small_cell())
    whole = Model(settings, members, device="cuda").evaluator
    together = whole.evaluate(batch, whole.find_pairs(batch))
    assert [group.indices for group in whole._groups] == [[0], [1], [2, 3]]
    scratch = whole._moments._scratch
    whole.evaluate(batch, whole.find_pairs(batch))
    assert whole._moments._scratch is scratch  # which a recorded graph goes on writing to
    for k, member in enumerate(members):
        alone = Model(settings, [member], device="cuda").evaluator
        for key, values in alone.evaluate(batch, alone.find_pairs(batch)).items():
            same(together[key][k], values[0])


def check_chunks_give_the_same(chunk: int = 2):
    parts = random_parts(("energy",), **SMALL)
    batch = Batch.from_atoms([water_molecule(), small_cell()])
    whole, least = Model(*parts, device="cuda").evaluator, memory.MIN_CHUNK
    expected = whole.evaluate(batch, whole.find_pairs(batch))
    memory.MIN_CHUNK = chunk
    try:
        evaluator = Model(*parts, device="cuda").evaluator
        pairs = evaluator.find_pairs(batch)
        size = evaluator.model_size()
        scratch = evaluator._moments.scratch_bytes(len(pairs.geometry.neighbor), batch.n_atoms)
        fixed = memory.evaluation_bytes(size, batch.n_atoms, batch.n_structures, True) + scratch
        with limited_memory(fixed + chunk * size.n_members * size.n_columns * size.itemsize):
            found = evaluator.evaluate(batch, pairs)
        assert evaluator._step.plan.chunk == chunk < batch.n_atoms
    finally:
        memory.MIN_CHUNK = least
    for key, values in expected.items():
        same(found[key], values)


def check_a_layer_that_is_too_wide_is_refused():
    message = r"the last hidden layer must have at most 6016 columns on the GPU, got 6017: use the CPU"
    with pytest.raises(GMError, match=message):
        Model(*random_parts(("energy",), **SMALL | {"hidden": (2, 6017)}), device="cuda")


def check_warps_of_a_block_share_a_center():
    """More pairs than one warp takes at a time, and a last run that is not full."""
    settings, members = random_parts(("energy",), **SMALL | {"r_max": 3.4})
    evaluator, batch = Model(settings, members, device="cuda").evaluator, Batch.from_atoms(crystal(2))
    pairs, found = evaluator.find_pairs(batch), []
    assert 32 < pairs.n_pairs / batch.n_atoms < 64
    for warps in (1, 2):
        evaluator._moments.warps = warps
        found.append(evaluator.evaluate(batch, pairs, ["energy"])["energy"])
    same(found[0], found[1])


def check_too_little_memory_is_said_in_advance():
    model = Model(*random_parts(("energy",), **SMALL), device="cuda")
    batch = Batch.from_atoms(water_molecule())
    pairs = model.evaluator.find_pairs(batch)
    message = r"the device must have \d+ MiB of free memory for this input, got 0 MiB"
    with limited_memory(100):
        with pytest.raises(memory.DeviceMemoryError, match=message):
            model.evaluate(batch, pairs)
        with pytest.raises(memory.DeviceMemoryError, match=message):
            DeviceNeighborList(open_device(), 6.0).update(
                DeviceBatch(open_device(), Batch.from_atoms(crystal()), SPECIES)
            )
    assert np.isfinite(model.evaluate(batch, pairs)["energy"]).all()


def check_memory_is_what_was_predicted():
    """Arrays that an evaluation makes, against the plan, with as many atoms as the simulator can bear."""
    device = open_device()
    model = Model(*random_parts(("energy",), n_members=2, **SMALL), device="cuda")
    batch = Batch.from_atoms(crystal(6))
    pairs = model.evaluator.find_pairs(batch)
    taken, make = [], device.empty

    def counted(shape, dtype):
        array = make(shape, dtype)
        taken.append(array.nbytes)
        return array

    device.empty = counted
    try:
        model.evaluate(batch, pairs)
    finally:
        del device.empty
    planned = model.evaluator._step.plan.total
    assert 0.8 * planned < sum(taken) < 1.1 * planned, (sum(taken), planned)


def check_pairs_of_the_host_are_taken():
    parts = random_parts(("energy",), **SMALL)
    model = Model(*parts, device="cuda")
    batch = Batch.from_atoms([water_molecule(), crystal()])
    found = model.evaluate(batch, build_pairs(batch, model.cutoff))
    for key, values in Model(*parts).evaluate(batch, build_pairs(batch, model.cutoff)).items():
        same(found[key], values)


def check_the_same_bits_every_time():
    model = Model(*random_parts(("energy",), **SMALL), dtype="float32", device="cuda")
    batch = Batch.from_atoms(crystal())
    first, second = (model.evaluator.evaluate(batch, model.evaluator.find_pairs(batch)) for _ in range(2))
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])


def check_files_calculator_and_golden_output():
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(Path(folder) / "model.h5", species=(1, 8), **SMALL)
        model = load_model(path, device="cuda")  # recomputes the golden output on the device
        atoms = water_molecule()
        atoms.set_cell([3.0, 3.1, 3.2])
        atoms.pbc = True
        other = atoms.copy()
        atoms.calc, other.calc = GMCalculator(path, device="cuda"), GMCalculator(path)
        for _ in range(2):
            same(atoms.get_potential_energy(), other.get_potential_energy())
            same(atoms.get_forces(), other.get_forces())
            same(atoms.get_stress(), other.get_stress())
            for each in (atoms, other):
                each.positions[0] += 0.05
        assert atoms.calc.neighbors.n_builds == 1
        assert model.evaluator.device is open_device()


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in [*vars(cuda_list_checks).items(), *vars(cuda_dynamics_checks).items(), *globals().items()]
    if name.startswith("check_")
}


def main() -> None:
    prepare()
    for name, check in CHECKS.items():
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        start = time.perf_counter()
        try:
            check()
            trouble = ""
        except BaseException:  # reported by the test of this name; pytest's own failures are no Exception
            trouble = traceback.format_exc()
        line = {"name": name, "seconds": time.perf_counter() - start, "trouble": trouble}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
