"""Molecules in crystals: whole in every frame, in the order of a reference, whatever wrapping, order and cell are."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation

from gmcore.anisotropy import zfs_parameters
from gmcore.model import load_model
from gmcore.molecules.bonds import BondError, bonded_pairs, connected_components, image_shifts, is_metal
from gmcore.molecules.mapping import Skeleton, map_atoms
from gmcore.molecules.molecules import MappingError, MoleculeError, Molecules
from gmcore.molecules.superposition import best_rotations
from support.models import random_model
from support.tolerances import relative_error

TRICLINIC = np.array([[13.0, 0.0, 0.0], [-5.5, 14.0, 0.0], [4.0, -6.0, 15.0]])
UNIMODULAR = np.array([[1, 1, 0], [0, 1, -2], [0, 0, 1]])


def turned(positions: np.ndarray, seed: int) -> np.ndarray:
    return positions @ Rotation.random(random_state=seed).as_matrix().T


def distances(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[..., :, None, :] - positions[..., None, :, :], axis=-1)


def disguised(atoms: Atoms, rng, cell=None) -> tuple[Atoms, np.ndarray]:
    """The same crystal translated, wrapped, shifted by whole cells and re-ordered; new -> old order."""
    other = atoms.copy()
    other.positions += rng.uniform(-5, 5, 3)
    if cell is not None:
        other.set_cell(cell)
    other.wrap()
    other.positions += rng.integers(-2, 3, (len(atoms), 3)) @ other.cell.array
    order = rng.permutation(len(atoms))
    return other[order], order


@pytest.fixture(scope="module")
def complexes(shared_data) -> list[Atoms]:
    return ase.io.read(shared_data / "co_pdms_D" / "train.extxyz", "0:1200:400")


def methanol_pair() -> Atoms:
    """Two methanol molecules in a periodic box."""
    first = molecule("CH3OH")
    second = first.copy()
    second.positions = turned(first.positions, 1) + np.array([5.0, 4.0, 3.5])
    pair = first + second
    pair.set_cell(TRICLINIC)
    pair.pbc = True
    return pair


@pytest.mark.parametrize("name", ["05_anthracene", "06_benzene", "21_urea"])
def test_molecular_crystals_become_whole(shared_data, rng, name):
    frames = ase.io.read(shared_data / "x23" / f"{name}.traj", ":")
    frames = [atoms for atoms in frames if atoms.get_volume() < 0.5 * 25.0**3][:4]  # the others are single molecules
    n_atoms = {"05_anthracene": 24, "06_benzene": 12, "21_urea": 8}[name]
    for atoms in frames:
        members = connected_components(bonded_pairs(atoms))
        assert len(members) > 1 and all(len(indices) == n_atoms for indices in members)
        molecules = Molecules.from_indices(atoms, members)
        whole = molecules.extract(atoms.positions, atoms.cell.array)
        assert len(molecules) == len(members)
        # by ASE: the shortest distance between images is that within the whole molecule
        for k, indices in enumerate(molecules.indices):
            np.testing.assert_array_equal(atoms.numbers[indices], molecules.numbers)
            i, j = molecules.bonds.T
            direct = np.linalg.norm(whole[k, i] - whole[k, j], axis=1)
            mic = [atoms.get_distance(indices[a], indices[b], mic=True) for a, b in molecules.bonds]
            np.testing.assert_allclose(direct, mic, atol=1e-10)
            assert np.ptp(whole[k], axis=0).max() < 11.0
        for cell in (None, UNIMODULAR @ atoms.cell.array):
            other, order = disguised(atoms, rng, cell)
            place = np.argsort(order)
            same = Molecules.from_indices(other, [place[indices] for indices in molecules.indices])
            np.testing.assert_array_equal(order[same.indices], molecules.indices)
            again = same.extract(other.positions, other.cell.array)
            np.testing.assert_allclose(distances(again), distances(whole), atol=1e-10)


def test_complex_in_a_triclinic_box_has_the_same_d(complexes, rng, tmp_path):
    model = load_model(random_model(tmp_path / "d.h5", ["d_tensor"], species=(1, 6, 7, 8, 16, 27)))
    reference = complexes[0]
    for atoms in complexes:
        expected = model.predict([atoms], properties=["d_tensor"])["d_tensor"][0]
        boxed = atoms.copy()
        boxed.set_cell(TRICLINIC)
        boxed.pbc = True
        shifted, order = disguised(boxed, rng, UNIMODULAR @ TRICLINIC)
        molecules = Molecules.from_metal(shifted, "Co", reference)
        assert len(molecules) == 1
        np.testing.assert_array_equal(molecules.numbers, atoms.numbers)
        # the complex is nearly symmetric (D2): another mapping may be nearer than the order of the file, none farther
        mapped = order[molecules.indices[0]]
        assert molecules.rmsd[0] < np.sqrt(best_rotations(atoms.positions, reference.positions)[1] / 53) + 1e-9
        whole = molecules.extract(shifted.positions, shifted.cell.array)[0]
        np.testing.assert_allclose(whole - whole[0], (atoms.positions - atoms.positions[mapped[0]])[mapped], atol=1e-12)
        d_tensor = model.predict([Atoms(molecules.numbers, whole)], properties=["d_tensor"])["d_tensor"][0]
        assert relative_error(d_tensor, expected) < 1e-11
        assert zfs_parameters(d_tensor).d == pytest.approx(float(zfs_parameters(expected).d), rel=1e-10)


def test_several_molecules_come_in_one_order(complexes, rng):
    first, second = complexes[0].copy(), complexes[1].copy()
    second.positions = turned(second.positions, 3) + np.array([20.0, 0.0, 0.0])
    water = molecule("H2O")
    water.translate([0.0, 15.0, 0.0])
    crystal = first + second + water
    crystal.set_cell([40.0, 30.0, 30.0])
    crystal.pbc = True
    crystal, order = disguised(crystal, rng)
    molecules = Molecules.from_metal(crystal, "Co", complexes[2])
    assert molecules.indices.shape == (2, 53)
    found = np.sort(order[molecules.indices], axis=1)
    np.testing.assert_array_equal(found[np.argsort(found[:, 0])], [np.arange(53), np.arange(53, 106)])
    assert molecules.rmsd.max() < 0.3
    # without a reference the first molecule gives the order
    alone = Molecules.from_metal(crystal, "Co")
    np.testing.assert_array_equal(alone.indices[0], np.sort(alone.indices[0]))
    assert alone.rmsd[0] == 0.0 < alone.rmsd[1] < 0.3


def test_frames_at_once_equal_one_by_one(rng):
    pair = methanol_pair()
    molecules = Molecules.from_indices(pair, [np.arange(6), np.arange(6, 12)])
    positions, cells = np.empty((3, 4, 12, 3)), np.empty((3, 4, 3, 3))
    for k in np.ndindex(3, 4):
        cells[k] = TRICLINIC * (1.0 + 0.02 * rng.normal(size=(3, 1)))
        positions[k] = pair.positions + 0.05 * rng.normal(size=(12, 3)) + rng.integers(-3, 4, (12, 3)) @ cells[k]
    whole = molecules.extract(positions, cells)
    assert whole.shape == (3, 4, 2, 6, 3)
    assert distances(whole).max() < 3.5
    for k in np.ndindex(3, 4):
        np.testing.assert_allclose(molecules.extract(positions[k], cells[k]), whole[k], atol=1e-12)
    np.testing.assert_array_equal(whole[..., 0, :], positions[..., molecules.indices[:, 0], :])
    same_cell = molecules.extract(positions[0], TRICLINIC)
    assert same_cell.shape == (4, 2, 6, 3)


def test_cells_far_more_skewed_than_the_first_are_searched():
    """A later frame may have another choice of cell vectors: heights shrink below the bonds, images stay right."""
    pair = methanol_pair()
    molecules = Molecules.from_indices(pair, [np.arange(6), np.arange(6, 12)])
    whole = molecules.extract(pair.positions, TRICLINIC)
    skewed = np.array([[1, 0, 0], [7, 1, 0], [-5, 9, 1]]) @ TRICLINIC
    other = Atoms(pair.numbers, pair.positions + np.array([3.0, 1.0, -2.0]), cell=skewed, pbc=True)
    other.wrap()
    again = molecules.extract(other.positions, skewed)
    np.testing.assert_allclose(distances(again), distances(whole), atol=1e-10)
    np.testing.assert_allclose(molecules.extract(np.array([other.positions] * 2), skewed)[1], again, atol=1e-12)


def test_bonds_longer_than_half_the_height_of_a_cell_are_searched(rng):
    """In a close-packed lattice rounding of fractional coordinates goes wrong for bonds of 0.45 times its edge."""
    bond = 1.15 * 2 * covalent_radii[7]
    cell = bond / 0.45 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / np.sqrt(2)
    directions = rng.normal(size=(200, 3))
    vectors = bond * directions / np.linalg.norm(directions, axis=1)[:, None]
    nearest = vectors - np.rint(vectors @ np.linalg.inv(cell)) @ cell
    assert np.count_nonzero(np.abs(nearest - vectors).max(axis=1) > 0.1) > 5
    positions = np.stack((np.zeros_like(vectors), vectors), axis=1)
    molecules = Molecules.from_indices(Atoms("N2", positions[0], cell=cell, pbc=True), [0, 1])
    scattered = positions + rng.integers(-2, 3, (200, 2, 3)) @ cell
    whole = molecules.extract(scattered, cell)[:, 0]
    np.testing.assert_allclose(whole[:, 1] - whole[:, 0], vectors, atol=1e-12)


@pytest.mark.parametrize("pbc", [(True, False, False), (True, True, False), (False, True, True), (False, False, False)])
def test_partial_periodicity(rng, pbc):
    pair = methanol_pair()
    pair.pbc = pbc
    wrapped = pair.copy()
    wrapped.positions += np.where(pbc, rng.integers(-2, 3, (12, 3)), 0) @ TRICLINIC
    molecules = Molecules.from_indices(wrapped, [np.arange(6), np.arange(6, 12)])
    whole = molecules.extract(wrapped.positions, np.where(np.array(pbc)[:, None], TRICLINIC, 0.0))
    expected = pair.positions.reshape(2, 6, 3)
    np.testing.assert_allclose(whole - whole[:, :1], expected - expected[:, :1], atol=1e-10)


def test_mapping_of_a_shuffled_and_turned_complex(complexes, rng):
    """Automorphisms of the graph exist; the mapping found must be the most alike geometry, hydrogen atoms included."""
    reference = complexes[0]
    order = rng.permutation(53)
    shuffled = Atoms(reference.numbers[order], turned(reference.positions, 5)[order])
    molecules = Molecules.from_metal(shuffled, "Co", reference)
    np.testing.assert_array_equal(order[molecules.indices[0]], np.arange(53))
    assert molecules.rmsd[0] < 1e-6


@pytest.mark.parametrize(
    "name", ["CH4", "C2H6", "isobutane", "CH3OH", "H2O", "CO2", "C2H2", "C6H6", "cyclobutane", "butadiene", "H2"]
)
def test_small_molecules_map_onto_themselves(rng, name):
    reference = molecule(name)
    order = rng.permutation(len(reference))
    shuffled = Atoms(reference.numbers[order], turned(reference.positions, 7)[order])
    molecules = Molecules.from_indices(shuffled, np.arange(len(order)), reference)
    np.testing.assert_allclose(molecules.rmsd, 0.0, atol=1e-6)
    np.testing.assert_array_equal(shuffled.numbers[molecules.indices[0]], reference.numbers)
    i, j = bonded_pairs(reference).pairs.T
    whole = molecules.extract(shuffled.positions, shuffled.cell.array)[0]
    np.testing.assert_allclose(
        np.linalg.norm(whole[i] - whole[j], axis=1),
        np.linalg.norm(reference.positions[i] - reference.positions[j], axis=1),
        atol=1e-9,
    )


def test_mapping_is_the_best_of_all_by_brute_force(rng):
    """Ethane and water clusters: every isomorphism tried by networkx, none is better."""
    from networkx import Graph
    from networkx.algorithms.isomorphism import GraphMatcher, categorical_node_match

    for name in ("C2H6", "CH4", "isobutane"):
        reference = molecule(name)
        positions = turned(reference.positions + 0.15 * rng.normal(size=reference.positions.shape), 2)
        skeletons = [Skeleton(reference.numbers, p, bonded_pairs(reference)) for p in (reference.positions, positions)]
        order, rmsd = map_atoms(*skeletons)
        graph = Graph()
        graph.add_nodes_from((i, {"z": z}) for i, z in enumerate(reference.numbers))
        graph.add_edges_from(bonded_pairs(reference).pairs.tolist())
        matcher = GraphMatcher(graph, graph, categorical_node_match("z", 0))
        maps = np.array([[found[i] for i in range(len(graph))] for found in matcher.isomorphisms_iter()])
        errors = best_rotations(positions[maps], reference.positions)[1]
        assert len(maps) >= 24 and rmsd == pytest.approx(np.sqrt(errors.min() / len(order)), rel=1e-9)
        np.testing.assert_array_equal(order, maps[np.argmin(errors)])


def test_only_proper_rotations_count():
    chiral = Atoms("CHFClBr", [[0, 0, 0], [0, 0, 1.1], [1.3, 0, -0.5], [-0.8, 1.5, -0.6], [-0.9, -1.6, -0.7]])
    mirrored = Atoms(chiral.numbers, chiral.positions * [1, 1, -1])
    order = np.arange(5)[::-1]
    assert Molecules.from_indices(chiral[order], order, chiral).rmsd[0] < 1e-6
    assert Molecules.from_indices(mirrored[order], order, chiral).rmsd[0] > 0.3
    rotation, error = best_rotations(turned(chiral.positions, 4), chiral.positions)
    assert np.linalg.det(rotation) == pytest.approx(1.0) and error < 1e-20


def test_bonds_of_metals_reach_less_far():
    assert is_metal(np.array([27, 66, 13, 7, 14, 1])).tolist() == [True, True, True, False, False, False]
    stretched = Atoms("CoO", [[0, 0, 0], [0, 0, 1.25 * (covalent_radii[27] + covalent_radii[8])]])
    assert len(bonded_pairs(stretched).pairs) == 0
    assert len(bonded_pairs(stretched, metal_scale=1.3).pairs) == 1
    assert len(bonded_pairs(Atoms("CO", [[0, 0, 0], [0, 0, 1.25 * (0.76 + 0.66)]])).pairs) == 1


def test_one_atom_is_a_molecule():
    helium = Atoms("He", [[1.0, 2.0, 3.0]], cell=np.eye(3) * 8.0, pbc=True)
    molecules = Molecules.from_indices(helium, [0], Atoms("He"))
    np.testing.assert_array_equal(molecules.extract(helium.positions, helium.cell.array), [[[1.0, 2.0, 3.0]]])


@pytest.mark.parametrize(
    ("declare", "error", "message"),
    [
        (lambda pair: Molecules.from_metal(pair, "Co"), MoleculeError, "C2H8O2 contains no Co"),
        (lambda pair: Molecules.from_metal(pair, "Coo"), MoleculeError, "chemical symbol such as Co, got 'Coo'"),
        (lambda pair: Molecules.from_indices(pair, []), MoleculeError, "got none"),
        (lambda pair: Molecules.from_indices(pair, [[]]), MoleculeError, r"list of whole numbers.*got \[\]"),
        (lambda pair: Molecules.from_indices(pair, [0.5, 1.0]), MoleculeError, "list of whole numbers"),
        (lambda pair: Molecules.from_indices(pair, range(7, 13)), MoleculeError, "between 0 and 11, got 12"),
        (lambda pair: Molecules.from_indices(pair, [0, -1]), MoleculeError, "between 0 and 11, got -1"),
        (lambda pair: Molecules.from_indices(pair, [[0, 1], [1, 2]]), MoleculeError, "got atom 1 more than once"),
        (lambda pair: Molecules.from_indices(pair, range(12)), BondError, "got 6 of 12 atoms connected"),
        (lambda pair: Molecules.from_indices(pair, range(6), molecule("H2O")), MappingError, "H2O, got CH4O"),
        (
            lambda pair: Molecules.from_indices(pair, [range(6), range(6, 11)]),
            MappingError,
            r"molecule 1 \(that of atom 6\): .* formula of the reference, CH4O, got CH3O",
        ),
    ],
)
def test_wrong_declarations_are_refused(declare, error, message):
    with pytest.raises(error, match=message):
        declare(methanol_pair())


def test_other_bonds_are_refused():
    with pytest.raises(
        MappingError, match="1 instead of 0 C-C, 5 instead of 6 C-H, 1 instead of 2 C-O, 1 instead of 0 H-O"
    ):
        Molecules.from_indices(molecule("CH3CH2OH"), range(9), molecule("CH3OCH3"))
    with pytest.raises(MappingError, match="connected differently"):
        Molecules.from_indices(molecule("isobutane"), range(14), molecule("trans-butane"))
    with pytest.raises(BondError, match=r"the reference is not a molecule: .* 3 of 6"):
        apart = molecule("H2O") + molecule("H2O", positions=molecule("H2O").positions + 9.0)
        Molecules.from_indices(methanol_pair(), range(6), apart)


def test_polymers_and_networks_are_refused():
    diamond = bulk("C", cubic=True)
    with pytest.raises(BondError, match=r"own periodic image.* 8 atoms per cell"):
        Molecules.from_indices(diamond, range(8))
    chain = Atoms("CoO", [[0, 0, 0], [1.9, 0, 0]], cell=[3.8, 20, 20], pbc=True)
    with pytest.raises(BondError, match="own periodic image"):
        Molecules.from_metal(chain, "Co")
    copper = Atoms("Cu", cell=np.eye(3) * 2.5, pbc=True)  # one atom, bonded to itself
    with pytest.raises(BondError, match="own periodic image"):
        Molecules.from_metal(copper, "Cu")
    with pytest.raises(BondError, match="at least one atom"):
        bonded_pairs(Atoms())


def test_too_many_isomorphisms_are_refused(monkeypatch):
    monkeypatch.setattr("gmcore.molecules.mapping.MAX_ISOMORPHISMS", 11)
    benzene = molecule("C6H6")
    with pytest.raises(MappingError, match="at most 11 ways to map its 6 core atoms"):
        Molecules.from_indices(benzene, range(12), benzene)


def test_shifts_put_atoms_beside_the_first():
    water = molecule("H2O", cell=np.eye(3) * 6.0, pbc=True)
    water.positions[1] += [6.0, -12.0, 0.0]
    parents, shifts = image_shifts(bonded_pairs(water))
    np.testing.assert_array_equal(parents, [-1, 0, 0])
    np.testing.assert_array_equal(shifts, [[0, 0, 0], [-1, 2, 0], [0, 0, 0]])
