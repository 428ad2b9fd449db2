"""dD/dx by hand against differences, and the identities that need none."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from gmcore.errors import GMError
from gmcore.model import Model
from gmcore.tensor_gradients import d_tensor_gradient, member_gradients, near_center, tensor_head, without_core
from support.models import make_head, random_parts
from support.systems import molecule, triclinic, water_molecule
from support.tolerances import TOLERANCE, relative_error

N_RADIAL = 3
HEADS = {
    "D of positions": make_head("d_tensor", N_RADIAL),
    "D of moments": make_head("d_tensor", N_RADIAL, basis="moments"),
    "tensor of positions": make_head("tensor", N_RADIAL),
    "tensor of moments": make_head("tensor", N_RADIAL, basis="moments"),
}
every_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


def make_model(*heads, n_members=1, **options) -> Model:
    return Model(*random_parts(heads, n_radial=N_RADIAL, n_members=n_members, **options))


def differences(model, atoms, name, h=1e-3):
    """Fourth-order central differences, every atom and direction in one batch."""
    frames, stencil = [], ((1, 8), (-1, -8), (2, -1), (-2, 1))
    for i, a in np.ndindex(len(atoms), 3):
        for step, _ in stencil:
            frames.append(atoms.copy())
            frames[-1].positions[i, a] += step * h
    values = model.predict(frames, [name])[name].reshape(len(atoms), 3, 4, 3, 3)
    return np.einsum("iaskl,s->iakl", values, [weight for _, weight in stencil]) / (12 * h)


@every_head
@pytest.mark.parametrize("make", [water_molecule, molecule, triclinic])
def test_gradient_equals_differences(head, make):
    # the energy head in front checks that the right columns of the network are taken
    model, atoms = make_model("energy", head), make()
    gradient = d_tensor_gradient(model, atoms)
    assert gradient.shape == (len(atoms), 3, 3, 3)
    assert relative_error(gradient, differences(model, atoms, head.name)) < TOLERANCE["difference", "float64"]
    assert np.abs(gradient).max() > 0.1


@every_head
def test_translation_symmetry_and_trace(head):
    gradient = d_tensor_gradient(make_model(head), molecule())
    scale = np.abs(gradient).max()
    assert np.abs(gradient.sum(axis=0)).max() < 1e-11 * scale
    np.testing.assert_array_equal(gradient, gradient.swapaxes(-1, -2))
    trace = np.abs(np.trace(gradient, axis1=-2, axis2=-1)).max()
    assert trace < 1e-12 * scale if head.kind == "d_tensor" else trace > 1e-3 * scale


@every_head
@pytest.mark.parametrize("determinant", [1, -1])
def test_turns_with_the_structure(head, determinant, rng):
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= determinant * np.linalg.det(turn)
    model, atoms = make_model(head), triclinic()
    expected = np.einsum("ab,kc,ld,ibcd->iakl", turn, turn, turn, d_tensor_gradient(model, atoms))
    atoms.positions = atoms.positions @ turn.T
    atoms.set_cell(atoms.cell.array @ turn.T)
    assert relative_error(d_tensor_gradient(model, atoms), expected) < TOLERANCE["gradient", "float64"]


def test_infinitesimal_rotation_turns_the_tensor():
    # D(x + w x r) = D + [w]D - D[w]: the gradient knows how the tensor turns
    head = HEADS["D of positions"]
    model, atoms = make_model(head), molecule()
    tensor = model.predict(atoms)["d_tensor"][0]
    gradient = d_tensor_gradient(model, atoms)
    for axis in np.eye(3):
        cross = np.cross(np.eye(3), axis)
        change = np.einsum("ia,iakl->kl", np.cross(axis, atoms.positions), gradient)
        assert relative_error(change, cross @ tensor - tensor @ cross) < 1e-10


def test_members_and_their_mean():
    settings, members = random_parts([HEADS["D of moments"]], n_radial=N_RADIAL, n_members=3)
    committee, atoms = Model(settings, members), molecule()
    gradients = member_gradients(committee, atoms)
    assert gradients.shape == (3, len(atoms), 3, 3, 3)
    for one, member in zip(gradients, members):
        np.testing.assert_array_equal(one, d_tensor_gradient(Model(settings, [member]), atoms))
    np.testing.assert_array_equal(d_tensor_gradient(committee, atoms), gradients.mean(axis=0))
    assert gradients.std(axis=0).max() > 0.1


@every_head
def test_single_precision(head):
    parts = random_parts([head], n_radial=N_RADIAL)
    single, double = (d_tensor_gradient(Model(*parts, dtype), molecule()) for dtype in ("float32", "float64"))
    assert relative_error(single, double) < TOLERANCE["gradient", "float32"]


def centered() -> Atoms:
    """Two waters around an atom at their center of inversion, (2, 2, 2)."""
    atoms = water_molecule() + water_molecule()
    atoms.positions[3:] = 4.0 - atoms.positions[:3]
    return atoms + Atoms("C", [[2.0, 2.0, 2.0]])


def test_an_atom_on_the_center_has_no_direction():
    gradient = d_tensor_gradient(make_model(HEADS["D of positions"]), centered())
    assert np.isfinite(gradient).all() and np.abs(gradient.sum(axis=0)).max() < 1e-11 * np.abs(gradient).max()


@pytest.mark.parametrize("kind", ["D of positions", "tensor of positions"])
def test_an_atom_near_the_center_can_be_left_out(kind):
    head = HEADS[kind]
    model, atoms = make_model("energy", head), centered()
    atoms.positions[6] += [0.006, 0.0, 0.0]
    assert near_center(model, atoms, 0.01).tolist() == [6]
    assert near_center(model, atoms, np.where(np.arange(7) == 6, 0.001, 1.0)).tolist() == []
    smooth = without_core(model, 0.05)
    gradient = d_tensor_gradient(smooth, atoms)
    assert relative_error(gradient, differences(smooth, atoms, head.name)) < TOLERANCE["difference", "float64"]
    assert np.abs(d_tensor_gradient(model, atoms)).max() > 10.0 * np.abs(gradient).max()
    np.testing.assert_array_equal(smooth.predict(atoms)["energy"], model.predict(atoms)["energy"])
    ring = atoms[:6]  # beyond the core nothing changes
    np.testing.assert_array_equal(d_tensor_gradient(smooth, ring), d_tensor_gradient(model, ring))
    assert near_center(make_model(HEADS["D of moments"]), atoms, 1.0).tolist() == []


def test_which_tensor():
    two = make_model(make_head("d_tensor", N_RADIAL, "d"), make_head("tensor", N_RADIAL, "g"))
    assert tensor_head(two, "g").kind == "tensor"
    for name in ("d", "g"):
        expected = differences(two, water_molecule(), name)
        assert relative_error(d_tensor_gradient(two, water_molecule(), name), expected) < 1e-8
    with pytest.raises(GMError, match="several tensors, d, g: name one of them"):
        d_tensor_gradient(two, water_molecule())
    with pytest.raises(GMError, match="tensors of this model are d, g, got 'x'"):
        d_tensor_gradient(two, water_molecule(), "x")
    with pytest.raises(GMError, match="model must predict a tensor, but it predicts energy"):
        d_tensor_gradient(make_model("energy"), water_molecule())
