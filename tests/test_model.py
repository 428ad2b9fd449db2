"""A model as a whole: derivatives against differences, invariances, batches, chunks, committees and bad input."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell

from gmcore.engine import evaluator as evaluator_module
from gmcore.engine import reference, structures
from gmcore.engine.evaluator import Evaluator
from gmcore.engine.neighbors import NeighborError, NeighborList
from gmcore.engine.structures import Batch, SpeciesTable, StructureError, UnknownElementError
from gmcore.errors import GMError
from gmcore.model import Model, load_model
from support.models import SPECIES, make_head, random_model, random_parts
from support.places import environment
from support.systems import (
    empty,
    empty_periodic,
    mixed_batch,
    molecule,
    single_atom,
    slab,
    small_cell,
    strongly_skewed,
    triclinic,
    unwrapped,
    water_box,
    water_molecule,
    wire,
)
from support.tolerances import TOLERANCE, relative_error

EVERYTHING = (
    "energy",
    "charges",
    make_head("d_tensor", 3, basis="moments"),
    make_head("tensor", 3, name="alpha"),
)
DIFFERENCES = {f.__name__: f for f in (molecule, triclinic, strongly_skewed, small_cell, slab, wire)}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(*random_parts(EVERYTHING))


@pytest.fixture(scope="module")
def committee() -> Model:
    return Model(*random_parts(EVERYTHING, n_members=3))


@pytest.fixture(scope="module")
def of_all_species() -> Model:
    return Model(*random_parts(EVERYTHING, species=(1, 2, 6, 7, 8, 18), n_members=2))


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ (np.eye(3) + strain).T, scale_atoms=False)
    moved.positions = atoms.positions @ (np.eye(3) + strain).T
    return moved


def slope(f, h=3e-5) -> float:
    """Central difference of sixth order; the step is small because the second derivative jumps at the cutoff."""
    values = [f(k * h) for k in (-3, -2, -1, 1, 2, 3)]
    return float(np.dot([-1, 9, -45, 45, -9, 1], values) / (60 * h))


def same(value, expected, tolerance=1e-11):
    """Two predictions agree, key by key, structure by structure; NaN only in the same places.

    Outputs are of order one, so what is zero by symmetry is compared on that scale.
    """
    assert value.keys() == expected.keys()
    for key in expected:
        for a, b in zip(value[key], expected[key], strict=True):
            assert np.array_equal(np.isnan(a), np.isnan(b)), key
            difference = np.abs(np.nan_to_num(a) - np.nan_to_num(b)).max(initial=0.0)
            assert difference < tolerance * np.abs(np.nan_to_num(b)).max(initial=0.1), key


def test_energy_is_that_of_the_slow_twin():
    settings, members = random_parts()
    atoms = triclinic()
    pairs = reference.find_pairs(atoms.positions, atoms.cell.array, atoms.pbc, settings.descriptor.r_max)
    species = np.searchsorted(SPECIES, atoms.numbers)
    expected = reference.energy(atoms.positions, species, *pairs, members[0], settings.descriptor)
    energy = Model(settings, members).predict(atoms)["energy"]
    assert relative_error(energy[0], expected) < TOLERANCE["value", "float64"]
    single = Model(settings, members, "float32").predict(atoms)["energy"]
    assert relative_error(single[0], expected) < TOLERANCE["value", "float32"]


def test_forces_and_stress_are_those_of_the_slow_twin():
    """By the complex step, so to rounding, in a cell smaller than the cutoff."""
    settings, members = random_parts()
    atoms = small_cell()
    first, neighbor, offset = reference.find_pairs(atoms.positions, atoms.cell.array, atoms.pbc, 4.2)
    species = np.searchsorted(SPECIES, atoms.numbers)

    def energy(positions, strain):
        return reference.energy(
            positions, species, first, neighbor, offset, members[0], settings.descriptor, strain=strain
        )

    forces = -reference.complex_step(lambda r: energy(r, None), atoms.positions)
    stress = reference.complex_step(lambda e: energy(atoms.positions, e), np.zeros((3, 3))) / atoms.get_volume()
    result = Model(settings, members).predict(atoms)
    assert relative_error(result["forces"][0], forces) < TOLERANCE["gradient", "float64"]
    assert relative_error(result["stress"][0], stress) < TOLERANCE["gradient", "float64"]


@pytest.mark.parametrize("name", DIFFERENCES)
def test_forces_against_differences(model, rng, name):
    atoms = DIFFERENCES[name]()
    direction = rng.normal(size=(len(atoms), 3))
    direction /= np.abs(direction).max()

    def energy(step):
        moved = atoms.copy()
        moved.positions += step * direction
        return model.predict(moved, ["energy"])["energy"][0]

    forces = model.predict(atoms, "forces")["forces"][0]
    scale = np.abs(forces * direction).sum()  # the sum itself may be zero by chance
    assert abs(slope(energy) + (forces * direction).sum()) < TOLERANCE["difference", "float64"] * scale
    assert np.abs(forces.sum(axis=0)).max() < 1e-10 * np.abs(forces).sum()


@pytest.mark.parametrize("name", [name for name in DIFFERENCES if name != "molecule"])
def test_stress_against_differences(model, rng, name):
    """Stress times volume is the derivative in a strain of positions and cell, whatever the shape of the cell."""
    atoms = DIFFERENCES[name]()
    strain = rng.normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)
    stress = model.predict(atoms, ["stress"])["stress"][0]
    assert np.array_equal(stress, stress.T)
    expected = slope(lambda step: model.predict(strained(atoms, step * strain), ["energy"])["energy"][0])
    assert relative_error((stress * strain).sum() * abs(np.linalg.det(atoms.cell.array)), expected) < 1e-8


def test_single_precision_follows_double(model):
    single = Model(*random_parts(EVERYTHING), "float32")
    atoms = [triclinic(), molecule()]
    value, expected = single.predict(atoms), model.predict(atoms)
    for key in expected:
        for a, b in zip(value[key], expected[key]):
            assert relative_error(np.nan_to_num(a), np.nan_to_num(b)) < TOLERANCE["gradient", "float32"], key
    assert value["energy"].dtype == value["forces"][0].dtype == np.float64


def test_batch_equals_one_by_one(of_all_species):
    """All named systems at once, empty ones in between, against each alone."""
    frames = mixed_batch()
    together = of_all_species.predict(frames)
    alone = [of_all_species.predict(atoms) for atoms in frames]
    same(together, {key: [result[key][0] for result in alone] for key in together})


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
def test_any_batch_size_gives_the_same(of_all_species, batch_size):
    frames = mixed_batch()
    same(of_all_species.predict(frames, batch_size=batch_size), of_all_species.predict(frames))


def test_batches_by_atoms_give_the_same(of_all_species, monkeypatch):
    frames = mixed_batch()
    expected = of_all_species.predict(frames)
    monkeypatch.setattr(of_all_species.evaluator, "batch_atoms", 30)
    same(of_all_species.predict(frames), expected)


@pytest.mark.parametrize("chunk", [1, 16, 50])
def test_chunks_of_atoms_give_the_same(committee, monkeypatch, chunk):
    frames = [water_box(3), triclinic()]
    expected = committee.predict(frames)
    monkeypatch.setattr(evaluator_module, "CHUNK", chunk)
    monkeypatch.setattr(evaluator_module, "ROWS_PER_THREAD", 1)
    same(committee.predict(frames), expected)


def test_committee_is_mean_and_population_deviation():
    settings, members = random_parts(EVERYTHING, n_members=3)
    frames = [triclinic(), molecule()]
    alone = [Model(settings, [member]).predict(frames) for member in members]
    together = Model(settings, members).predict(frames)
    assert set(together) == {f"{key}{end}" for key in alone[0] for end in ("", "_std")}
    for key in alone[0]:
        for k in range(len(frames)):
            values = np.stack([result[key][k] for result in alone])
            assert relative_error(np.nan_to_num(together[key][k]), np.nan_to_num(values.mean(axis=0))) < 1e-13
            assert relative_error(np.nan_to_num(together[f"{key}_std"][k]), np.nan_to_num(values.std(axis=0))) < 1e-12


def test_shapes(committee):
    alike = committee.predict([molecule(), molecule()])
    n = len(molecule())
    shapes = {
        "energy": (2,), "forces": (2, n, 3), "stress": (2, 3, 3), "charges": (2, n), "dipole": (2, 3),
        "d_tensor": (2, 3, 3), "alpha": (2, 3, 3),
    }  # fmt: skip
    assert {key: alike[key].shape for key in shapes} == shapes
    assert {key: alike[f"{key}_std"].shape for key in shapes} == shapes
    mixed = committee.predict([molecule(), water_molecule()])
    assert [f.shape for f in mixed["forces"]] == [(n, 3), (3, 3)]
    assert [q.shape for q in mixed["charges_std"]] == [(n,), (3,)]


def test_only_what_is_asked_for(committee, monkeypatch):
    assert set(committee.predict(molecule(), ["energy"])) == {"energy", "energy_std"}
    assert set(committee.predict(molecule(), "d_tensor")) == {"d_tensor", "d_tensor_std"}
    monkeypatch.setattr(committee.evaluator._moments, "backward", None)  # no force is computed without need
    committee.predict(molecule(), ["energy", "charges", "alpha"])


def test_stress_is_nan_without_a_cell(model):
    stress = model.predict([molecule(), triclinic(), slab()])["stress"]
    assert np.isnan(stress[0]).all() and np.isfinite(stress[1:]).all()


def test_empty_structures_and_single_atoms(model):
    result = model.predict([empty(), single_atom(), empty_periodic()])
    assert result["energy"][0] == result["energy"][2] == 0.0
    assert [len(forces) for forces in result["forces"]] == [0, 1, 0]
    assert np.array_equal(result["forces"][1], np.zeros((1, 3)))
    assert np.array_equal(result["d_tensor"], np.zeros((3, 3, 3)))
    assert np.array_equal(result["alpha"], np.zeros((3, 3, 3)))
    assert np.array_equal(result["stress"][2], np.zeros((3, 3)))
    assert model.predict(empty())["forces"].shape == (1, 0, 3)


def test_rotation_reflection_translation_permutation(model, rng):
    atoms, order = molecule(), rng.permutation(len(molecule()))
    improper, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    moved = Atoms(atoms.numbers[order], atoms.positions[order] @ improper.T)
    value, expected = model.predict(moved), model.predict(atoms)
    assert relative_error(value["energy"], expected["energy"]) < 1e-12
    assert relative_error(value["forces"][0], expected["forces"][0][order] @ improper.T) < 1e-11
    assert relative_error(value["charges"][0], expected["charges"][0][order]) < 1e-11
    assert relative_error(value["dipole"][0], improper @ expected["dipole"][0]) < 1e-11
    for key in ("d_tensor", "alpha"):
        assert relative_error(value[key][0], improper @ expected[key][0] @ improper.T) < 1e-11
    moved.positions += [7.0, -3.0, 11.0]
    shifted = model.predict(moved)
    for key in ("energy", "forces", "d_tensor", "alpha"):
        assert relative_error(shifted[key], value[key]) < 1e-11


def test_d_of_moments_is_the_same_wrapped_and_unwrapped(model):
    """No origin, so a molecule cut by a cell boundary is no special case; neither is any choice of the cell."""
    atoms = triclinic()
    turned = make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, 1, 1]], wrap=False)  # the same crystal
    expected = model.predict(atoms, ["energy", "d_tensor"])
    assert np.abs(expected["d_tensor"]).max() > 0.01
    for other in (unwrapped(), turned):
        value = model.predict(other, ["energy", "d_tensor"])
        assert relative_error(value["d_tensor"], expected["d_tensor"]) < 1e-10
        assert relative_error(value["energy"], expected["energy"]) < 1e-11


@pytest.mark.parametrize("system", [small_cell, triclinic])
def test_supercells_are_extensive(model, system):
    atoms = system()
    cell, block = model.predict(atoms), model.predict(atoms.repeat((2, 1, 3)))
    assert relative_error(block["energy"], 6 * cell["energy"]) < 1e-12
    assert relative_error(block["forces"][0], np.tile(cell["forces"][0], (6, 1))) < 1e-10
    assert relative_error(block["stress"], cell["stress"]) < 1e-10
    assert relative_error(block["d_tensor"], 6 * cell["d_tensor"]) < 1e-10


def test_evaluate_takes_a_list_with_a_skin(committee):
    """The form that molecular dynamics calls: pairs beyond the cutoff change nothing."""
    batch = Batch.from_atoms([triclinic(), molecule()])
    pairs = NeighborList(committee.cutoff, skin=1.5).update(batch)
    value, expected = committee.evaluate(batch, pairs), committee.predict([triclinic(), molecule()])
    assert value["forces"].shape == (batch.n_atoms, 3) and value["charges_std"].shape == (batch.n_atoms,)
    assert relative_error(value["forces"], np.concatenate(expected["forces"])) < 1e-11
    assert relative_error(value["energy"], expected["energy"]) < 1e-12
    assert relative_error(value["energy_std"], expected["energy_std"]) < 1e-11


def test_total_charge_from_argument_structure_or_training():
    atoms, ion = molecule(), molecule()
    ion.info["total_charge"] = -2
    free = Model(*random_parts([make_head("charges", 3, conserve=True)]))
    assert np.abs(free.predict([ion, atoms], total_charge=[1, 2])["charges"].sum(axis=1) - [1, 2]).max() < 1e-13
    assert abs(free.predict(ion)["charges"].sum() + 2) < 1e-13
    with pytest.raises(GMError, match=r"sum up to the total charge, which must be given"):
        free.predict([ion, atoms])
    with pytest.raises(GMError, match=r"total_charge must be one number or one per structure \(2\), got \(3,\)"):
        free.predict([ion, atoms], total_charge=[1, 2, 3])
    with pytest.raises(GMError, match=r"total_charge must be finite, got nan"):
        free.predict([ion, atoms], total_charge=np.nan)
    with pytest.raises(GMError, match=r"total_charge must be a number or numbers, got 'two'"):
        free.predict([ion, atoms], total_charge="two")
    trained = Model(*random_parts([make_head("charges", 3, conserve=True, total_charge=1.0)]))
    assert np.abs(trained.predict([ion, atoms])["charges"].sum(axis=1) - [-2, 1]).max() < 1e-13


def test_unknown_element_is_named(model):
    with pytest.raises(UnknownElementError, match=r"element Fe \(Z=26\) is not among the model's species H, C, N, O"):
        model.predict([molecule(), Atoms("FeO", [[0, 0, 0], [0, 0, 1.6]])])


def test_coincident_atoms_are_counted_over_all_batches(model):
    frames = [molecule()] * 3 + [Atoms("CO", np.zeros((2, 3)))]
    with pytest.raises(NeighborError, match=r"structure 1.* \(structure 0 here is number 2 of the input\)"):
        model.predict(frames, batch_size=2)


def test_bad_structures_are_refused_before_any_work(model, monkeypatch):
    monkeypatch.setattr(model, "evaluate", None)
    bad = molecule()
    bad.positions[3, 1] = np.nan
    with pytest.raises(StructureError, match=r"atom 3 of structure 20"):
        model.predict([molecule()] * 20 + [bad], batch_size=1)
    with pytest.raises(StructureError, match=r"a batch must hold at least one structure, got none"):
        model.predict([])


def test_unknown_property_and_batch_size(model):
    with pytest.raises(GMError, match=r"this model predicts energy, forces, .* cannot predict 'magic'"):
        model.predict(molecule(), ["energy", "magic"])
    with pytest.raises(GMError, match=r"batch_size must be at least 1, got 0"):
        model.predict(molecule(), batch_size=0)


def test_devices_and_precisions(tmp_path):
    path = random_model(tmp_path / "model.h5")
    assert load_model(path, "float32").evaluator.dtype == np.float32
    with pytest.raises(GMError, match=r"device must be one of cpu, cuda, got 'tpu'"):
        load_model(path, device="tpu")
    with pytest.raises(GMError, match=r"matmul must be 'float32' on the CPU, got 'tf32'"):
        load_model(path, matmul="tf32")
    with pytest.raises(GMError, match=r"dtype must be one of float32, float64, got float16"):
        load_model(path, dtype="float16")


def test_memory_does_not_hold_all_features(monkeypatch):
    """8000 atoms: features of all of them would be 11 MB in single precision, hidden layers 65 MB more."""
    import tracemalloc

    settings, members = random_parts(hidden=(512, 512), n_radial=5, r_max=3.0, dtype="float32")
    model = Model(settings, members)
    atoms = water_box(14)
    model.predict(atoms, "forces")
    tracemalloc.start()
    model.predict(atoms, "forces")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * len(atoms)


def test_prediction_needs_no_tensorflow(tmp_path):
    path = random_model(tmp_path / "model.h5", EVERYTHING, n_members=2)
    expected = load_model(path).predict(molecule())["energy"][0]
    code = (
        "import sys\nsys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from gmcore.model import load_model\nfrom support.systems import molecule\n"
        f"print(repr(float(load_model({str(path)!r}).predict(molecule())['energy'][0])))"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_batch_is_checked_and_indexed_once(model, monkeypatch, batch_size):
    """Whatever the number of batches: checks and species of all structures once, pairs and geometry once per batch."""
    frames = [triclinic(), water_molecule(), empty(), molecule(), triclinic()]
    expected, calls = model.predict(frames), Counter()

    def count(owner, name):
        original = getattr(owner, name)
        counted = lambda *a, **k: calls.update([name]) or original(*a, **k)  # noqa: E731
        monkeypatch.setattr(owner, name, counted)

    count(Batch, "_check_values")
    count(Batch, "_check_positions")
    count(SpeciesTable, "index")
    count(structures, "complete_cells")
    count(evaluator_module, "build_pairs")
    count(evaluator_module, "make_geometry")
    result = model.predict(frames, batch_size=batch_size)
    n_batches = 1 if batch_size is None else 3
    assert calls == {
        "_check_values": 1, "_check_positions": 1, "index": 1, "complete_cells": 1, "build_pairs": n_batches,
        "make_geometry": n_batches,
    }  # fmt: skip
    assert relative_error(result["energy"], expected["energy"]) < 1e-13


def test_a_part_of_a_batch_is_the_batch_of_these_structures(model):
    frames = [triclinic(), water_molecule(), empty(), slab(), molecule()]
    whole = Batch.from_atoms(frames)
    for table in (model.species, None):  # before and after the species have been looked up
        part, expected = whole.part(1, 4), Batch.from_atoms(frames[1:4])
        for name in ("positions", "numbers", "cells", "pbc", "offsets", "structure", "lattice", "inverse_lattice"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))
        np.testing.assert_array_equal(part.volumes, expected.volumes)
        np.testing.assert_array_equal(part.species(model.species), expected.species(model.species))
        if table is not None:
            whole.species(table)
    other = SpeciesTable([1, 2, 6, 7, 8])
    np.testing.assert_array_equal(whole.species(other), other.index(whole.numbers))


def test_evaluator_returns_every_member():
    settings, members = random_parts(EVERYTHING, n_members=2)
    batch = Batch.from_atoms([triclinic(), empty()])
    evaluator = Evaluator(settings, members)
    outputs = evaluator.evaluate(batch, NeighborList(evaluator.cutoff).update(batch))
    assert {key: value.shape for key, value in outputs.items()} == {
        "energy": (2, 2), "forces": (2, 24, 3), "stress": (2, 2, 3, 3), "charges": (2, 24), "dipole": (2, 2, 3),
        "d_tensor": (2, 2, 3, 3), "alpha": (2, 2, 3, 3),
    }  # fmt: skip
