"""The slow twin against an independent implementation, its symmetries and central differences."""

from itertools import pairwise, permutations

import numpy as np
import pytest

from gmcore.engine import reference
from gmcore.engine.settings import DescriptorSettings, Member
from support.golden import GUARD, load
from support.tolerances import relative_error

SETTINGS = DescriptorSettings(species=(1, 8), r_max=4.0, n_basis=5, n_radial=3)
CELL = np.array([[4.2, 0.3, 0.0], [-0.4, 3.6, 0.5], [0.2, 0.1, 5.0]])


def make_system(rng, n_atoms=6, settings=SETTINGS):
    """Positions in a triclinic cell with a side below the cutoff, species, beta."""
    grid = np.array(np.meshgrid([0.1, 0.6], [0.1, 0.6], [0.1, 0.6])).reshape(3, -1).T[:n_atoms]
    positions = (grid + 0.1 * rng.uniform(-1, 1, grid.shape)) @ CELL
    beta = rng.uniform(-1, 1, (2, 2, settings.n_radial, settings.n_basis))
    return positions, rng.integers(0, 2, n_atoms), beta


def make_member(rng, beta, n_hidden=6):
    n_features = reference.contractions(np.zeros((1, beta.shape[2], 16))).shape[1]
    sizes = [n_features, n_hidden, n_hidden, 1]
    return Member(
        beta=beta,
        feature_mean=rng.normal(size=n_features),
        feature_std=rng.uniform(0.5, 2.0, n_features),
        weights=[rng.normal(size=pair) for pair in pairwise(sizes)],
        biases=[rng.normal(size=size) for size in sizes[1:]],
        scale={"energy": rng.uniform(0.5, 2.0, (2, 1))},
        shift={"energy": rng.normal(size=(2, 1))},
    )


def central_difference(f, x, h=1e-5):
    jacobian = []
    for k in range(x.size):
        step = np.zeros_like(x)
        step.flat[k] = h
        jacobian.append((f(x + step) - f(x - step)) / (2 * h))
    return np.stack(jacobian, axis=-1).reshape(*np.shape(jacobian[0]), *x.shape)


@pytest.mark.parametrize(("n_radial", "n_features"), [(3, 94), (5, 360), (7, 910)])
def test_feature_counts(n_radial, n_features):
    assert reference.contractions(np.zeros((2, n_radial, 16))).shape == (2, n_features)


@pytest.mark.parametrize("n", [5, 7])
def test_golden_features(shared_data, n):
    golden = load(shared_data, n)
    species = np.searchsorted(golden["species"], golden["numbers"])
    r_max, r_min = float(golden["r_max"]), float(golden["r_min"])
    settings = DescriptorSettings(tuple(golden["species"].tolist()), r_max, r_min, int(golden["n_basis"]), n)
    pairs = reference.find_pairs(golden["positions"], np.zeros((3, 3)), False, r_max)
    arguments = (golden["positions"], species, *pairs, golden["coefficients"], settings)

    # absolute: features are of order one; the files themselves are off by 3e-16 from a sum in extended precision
    assert np.abs(reference.features(*arguments, guard=GUARD) - golden["features"]).max() < 4e-16
    assert 1e-7 < np.abs(reference.features(*arguments) - golden["features"]).max() < 2e-5


def test_independent_components_rebuild_the_full_tensors(rng):
    positions, species, beta = make_system(rng)
    pairs = reference.find_pairs(positions, CELL, True, SETTINGS.r_max)
    full = reference.cartesian_moments(positions, species, *pairs, beta, SETTINGS)
    for expected, rebuilt in zip(full, reference.unpack(reference.pack(*full))):
        assert relative_error(rebuilt, expected) < 1e-14


def test_packing_is_the_inverse_of_unpacking(rng):
    packed = rng.normal(size=(3, 2, 16))
    assert np.array_equal(reference.pack(*reference.unpack(packed)), packed)


def test_triples_are_symmetric_in_their_channels(rng):
    """The kept triples stand for all orders: a channel permutation only permutes block 4."""
    packed = rng.normal(size=(1, 3, 16))
    block = slice(3 + 18, 3 + 18 + 10)
    expected = np.sort(reference.contractions(packed)[0, block])
    for order in permutations(range(3)):
        assert np.allclose(np.sort(reference.contractions(packed[:, list(order)])[0, block]), expected, rtol=1e-12)


@pytest.mark.parametrize("pbc", [False, True, (True, False, True)])
def test_symmetries(rng, pbc):
    positions, species, beta = make_system(rng)

    def features(x, z=species, cell=CELL):
        return reference.features(x, z, *reference.find_pairs(x, cell, pbc, SETTINGS.r_max), beta, SETTINGS)

    expected = features(positions)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    order = rng.permutation(len(positions))
    for matrix in (rotation, -rotation):
        assert relative_error(features(positions @ matrix.T, cell=CELL @ matrix.T), expected) < 1e-12
    assert relative_error(features(positions + np.array([0.3, -7.0, 2.0])), expected) < 1e-12
    assert relative_error(features(positions[order], species[order]), expected[order]) < 1e-13


def test_brute_force_pairs_agree_with_a_supercell(rng):
    """Pairs of a cell smaller than the cutoff are those of a larger cell: features repeat."""
    positions, species, beta = make_system(rng, 3)
    repeats = np.array([(a, b, 0) for a in range(2) for b in range(3)])
    large = np.concatenate([positions + shift @ CELL for shift in repeats])
    small_g = reference.features(positions, species, *reference.find_pairs(positions, CELL, True, 4.0), beta, SETTINGS)
    pairs = reference.find_pairs(large, CELL * np.array([[2], [3], [1]]), True, 4.0)
    large_g = reference.features(large, np.tile(species, 6), *pairs, beta, SETTINGS)
    assert relative_error(large_g, np.tile(small_g, (6, 1))) < 1e-12


def test_complex_step_agrees_with_central_differences(rng):
    positions, species, beta = make_system(rng, 4)
    member = make_member(rng, beta)
    first, neighbor, offset = reference.find_pairs(positions, CELL, True, SETTINGS.r_max)

    def of_positions(x):
        return reference.energy(x, species, first, neighbor, offset, member, SETTINGS)

    def of_strain(eps):
        return reference.energy(positions, species, first, neighbor, offset, member, SETTINGS, strain=eps)

    def of_beta(b):
        return reference.moments(positions, species, first, neighbor, offset, b, SETTINGS)

    m = of_beta(beta)
    for f, x in (
        (of_positions, positions),
        (of_strain, np.zeros((3, 3))),
        (of_beta, beta),
        (reference.contractions, m[:1]),
    ):
        assert relative_error(central_difference(f, x), reference.complex_step(f, x)) < 1e-8


def test_forces_sum_to_zero_and_strain_derivative_is_symmetric(rng):
    """Identities of an invariant energy, to rounding: evidence that the complex step has no truncation error."""
    positions, species, beta = make_system(rng)
    member = make_member(rng, beta)
    pairs = reference.find_pairs(positions, CELL, True, SETTINGS.r_max)
    gradient = reference.complex_step(lambda x: reference.energy(x, species, *pairs, member, SETTINGS), positions)
    assert np.abs(gradient.sum(0)).max() < 1e-12 * np.abs(gradient).max()
    stress = reference.complex_step(
        lambda eps: reference.energy(positions, species, *pairs, member, SETTINGS, strain=eps), np.zeros((3, 3))
    )
    assert np.abs(stress - stress.T).max() < 1e-12 * np.abs(stress).max()


def test_one_strain_per_pair_serves_several_structures(rng):
    positions, species, beta = make_system(rng)
    pairs = reference.find_pairs(positions, CELL, True, SETTINGS.r_max)
    eps = 0.01 * rng.normal(size=(3, 3))
    one = reference.features(positions, species, *pairs, beta, SETTINGS, strain=eps)
    each = np.tile(eps, (len(pairs[0]), 1, 1))
    assert relative_error(reference.features(positions, species, *pairs, beta, SETTINGS, strain=each), one) < 1e-14


def test_atom_without_neighbors_has_zero_features():
    beta = np.ones((2, 2, 3, 5))
    pairs = reference.find_pairs(np.zeros((1, 3)), np.zeros((3, 3)), False, 4.0)
    assert not reference.features(np.zeros((1, 3)), np.zeros(1, int), *pairs, beta, SETTINGS).any()


def test_complex_step_of_scalars_and_arrays():
    assert reference.complex_step(lambda x: x**3, 2.0) == pytest.approx(12.0, rel=1e-15)
    assert reference.complex_step(lambda x: np.outer(x, x), np.ones(2)).shape == (2, 2, 2)
