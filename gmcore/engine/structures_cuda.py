"""A batch on the device: positions that stay there between the steps of a simulation, and what goes with them."""

from __future__ import annotations

import numpy as np

from gmcore.device.cuda import Array, CudaError, Device
from gmcore.engine.structures import Batch, SpeciesTable


class DeviceBatch:
    """Structures whose positions live on the device.

    Cells, periodicity and offsets are few numbers that the host plans with, and stay on the host.

    Parameters
    ----------
    batch : structures, checked.
    species : elements that the model knows.

    Attributes
    ----------
    positions : device, (n_atoms, 3) float64, A; moved in place by whoever integrates.
    species, structure : device, (n_atoms,) int32.
    host : Batch; its `positions` are those it was made from, its cells are kept up to date.

    Raises
    ------
    UnknownElementError : an element outside the table.
    """

    def __init__(self, device: Device, batch: Batch, species: SpeciesTable):
        index = batch.species(species)
        self.device, self.host = device, batch
        self.positions: Array = device.upload(batch.positions, np.float64)
        self.species: Array = device.upload(index, np.int32)
        self.structure: Array = device.upload(batch.structure, np.int32)

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all structures together."""
        return self.host.n_atoms

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return self.host.n_structures

    @property
    def offsets(self) -> np.ndarray:
        """(n_structures + 1,) int64: where the atoms of each structure begin."""
        return self.host.offsets

    def fits(self, batch: Batch) -> bool:
        """Whether `batch` has the same atoms, so that positions and cells are all that may differ."""
        host = self.host
        return (
            np.array_equal(batch.offsets, host.offsets)
            and np.array_equal(batch.numbers, host.numbers)
            and np.array_equal(batch.pbc, host.pbc)
        )

    def move(self, batch: Batch) -> None:
        """Take positions and cells of a batch that fits."""
        self.host = batch
        self.set_positions(batch.positions)

    def set_positions(self, positions: Array | np.ndarray) -> None:
        """Copy positions (n_atoms, 3), A, from the host or the device."""
        if positions.shape != (self.n_atoms, 3):
            raise CudaError(f"positions must have shape ({self.n_atoms}, 3), got {positions.shape}")
        with self.device.active():
            if self.device.is_device_array(positions):
                self.positions[...] = positions
            else:
                self.positions.set(np.ascontiguousarray(positions, np.float64))

    def set_cells(self, cells: np.ndarray) -> None:
        """Take cells (n_structures, 3, 3), A; refused as by `Batch`."""
        host = self.host
        cells = np.array(cells, np.float64).reshape(host.cells.shape)
        self.host = Batch(host.positions, host.numbers, cells, host.pbc, host.offsets)


class VectorCenters:
    """Atoms at the origin that are known by vectors to their neighbors only; to `DeviceStep` a batch like any other.

    Parameters
    ----------
    species : device, int32: of the centers, then of atoms that are neighbors only.
    n_centers : number of centers.
    """

    n_structures = 1

    def __init__(self, device: Device, species: Array, n_centers: int):
        self.species, self.n_atoms = species, n_centers
        self.positions: Array = device.zeros((len(species), 3), np.float64)
        self.offsets = np.array([0, n_centers], np.int64)
