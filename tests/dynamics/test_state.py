"""The state of replicas: where it starts from, that nothing of it is lost, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from scipy import stats

from gmcore.dynamics.state import DynamicsError, State, fixed_mask, initial_state
from gmcore.units import BOLTZMANN, MASS_UNIT
from support.systems import molecule, triclinic, water_molecule


def test_units():
    """1 amu A^2/fs^2 is 103.64 eV; an amu at 300 K moves with 0.0158 A/fs along each axis."""
    assert pytest.approx(103.6427, abs=1e-3) == MASS_UNIT
    state = initial_state(Atoms("H3", np.eye(3), masses=[1, 1, 1]), [300.0] * 5, range(5))
    state.velocities[:] = 0.015794
    assert state.temperatures(9) == pytest.approx(np.full(5, 300.0), rel=1e-3)
    assert state.kinetic_energies() == pytest.approx(state.temperatures(9) * 4.5 * BOLTZMANN)


def test_start():
    atoms = triclinic()
    atoms.set_masses(np.arange(1.0, 25.0))
    state = initial_state(atoms, [10.0, 20.0], [3, 4])
    assert (state.n_replicas, state.n_atoms, state.step, state.extended) == (2, 24, 0, {})
    assert np.array_equal(state.masses, np.arange(1.0, 25.0)) and state.pbc.all()
    for k in range(2):
        assert np.array_equal(state.positions[k], atoms.positions)
        assert np.array_equal(state.cells[k], atoms.cell.array)
    state.positions += 1.0  # the state's own
    assert np.array_equal(atoms.positions, triclinic().positions)
    assert not initial_state(atoms, 0.0, [1]).velocities.any()


def test_velocities_follow_maxwell_and_boltzmann():
    """5000 hydrogen and as many deuterium atoms; the sample size sets what the test can see."""
    masses = np.tile([1.0, 2.0], 5000)
    state = initial_state(Atoms("H10000", np.zeros((10000, 3))), [50.0, 400.0], [1, 1], masses=masses)
    momentum = np.einsum("i,kia->ka", masses, state.velocities)
    assert np.abs(momentum).max() < 1e-12 * np.abs(state.velocities).sum()
    assert np.abs(state.temperatures(3 * 10000 - 3) / [50.0, 400.0] - 1.0).max() < 4 * np.sqrt(2 / 30000)
    for k, temperature in enumerate((50.0, 400.0)):
        reduced = state.velocities[k] * np.sqrt(MASS_UNIT * masses / (BOLTZMANN * temperature))[:, None]
        assert stats.kstest(reduced.ravel(), "norm").pvalue > 0.01
        assert abs(np.corrcoef(state.velocities[0].ravel(), state.velocities[1].ravel())[0, 1]) < 4 / np.sqrt(30000)


@pytest.mark.parametrize("fixed", [[0, 5], np.arange(21) % 5 == 0])
def test_fixed_atoms_start_at_rest(fixed):
    state = initial_state(molecule(), [300.0], [1], fixed=fixed)
    resting = ~state.velocities.any(axis=2)[0]
    assert np.array_equal(resting, [i in (0, 5) for i in range(21)] if isinstance(fixed, list) else fixed)


def test_a_replica_does_not_depend_on_the_others():
    whole = initial_state(molecule(), [100.0, 200.0, 200.0], [7, 7, 8])
    alone = initial_state(molecule(), [200.0], [7])
    assert np.array_equal(whole.velocities[1], alone.velocities[0])
    assert np.array_equal(whole.keys[1], alone.keys[0]) and len(np.unique(whole.keys)) == 6
    assert not np.array_equal(whole.velocities[1], whole.velocities[2])


def test_round_trip_is_lossless(tmp_path):
    state = initial_state(triclinic(), [10.0, 20.0], [3, 4])
    state.step = 12
    state.extended["chain"] = np.array([[1 / 3, np.pi], [1e-300, -0.0]])
    np.savez(tmp_path / "state.npz", **state.arrays())
    back = State.from_arrays(np.load(tmp_path / "state.npz"))
    first, second = state.arrays(), back.arrays()
    assert first.keys() == second.keys() and back.step == 12
    for name, values in first.items():
        assert values.dtype == second[name].dtype and values.tobytes() == second[name].tobytes()


def test_arrays_are_copies():
    state = initial_state(molecule(), [10.0], [3])
    arrays = state.arrays()
    state.positions += 1.0
    assert np.array_equal(arrays["positions"][0], molecule().positions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Atoms(), [1.0], [1]), "at least one atom, got none"),
        ((molecule(), [-1.0], [1]), r"temperatures must be at least 0 and finite, got \[-1.0\] K"),
        ((molecule(), [np.nan, 1.0], [1, 2]), "temperatures must be at least 0 and finite, got"),
        ((molecule(), [1.0, 2.0], [1]), r"temperatures must be one number or one per replica \(1\), got shape \(2,\)"),
        ((molecule(), "warm", [1]), "temperatures must be numbers, got 'warm'"),
        ((molecule(), [1.0], []), r"seeds must be integers of at least 0, one per replica, got \[\]"),
        ((molecule(), [1.0], [-1]), r"seeds must be integers of at least 0, one per replica, got \[-1\]"),
        ((molecule(), [1.0], [1.5]), r"seeds must be integers of at least 0, one per replica, got \[1.5\]"),
        ((molecule(), [1.0, 1.0], [5, 5]), "replicas must differ in temperature or seed, got 1 K with seed 5 twice"),
        ((water_molecule(), [1.0], [1], None, [1.0, 0.0, 1.0]), "masses must be positive, got 0 amu"),
        ((water_molecule(), [1.0], [1], None, [1.0, 1.0]), r"masses must have shape \(3,\), got \(2,\)"),
        ((water_molecule(), [1.0], [1], [3]), r"indices from 0 to 2 or a mask of 3 booleans, got \[3\]"),
        ((water_molecule(), [1.0], [1], [0.0]), r"indices from 0 to 2 or a mask of 3 booleans, got \[0.0\]"),
        ((water_molecule(), [1.0], [1], [True] * 3), "at least one atom must be free to move, got all 3 atoms fixed"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(DynamicsError, match=message):
        initial_state(*arguments)


def test_no_atom_is_fixed_by_default():
    assert not fixed_mask(None, 4).any() and not fixed_mask([], 4).any()
    assert fixed_mask([-1], 3).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": np.zeros((2, 3))}, r"positions must have shape \(n_replicas, n_atoms, 3\), got \(2, 3\)"),
        ({"velocities": np.zeros((1, 2, 3))}, r"velocities must have shape \(1, 21, 3\), got \(1, 2, 3\)"),
        ({"cells": np.full((1, 3, 3), np.inf)}, "cells must be finite, got infinite values or NaN"),
        ({"keys": np.zeros((2, 2), np.uint32)}, r"keys must have shape \(1, 2\), got \(2, 2\)"),
        ({"keys": np.zeros((1, 2))}, "keys must be uint32, got float64"),
        ({"masses": None}, "a state needs the arrays masses, got only"),
    ],
)
def test_bad_arrays_are_refused(changes, message):
    arrays = initial_state(molecule(), [10.0], [3]).arrays() | changes
    with pytest.raises(DynamicsError, match=message):
        State.from_arrays({name: values for name, values in arrays.items() if values is not None})
