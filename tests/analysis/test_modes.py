"""Modes of springs with a known answer, of random models against ASE, and what cannot have modes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.vibrations import Vibrations

from gmcore.analysis.modes import (
    Modes,
    ModesError,
    force_constants,
    frequency_to_omega,
    harmonic_modes,
    rigid_motions,
    thermal_variance,
)
from gmcore.calculator import GMCalculator
from gmcore.dynamics.relaxation import relax
from gmcore.model import Model
from support.models import random_parts
from support.springs import Springs
from support.systems import molecule, triclinic, water_molecule
from support.tolerances import relative_error

MINIMUM_SEED = 29  # a random potential that has a bent minimum, and a crystal that does not collapse
WAVENUMBER = units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm  # cm^-1 per sqrt(eV/(A^2 amu))


def potential(**options) -> Model:
    return Model(*random_parts(["energy"], **options))


def test_diatomic_has_the_frequency_of_its_reduced_mass():
    atoms = Atoms("CO", [[0.3, 0.2, 0.1], [0.3, 0.9, 1.0]])
    modes = harmonic_modes(atoms, Springs(atoms, 20.0), step=1e-3)
    reduced = 1.0 / (1.0 / atoms.get_masses()).sum()
    assert modes.frequencies == pytest.approx([np.sqrt(20.0 / reduced) * WAVENUMBER], rel=1e-6)
    assert len(modes.rigid_frequencies) == 5 and np.abs(modes.rigid_frequencies).max() < 1.0
    # the atoms move along the bond, against each other, each in proportion to the mass of the other
    moves = modes.displacements[0]
    along = (atoms.positions[1] - atoms.positions[0]) / atoms.get_distance(0, 1)
    np.testing.assert_allclose(moves, np.outer(moves @ along, along), atol=1e-9)
    np.testing.assert_allclose(atoms.get_masses() @ moves, 0.0, atol=1e-9)
    # <x^2> of the bond in the ground state is hbar/(2 mu omega)
    stretch = np.diff(moves @ along)[0]
    hbar_omega = modes.frequencies[0] * units.invcm * units._e
    expected = units._hbar**2 / (reduced * units._amu * hbar_omega) * 1e20
    assert stretch**2 == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("atoms", "n_rigid"),
    [
        (Atoms("He"), 3),
        (Atoms("OCO", [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]]), 5),
        (Atoms("OCO", [[0, 1e-5, -1.2], [0, 0, 0], [0, 0, 1.2]]), 5),
        (Atoms("OCO", [[0, 0.05, -1.2], [0, 0, 0], [0, 0, 1.2]]), 6),
        (water_molecule(), 6),
        (triclinic(), 3),
    ],
)
def test_rigid_motions(atoms, n_rigid):
    rigid, internal = rigid_motions(atoms)
    both = np.concatenate([rigid, internal], axis=1)
    assert rigid.shape == (3 * len(atoms), n_rigid)
    np.testing.assert_allclose(both.T @ both, np.eye(3 * len(atoms)), atol=1e-12)
    if not atoms.pbc.any():  # a small rotation lies in the space
        turned = np.cross([0.3, 0.2, -0.5], atoms.positions) * np.sqrt(atoms.get_masses())[:, None]
        np.testing.assert_allclose(internal.T @ turned.ravel(), 0.0, atol=1e-3 * np.abs(turned).max())


def test_rigid_motions_do_not_mix_with_soft_modes():
    atoms = molecule()[:6]
    soft = harmonic_modes(atoms, Springs(atoms, 1e-4), step=1e-3)
    assert len(soft) == 12 and soft.n_imaginary == 0
    assert soft.frequencies.max() < 30.0
    masses = atoms.get_masses()[:, None]
    moves = soft.vectors / np.sqrt(masses)
    np.testing.assert_allclose((masses * moves).sum(axis=1), 0.0, atol=1e-10)
    np.testing.assert_allclose((masses * np.cross(atoms.positions, moves)).sum(axis=1), 0.0, atol=1e-10)
    flat = soft.vectors.reshape(12, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(12), atol=1e-12)


def test_structures_go_through_the_model_in_batches():
    atoms = water_molecule()
    springs = Springs(atoms, 5.0)
    springs.evaluator.batch_atoms = 21
    batched = force_constants(atoms, springs)
    assert springs.calls == [7, 7, 4]
    springs.evaluator.batch_atoms = 1
    np.testing.assert_allclose(force_constants(atoms, springs), batched, rtol=1e-12, atol=1e-12)
    assert springs.calls[3:] == [1] * 18


@pytest.mark.parametrize("make", [water_molecule, triclinic])
def test_force_constants_equal_those_of_ase(make, tmp_path):
    model, atoms = potential(n_members=2), make()
    calculated = atoms.copy()
    calculated.calc = GMCalculator(model)
    vibrations = Vibrations(calculated, name=str(tmp_path / "vibrations"), delta=0.01)
    vibrations.run()
    expected = vibrations.get_vibrations().get_hessian_2d()
    assert relative_error(force_constants(atoms, model), expected) < 1e-9


def test_frequencies_of_a_minimum_equal_those_of_ase(tmp_path):
    model = potential(seed=MINIMUM_SEED)
    atoms = relax(water_molecule(), model)
    modes = harmonic_modes(atoms, model)
    calculated = atoms.copy()
    calculated.calc = GMCalculator(model)
    vibrations = Vibrations(calculated, name=str(tmp_path / "vibrations"), delta=0.01)
    vibrations.run()
    expected = vibrations.get_frequencies()
    assert modes.n_imaginary == 0 and modes.max_force < 1e-4
    assert "no imaginary frequencies: a minimum" in modes.summary()
    np.testing.assert_allclose(modes.frequencies, expected.real[6:], rtol=1e-4)
    assert modes.frequencies[0] > 10.0 * np.abs(modes.rigid_frequencies).max()


def test_crystal_keeps_its_rotations_as_modes():
    model, atoms = potential(), triclinic()
    modes = harmonic_modes(atoms, model)
    assert modes.vectors.shape == (3 * len(atoms) - 3, len(atoms), 3)
    assert np.abs(modes.rigid_frequencies).max() < 1e-3 * np.abs(modes.frequencies).max()
    np.testing.assert_allclose((np.sqrt(atoms.get_masses())[:, None] * modes.vectors).sum(axis=1), 0.0, atol=1e-10)


def test_negative_curvature_is_a_negative_frequency():
    atoms = Atoms("HH", [[0, 0, 0], [0, 0, 1.0]])
    modes = harmonic_modes(atoms, Springs(atoms, -2.0))
    assert modes.frequencies == pytest.approx([-np.sqrt(4.0 / 1.008) * WAVENUMBER], rel=1e-6)
    assert modes.summary() == "1 mode and 5 rigid motions, 1 imaginary frequency: a saddle point of order 1"
    assert np.isnan(modes.displacements).all() and np.isnan(thermal_variance(modes.frequencies, 100.0)).all()


def test_unrelaxed_structure_is_called_so():
    atoms = Atoms("HH", [[0, 0, 0], [0, 0, 1.0]])
    springs = Springs(atoms, 2.0)
    atoms.positions[1, 2] = 1.1
    assert "not relaxed (largest force 0.2 eV/A)" in harmonic_modes(atoms, springs).summary()


def test_isotopes_count():
    light, heavy = (Atoms("HH", [[0, 0, 0], [0, 0, 1.0]], masses=[m, m]) for m in (1.0, 4.0))
    ratio = [harmonic_modes(atoms, Springs(atoms, 2.0)).frequencies[0] for atoms in (light, heavy)]
    assert ratio[0] / ratio[1] == pytest.approx(2.0, rel=1e-12)


def test_reduced_mass_of_a_diatomic():
    atoms = Atoms("HH", [[0, 0, 0], [0, 0, 1.0]])
    modes = harmonic_modes(atoms, Springs(atoms, 2.0))
    assert modes.reduced_masses == pytest.approx([1.008])


def test_thermal_variance_in_its_limits():
    frequencies = np.array([10.0, 3000.0])
    assert thermal_variance(frequencies, 0.0) == pytest.approx([0.5, 0.5])
    hot = 1e6
    classical = units.kB * hot / (frequencies * units.invcm)
    assert thermal_variance(frequencies, hot, quantum=False) == pytest.approx(classical)
    assert thermal_variance(frequencies, hot) == pytest.approx(classical, rel=1e-5)
    assert frequency_to_omega(1.0) == pytest.approx(2 * np.pi * units._c * 100 * 1e-15, rel=1e-9)
    with pytest.raises(ModesError, match="must not be negative, got -1"):
        thermal_variance(frequencies, -1.0)


def test_file_holds_everything(tmp_path):
    atoms = triclinic()
    atoms.set_masses(np.linspace(1.0, 9.0, len(atoms)))
    modes = harmonic_modes(atoms, potential())
    modes.save(tmp_path / "modes.h5")
    again = Modes.load(tmp_path / "modes.h5")
    assert again.atoms == modes.atoms and again.max_force == modes.max_force
    for name in ("frequencies", "vectors", "rigid_frequencies"):
        np.testing.assert_array_equal(getattr(again, name), getattr(modes, name))
    np.testing.assert_array_equal(again.atoms.get_masses(), atoms.get_masses())


def test_other_files_are_refused(tmp_path):
    import h5py

    with pytest.raises(ModesError, match="no file of modes at"):
        Modes.load(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("modes")
    with pytest.raises(ModesError, match="must be a file of modes in HDF5"):
        Modes.load(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(ModesError, match=r"must hold modes .* got layout None"):
        Modes.load(tmp_path / "other.h5")


def test_what_has_no_modes():
    with pytest.raises(ModesError, match="a model with forces, this one predicts d_tensor"):
        harmonic_modes(water_molecule(), Model(*random_parts(["d_tensor"])))
    with pytest.raises(ModesError, match="displacement must be positive, got 0"):
        harmonic_modes(water_molecule(), potential(), step=0.0)
