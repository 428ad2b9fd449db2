"""The public descriptor: golden features, invariances, batches, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

import gmcore
from gmcore import GaussianMoments
from gmcore.engine.structures import UnknownElementError
from gmcore.errors import GMError
from support.golden import load
from support.systems import SYSTEMS, mixed_batch, triclinic, water_box
from support.tolerances import TOLERANCE, relative_error

SPECIES = sorted({int(z) for make in SYSTEMS.values() for z in make().numbers})


@pytest.fixture(scope="module")
def descriptor():
    return GaussianMoments(SPECIES, r_max=4.2, n_radial=3, dtype="float64")


@pytest.mark.parametrize("n_radial", [5, 7])
def test_golden_features(shared_data, n_radial):
    """Off by the guard that the independent implementation adds to distances; the twin with it matches to 4e-16."""
    golden = load(shared_data, n_radial)
    ours = GaussianMoments(
        golden["species"].tolist(), float(golden["r_max"]), float(golden["r_min"]), int(golden["n_basis"]), n_radial,
        coefficients=golden["coefficients"], dtype="float64",
    ).features(Atoms(golden["numbers"], golden["positions"]))  # fmt: skip
    assert 1e-7 < relative_error(ours, golden["features"]) < 5e-5


def test_rotation_reflection_translation_permutation(descriptor, rng):
    atoms = SYSTEMS["molecule"]()
    expected = descriptor.features(atoms)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(atoms))
    for turn in (rotation, -rotation):
        moved = Atoms(atoms.numbers[order], atoms.positions[order] @ turn.T + [3.0, -20.0, 7.0])
        assert relative_error(descriptor.features(moved), expected[order]) < 1e-11


def test_a_batch_equals_its_structures_one_by_one(descriptor):
    structures = mixed_batch()
    together = descriptor.features(structures)
    apart = np.concatenate([descriptor.features(atoms) for atoms in structures])
    assert relative_error(together, apart) < TOLERANCE["identity", "float64"]


@pytest.mark.parametrize("make", [triclinic, SYSTEMS["self_images_only"], SYSTEMS["small_cell"]])
def test_a_supercell_repeats_the_features(descriptor, make):
    atoms = make()
    large = descriptor.features(atoms.repeat((2, 1, 3)))
    assert relative_error(large, np.tile(descriptor.features(atoms), (6, 1))) < 1e-11


def test_wrapping_changes_nothing(descriptor):
    atoms = water_box(2)
    wrapped = atoms.copy()
    wrapped.positions += [1.0, 2.0, 3.0]
    wrapped.wrap()
    assert relative_error(descriptor.features(wrapped), descriptor.features(atoms)) < 1e-11


def test_an_atom_without_neighbors_and_no_atoms_at_all(descriptor):
    assert np.all(descriptor.features(SYSTEMS["single_atom"]()) == 0.0)
    assert descriptor.features([SYSTEMS["empty"]()]).shape == (0, 94)


def test_features_vanish_smoothly_at_the_cutoff():
    descriptor = GaussianMoments(["H"], r_max=4.0, dtype="float64")
    inside = descriptor.features(Atoms("H2", [[0, 0, 0], [0, 0, 4.0 - 1e-5]]))
    outside = descriptor.features(Atoms("H2", [[0, 0, 0], [0, 0, 4.0 + 1e-5]]))
    assert np.all(outside == 0.0)
    assert 0 < np.abs(inside).max() < 1e-9


def test_symbols_and_numbers_are_the_same_species():
    by_symbol, by_number = GaussianMoments(["O", "H"], 4.0), GaussianMoments([1, 8], 4.0)
    water = SYSTEMS["water_molecule"]()
    np.testing.assert_array_equal(by_symbol.features(water), by_number.features(water))
    assert by_symbol.features(water).dtype == np.float32


def test_bad_input(descriptor):
    with pytest.raises(UnknownElementError, match="element Fe"):
        descriptor.features(Atoms("Fe"))
    with pytest.raises(GMError, match=r"coefficients must have shape \(2, 2, 5, 7\), got \(3,\)"):
        GaussianMoments([1, 8], 4.0, coefficients=np.zeros(3))
    with pytest.raises(GMError, match="coefficients must be finite numbers in float32, got some that are not"):
        GaussianMoments([1, 8], 4.0, coefficients=np.full((2, 2, 5, 7), np.nan))
    with pytest.raises(GMError, match="device must be one of cpu, cuda, got 'tpu'"):
        GaussianMoments([1, 8], 4.0, device="tpu")
    with pytest.raises(GMError, match="'Xx' is not a chemical symbol"):
        GaussianMoments(["H", "Xx"], 4.0)


def test_public_names():
    for name in gmcore.__all__:
        assert getattr(gmcore, name).__doc__ or name == "__version__"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        gmcore.nothing  # noqa: B018
