"""The ASE calculator: what ASE asks for, what a committee adds, and energy conservation along a trajectory."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from ase.stress import full_3x3_to_voigt_6_stress

from gmcore.calculator import GMCalculator
from gmcore.engine.structures import UnknownElementError
from gmcore.errors import GMError
from gmcore.model import Model
from support.md_runs import MOLECULE
from support.models import make_head, random_model, random_parts
from support.systems import molecule, slab, small_cell, triclinic, water_box

HEADS = ("energy", "charges", make_head("d_tensor", 3, basis="moments"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("model") / "model.h5", HEADS, n_members=3)


@pytest.mark.parametrize("system", [triclinic, slab, molecule])
def test_results_are_those_of_the_model(path, system):
    atoms = system()
    atoms.calc = GMCalculator(path)
    expected = atoms.calc.model.predict(atoms)
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"][0], rel=1e-13)
    assert isinstance(atoms.get_potential_energy(), float)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert np.allclose(atoms.get_forces(), expected["forces"][0], rtol=1e-12, atol=1e-13)
    assert np.allclose(atoms.get_charges(), expected["charges"][0], rtol=1e-12)
    assert np.allclose(atoms.get_dipole_moment(), expected["dipole"][0], rtol=1e-12)
    results = atoms.calc.results
    assert np.allclose(results["d_tensor"], expected["d_tensor"][0], rtol=1e-11)
    for key in ("energy", "forces", "charges", "dipole", "d_tensor"):
        deviation = expected[f"{key}_std"][0]
        assert np.shape(results[f"{key}_std"]) == np.shape(results[key])
        assert np.allclose(results[f"{key}_std"], deviation, rtol=1e-8, atol=1e-12)


def test_errors_only_when_asked_for(inputs):
    plain, knowing = MOLECULE.copy(), MOLECULE.copy()
    plain.calc, knowing.calc = GMCalculator(inputs / "single.h5"), GMCalculator(inputs / "single.h5", errors=True)
    np.testing.assert_array_equal(plain.get_forces(), knowing.get_forces())
    assert {"energy_std", "extrapolation"}.isdisjoint(plain.calc.results)
    expected = knowing.calc.model.predict(MOLECULE, errors=True)
    assert knowing.calc.results["extrapolation"] == pytest.approx(expected["extrapolation"][0])
    assert isinstance(knowing.calc.results["extrapolation"], float)
    np.testing.assert_allclose(knowing.calc.results["forces_std"], expected["forces_std"][0], rtol=1e-8)
    np.testing.assert_allclose(knowing.calc.results["extrapolation_atoms"], expected["extrapolation_atoms"][0])


@pytest.mark.parametrize("system", [triclinic, slab])
def test_stress_in_the_order_of_ase(path, system):
    atoms = system()
    atoms.calc = GMCalculator(path)
    expected = atoms.calc.model.predict(atoms)
    assert np.allclose(atoms.get_stress(), full_3x3_to_voigt_6_stress(expected["stress"][0]), rtol=1e-11)
    assert np.allclose(atoms.get_stress(voigt=False), expected["stress"][0], rtol=1e-11)
    deviation = full_3x3_to_voigt_6_stress(expected["stress_std"][0])
    assert np.allclose(atoms.calc.results["stress_std"], deviation, rtol=1e-8)


def test_pressure_is_the_slope_of_energy_in_volume(path):
    atoms = small_cell()
    atoms.calc = GMCalculator(path)
    pressure = -np.trace(atoms.get_stress(voigt=False)) / 3.0
    energies, volumes = [], []
    for step in (-1e-5, 1e-5):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell.array * (1.0 + step), scale_atoms=True)
        scaled.calc = atoms.calc
        energies.append(scaled.get_potential_energy())
        volumes.append(scaled.get_volume())
    assert pressure == pytest.approx(-(energies[1] - energies[0]) / (volumes[1] - volumes[0]), rel=1e-6)


def test_a_molecule_has_no_stress(path):
    atoms = molecule()
    atoms.calc = GMCalculator(path)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert "stress_std" not in atoms.calc.results


def test_properties_are_those_of_the_model():
    calculator = GMCalculator(Model(*random_parts([make_head("d_tensor", 3)])))
    assert calculator.implemented_properties == ["d_tensor"]
    atoms = molecule()
    atoms.calc = calculator
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()
    d = calculator.get_property("d_tensor", atoms)
    assert d.shape == (3, 3) and abs(np.trace(d)) < 1e-12
    assert "free_energy" not in calculator.results and "d_tensor_std" not in calculator.results


def test_total_charge(path):
    head = make_head("charges", 3, conserve=True)
    atoms = molecule()
    atoms.calc = GMCalculator(Model(*random_parts([head])))
    with pytest.raises(GMError, match=r"total charge, which must be given"):
        atoms.get_charges()
    atoms.info["total_charge"] = 3
    assert atoms.get_charges().sum() == pytest.approx(3.0)
    atoms.calc = GMCalculator(Model(*random_parts([head])), total_charge=-1.0)
    assert atoms.get_charges().sum() == pytest.approx(-1.0)


def test_unknown_element_is_named(path):
    atoms = Atoms("U", positions=[[0, 0, 0]])
    atoms.calc = GMCalculator(path)
    with pytest.raises(UnknownElementError, match=r"element U \(Z=92\)"):
        atoms.get_potential_energy()


def test_one_calculator_for_changing_structures(path):
    """Atoms, cell, number of atoms and periodicity change under the neighbor list with its skin."""
    calculator, fresh = GMCalculator(path, skin=2.0), GMCalculator(path, skin=0.0)
    for atoms in (triclinic(), molecule(), slab(), triclinic()):
        for scale in (1.0, 1.01, 0.9):
            atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
            atoms.rattle(0.02, seed=3)
            atoms.calc = calculator
            value = atoms.get_forces()
            atoms.calc = fresh
            assert np.abs(value - atoms.get_forces()).max() < 1e-11


def trajectory(dtype: str, step: float, time: float, skin: float) -> tuple[np.ndarray, GMCalculator]:
    """Total energies per atom, eV, of a box of 24 atoms started at 300 K."""
    atoms, rng = water_box(2), np.random.default_rng(2)
    atoms.calc = GMCalculator(Model(*random_parts(r_max=3.2, seed=4, dtype=dtype)), skin=skin)
    widths = np.sqrt(atoms.get_masses() * 300 * units.kB)
    atoms.set_momenta(widths[:, None] * rng.normal(size=(len(atoms), 3)))
    energies, dynamics = [], VelocityVerlet(atoms, step * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy() / len(atoms)))
    dynamics.run(round(time / step))
    return np.array(energies), atoms.calc


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_energy_is_conserved(dtype):
    """20 fs of velocity Verlet across rebuilds of the neighbor list: no drift beyond the oscillation of the method."""
    energies, calculator = trajectory(dtype, step=0.1, time=20.0, skin=0.3)
    assert 1 < calculator.neighbors.n_builds < 100
    assert np.ptp(energies) < 1e-6


def test_halving_the_time_step_quarters_the_error():
    coarse, fine = (np.ptp(trajectory("float64", step, 8.0, 1.0)[0]) for step in (0.4, 0.2))
    assert 3.0 < coarse / fine < 5.5
