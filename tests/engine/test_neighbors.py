"""Neighbor lists against a plain enumeration, ASE and vesin; skin reuse; what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from gmcore.engine import neighbor_search
from gmcore.engine.neighbors import NeighborError, NeighborList, build_pairs
from gmcore.engine.structures import Batch
from support.systems import CUTOFF, SYSTEMS, mixed_batch, slab, triclinic, water_box, water_molecule


def rows(i, j, shifts) -> np.ndarray:
    """(n_pairs, 5) integers i, j, S in one order."""
    table = np.column_stack((i, j, shifts)).astype(np.int64).reshape(-1, 5)
    return table[np.lexsort(table.T[::-1])]


def pair_rows(pairs) -> np.ndarray:
    return rows(pairs.center, pairs.neighbor, pairs.shifts[pairs.shift])


def vectors(batch, pairs) -> np.ndarray:
    d = batch.positions[pairs.neighbor] - batch.positions[pairs.center]
    return d + pairs.displacements(batch.cells)[pairs.shift]


def ase_rows(atoms, cutoff) -> np.ndarray:
    if len(atoms) == 0:
        return np.zeros((0, 5), dtype=np.int64)
    return rows(*primitive_neighbor_list("ijS", atoms.pbc, atoms.cell.complete().array, atoms.positions, cutoff))


def enumerated_rows(atoms, cutoff) -> np.ndarray:
    """All shifts that could matter, all pairs, no cleverness; for a few atoms only."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.complete().array), axis=0)
    extent = np.ptp(atoms.positions @ np.linalg.inv(atoms.cell.complete().array), axis=0)
    reach = np.where(atoms.pbc, np.ceil(cutoff / heights + extent), 0).astype(int)
    found = []
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        d = atoms.positions[None] - atoms.positions[:, None] + np.array(shift) @ atoms.cell.array
        distance = np.linalg.norm(d, axis=-1)
        i, j = np.nonzero((distance > 0) & (distance < cutoff))
        found.append(np.column_stack((i, j, np.tile(shift, (len(i), 1)))))
    table = np.concatenate(found)
    return rows(table[:, 0], table[:, 1], table[:, 2:])


def check_against_ase(atoms, cutoff):
    batch = Batch.from_atoms(atoms)
    pairs = build_pairs(batch, cutoff)
    np.testing.assert_array_equal(pair_rows(pairs), ase_rows(atoms, cutoff))
    distance = np.linalg.norm(vectors(batch, pairs), axis=1)
    assert ((distance > 0) & (distance < cutoff)).all()
    return pairs


@pytest.mark.parametrize("cutoff", [CUTOFF, 1.5, 7.3])
@pytest.mark.parametrize("name", SYSTEMS)
def test_equals_ase(name, cutoff):
    check_against_ase(SYSTEMS[name](), cutoff)


@pytest.mark.parametrize("name", SYSTEMS)
def test_equals_vesin(name):
    vesin = pytest.importorskip("vesin", reason="vesin is not installed")
    atoms = SYSTEMS[name]()
    if len(atoms) == 0:
        pytest.skip("vesin takes no empty structures")
    batch = Batch.from_atoms(atoms)
    pairs = build_pairs(batch, CUTOFF)
    i, j, shifts, distance = vesin.NeighborList(cutoff=CUTOFF, full_list=True).compute(
        points=atoms.positions, box=atoms.cell.complete().array, periodic=atoms.pbc, quantities="ijSd"
    )
    np.testing.assert_array_equal(pair_rows(pairs), rows(i, j, shifts))
    ours = np.sort(np.linalg.norm(vectors(batch, pairs), axis=1))
    np.testing.assert_allclose(ours, np.sort(distance), atol=1e-9)


def test_systems_are_what_their_names_say():
    pairs = {name: build_pairs(Batch.from_atoms(make()), CUTOFF) for name, make in SYSTEMS.items()}
    for name in ("single_atom", "no_neighbors", "empty", "empty_periodic"):
        assert pairs[name].n_pairs == 0, name
    assert pairs["self_images_only"].n_pairs > 20 and not pairs["self_images_only"].neighbor.any()
    assert np.abs(pairs["unwrapped"].shifts[pairs["unwrapped"].shift]).max() > 3
    small = pairs["small_cell"]
    assert (small.neighbor == small.center).any() and np.abs(small.shifts[small.shift]).max() >= 2


@given(data=st.data())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_random_cells(data):
    """Any triclinic cell, any periodicity, any cutoff, atoms anywhere."""
    number = st.floats(-1, 1, allow_subnormal=False)
    cell = np.array(data.draw(st.lists(number, min_size=9, max_size=9))).reshape(3, 3) + 1.5 * np.eye(3)
    cell *= data.draw(st.floats(1.0, 4.0))
    if abs(np.linalg.det(cell)) < 0.2 * np.prod(np.linalg.norm(cell, axis=1)):
        cell = np.triu(cell) + 2.0 * np.eye(3)
    pbc = data.draw(st.tuples(*[st.booleans()] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    positions = rng.uniform(-1.5, 2.5, (data.draw(st.integers(1, 6)), 3)) @ cell
    atoms = Atoms("H" * len(positions), positions, cell=cell, pbc=pbc)
    cutoff = data.draw(st.floats(0.5, 6.0))
    pairs = build_pairs(Batch.from_atoms(atoms), cutoff)
    np.testing.assert_array_equal(pair_rows(pairs), enumerated_rows(atoms, cutoff))


@pytest.mark.parametrize("settings_", [(1e9, [1, 1, 4]), (0, [1, 1, 1]), (0, [3, 2, 5])], ids=str)
@pytest.mark.parametrize("name", ["triclinic", "slab", "large_cluster", "strongly_skewed", "unwrapped", "water_box"])
def test_bins_do_not_matter(name, settings_, monkeypatch):
    monkeypatch.setattr(neighbor_search, "SINGLE_BIN", float(settings_[0]))
    monkeypatch.setattr(neighbor_search, "SLICES", np.array(settings_[1], dtype=float))
    check_against_ase(SYSTEMS[name](), CUTOFF)


def test_parallel_search_gives_the_same_arrays(monkeypatch):
    batch = Batch.from_atoms(mixed_batch())
    serial = build_pairs(batch, CUTOFF)
    monkeypatch.setattr(neighbor_search, "SERIAL_ATOMS", 0)
    parallel = build_pairs(batch, CUTOFF)
    for name in ("row_start", "neighbor", "shift", "shifts", "shift_structure"):
        np.testing.assert_array_equal(getattr(serial, name), getattr(parallel, name))


def test_batch_equals_its_structures_one_by_one():
    frames = mixed_batch()
    batch = Batch.from_atoms(frames)
    together = build_pairs(batch, CUTOFF)
    assert together.row_start.dtype == np.int64 and together.shifts.dtype == np.int32
    assert together.neighbor.dtype == together.shift.dtype == together.shift_structure.dtype == np.int32
    for k, frame in enumerate(frames):
        alone = build_pairs(Batch.from_atoms(frame), CUTOFF)
        begin, end = together.row_start[batch.offsets[k]], together.row_start[batch.offsets[k + 1]]
        np.testing.assert_array_equal(together.neighbor[begin:end] - batch.offsets[k], alone.neighbor)
        np.testing.assert_array_equal(together.shifts[together.shift[begin:end]], alone.shifts[alone.shift])
        assert (together.shift_structure[together.shift[begin:end]] == k).all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_pair_has_its_reverse(name):
    pairs = build_pairs(Batch.from_atoms(SYSTEMS[name]()), CUTOFF)
    shifts = pairs.shifts[pairs.shift]
    np.testing.assert_array_equal(pair_rows(pairs), rows(pairs.neighbor, pairs.center, -shifts))


def test_crystal_with_a_shell_at_the_cutoff():
    """Rounding decides which pairs of the shell are in, but a pair and its reverse go together."""
    rng = np.random.default_rng(13)
    sites = np.array(list(itertools.product(range(3), repeat=3))) + rng.uniform(-2, 2, 3)
    atoms = Atoms("H27", sites * 2.1, cell=[6.3] * 3, pbc=True)
    atoms.rotate(37.0, (1.0, 2.0, 3.0), rotate_cell=True)
    pairs = build_pairs(Batch.from_atoms(atoms), 4.2)
    assert 27 * 26 < pairs.n_pairs < 27 * 32
    reverse = rows(pairs.neighbor, pairs.center, -pairs.shifts[pairs.shift])
    np.testing.assert_array_equal(pair_rows(pairs), reverse)


def test_long_shift_tables_are_compacted():
    atoms = triclinic()
    atoms.positions += np.random.default_rng(11).integers(-40, 41, (len(atoms), 3)) @ atoms.cell.array
    pairs = check_against_ase(atoms, CUTOFF)
    assert len(pairs.shifts) <= pairs.n_pairs
    assert len(np.unique(pairs.shift)) == len(pairs.shifts)


def check_complete(pairs, batch, cutoff):
    """The pairs within the cutoff are exactly those of a fresh list, whatever else is in the list."""
    near = np.linalg.norm(vectors(batch, pairs), axis=1) < cutoff
    found = rows(pairs.center[near], pairs.neighbor[near], pairs.shifts[pairs.shift[near]])
    np.testing.assert_array_equal(found, pair_rows(build_pairs(batch, cutoff)))


@pytest.mark.parametrize("make", [triclinic, slab, water_box])
def test_skin_stays_complete_along_a_trajectory(make):
    """Positions and cell move at random, the whole system drifts as well; the list is complete at every step."""
    rng = np.random.default_rng(12)
    atoms = make()
    nlist = NeighborList(CUTOFF, skin=0.4)
    n_steps = 60
    for _ in range(n_steps):
        strain = np.eye(3) + 0.004 * rng.uniform(-1, 1, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += 0.015 * rng.normal(size=(len(atoms), 3)) + [0.3, 0.0, -0.2]
        batch = Batch.from_atoms(atoms)
        pairs = nlist.update(batch)
        assert pairs.cutoff == CUTOFF
        check_complete(pairs, batch, CUTOFF)
    assert 1 < nlist.n_builds < n_steps // 2


def pair_of_atoms(distance):
    return Batch.from_arrays([[0, 0, 0], [distance, 0, 0]], [1, 1])


def test_skin_is_used_up_exactly():
    """Two atoms just outside cutoff + skin approach: the old list serves until they may be within the cutoff."""
    nlist = NeighborList(4.0, skin=1.0)
    nlist.update(pair_of_atoms(5.0))
    assert nlist.update(pair_of_atoms(4.0 + 1e-6)).n_pairs == 0 and nlist.n_builds == 1
    assert nlist.update(pair_of_atoms(4.0 - 1e-6)).n_pairs == 2 and nlist.n_builds == 2


def test_list_follows_the_cell():
    """Atoms at rest while the cell shrinks: only images come closer, which a test on positions would not see."""
    positions = [[1.0, 1.0, 1.0]]
    nlist = NeighborList(4.0, skin=1.0)
    assert nlist.update(Batch.from_arrays(positions, [1], np.eye(3) * 5.5, True)).n_pairs == 0
    assert nlist.update(Batch.from_arrays(positions, [1], np.eye(3) * 5.0, True)).n_pairs == 0
    assert nlist.n_builds == 1
    assert nlist.update(Batch.from_arrays(positions, [1], np.eye(3) * 3.9, True)).n_pairs == 6
    assert nlist.n_builds == 2


def test_homogeneous_scaling_costs_little_skin():
    """A cell scaled with its atoms by 5 % moves far atoms by more than the skin, but no pair by more than 5 %."""
    atoms = water_box(5)
    nlist = NeighborList(CUTOFF, skin=0.5)
    nlist.update(Batch.from_atoms(atoms))
    atoms.set_cell(atoms.cell.array * 0.95, scale_atoms=True)
    batch = Batch.from_atoms(atoms)
    check_complete(nlist.update(batch), batch, CUTOFF)
    assert nlist.n_builds == 1


def test_common_translation_is_free():
    atoms = triclinic()
    nlist = NeighborList(CUTOFF, skin=0.3)
    first = nlist.update(Batch.from_atoms(atoms))
    atoms.positions += [123.0, -7.0, 1.0]
    assert nlist.update(Batch.from_atoms(atoms)) is first


def test_what_makes_a_list_useless():
    atoms = slab()
    nlist = NeighborList(CUTOFF, skin=0.5)
    first = nlist.update(Batch.from_atoms(atoms))
    assert nlist.update(Batch.from_atoms(atoms)) is first
    wrapped = atoms.copy()
    wrapped.positions[3] += atoms.cell.array[0]
    other_pbc = atoms.copy()
    other_pbc.pbc = (True, False, False)
    for changed in (wrapped, other_pbc, atoms[:-1], [atoms, atoms]):
        batch = Batch.from_atoms(changed)
        n_builds = nlist.n_builds
        check_complete(nlist.update(batch), batch, CUTOFF)
        assert nlist.n_builds == n_builds + 1


def test_arrays_changed_in_place_are_noticed():
    batch = Batch.from_atoms(triclinic())
    nlist = NeighborList(CUTOFF, skin=0.5)
    nlist.update(batch)
    batch.positions[5] += 1.0
    check_complete(nlist.update(batch), batch, CUTOFF)
    assert nlist.n_builds == 2


def test_without_skin_every_move_builds():
    atoms = triclinic()
    nlist = NeighborList(CUTOFF)
    first = nlist.update(Batch.from_atoms(atoms))
    assert nlist.update(Batch.from_atoms(atoms)) is first
    atoms.positions[0, 0] += 1e-9
    assert nlist.update(Batch.from_atoms(atoms)) is not first


def test_coincident_atoms_within_the_skin_do_not_go_unseen():
    nlist = NeighborList(4.0, skin=2.0)
    nlist.update(pair_of_atoms(1.0))
    with pytest.raises(NeighborError, match="atoms 0 and 1 of structure 0 in one place"):
        nlist.update(pair_of_atoms(0.0))
    with pytest.raises(NeighborError, match="in one place"):
        nlist.update(pair_of_atoms(0.0))
    assert nlist.update(pair_of_atoms(1.0)).n_pairs == 2


@pytest.mark.parametrize("apart", [0.0, 5e-7])
def test_coincident_atoms_are_named(apart):
    frame = water_box(2)
    frame.positions[7] = frame.positions[3] + [0.0, 0.0, apart]
    with pytest.raises(NeighborError, match=r"at least 1e-06 A apart.* got atoms 3 and 7 of structure 2 in one place"):
        build_pairs(Batch.from_atoms([water_molecule(), Atoms(), frame]), CUTOFF)


def test_atoms_may_coincide_with_those_of_another_structure():
    pairs = build_pairs(Batch.from_atoms([water_molecule(), water_molecule()]), CUTOFF)
    assert pairs.n_pairs == 12


def test_coincident_through_an_image():
    frame = Atoms("H2", [[0, 0, 0], [10, 5, 0]], cell=[[5, 0, 0], [0, 5, 0], [0, 0, 6]], pbc=(True, True, False))
    with pytest.raises(NeighborError, match="got atoms 0 and 1 of structure 0 in one place"):
        build_pairs(Batch.from_atoms(frame), CUTOFF)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_bad_cutoff(cutoff):
    with pytest.raises(NeighborError, match="cutoff must be a positive length, got"):
        build_pairs(Batch.from_atoms(water_molecule()), cutoff)
    with pytest.raises(NeighborError, match="cutoff must be a positive length, got"):
        NeighborList(cutoff)


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_bad_skin(skin):
    with pytest.raises(NeighborError, match="skin must be finite and not negative, got"):
        NeighborList(4.0, skin)


def test_too_many_images():
    batch = Batch.from_arrays([[0.0, 0.0, 0.0]], [1], np.eye(3) * 0.001, True)
    with pytest.raises(NeighborError, match=r"fewer than 2\*\*31 periodic images, got 6.5 A"):
        build_pairs(batch, 6.5)


def test_too_many_shifts():
    positions = np.array([[0.0, 0.0, 0.0], [1e5, 1e5, 1e5]])
    with pytest.raises(NeighborError, match=r"within a few hundred cells .* wrap the positions"):
        build_pairs(Batch.from_arrays(positions, [1, 1], np.eye(3), True), 3.0)
