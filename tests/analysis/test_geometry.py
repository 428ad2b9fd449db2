"""Textbook polyhedra, shells of the shared molecules."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from gmcore.analysis.geometry import (
    angles,
    coordination_shell,
    distances,
    ligand_angles,
    mean_bond_length,
    tetrahedral_order,
)
from gmcore.molecules.superposition import GeometryError

TETRAHEDRON = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], dtype=float)
LIGANDS = [1, 2, 3, 4]


def test_polyhedra_of_textbooks():
    frames = np.stack([TETRAHEDRON, SQUARE])
    np.testing.assert_allclose(tetrahedral_order(frames, 0, LIGANDS), [1.0, 0.5], atol=1e-14)
    np.testing.assert_allclose(mean_bond_length(frames, 0, LIGANDS), [np.sqrt(3.0), 1.0])
    opening = ligand_angles(frames, 0, LIGANDS)
    np.testing.assert_allclose(opening[0], np.degrees(np.arccos(-1 / 3)))
    np.testing.assert_allclose(np.sort(opening[1]), [90, 90, 90, 90, 180, 180])
    np.testing.assert_allclose(angles(frames, [[1, 0, 3]])[1], 180.0)
    np.testing.assert_allclose(distances(frames, [[1, 3], [0, 2]])[1], [2.0, 1.0])


def test_random_ligands_have_no_order_on_average(rng):
    frames = rng.normal(size=(20000, 5, 3))
    frames[:, 0] = 0.0
    order = tetrahedral_order(frames, 0, LIGANDS)
    assert abs(order.mean()) < 4.0 * order.std() / np.sqrt(20000)
    assert order.max() <= 1.0 and order.min() >= -3.0


def test_a_shell_is_what_is_bonded():
    methane = molecule("CH4")
    assert sorted(coordination_shell(methane.numbers, methane.positions, 0)) == [1, 2, 3, 4]
    line = np.array([[0.0, 0.0, 0.0], [2.3, 0.0, 0.0], [-2.1, 0.0, 0.0], [0.0, 2.5, 0.0]])
    assert coordination_shell([27, 7, 7, 7], line, 0).tolist() == [2, 1]  # 1.2 (1.26 + 0.71) A = 2.36 A, nearest first
    assert coordination_shell([27, 7, 7, 7], line, 2).tolist() == [0]
    with pytest.raises(GeometryError, match="atom 3 must be bonded to others"):
        coordination_shell([27, 7, 7, 7], line, 3)


def test_shells_of_the_cobalt_complexes(shared_data):
    frame = ase.io.read(shared_data / "co_pdms_D" / "train.extxyz", "1199")
    metal = int(np.flatnonzero(frame.numbers == 27)[0])
    shell = coordination_shell(frame.numbers, frame.positions, metal)
    assert frame.numbers[shell].tolist() == [7, 7, 7, 7]
    assert mean_bond_length(frame.positions[None], metal, shell)[0] == pytest.approx(2.0, abs=0.05)
    assert 0.5 < tetrahedral_order(frame.positions[None], metal, shell)[0] < 1.0
    for frame in ase.io.read(shared_data / "coh2ox_D" / "train.extxyz", "::20"):
        metal = int(np.flatnonzero(frame.numbers == 27)[0])
        shell = coordination_shell(frame.numbers, frame.positions, metal)
        assert 1 <= len(shell) <= 6 and set(frame.numbers[shell]) == {8}


FRAMES = np.stack([TETRAHEDRON, SQUARE])
LINE = np.arange(4.0)[:, None] * [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tetrahedral_order(FRAMES, 0, [1, 2, 3]), "four ligands, got 3"),
        (lambda: ligand_angles(FRAMES, 0, [1]), "at least two ligands, got 1"),
        (lambda: mean_bond_length(FRAMES, 0, []), "at least one ligand"),
        (lambda: mean_bond_length(FRAMES, 0, [5]), "between 0 and 4, got 0 to 5"),
        (lambda: distances(FRAMES, [[0, -1]]), "between 0 and 4, got -1 to 0"),
        (lambda: distances(FRAMES, [[0.0, 1.0]]), "must be integers of shape"),
        (lambda: angles(FRAMES, [[0, 0, 1]]), "two atoms at one"),
        (lambda: coordination_shell([6], TETRAHEDRON, 0), r"\(1, 3\) of one frame, got \(5, 3\)"),
        (lambda: coordination_shell([6] * 5, TETRAHEDRON, 5), "between 0 and 4, got 5"),
    ],
)
def test_other_atoms_are_refused(call, message):
    with pytest.raises(GeometryError, match=message):
        call()
