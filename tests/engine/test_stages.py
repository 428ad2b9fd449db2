"""The two stages against the slow twin at value, first and second order, and the identities that need no twin."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from gmcore.engine import reference
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.stages import Contractions, Moments, check_dtype, make_geometry
from gmcore.engine.structures import Batch, SpeciesTable
from gmcore.errors import GMError
from gmcore.kernels import contractions_cpu
from support.systems import CUTOFF, SYSTEMS, mixed_batch
from support.tolerances import TOLERANCE, relative_error

DTYPES = ("float64", "float32")
SMALL = [name for name, make in SYSTEMS.items() if 0 < len(make()) <= 40]
TINY = [name for name in SMALL if len(SYSTEMS[name]()) <= 24]


class Problem:
    """One system with random parameters and cotangents, and its pairs in the form the twin wants."""

    def __init__(self, atoms, dtype="float64", n_radial=3, n_basis=5, seed=0):
        rng = np.random.default_rng(seed)
        self.batch = Batch.from_atoms(atoms)
        table = SpeciesTable({1, *self.batch.numbers.tolist()})
        self.settings = DescriptorSettings(table.numbers, CUTOFF, 0.5, n_basis, n_radial)
        self.species = table.index(self.batch.numbers)
        self.pairs = build_pairs(self.batch, CUTOFF)
        self.geometry = make_geometry(self.batch, self.species, self.pairs)
        self.positions = self.batch.positions
        self.stage = Moments(self.settings, dtype)
        self.beta = rng.uniform(-1, 1, self.stage.beta_shape)
        shape = (self.batch.n_atoms, n_radial, 16)
        self.g_moments = rng.normal(size=shape)
        self.along = rng.normal(size=self.positions.shape)
        self.strain_along = rng.normal(size=(self.batch.n_structures, 3, 3))

    def twin(self, positions, strain, beta):
        """Moments by the twin; strain (n_structures, 3, 3)."""
        offset = self.pairs.displacements(self.batch.cells)[self.pairs.shift]
        of_pairs = strain[self.batch.structure[self.pairs.center]]
        center, neighbor = self.pairs.center, self.pairs.neighbor
        return reference.moments(positions, self.species, center, neighbor, offset, beta, self.settings, of_pairs)

    @property
    def no_strain(self):
        return np.zeros_like(self.strain_along)

    def twin_gradient(self):
        """Gradients of <moments, g_moments> in positions, strain and beta by the complex step."""
        inputs = (self.positions, self.no_strain, self.beta)

        def along(k, x):
            return (self.twin(*inputs[:k], x, *inputs[k + 1 :]) * self.g_moments).sum()

        return tuple(reference.complex_step(lambda x, k=k: along(k, x), inputs[k]) for k in range(3))

    def backward(self, positions=None, beta=None, **options):
        positions = self.positions if positions is None else positions
        return self.stage.backward(
            self.geometry, positions, self.beta if beta is None else beta, self.g_moments, **options
        )

    def double_backward(self, along=None, strain_along=None, **options):
        along = self.along if along is None else along
        strain_along = self.strain_along if strain_along is None else strain_along
        return self.stage.double_backward(
            self.geometry, self.positions, self.beta, self.g_moments, along, strain_along, **options
        )


def differences(f, x, h=1e-4):
    """Gradient of the scalar f by fourth-order central differences, every element of x."""
    out = np.zeros(np.shape(x))
    for k in range(out.size):
        total = 0.0
        for step, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = np.array(x, float)
            moved.flat[k] += step * h
            total += weight * f(moved)
        out.flat[k] = total / (12 * h)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SMALL)
def test_moments_equal_the_twin(name, dtype):
    problem = Problem(SYSTEMS[name](), dtype)
    moments = problem.stage.forward(problem.geometry, problem.positions, problem.beta)
    expected = problem.twin(problem.positions, problem.no_strain, problem.beta)
    assert moments.dtype == dtype
    assert relative_error(moments, expected) < TOLERANCE["value", dtype]


@pytest.mark.parametrize("name", TINY)
def test_moments_gradient_equals_the_twin(name):
    problem = Problem(SYSTEMS[name](), n_radial=2, n_basis=4)
    single = Problem(SYSTEMS[name](), "float32", n_radial=2, n_basis=4)
    for value, rounded, expected in zip(problem.backward(), single.backward(), problem.twin_gradient()):
        assert relative_error(value, expected) < TOLERANCE["gradient", "float64"]
        assert relative_error(rounded, expected) < TOLERANCE["gradient", "float32"]


@pytest.mark.parametrize("n_radial", range(1, 9))
def test_every_number_of_radial_channels(n_radial):
    problem = Problem(SYSTEMS["water_molecule"](), n_radial=n_radial, n_basis=7)
    moments = problem.stage.forward(problem.geometry, problem.positions, problem.beta)
    expected = problem.twin(problem.positions, problem.no_strain, problem.beta)
    assert relative_error(moments, expected) < TOLERANCE["value", "float64"]
    stage = Contractions(n_radial, "float64")
    assert relative_error(stage.forward(moments), reference.contractions(expected)) < TOLERANCE["value", "float64"]
    for value, wanted in zip(problem.backward(), problem.twin_gradient()):
        assert relative_error(value, wanted) < TOLERANCE["gradient", "float64"]


@pytest.mark.parametrize("name", ["strongly_skewed", "self_images_only", "water_molecule", "small_cell"])
def test_second_derivatives_equal_differences(name):
    problem = Problem(SYSTEMS[name](), n_radial=2, n_basis=4)
    step = 1e-40j
    gg_moments, h_positions, h_strain, h_beta = problem.double_backward()
    tangent = problem.twin(
        problem.positions + step * problem.along, step * problem.strain_along, problem.beta
    ).imag / abs(step)  # fmt: skip
    assert relative_error(gg_moments, tangent) < TOLERANCE["gradient", "float64"]

    def directional(positions, strain, beta):
        moved = problem.twin(positions + step * problem.along, strain + step * problem.strain_along, beta)
        return (moved.imag * problem.g_moments).sum() / abs(step)

    inputs = [problem.positions, problem.no_strain, problem.beta]
    for k, value in enumerate((h_positions, h_strain, h_beta)):
        expected = differences(lambda x, k=k: directional(*inputs[:k], x, *inputs[k + 1 :]), inputs[k])
        assert relative_error(value, expected) < TOLERANCE["difference", "float64"], k


def test_second_derivatives_in_single_precision_follow_double():
    exact = Problem(SYSTEMS["triclinic"]()).double_backward()
    single = Problem(SYSTEMS["triclinic"](), "float32").double_backward()
    for value, expected in zip(single, exact):
        assert relative_error(value, expected) < TOLERANCE["second", "float32"]


def test_adjoint_and_symmetry_identities():
    problem = Problem(mixed_batch())
    g_positions, g_strain, _ = problem.backward()
    gg_moments, h_positions, h_strain, _ = problem.double_backward()
    forward_mode = (gg_moments * problem.g_moments).sum()
    reverse_mode = (g_positions * problem.along).sum() + (g_strain * problem.strain_along).sum()
    assert forward_mode == pytest.approx(reverse_mode, rel=1e-11)
    rng = np.random.default_rng(5)
    other, other_strain = rng.normal(size=problem.along.shape), rng.normal(size=problem.strain_along.shape)
    _, back_positions, back_strain, _ = problem.double_backward(other, other_strain)
    there = (h_positions * other).sum() + (h_strain * other_strain).sum()
    back = (back_positions * problem.along).sum() + (back_strain * problem.strain_along).sum()
    assert there == pytest.approx(back, rel=1e-10)


def test_gradients_sum_to_zero_over_each_structure():
    problem = Problem(mixed_batch())
    for gradient in (problem.backward()[0], problem.double_backward()[1]):
        for start, stop in zip(problem.batch.offsets[:-1], problem.batch.offsets[1:]):
            assert np.abs(gradient[start:stop].sum(0)).max() < 1e-10


@pytest.mark.parametrize("factor", [0.999, 1.001])
def test_the_checker_rejects_a_slightly_wrong_derivative(factor):
    problem = Problem(SYSTEMS["triclinic"]())
    for value, expected in zip(problem.backward(), problem.twin_gradient()):
        assert relative_error(factor * value, expected) > TOLERANCE["gradient", "float32"]


def test_same_bits_every_time_and_the_same_numbers_with_one_thread():
    problem = Problem(mixed_batch(), "float32")
    first, again = problem.backward(), problem.backward()
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        for a, b in zip(first, problem.backward()):
            assert relative_error(a, b) < TOLERANCE["gradient", "float32"]
    finally:
        numba.set_num_threads(threads)


def test_only_what_is_wanted_is_computed():
    problem = Problem(SYSTEMS["triclinic"]())
    everything = problem.backward()
    positions, strain, beta = problem.backward(want_beta=False)
    assert beta is None
    np.testing.assert_array_equal(positions, everything[0])
    np.testing.assert_array_equal(strain, everything[1])
    positions, strain, beta = problem.backward(want_positions=False)
    assert positions is None and strain is None
    assert relative_error(beta, everything[2]) < TOLERANCE["identity", "float64"]
    gg, h_positions, _, h_beta = problem.double_backward(want_positions=False)
    assert relative_error(h_beta, problem.double_backward()[3]) < TOLERANCE["identity", "float64"]
    assert h_positions is None and gg.shape == problem.g_moments.shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_packed_beta_gives_the_same_bits(dtype):
    problem = Problem(SYSTEMS["triclinic"](), dtype)
    packed = problem.stage.pack(problem.beta)
    forward = problem.stage.forward(problem.geometry, problem.positions, problem.beta)
    np.testing.assert_array_equal(problem.stage.forward(problem.geometry, problem.positions, packed), forward)
    for value, expected in zip(problem.backward(beta=packed), problem.backward()):
        np.testing.assert_array_equal(value, expected)


def test_a_beta_packed_for_another_stage_is_refused():
    problem = Problem(SYSTEMS["water_molecule"]())
    other = Moments(problem.settings, "float32").pack(problem.beta)
    with pytest.raises(GMError, match=r"a packed beta must have shape .* and type float64, got .* and float32"):
        problem.stage.forward(problem.geometry, problem.positions, other)


def test_a_pair_beyond_the_cutoff_in_a_list_with_a_skin_changes_nothing():
    problem = Problem(SYSTEMS["triclinic"]())
    wide = make_geometry(problem.batch, problem.species, build_pairs(problem.batch, CUTOFF + 1.5))
    narrow = problem.stage.forward(problem.geometry, problem.positions, problem.beta)
    skinned = problem.stage.forward(wide, problem.positions, problem.beta)
    assert relative_error(skinned, narrow) < TOLERANCE["identity", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_atoms", [0, 1, 16, 21])
def test_contractions_equal_the_twin_at_every_order(n_atoms, dtype, rng):
    n_radial = 4
    stage = Contractions(n_radial, dtype)
    moments, along = rng.normal(size=(2, n_atoms, n_radial, 16)).astype(dtype).astype(float)
    g_features = rng.normal(size=(n_atoms, stage.n_features)).astype(dtype).astype(float)
    step = 1e-40j
    if n_atoms:
        expected = reference.contractions(moments)
        tangent = reference.contractions(moments + step * along).imag / abs(step)
        gradient = np.concatenate(
            [
                reference.complex_step(lambda m, g=g: (reference.contractions(m) * g).sum(), row[None])
                for row, g in zip(moments, g_features)
            ]
        )
    else:
        expected, tangent, gradient = np.zeros_like(g_features), np.zeros_like(g_features), np.zeros_like(moments)
    assert relative_error(stage.forward(moments), expected) < TOLERANCE["value", dtype]
    assert relative_error(stage.backward(moments, g_features), gradient) < TOLERANCE["gradient", dtype]
    gg_features, h_moments = stage.double_backward(moments, g_features, along)
    assert relative_error(gg_features, tangent) < TOLERANCE["gradient", dtype]
    if dtype == "float64" and n_atoms:
        h = 1e-3  # the gradient is quadratic in the moments: central differences are exact
        ahead, behind = (stage.backward(moments + sign * h * along, g_features) for sign in (1, -1))
        assert relative_error(h_moments, (ahead - behind) / (2 * h)) < 1e-11
    if dtype == "float32" and n_atoms:
        exact = Contractions(n_radial, "float64").double_backward(moments, g_features, along)[1]
        assert relative_error(h_moments, exact) < TOLERANCE["second", dtype]


def test_contractions_second_derivative_is_symmetric(rng):
    stage = Contractions(5, "float64")
    moments, a, b = rng.normal(size=(3, 9, 5, 16))
    g_features = rng.normal(size=(9, 360))
    there = (stage.double_backward(moments, g_features, a)[1] * b).sum()
    back = (stage.double_backward(moments, g_features, b)[1] * a).sum()
    assert there == pytest.approx(back, rel=1e-12)


@pytest.mark.parametrize("n_radial, expected", [(3, 94), (5, 360), (7, 910)])
def test_feature_counts(n_radial, expected):
    assert contractions_cpu.n_features(n_radial) == expected


@pytest.mark.parametrize(
    "change, message",
    [
        ({"r_min": 5.0}, "r_min must lie between 0 and r_max"),
        ({"r_min": -0.1}, "r_min must lie between 0 and r_max"),
        ({"n_basis": 0}, "n_basis must be at least 1, got 0"),
        ({"n_radial": 9}, "n_radial must be between 1 and 8, got 9"),
    ],
)
def test_bad_settings(change, message):
    settings = {"species": (1,), "r_max": 4.0, "r_min": 0.5, "n_basis": 7, "n_radial": 5} | change
    with pytest.raises(GMError, match=message):
        Moments(DescriptorSettings(**settings))


def test_bad_arrays(rng):
    problem = Problem(SYSTEMS["triclinic"]())
    with pytest.raises(GMError, match=r"positions must have shape \(24, 3\), got \(7,\)"):
        problem.stage.forward(problem.geometry, np.zeros(7), problem.beta)
    with pytest.raises(GMError, match=r"beta must have shape .*, got \(2, 2\)"):
        problem.stage.forward(problem.geometry, problem.positions, np.zeros((2, 2)))
    with pytest.raises(GMError, match=r"beta must have shape .*, got \(2, 2\)"):
        problem.stage.pack(np.zeros((2, 2)))
    with pytest.raises(GMError, match=r"g_moments must have shape \(24, 3, 16\), got \(24, 3, 20\)"):
        problem.stage.backward(problem.geometry, problem.positions, problem.beta, np.zeros((24, 3, 20)))
    with pytest.raises(GMError, match=r"moments must have shape \(4, 5, 16\), got \(4, 5, 20\)"):
        Contractions(5).forward(np.zeros((4, 5, 20)))
    with pytest.raises(GMError, match=r"g_features must have shape \(4, 360\), got \(4, 94\)"):
        Contractions(5).backward(np.zeros((4, 5, 16)), np.zeros((4, 94)))
    with pytest.raises(GMError, match="dtype must be one of float32, float64, got int32"):
        check_dtype("int32")
