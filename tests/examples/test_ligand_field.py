"""The model D tensor of the shipped example: angular momentum, limits known by hand, symmetries, shipped numbers."""

from __future__ import annotations

import importlib.util
import sys

import ase.io
import numpy as np
import pytest

from support.places import ROOT

EXAMPLE = ROOT / "examples" / "co_pdms"


@pytest.fixture(scope="module")
def ligand_field():
    """The module that stands beside the data, loaded from its path; it is no part of the packages."""
    spec = importlib.util.spec_from_file_location("co_pdms_ligand_field", EXAMPLE / "ligand_field.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def frames():
    return ase.io.read(EXAMPLE / "d_tensor.extxyz", ":")


def rotation(rng) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


def tetrahedron(half_angle: float, distance: float = 2.05) -> tuple[np.ndarray, np.ndarray]:
    """Bonds and plane normals of a CoN4 with two chelate planes, xz and yz; half_angle between S4 axis and bond."""
    s, c = distance * np.sin(half_angle), distance * np.cos(half_angle)
    bonds = np.array([[s, 0, c], [-s, 0, c], [0, s, -c], [0, -s, -c]])
    return bonds, np.array([[0, 1.0, 0], [0, 1.0, 0], [1.0, 0, 0], [1.0, 0, 0]])


def test_angular_momentum_is_that_of_a_d_shell(ligand_field):
    k = ligand_field.ANGULAR_MOMENTUM
    np.testing.assert_allclose(k, -k.transpose(0, 2, 1), atol=1e-14)
    np.testing.assert_allclose(-np.einsum("amn,ano->mo", k, k), 6.0 * np.eye(5), atol=1e-13)
    for axis in range(3):
        np.testing.assert_allclose(np.linalg.eigvalsh(1j * k[axis]), [-2, -1, 0, 1, 2], atol=1e-13)


def test_ideal_tetrahedron_splits_into_e_and_t2(ligand_field):
    field = ligand_field.LigandField(e_pi=0.0)
    levels = np.linalg.eigvalsh(ligand_field.hamiltonian(*tetrahedron(np.arccos(1 / np.sqrt(3))), field))
    np.testing.assert_allclose(levels[:2], 0.0, atol=1e-9)  # d-s mixing and sigma bonds leave e alone
    np.testing.assert_allclose(levels[2:], 4.0 / 3.0 * field.e_sigma, rtol=1e-12)


def test_stretched_tetrahedron_follows_the_formula_by_hand(ligand_field):
    theta = np.radians(40.0)
    field = ligand_field.LigandField()
    levels = np.linalg.eigvalsh(ligand_field.hamiltonian(*tetrahedron(theta), field))
    # sigma bonds in the planes xz and yz point at x2-y2; the pi lone pairs across them push xy; z2 mixes with 4s
    x2y2 = 3.0 * np.sin(theta) ** 4 * field.e_sigma
    xy = 4.0 * np.sin(theta) ** 2 * field.e_pi
    z2 = (3.0 * np.cos(theta) ** 2 - 1.0) ** 2 * (field.e_sigma - 4.0 * field.e_ds)
    np.testing.assert_allclose(levels[:3], sorted([x2y2, xy, z2]), rtol=1e-12)


def test_d_of_a_stretched_tetrahedron_by_hand(ligand_field):
    theta = np.radians(40.0)
    field = ligand_field.LigandField()
    bonds, normals = tetrahedron(theta)
    # nitrogens with one S and one C each in their plane, 1.6 and 1.4 A away, without ambiguity
    outward = bonds / np.linalg.norm(bonds, axis=1, keepdims=True)
    in_plane = np.cross(normals, outward)
    positions = np.concatenate(
        [np.zeros((1, 3)), bonds, bonds + outward + 1.2 * in_plane, bonds + outward - 1.0 * in_plane]
    )
    tensor = ligand_field.d_tensor(np.array([27] + [7] * 4 + [16] * 4 + [6] * 4), positions, field)
    levels, orbitals = np.linalg.eigh(ligand_field.hamiltonian(bonds, normals, field))
    order = [int(np.argmax(np.abs(orbitals[m]))) for m in range(5)]
    z2, x2y2, xy, xz, yz = levels[order]
    assert z2 < xy < x2y2 < xz == pytest.approx(yz)
    # |<x2-y2|lz|xy>| = 2; with two levels of e type the sums over xz and yz run as matrices, here by their invariants
    e_block = ligand_field.hamiltonian(bonds, normals, field)[3:, 3:]
    np.testing.assert_allclose(e_block, e_block[0, 0] * np.eye(2), atol=1e-9)
    parallel = 4.0 / (x2y2 - xy)
    perpendicular = 3.0 / (xz - z2) + 1.0 / (xz - xy)
    expected = -(field.zeta**2) / 9.0 * (parallel - perpendicular)
    np.testing.assert_allclose(tensor[2, 2] - (tensor[0, 0] + tensor[1, 1]) / 2.0, expected, rtol=1e-9)
    assert expected < 0


def test_rotates_with_the_molecule_and_ignores_origin_and_order(ligand_field, frames, rng):
    for atoms in frames[::97]:
        tensor = ligand_field.d_tensor(atoms.numbers, atoms.positions)
        r, order = rotation(rng), rng.permutation(len(atoms))
        moved = ligand_field.d_tensor(atoms.numbers[order], (atoms.positions @ r.T + rng.normal(size=3))[order])
        np.testing.assert_allclose(moved, r @ tensor @ r.T, atol=1e-9)
        mirrored = ligand_field.d_tensor(atoms.numbers, -atoms.positions)
        np.testing.assert_allclose(mirrored, tensor, atol=1e-9)
        np.testing.assert_allclose(tensor, tensor.T, atol=1e-12)
        assert abs(np.trace(tensor)) < 1e-10


def test_is_smooth_in_the_geometry(ligand_field, frames, rng):
    """Differences of two step lengths agree: no jump and no kink along random directions."""
    for atoms in frames[::150]:
        direction = rng.normal(size=atoms.positions.shape)

        def slope(step, atoms=atoms, direction=direction):
            plus, minus = (ligand_field.d_tensor(atoms.numbers, atoms.positions + s * direction) for s in (step, -step))
            return (plus - minus) / (2.0 * step)

        np.testing.assert_allclose(slope(1e-4), slope(1e-5), rtol=1e-3, atol=0.2)


def test_shipped_tensors_are_those_of_the_model(ligand_field, frames):
    assert len(frames) == 600
    for atoms in frames[::20]:
        expected = ligand_field.d_tensor(atoms.numbers, atoms.positions)
        np.testing.assert_allclose(atoms.info["d_tensor_ref"], expected, atol=1.1e-4)


def test_shipped_files_are_complete_and_small(frames):
    files = [EXAMPLE / "potential.extxyz", EXAMPLE / "d_tensor.extxyz"]
    assert sum(file.stat().st_size for file in files) < 3_000_000
    tensors = np.array([atoms.info["d_tensor_ref"] for atoms in frames])
    np.testing.assert_allclose(np.trace(tensors, axis1=1, axis2=2), 0.0, atol=1e-9)
    for atoms in ase.io.read(files[0], ":"):
        assert atoms.info["total_charge"] == -2
        assert np.isfinite(atoms.info["energy_ref"]) and atoms.info["dipole_ref"].shape == (3,)
        assert atoms.arrays["forces_ref"].shape == (53, 3)
        assert abs(atoms.arrays["charges_ref"].sum() + 2.0) < 1e-3


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([7, 7, 7, 7, 16, 6], "exactly one cobalt atom, got 0"),
        ([27, 7, 7, 7, 16, 6], "four nitrogen atoms, got 3"),
        ([27, 7, 7, 7, 7, 6], "sulfur and carbon"),
    ],
)
def test_other_molecules_are_refused(ligand_field, rng, numbers, message):
    with pytest.raises(ValueError, match=message):
        ligand_field.d_tensor(np.array(numbers), rng.normal(size=(len(numbers), 3)))


def test_closed_gap_is_refused(ligand_field, frames):
    field = ligand_field.LigandField(minimal_gap=1e5)
    with pytest.raises(ValueError, match="second order needs a gap"):
        ligand_field.d_tensor(frames[0].numbers, frames[0].positions, field)
