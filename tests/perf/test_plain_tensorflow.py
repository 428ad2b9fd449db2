"""The plain-TensorFlow twin against the slow twin in float64, and the gradient of its losses against differences."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from gmcore.engine import reference
from gmcore.engine.neighbors import build_pairs
from gmcore.engine.structures import Batch, SpeciesTable
from support.models import SPECIES, random_parts
from support.systems import molecule, small_cell, triclinic
from support.tolerances import relative_error

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
from perf.plain_tensorflow import PlainModel, plain_inputs

pytestmark = pytest.mark.slow


class System:
    """Three structures, a model, and both twins' arguments."""

    def __init__(self, kind="energy", frames=None, dtype="float64"):
        settings, (self.member,) = random_parts([kind])
        self.settings = settings.descriptor
        self.batch = Batch.from_atoms(frames or [molecule(), small_cell(), triclinic()])
        pairs = build_pairs(self.batch, self.settings.r_max)
        self.species = SpeciesTable(SPECIES).index(self.batch.numbers)
        self.pairs = (pairs.center, pairs.neighbor, pairs.displacements(self.batch.cells)[pairs.shift])
        self.inputs = plain_inputs(self.batch, self.species, pairs)
        self.plain = PlainModel(self.settings, self.member, kind, dtype)

    def energies(self, positions, strain=None):
        """By the slow twin, (n_structures,)."""
        strain = None if strain is None else strain[self.batch.structure[self.pairs[0]]]
        g = reference.features(positions, self.species, *self.pairs, self.member.beta, self.settings, strain)
        y = reference.network(g, self.member)
        m = self.member.scale["energy"][self.species] * y + self.member.shift["energy"][self.species]
        return np.array([part.sum() for part in np.split(m, self.batch.offsets[1:-1])])


@pytest.fixture(scope="module")
def system():
    return System()


def test_features_in_the_order_of_the_slow_twin(system):
    features = system.plain.contractions(*system.plain.moments(system.inputs))
    expected = reference.features(
        system.batch.positions, system.species, *system.pairs, system.member.beta, system.settings
    )
    assert relative_error(features, expected) < 1e-12


def test_energy_forces_and_strain_derivative(system, rng):
    energy, forces, g_strain = system.plain.energy_forces_strain(system.inputs)
    positions = system.batch.positions
    assert relative_error(energy, system.energies(positions)) < 1e-12
    assert relative_error(system.plain.energy(system.inputs), energy) < 1e-13
    assert relative_error(system.plain.energy_forces(system.inputs)[1], forces) < 1e-13

    move = rng.normal(size=positions.shape)
    directional = reference.complex_step(lambda t: system.energies(positions + t * move).sum(), 0.0)
    assert relative_error(-np.sum(forces * move), directional) < 1e-11
    direction = rng.normal(size=(3, 3, 3))
    directional = reference.complex_step(lambda t: system.energies(positions, t * direction), 0.0)
    assert relative_error(np.einsum("kab,kab->k", g_strain, direction), directional) < 1e-11


def test_d_tensor(rng):
    system = System("d_tensor", [molecule(), Atoms("OHH", rng.normal(size=(3, 3)))])
    d = system.plain.d_tensor(system.inputs).numpy()
    positions = system.batch.positions
    g = reference.features(positions, system.species, *system.pairs, system.member.beta, system.settings)
    m = system.member.scale["d_tensor"][system.species] * reference.network(g, system.member)
    m += system.member.shift["d_tensor"][system.species]
    for k, atoms in enumerate(np.split(np.arange(len(m)), system.batch.offsets[1:-1])):
        arm = positions[atoms] - positions[atoms].mean(0)
        rhat = arm / np.linalg.norm(arm, axis=1, keepdims=True)
        expected = np.einsum("i,iab->ab", m[atoms, 0], 3 * rhat[:, :, None] * rhat[:, None, :] - np.eye(3))
        assert relative_error(d[k], expected) < 1e-12


@pytest.mark.parametrize("kind", ["energy", "d_tensor"])
def test_gradients_of_the_loss_agree_with_differences(kind, rng):
    system = System(kind, [molecule(), Atoms("CNOH", rng.normal(scale=1.5, size=(4, 3)))])
    n_atoms, n_structures = system.batch.n_atoms, system.batch.n_structures
    labels = {
        "energy": {"energy": rng.normal(size=n_structures), "forces": rng.normal(size=(n_atoms, 3))},
        "d_tensor": {"d_tensor": rng.normal(size=(n_structures, 3, 3))},
    }[kind]
    plain = system.plain
    _, gradients = plain.gradients(system.inputs, labels)
    for (name, variable), gradient in zip(plain.parameters.items(), gradients):
        direction = rng.normal(size=variable.shape)
        direction /= np.linalg.norm(direction)
        value, losses = variable.numpy(), []
        for step in (1e-4, -1e-4, 2e-4, -2e-4):
            variable.assign(value + step * direction)
            losses.append(float(plain.gradients(system.inputs, labels)[0]))
        variable.assign(value)
        difference = (8 * (losses[0] - losses[1]) - (losses[2] - losses[3])) / 12e-4
        scale = max(abs(difference), np.linalg.norm(gradient), 1e-8)
        assert abs(np.sum(gradient * direction) - difference) < 1e-8 * scale, name


def test_training_lowers_the_loss():
    system = System("energy", [molecule()], dtype="float32")
    labels = {"energy": [1.0], "forces": np.zeros((system.batch.n_atoms, 3))}
    losses = [float(system.plain.train_step(system.inputs, labels)) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_unknown_kind():
    settings, (member,) = random_parts()
    with pytest.raises(ValueError, match="kind must be one of energy, d_tensor, got 'dipole'"):
        PlainModel(settings.descriptor, member, "dipole")
