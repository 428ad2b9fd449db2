"""Batches and the species table: what is kept, what is computed, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from gmcore.engine.structures import Batch, SpeciesTable, StructureError, UnknownElementError
from support.systems import SYSTEMS, mixed_batch, slab, slab_without_third_vector, small_cell, water_box, water_molecule


def test_species_index_is_the_place_among_ascending_numbers():
    table = SpeciesTable([27, 1, 8, 1])
    assert table.numbers == (1, 8, 27) and len(table) == 3
    index = table.index(np.array([8, 8, 1, 27]))
    assert index.dtype == np.int32 and index.tolist() == [1, 1, 0, 2]
    assert table.index(np.array([], dtype=int)).shape == (0,)


def test_unknown_element_is_named():
    with pytest.raises(UnknownElementError, match=r"element Fe \(Z=26\) is not among the model's species N, Co"):
        SpeciesTable([27, 7]).index(np.array([7, 26]))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([], "at least one element, got none"),
        ([0, 1], r"atomic numbers from 1 to 118, got \[0, 1\]"),
        ([1, 119], "atomic numbers from 1 to 118"),
        ([1.5], "atomic numbers from 1 to 118"),
    ],
)
def test_bad_species_table(numbers, message):
    with pytest.raises(UnknownElementError, match=message):
        SpeciesTable(numbers)


@pytest.mark.parametrize("numbers", [[0], [-1], [119], [1.0]])
def test_index_of_what_is_no_element(numbers):
    with pytest.raises(UnknownElementError, match="atomic numbers must be integers from 1 to 118"):
        SpeciesTable([1]).index(np.array(numbers))


def test_structures_are_laid_end_to_end():
    frames = mixed_batch()
    batch = Batch.from_atoms(frames)
    assert batch.n_structures == len(frames)
    assert batch.n_atoms == sum(map(len, frames)) == len(batch.structure)
    for k, frame in enumerate(frames):
        rows = slice(batch.offsets[k], batch.offsets[k + 1])
        np.testing.assert_array_equal(batch.positions[rows], frame.positions)
        np.testing.assert_array_equal(batch.numbers[rows], frame.numbers)
        np.testing.assert_array_equal(batch.cells[k], frame.cell.array)
        np.testing.assert_array_equal(batch.pbc[k], frame.pbc)
        assert (batch.structure[rows] == k).all()
    dtypes = [a.dtype for a in (batch.positions, batch.numbers, batch.cells, batch.pbc, batch.offsets)]
    assert dtypes == [np.float64, np.int32, np.float64, bool, np.int64]


def test_a_batch_does_not_follow_later_changes_of_the_atoms():
    atoms = water_molecule()
    batch = Batch.from_atoms(atoms)
    atoms.positions += 1.0
    np.testing.assert_array_equal(batch.positions, water_molecule().positions)


def test_from_arrays_fills_in_what_is_not_given():
    batch = Batch.from_arrays([[0, 0, 0], [0, 0, 1]], [1, 1])
    assert batch.n_structures == 1 and not batch.pbc.any() and not batch.cells.any()
    batch = Batch.from_arrays(np.zeros((3, 3)), [1, 2, 3], np.eye(3), pbc=True, offsets=[0, 2, 3])
    assert batch.cells.shape == (2, 3, 3) and batch.pbc.all() and batch.pbc.shape == (2, 3)


def test_volumes_where_something_is_periodic():
    frames = [water_box(), slab(), slab_without_third_vector(), water_molecule(), small_cell()]
    volumes = Batch.from_atoms(frames).volumes
    expected = [f.cell.volume if f.pbc.any() and f.cell.rank == 3 else np.nan for f in frames]
    np.testing.assert_allclose(volumes, expected, rtol=1e-13)


@pytest.mark.parametrize("name", SYSTEMS)
def test_completed_lattice(name):
    batch = Batch.from_atoms(SYSTEMS[name]())
    lattice, pbc = batch.lattice[0], batch.pbc[0]
    np.testing.assert_array_equal(lattice[pbc], batch.cells[0][pbc])
    np.testing.assert_allclose(lattice @ batch.inverse_lattice[0], np.eye(3), atol=1e-13)
    free = lattice[~pbc]
    np.testing.assert_allclose(free @ free.T, np.eye(len(free)), atol=1e-14)
    np.testing.assert_allclose(free @ lattice[pbc].T, 0.0, atol=1e-13)


def arrays(**changes):
    fields = {"positions": np.array([[0.0, 0, 0], [0, 0, 1]]), "numbers": np.array([1, 8])}
    return {**fields, "cells": np.eye(3) * 5, "pbc": True, **changes}


BAD = {
    "nan": ({"positions": [[0, 0, 0], [0, np.nan, 1]]}, r"finite .*got \[0.0, nan, 1.0\] for atom 1 of structure 0"),
    "inf": ({"positions": [[0, 0, -np.inf], [0, 0, 1]]}, r"finite .*for atom 0 of structure 0"),
    "far": ({"positions": [[0, 0, 1e9], [0, 0, 1]]}, r"below 1e\+08 A"),
    "flat positions": ({"positions": np.zeros(6)}, r"positions must have shape \(n_atoms, 3\), got \(6,\)"),
    "two coordinates": ({"positions": np.zeros((2, 2))}, r"positions must have shape \(n_atoms, 3\), got \(2, 2\)"),
    "no number": ({"positions": 0.0}, r"positions must have shape \(n_atoms, 3\), got \(\)"),
    "text": ({"positions": "water"}, "positions must be an array of numbers, got water"),
    "ragged": ({"positions": [[0, 0, 0], [1, 1]]}, "positions must be an array of numbers"),
    "too few numbers": ({"numbers": [1]}, r"numbers must have shape \(n_atoms,\) = \(2,\), got \(1,\)"),
    "dummy atom": ({"numbers": [1, 0]}, "between 1 and 118, got 0 for atom 1 of structure 0"),
    "huge number": ({"numbers": [1, 2**32 + 1]}, "numbers must be integers that fit 32 bits"),
    "lowest number": ({"numbers": [1, -(2**63)]}, "numbers must be integers that fit 32 bits"),
    "huge offsets": ({"offsets": np.array([0, 2**64 - 2], np.uint64)}, "offsets must be integers that fit 64 bits"),
    "float numbers": ({"numbers": [1.0, 8.5]}, "numbers must be integers, got float64"),
    "cell shape": ({"cells": np.zeros((2, 3))}, r"cells must have shape \(1, 3, 3\), got \(2, 3\)"),
    "cell count": ({"cells": np.zeros((2, 3, 3))}, r"cells must have shape \(1, 3, 3\), got \(2, 3, 3\)"),
    "pbc shape": ({"pbc": [True, False]}, r"pbc must have shape \(1, 3\), got \(2,\)"),
    "zero cell": ({"cells": np.zeros((3, 3))}, "periodic directions must be linearly independent, .*for structure 0"),
    "parallel vectors": ({"cells": [[5, 0, 0], [5, 0, 0], [0, 0, 5]]}, "must be linearly independent"),
    "flat cell": ({"cells": [[5, 0, 0], [0, 5, 0], [2, 3, 1e-9]]}, "must be linearly independent"),
    "parallel periodic pair": (
        {"cells": [[5, 0, 0], [-2, 0, 0], [0, 0, 5]], "pbc": [True, True, False]},
        r"must be linearly independent, .* with pbc \[True, True, False\]",
    ),
    "cell nan": ({"cells": np.full((3, 3), np.nan)}, "cells must be finite"),
    "falling offsets": ({"offsets": [0, 3, 2]}, r"offsets must rise from 0 to the number of atoms 2, got \[0, 3, 2\]"),
    "short offsets": ({"offsets": [0, 1]}, "offsets must rise from 0 to the number of atoms 2"),
    "no structure": ({"offsets": [0]}, "at least one structure, got none"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays(name):
    changes, message = BAD[name]
    with pytest.raises(StructureError, match=message):
        Batch.from_arrays(**arrays(**changes))


def test_numbers_of_atoms_are_not_cut_to_32_bits():
    with pytest.raises(StructureError, match=r"numbers must be integers that fit 32 bits, got \[4294967302, 1\]"):
        Batch.from_atoms(Atoms([2**32 + 6, 1], [[0, 0, 0], [0, 0, 1]]))


def test_moved_atoms_keep_the_rest_of_the_batch():
    batch = Batch.from_atoms([slab(), slab()])
    volumes, moved = batch.volumes, batch.with_positions(batch.positions + 0.25)
    assert np.array_equal(moved.positions, batch.positions + 0.25)
    assert moved.volumes is volumes and moved.numbers is batch.numbers and moved.lattice is batch.lattice
    with pytest.raises(StructureError, match=r"positions must have shape \(80, 3\), got \(3,\)"):
        batch.with_positions(np.zeros(3))
    moved.positions[46] = np.nan
    with pytest.raises(StructureError, match=r"finite .* for atom 6 of structure 1"):
        batch.with_positions(moved.positions)


def test_bad_atom_is_named_within_its_structure():
    frames = [water_box(2), water_molecule(), water_molecule()]
    frames[2].positions[1, 2] = np.nan
    with pytest.raises(StructureError, match="for atom 1 of structure 2"):
        Batch.from_atoms(frames)


def test_cell_of_a_non_periodic_structure_is_not_looked_at():
    assert Batch.from_arrays(**arrays(cells=np.zeros((3, 3)), pbc=False)).n_atoms == 2


def test_empty_list_and_foreign_types():
    with pytest.raises(StructureError, match="at least one structure, got none"):
        Batch.from_atoms([])
    with pytest.raises(StructureError, match=r"structures must be ase.Atoms, got str"):
        Batch.from_atoms(["water"])
    assert Batch.from_atoms(Atoms()).n_atoms == 0
