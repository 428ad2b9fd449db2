"""Checks of neighbor lists on the device, small enough for the CUDA simulator; `cuda_driver_checks` runs them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms

from gmcore.device.cuda import open_device
from gmcore.engine.neighbors import NeighborError, build_pairs
from gmcore.engine.neighbors_cuda import DeviceNeighborList
from gmcore.engine.structures import Batch, SpeciesTable, StructureError, UnknownElementError
from gmcore.engine.structures_cuda import DeviceBatch
from gmcore.errors import GMError
from support.systems import SYSTEMS, triclinic, water_molecule
from support.tolerances import same

SPECIES = SpeciesTable(range(1, 40))
SYSTEMS_SEARCHED = (
    "water_molecule", "molecule", "triclinic", "unwrapped", "slab", "slab_without_third_vector", "wire",
    "wire_without_other_vectors", "small_cell", "flat_cell", "self_images_only", "single_atom", "no_neighbors",
    "on_the_faces", "empty", "empty_periodic",
)  # fmt: skip


def rows(row_start, neighbor, shift, shifts) -> list[list[tuple]]:
    """Per center the sorted (neighbor, shift) of its pairs."""
    pairs = [(int(j), *map(int, shifts[s])) for j, s in zip(neighbor[: row_start[-1]], shift)]
    return [sorted(pairs[a:b]) for a, b in pairwise(row_start)]


def rows_on_device(pairs: DeviceNeighborList) -> list[list[tuple]]:
    download, buffers = open_device().download, pairs._buffers
    return rows(*(download(buffers[name]) for name in ("row_start", "neighbor", "shift")), pairs.shifts)


def rows_on_host(batch: Batch, cutoff: float) -> list[list[tuple]]:
    pairs = build_pairs(batch, cutoff)
    return rows(pairs.row_start, pairs.neighbor, pairs.shift, pairs.shifts)


def check_lists_equal_those_of_the_cpu():
    for name in SYSTEMS_SEARCHED:
        batch = Batch.from_atoms(SYSTEMS[name]())
        pairs = DeviceNeighborList(open_device(), 3.3)
        pairs.update(DeviceBatch(open_device(), batch, SPECIES))
        assert rows_on_device(pairs) == rows_on_host(batch, 3.3), name


def check_lists_of_mixed_batches():
    batch = Batch.from_atoms([Atoms(), *(SYSTEMS[n]() for n in ("triclinic", "molecule", "small_cell")), Atoms()])
    pairs = DeviceNeighborList(open_device(), 2.9)
    pairs.update(DeviceBatch(open_device(), batch, SPECIES))
    assert rows_on_device(pairs) == rows_on_host(batch, 2.9)


def check_lists_are_the_same_bits_every_time():
    device = open_device()
    batch = DeviceBatch(device, Batch.from_atoms([triclinic(), water_molecule()]), SPECIES)
    found = []
    for _ in range(2):
        pairs = DeviceNeighborList(device, 3.0)
        pairs.update(batch)
        found.append([device.download(pairs._buffers[n])[: pairs.n_pairs] for n in ("row_start", "neighbor", "shift")])
    for first, second in zip(*found):
        np.testing.assert_array_equal(first, second)


def check_a_list_that_outgrows_its_arrays_is_made_again():
    device, atoms = open_device(), SYSTEMS["molecule"]()
    wide = Batch.from_arrays(3.0 * atoms.positions, atoms.numbers)
    pairs, batch = DeviceNeighborList(device, 3.0), DeviceBatch(device, wide, SPECIES)
    pairs.update(batch)
    small, generation = len(pairs._buffers["neighbor"]), pairs.generation
    batch.set_positions(device.upload(atoms.positions))
    pairs.update(batch)
    assert pairs.n_pairs > small
    assert pairs.generation > generation
    assert rows_on_device(pairs) == rows_on_host(Batch.from_atoms(atoms), 3.0)
    generation = pairs.generation
    batch.set_positions(wide.positions)
    pairs.update(batch)  # arrays that are large enough keep their addresses
    assert pairs.generation == generation


def check_an_overflow_is_flagged_and_nothing_is_written_beyond():
    device = open_device()
    pairs, batch = DeviceNeighborList(device, 3.0), DeviceBatch(device, Batch.from_atoms(water_molecule()), SPECIES)
    pairs.update(batch)
    tried = []
    fill = pairs._fill

    def too_small(n_atoms, search, codes):
        if not tried:
            pairs._reserve("neighbor", 2, np.int32)
            pairs._reserve("shift", 2, np.int32)
        tried.append(fill(n_atoms, search, codes))
        return tried[-1]

    pairs._fill = too_small
    pairs.build(batch)
    assert tried == [False, True]
    assert rows_on_device(pairs) == rows_on_host(batch.host, 3.0)


def check_a_list_with_a_skin_stays_complete():
    device, rng = open_device(), np.random.default_rng(5)
    atoms = triclinic()
    pairs = DeviceNeighborList(device, 2.6, skin=0.5)
    batch = DeviceBatch(device, Batch.from_atoms(atoms), SPECIES)
    for step in range(8):
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        if step in (3, 5):
            atoms.set_cell(atoms.cell.array * 1.004, scale_atoms=True)
        batch.move(Batch.from_atoms(atoms))
        geometry = pairs.update(batch)
        found = rows_on_device(pairs)
        for kept, needed in zip(found, rows_on_host(Batch.from_atoms(atoms), 2.6)):
            assert set(needed) <= set(kept)
        expected = pairs.shifts @ atoms.cell.array
        same(device.download(geometry.displacement)[: len(expected)], expected)
    assert 1 < pairs.n_builds < 6, pairs.n_builds
    assert DeviceNeighborList(device, 2.6, 0.5).update(batch) is not None


def check_bad_positions_are_refused_as_on_the_cpu():
    device, atoms = open_device(), water_molecule()
    pairs, batch = DeviceNeighborList(device, 2.5, 0.3), DeviceBatch(device, Batch.from_atoms(atoms), SPECIES)
    pairs.update(batch)
    for bad in (np.nan, np.inf, 1e9):
        positions = atoms.positions.copy()
        positions[1, 2] = bad
        batch.set_positions(device.upload(positions))
        with pytest.raises(StructureError, match=r"positions must be finite and below 1e\+08 A, got .* for atom 1 of"):
            pairs.update(batch)
    batch.set_positions(device.upload(atoms.positions[[0, 1, 1]]))
    with pytest.raises(NeighborError, match=r"at least 1e-06 A apart, .* got atoms 1 and 2 of structure 0 in one"):
        pairs.update(batch)
    with pytest.raises(GMError, match=r"positions must have shape \(3, 3\), got \(2, 3\)"):
        batch.set_positions(positions[:2])
    with pytest.raises(NeighborError, match=r"the skin must be finite and not negative, got -1"):
        DeviceNeighborList(device, 2.5, -1.0)
    with pytest.raises(UnknownElementError, match=r"element O \(Z=8\) is not among"):
        DeviceBatch(device, Batch.from_atoms(atoms), SpeciesTable([1]))
