"""Heads: what the formulas say, on structures small enough to write them out, and the symmetries they promise."""

from itertools import pairwise

import numpy as np
import pytest

from gmcore.engine.heads import (
    COINCIDENT,
    check_heads,
    directions,
    head_outputs,
    moment_channels,
    n_moment_channels,
    output_units,
    structure_sum,
)
from gmcore.engine.settings import HeadOptions, HeadSettings
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from support.models import make_head
from support.tolerances import relative_error

N_RADIAL = 3


def make_batch(rng, sizes=(4, 0, 1, 5)) -> Batch:
    n = sum(sizes)
    return Batch.from_arrays(
        rng.normal(scale=2.0, size=(n, 3)), rng.choice([1, 6, 8], n), offsets=np.cumsum([0, *sizes])
    )


def pack(rows) -> np.ndarray:
    """Packed moments (1, n_radial, 16) of pairs given as (radial values, unit vector)."""
    packed = np.zeros((1, N_RADIAL, 16))
    for radial, (x, y, z) in rows:
        second = [x * x, x * y, x * z, y * y, y * z]
        third = [x * x * x, x * x * y, x * x * z, x * y * y, x * y * z, y * y * y, y * y * z]
        packed[0] += np.outer(radial, [1, x, y, z, *second, *third])
    return packed


def random_moments(rng, n_atoms) -> np.ndarray:
    return rng.normal(size=(n_atoms, N_RADIAL, 16))


def test_structure_sum(rng):
    values, offsets = rng.normal(size=(7, 2)), np.array([0, 0, 3, 3, 7, 7])
    expected = [values[a:b].sum(axis=0) for a, b in pairwise(offsets)]
    assert relative_error(structure_sum(values, offsets), np.array(expected)) < 1e-15
    assert structure_sum(np.zeros((0, 2)), np.array([0, 0])).tolist() == [[0.0, 0.0]]


def test_energy_is_summed_in_double_precision():
    m = np.full((10, 1), 1e8 + 0.125)
    batch = Batch.from_arrays(np.arange(30.0).reshape(10, 3), np.ones(10, int))
    energy = head_outputs(make_head("energy", N_RADIAL), m, batch, None)["energy"]
    assert energy.dtype == np.float64 and energy[0] == 1e9 + 1.25


def test_charges_and_dipole(rng):
    batch, m = make_batch(rng), rng.normal(size=(10, 1))
    result = head_outputs(make_head("charges", N_RADIAL), m, batch, None)
    assert np.array_equal(result["charges"], m[:, 0])
    expected = [(m[a:b] * batch.positions[a:b]).sum(axis=0) for a, b in pairwise(batch.offsets)]
    assert relative_error(result["dipole"], np.array(expected)) < 1e-14


def test_conserved_charges_sum_up_exactly(rng):
    batch, m, total = make_batch(rng), rng.normal(size=(10, 1)), np.array([-2.0, 0.0, 1.0, 0.5])
    head = make_head("charges", N_RADIAL, conserve=True)
    charges = head_outputs(head, m, batch, None, total)["charges"]
    assert np.abs(structure_sum(charges, batch.offsets) - total).max() < 1e-14
    correction = charges - m[:, 0]
    assert np.ptp(correction[:4]) < 1e-14 and np.ptp(correction[5:]) < 1e-14


def test_conserved_charges_take_the_constant_of_the_training_data(rng):
    batch, m = make_batch(rng, (3, 4)), rng.normal(size=(7, 1))
    head = make_head("charges", N_RADIAL, conserve=True, total_charge=-2.0)
    charges = head_outputs(head, m, batch, None)["charges"]
    assert np.abs(structure_sum(charges, batch.offsets) + 2.0).max() < 1e-14
    with pytest.raises(GMError, match=r"sum up to the total charge, which must be given"):
        head_outputs(make_head("charges", N_RADIAL, conserve=True), m, batch, None)


def test_dipole_about_the_center_of_mass_does_not_move_with_an_ion(rng):
    head = make_head("charges", N_RADIAL, origin="center_of_mass")
    batch, m = make_batch(rng), rng.normal(size=(10, 1))
    moved = Batch.from_arrays(batch.positions + np.array([3.0, -1.0, 7.0]), batch.numbers, offsets=batch.offsets)
    dipole = head_outputs(head, m, batch, None)["dipole"]
    assert relative_error(head_outputs(head, m, moved, None)["dipole"], dipole) < 1e-12
    assert np.abs(dipole[2]).max() < 1e-14  # a single atom is its own center


def test_d_tensor_of_positions(rng):
    batch, m = make_batch(rng, (5,)), rng.normal(size=(5, 1))
    away = batch.positions - batch.positions.mean(axis=0)
    expected = np.zeros((3, 3))
    for weight, r in zip(m[:, 0], away):
        expected += weight * (3.0 * np.outer(r, r) / (r @ r) - np.eye(3))
    value = head_outputs(make_head("d_tensor", N_RADIAL), m, batch, None)["d_tensor"][0]
    assert relative_error(value, expected) < 1e-14


def test_tensor_of_positions_has_the_trace_of_the_weights(rng):
    batch, m = make_batch(rng), rng.normal(size=(10, 1))
    value = head_outputs(make_head("tensor", N_RADIAL, name="alpha"), m, batch, None)["alpha"]
    trace = structure_sum(m[:, 0], batch.offsets)
    trace[2] = 0.0  # a single atom lies on its own mean
    assert np.abs(np.trace(value, axis1=1, axis2=2) - trace).max() < 1e-14


@pytest.mark.parametrize("offset", [0.0, 0.5 * COINCIDENT, -0.9 * COINCIDENT])
def test_atom_on_the_mean_position_contributes_nothing(offset):
    """The metal of a symmetric complex: its direction is undefined, the tensor must stay finite."""
    positions = np.array([[1.0, 0, 0], [-1.0, 0, 0], [0, 0, offset], [0, 2, 0], [0, -2, 0]]) + 0.25
    batch = Batch.from_arrays(positions, [6, 6, 1, 6, 6])
    assert np.array_equal(directions(batch)[2], np.zeros(3))
    with_atom = head_outputs(make_head("d_tensor", N_RADIAL), np.array([[1.0], [2], [99], [4], [5]]), batch, None)
    without = head_outputs(make_head("d_tensor", N_RADIAL), np.array([[1.0], [2], [0], [4], [5]]), batch, None)
    assert np.array_equal(with_atom["d_tensor"], without["d_tensor"])
    assert np.isfinite(with_atom["d_tensor"]).all()


def test_moment_channels_of_one_neighbor():
    """A neighbor along z: M2_s = R_s zz, M1_s M1_t = R_s R_t zz, detraced."""
    radial = np.array([0.5, -1.0, 2.0])
    channels = moment_channels(pack([(radial, (0.0, 0.0, 1.0))]))[0]
    unit = np.diag([-1.0, -1.0, 2.0]) / 3.0
    r, s = np.triu_indices(N_RADIAL)
    expected = np.concatenate([radial, radial[r] * radial[s]])[:, None, None] * unit
    assert len(channels) == n_moment_channels(N_RADIAL) == 9
    assert np.abs(channels - expected).max() < 1e-15


def test_moment_channels_turn_with_the_neighbors(rng):
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rows = [(rng.normal(size=N_RADIAL), u / np.linalg.norm(u)) for u in rng.normal(size=(6, 3))]
    turned = moment_channels(pack([(radial, rotation @ u) for radial, u in rows]))
    expected = rotation @ moment_channels(pack(rows)) @ rotation.T
    assert relative_error(turned, expected) < 1e-13


def test_moment_basis(rng):
    batch, moments = make_batch(rng), random_moments(rng, 10)
    channels = moment_channels(moments)
    d_head = make_head("d_tensor", N_RADIAL, basis="moments")
    m = rng.normal(size=(10, d_head.n_outputs))
    expected = structure_sum(np.einsum("ic,icab->iab", m, channels), batch.offsets)
    assert relative_error(head_outputs(d_head, m, batch, moments)["d_tensor"], expected) < 1e-13
    head = make_head("tensor", N_RADIAL, basis="moments")
    m = np.concatenate([m, rng.normal(size=(10, 1))], axis=1)
    expected += structure_sum(m[:, -1], batch.offsets)[:, None, None] * np.eye(3)
    assert relative_error(head_outputs(head, m, batch, moments)["tensor"], expected) < 1e-13


@pytest.mark.parametrize("basis", ["positions", "moments"])
def test_d_tensor_is_symmetric_and_traceless(rng, basis):
    batch, moments = make_batch(rng), random_moments(rng, 10)
    head = make_head("d_tensor", N_RADIAL, basis=basis)
    d = head_outputs(head, rng.normal(size=(10, head.n_outputs)), batch, moments)["d_tensor"]
    assert d.shape == (4, 3, 3)
    assert np.abs(d - d.swapaxes(1, 2)).max() < 1e-13
    assert np.abs(np.trace(d, axis1=1, axis2=2)).max() < 1e-13
    assert np.array_equal(d[1], np.zeros((3, 3)))


def test_units_follow_the_heads():
    heads = [make_head(kind, N_RADIAL) for kind in ("energy", "charges", "d_tensor", "tensor")]
    assert output_units(heads) == {
        "energy": "eV", "forces": "eV/A", "stress": "eV/A^3", "charges": "e", "dipole": "e*A",
        "d_tensor": "cm^-1", "tensor": "1",
    }  # fmt: skip
    assert output_units([HeadSettings("alpha", "tensor", unit="A^3", options=HeadOptions(basis="positions"))]) == {
        "alpha": "A^3"
    }


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([], r"must have at least one head, got none"),
        ([HeadSettings("x", "magic")], r"kind of a head must be one of energy, charges, d_tensor, tensor, got 'magic'"),
        ([HeadSettings("d", "d_tensor")], r"basis of head d must be 'positions' or 'moments', got None"),
        ([HeadSettings("energy", "energy", n_outputs=2)], r"number of outputs of head energy must be 1, got 2"),
        (
            [HeadSettings("d", "d_tensor", options=HeadOptions(basis="moments"))],
            r"outputs of head d must be 9, got 1",
        ),
        (
            [HeadSettings("q", "charges", options=HeadOptions(origin="metal"))],
            r"'coordinates' or 'center_of_mass', got 'metal'",
        ),
        ([HeadSettings("a", "energy"), HeadSettings("b", "energy")], r"two heads must differ, got energy, forces"),
        (
            [HeadSettings("forces", "tensor", options=HeadOptions(basis="positions"))],
            r"got forces again from head forces",
        ),
        (
            [HeadSettings("E", "energy", options=HeadOptions(basis="moments"))],
            r"head E is of kind energy, which has no option basis: leave it out",
        ),
        (
            [HeadSettings("d", "d_tensor", options=HeadOptions(basis="positions", conserve=True))],
            r"head d is of kind d_tensor, which has no option conserve: leave it out",
        ),
        (
            [HeadSettings("d", "d_tensor", options=HeadOptions(basis="positions", core_radius=-1.0))],
            r"core_radius of head d must be a length in A, got -1.0",
        ),
        (
            [HeadSettings("q", "charges", options=HeadOptions(total_charge="two"))],
            r"total_charge of head q must be a finite number, got 'two'",
        ),
        (
            [HeadSettings("q", "charges", options=HeadOptions(conserve="yes"))],
            r"conserve of head q must be true or false, got 'yes'",
        ),
    ],
)
def test_contradictions_are_refused(heads, message):
    with pytest.raises(GMError, match=message):
        check_heads(heads, N_RADIAL)
