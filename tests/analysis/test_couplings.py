"""dD/dq against differences, mode coordinates of turned frames, spectra of harmonic motion."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from scipy import signal

from gmcore.analysis.couplings import (
    CouplingError,
    TensorExpansion,
    expand_tensor,
    mode_coordinates,
    tensor_derivatives,
    thermal_ratio,
    zero_point_motion,
)
from gmcore.analysis.mode_spectra import ModeSpectraError, cross_spectra, element_shares
from gmcore.analysis.modes import Modes, frequency_to_omega, harmonic_modes, thermal_variance
from gmcore.anisotropy import zfs_parameters
from gmcore.model import Model
from gmcore.molecules.molecules import Molecules
from gmcore.tensor_gradients import d_tensor_gradient, without_core
from gmcore.units import BOLTZMANN, WAVENUMBER
from support.models import make_head, random_parts
from support.springs import Springs
from support.systems import molecule, triclinic, water_molecule
from support.tolerances import relative_error


@pytest.fixture(scope="module")
def modes() -> Modes:
    atoms = molecule()[:8]
    return harmonic_modes(atoms, Springs(atoms, 3.0), step=1e-3)


def tensor_model(n_members=1, **options) -> Model:
    return Model(*random_parts([make_head("d_tensor", 3, **options)], n_members=n_members))


def along(model, modes, k, q) -> np.ndarray:
    atoms = modes.atoms.copy()
    atoms.positions += q * modes.displacements[k]
    return model.predict(atoms)["d_tensor"][0]


@pytest.mark.parametrize("basis", ["positions", "moments"])
def test_expansion_equals_differences_along_the_modes(modes, basis):
    model, h = tensor_model(2, basis=basis), 1e-3
    expansion = expand_tensor(model, modes, step=0.02)
    np.testing.assert_allclose(expansion.value, model.predict(modes.atoms)["d_tensor"][0], rtol=1e-12)
    for k in (0, len(modes) - 1):
        plus, minus = along(model, modes, k, h), along(model, modes, k, -h)
        assert relative_error(expansion.first[k], (plus - minus) / (2 * h)) < 1e-5
        assert relative_error(expansion.second[k], (plus - 2 * expansion.value + minus) / h**2) < 1e-3
        q = np.zeros((1, len(modes)))
        q[0, k] = 0.02
        change = along(model, modes, k, 0.02) - expansion.value
        assert relative_error(expansion.predict(q)[0] - expansion.value, change) < 1e-4
    assert expansion.unit == "cm^-1"
    np.testing.assert_allclose(expansion.strength**2, (expansion.first**2).sum(axis=(1, 2)))


@pytest.mark.parametrize("sign", [1, -1])
def test_slopes_of_d_and_e(sign, rng):
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    value = turn @ np.diag([20.0 * sign, 35.0 * sign, -55.0 * sign]) @ turn.T
    first = rng.normal(size=(4, 3, 3))
    first += first.swapaxes(1, 2) - 2 / 3 * np.trace(first, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    nothing = np.zeros((4, 3, 3))
    expansion = TensorExpansion(np.ones(4), value, np.zeros((1, 3, 3, 3)), first, nothing, nothing, "cm^-1")
    plus, minus = (zfs_parameters(value + h * first) for h in (1e-4, -1e-4))
    d, e = expansion.slopes()
    np.testing.assert_allclose(d, (plus.d - minus.d) / 2e-4, rtol=1e-6)
    np.testing.assert_allclose(e, (plus.e - minus.e) / 2e-4, rtol=1e-6)


def test_members_spread_carries_through(modes):
    settings, members = random_parts(["d_tensor"], n_members=3)
    expansion = expand_tensor(Model(settings, members), modes)
    single = np.array([expand_tensor(Model(settings, [member]), modes).first for member in members])
    np.testing.assert_allclose(expansion.first, single.mean(axis=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(expansion.first_std, single.std(axis=0), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(tensor_derivatives(modes, expansion.gradient), expansion.first, rtol=1e-10, atol=1e-12)


def test_atom_whose_motion_hides_its_direction_is_left_out():
    atoms = Atoms("OOHHNNC", 1.3 * np.array([*(sign * axis for axis in np.eye(3) for sign in (1, -1)), np.zeros(3)]))
    atoms.positions[6, 0] += 1e-3
    modes = harmonic_modes(atoms, Springs(atoms, 10.0))
    assert 0.01 < zero_point_motion(modes.displacements)[6] < 0.2
    model = tensor_model()
    expansion = expand_tensor(model, modes)
    smooth = without_core(model, 0.3)
    assert expansion.left_out == (6,)
    np.testing.assert_array_equal(expansion.value, smooth.predict(modes.atoms)["d_tensor"][0])
    np.testing.assert_array_equal(expansion.gradient, d_tensor_gradient(smooth, modes.atoms))
    assert np.abs(expansion.gradient).max() < 0.1 * np.abs(d_tensor_gradient(model, modes.atoms)).max()
    assert expand_tensor(tensor_model(basis="moments"), modes).left_out == ()


def test_molecule_of_a_crystal(rng):
    crystal = Atoms("OHHOHH", np.concatenate([water_molecule().positions, water_molecule().positions + 2.6]))
    crystal.set_cell([[5.2, 0.3, 0.0], [0.0, 5.2, -0.4], [0.2, 0.0, 5.2]])
    crystal.pbc = True
    modes = harmonic_modes(crystal, Model(*random_parts(["energy"])))
    model, alone = tensor_model(), water_molecule()
    indices = [[4, 3, 5], [1, 0, 2]]
    turned = crystal.copy()
    turned.positions[[3, 4]] += turned.cell.array[[0, 2]] * [[1], [-2]]  # atoms of one molecule in several images
    for atoms in (crystal, turned):
        there = Modes(atoms, modes.frequencies, modes.vectors, modes.rigid_frequencies, modes.max_force)
        for which, members in enumerate(indices):
            molecules = Molecules.from_indices(atoms, indices)
            expansion = expand_tensor(model, there, molecules=molecules, which=which)
            np.testing.assert_allclose(expansion.value, model.predict(alone)["d_tensor"][0], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(expansion.gradient[sorted(members)], d_tensor_gradient(model, alone), atol=1e-8)
            assert not np.delete(expansion.gradient, members, axis=0).any()
            k = int(np.nanargmax(expansion.strength))
            moved = [alone.copy() for _ in range(2)]
            for frame, sign in zip(moved, (1, -1)):
                frame.positions += 1e-3 * sign * modes.displacements[k, sorted(members)]
            plus, minus = model.predict(moved)["d_tensor"]
            assert relative_error(expansion.first[k], (plus - minus) / 2e-3) < 1e-5
    with pytest.raises(CouplingError, match="holds 2 molecules, numbered from 0, got number 2"):
        expand_tensor(model, modes, molecules=molecules, which=2)


def test_thermal_averages_of_the_expansion():
    first, second = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    first[0], second[0] = np.diag([1.0, 2.0, -3.0]), np.diag([4.0, 0.0, -4.0])
    first[1] = second[1] = np.nan  # not real
    expansion = TensorExpansion(
        np.array([100.0, -50.0]), np.diag([1.0, 1.0, -2.0]), np.zeros((1, 3, 3, 3)), first, first, second, "cm^-1"
    )
    variance = thermal_variance(100.0, 300.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    values = expansion.value + np.sqrt(variance) * nodes[:, None, None] * first[0]
    values += 0.5 * variance * nodes[:, None, None] ** 2 * second[0]
    mean = np.tensordot(weights / weights.sum(), values, 1)
    np.testing.assert_allclose(expansion.thermal_mean(300.0), mean, atol=1e-12)
    np.testing.assert_allclose(expansion.thermal_width(300.0), np.sqrt(variance) * np.abs(first[0]), rtol=1e-12)
    classical = BOLTZMANN * 300.0 / (100.0 * WAVENUMBER)
    np.testing.assert_allclose(expansion.thermal_width(300.0, quantum=False)[0, 0], np.sqrt(classical), rtol=1e-12)


def test_mode_coordinates_of_turned_and_shifted_frames(modes, rng):
    q = 0.5 * rng.normal(size=(6, len(modes)))
    frames = modes.atoms.positions + np.tensordot(q, modes.displacements, 1)
    for frame in frames:
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        frame[:] = frame @ (turn * np.linalg.det(turn)) + rng.normal(size=3)
    assert relative_error(mode_coordinates(frames, modes), q) < 1e-9


def test_mode_coordinates_of_a_drifting_crystal(rng):
    modes = harmonic_modes(triclinic(), Model(*random_parts(["energy"])))
    real = modes.frequencies > 0.0
    assert 0 < real.sum() < len(modes)
    q = rng.normal(size=(4, len(modes)))
    frames = modes.atoms.positions + np.tensordot(q[:, real], modes.displacements[real], 1) + rng.normal(size=(4, 1, 3))
    found = mode_coordinates(frames, modes)
    assert relative_error(found[:, real], q[:, real]) < 1e-9
    assert np.isnan(found[:, ~real]).all()


def test_equipartition(modes, rng):
    q = rng.normal(size=(5000, len(modes))) * np.sqrt(thermal_variance(modes.frequencies, 150.0, quantum=False)) + 3.0
    assert np.abs(thermal_ratio(q, modes.frequencies, 150.0) - 1.0).max() < 0.1  # five standard errors
    assert np.abs(thermal_ratio(q, modes.frequencies, 300.0) - 0.5).max() < 0.05


def test_shares_of_the_elements_add_up(modes):
    np.testing.assert_allclose(sum(element_shares(modes).values()), 1.0)


def noisy_oscillator(rng, n, time_step, frequency):
    """Return a damped oscillator driven by noise (n,), lifetime 2 ps."""
    from scipy.signal import lfilter

    decay, turn = np.exp(-time_step / 2000.0), frequency_to_omega(frequency) * time_step
    return lfilter([1.0], [1.0, -2 * decay * np.cos(turn), decay**2], rng.normal(size=n))


def test_coherence_finds_the_mode_that_drives_d(rng):
    n, time_step, n_per_segment = 40000, 4.0, 1000
    q = np.stack([noisy_oscillator(rng, n, time_step, f) for f in (150.0, 400.0, 700.0)], axis=1)
    noise = rng.normal(size=n)
    d = np.stack([2.0 * q[:, 0] + noise, -q[:, 1] + noise, np.ones(n)], axis=1)
    spectra = cross_spectra(d, q, time_step, n_per_segment)
    assert spectra.cross.shape == spectra.coherence.shape == (501, 3, 3) and spectra.n_segments == 79
    at = [int(np.abs(spectra.frequencies - f).argmin()) for f in (150.0, 400.0, 700.0)]
    assert spectra.coherence[at[0], 0, 0] > 0.95 and spectra.coherence[at[1], 1, 1] > 0.95
    assert spectra.coherence[at[0], 1, 0] < 0.2 and spectra.coherence[at[2], :2, 2].max() < 0.2
    assert not spectra.coherence[:, 2].any()
    assert spectra.cross[at[1], 1, 1].real < 0.0 < spectra.cross[at[0], 0, 0].real  # in which direction
    itself = cross_spectra(q, q, time_step, n_per_segment)
    power = np.einsum("fkk->fk", itself.cross)
    np.testing.assert_allclose(power.imag, 0.0, atol=1e-9 * np.abs(power).max())
    np.testing.assert_allclose(power.real.sum(axis=0) * itself.frequencies[1], q.var(axis=0), rtol=0.1)  # Parseval
    np.testing.assert_allclose(np.einsum("fkk->fk", itself.coherence), 1.0, rtol=1e-9)


@pytest.mark.parametrize("n_per_segment", [64, 65])
def test_cross_spectra_are_those_of_scipy(rng, n_per_segment):
    x, y = rng.normal(size=(500, 2)), rng.normal(size=(500, 3))
    found = cross_spectra(x, y, 2.0, n_per_segment)
    options = {"fs": 33356.409519815204 / 2.0, "window": "hann", "nperseg": n_per_segment, "axis": 0}
    frequencies, cross = signal.csd(x[:, :, None], y[:, None, :], **options)
    np.testing.assert_allclose(found.frequencies, frequencies, rtol=1e-12)
    np.testing.assert_allclose(found.cross, cross, rtol=1e-9, atol=1e-12 * np.abs(cross).max())
    coherence = signal.coherence(x[:, :, None], y[:, None, :], **options)[1]
    np.testing.assert_allclose(found.coherence, coherence, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: tensor_derivatives(m, np.zeros((5, 3, 3, 3))),
            r"shape \(8, 3, 3, 3\) for these modes, got \(5, 3, 3, 3\)",
        ),
        (lambda m: expand_tensor(tensor_model(), m, step=0.0), "step along the modes must be positive, got 0"),
        (lambda m: expand_tensor(tensor_model(), m).predict(np.zeros(18)), r"shape \(n, 18\), got \(18,\)"),
        (lambda m: mode_coordinates(np.zeros((2, 5, 3)), m), r"shape \(n, 8, 3\), got \(2, 5, 3\)"),
        (lambda m: thermal_ratio(np.zeros((3, 18)), m.frequencies, 0.0), "temperature must be positive, got 0.0 K"),
    ],
)
def test_what_does_not_fit(modes, call, message):
    with pytest.raises(CouplingError, match=message):
        call(modes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cross_spectra(np.ones((9, 1)), np.ones((8, 1)), 1.0, 4), r"got \(9, 1\) and \(8, 1\)"),
        (lambda: cross_spectra(np.ones((9, 1)), np.ones((9, 1)), 1.0, 8), "at least two segments of 8 samples, got 9"),
        (lambda: cross_spectra(np.ones((9, 1)), np.ones((9, 1)), 0.0, 4), "must be positive, got 0.0 fs"),
    ],
)
def test_series_without_a_spectrum(call, message):
    with pytest.raises(ModeSpectraError, match=message):
        call()


def test_structure_on_a_saddle_has_an_expansion_of_the_other_modes():
    atoms = Atoms("OCN", [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.1]])
    relaxed = atoms.copy()
    relaxed.positions *= 1.3
    modes = harmonic_modes(atoms, Springs(relaxed, 3.0))  # compressed: it would rather bend
    real = modes.frequencies > 0.0
    assert real.tolist() == [False, False, True, True]
    expansion = expand_tensor(tensor_model(), modes)
    assert np.isfinite(expansion.first[real]).all() and np.isnan(expansion.first[~real]).all()
    assert np.isfinite(expansion.second[real]).all() and np.isnan(expansion.second[~real]).all()
    assert np.isfinite(expansion.thermal_mean(100.0)).all() and np.isfinite(expansion.thermal_width(100.0)).all()
