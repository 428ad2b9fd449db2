"""Neighbor lists on the device: built there from positions that are there, reused while provably complete.

The host plans the bins from the cells and from the extent of the atoms (one small download), the kernels of
`gmcore.kernels.neighbors_cuda` count, and fill arrays that have room to spare. Whether they had room enough, how many
pairs there are and how close the nearest two atoms lie comes back in one more download: a list that did not fit is
filled again into larger arrays, never used. Arrays keep their addresses until they are too small, so that a captured
graph (`gmcore.engine.evaluator_cuda`) outlives most rebuilds; `generation` says when it does not.

A list with a skin serves while no atom has moved farther than

    min( (s (cutoff + skin) - cutoff) / 2,  (s d_nearest - COINCIDENT) / 2 )

from where the deformation of the cell takes it, s being the smallest singular value of that deformation: by then two
atoms outside the list may have come within the cutoff, or two inside it into one place.
"""

from __future__ import annotations

import math

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.device.memory import SPARE_PAIRS, DeviceMemoryError, list_bytes
from gmcore.engine.neighbor_search import COINCIDENT, MAX_SHIFTS, NeighborError, check_cutoff
from gmcore.engine.neighbors import ROUNDING, build_pairs
from gmcore.engine.stages_cuda import find_reverse
from gmcore.engine.structures import Batch, StructureError
from gmcore.engine.structures_cuda import DeviceBatch
from gmcore.kernels import neighbors_cpu
from gmcore.kernels import neighbors_cuda as kernels
from gmcore.kernels.arguments import BinnedAtoms, Cells, Geometry, Grid, ShiftNumbers, WrappedAtoms

SLICES = 2.0
"""Bins per cutoff along each axis of the cell."""
TILE = 64
"""Atoms per thread where bounds are sought."""


class _Plan:
    """Bins and cell shifts of a batch, planned on the host from the bounds (n_structures, 3, 4) of its atoms."""

    def __init__(self, batch: Batch, bounds: np.ndarray, cutoff: float):
        margin, pbc = neighbors_cpu.MARGIN, batch.pbc
        reach = cutoff * np.linalg.norm(batch.inverse_lattice, axis=1) * (1.0 + margin) + margin
        origin = np.where(pbc, 0.0, bounds[:, :, 0])
        extent = np.where(pbc, 1.0, bounds[:, :, 1] - bounds[:, :, 0] + margin)
        n_bins = _choose_bins(extent, reach, np.diff(batch.offsets))
        first_bin = np.concatenate(([0], np.cumsum(n_bins.prod(axis=1))))
        self.grid = Grid(reach, np.stack((origin, n_bins / extent), axis=2), n_bins, first_bin)
        farthest = np.where(pbc, np.floor(1.0 + reach) + bounds[:, :, 3] - bounds[:, :, 2], 0.0)
        rows = (2.0 * farthest + 1.0).prod(axis=1).sum()
        if not rows <= MAX_SHIFTS:
            raise NeighborError(
                f"atoms of a periodic structure must lie within a few hundred cells of each other, got {rows:.2g} "
                "cell shifts: wrap the positions or lower the cutoff"
            )
        shift_range = farthest.astype(np.int64)
        span = 2 * shift_range + 1
        self.stride = np.stack((span[:, 1] * span[:, 2], span[:, 2], np.ones_like(span[:, 2])), axis=1)
        first_shift = np.concatenate(([0], np.cumsum(span.prod(axis=1))))
        self.zero = first_shift[:-1] + (shift_range * self.stride).sum(axis=1)
        self.shifts = np.empty((first_shift[-1], 3), np.int32)
        self.shift_structure = np.empty(first_shift[-1], np.int32)
        neighbors_cpu.number_shifts(shift_range, first_shift, self.shifts, self.shift_structure)


def _choose_bins(extent: np.ndarray, reach: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    """(n_structures, 3) int64; never many more bins than atoms, however much of the space is empty."""
    n_bins = np.clip(np.floor(extent * SLICES / reach), 1, 1e6).astype(np.int64)
    while (crowded := n_bins.prod(axis=1) > 2 * n_atoms + 8).any():
        rows = np.flatnonzero(crowded)
        longest = n_bins[rows].argmax(axis=1)
        n_bins[rows, longest] = (n_bins[rows, longest] + 1) // 2
    return n_bins


class DeviceNeighborList:
    """Pairs of a batch on the device.

    Parameters
    ----------
    device : where everything lives.
    cutoff, skin : A; as in `gmcore.engine.neighbors.NeighborList`.

    Attributes
    ----------
    n_pairs : int, pairs of the present list.
    n_builds : how often it was built.
    generation : changes whenever an array has got another address, so that recorded graphs are void.
    moved : device, (1,) int32; not zero where `check_movers`, or another kernel, found that the list may not serve.
    shifts, shift_structure : host, as in `gmcore.engine.neighbors.Pairs`.
    """

    def __init__(self, device: Device, cutoff: float, skin: float = 0.0):
        check_cutoff(float(cutoff))
        if not (math.isfinite(skin) and skin >= 0.0):
            raise NeighborError(f"the skin must be finite and not negative, got {skin} A")
        self.device, self.cutoff, self.skin = device, float(cutoff), float(skin)
        self.n_pairs = self.n_builds = self.generation = 0
        self._buffers: dict[str, Array] = {}
        self._nearest = math.inf
        self._built: Batch | None = None
        self.moved = device.zeros(1, np.int32)

    # reuse -----------------------------------------------------------------------------------------------------------

    def update(self, batch: DeviceBatch) -> Geometry:
        """Pairs of `batch` as it is now, complete within the cutoff; the list of the last call where it still serves.

        Raises
        ------
        NeighborError for coincident atoms, StructureError for positions that are not finite.
        """
        if not self.prepare(batch):
            self.build(batch)
        else:
            self.check_movers(batch)
            if self.has_moved():
                self.build(batch)
        return self.geometry(batch)

    def prepare(self, batch: DeviceBatch) -> bool:
        """Whether the list belongs to this batch and may serve its present cells; `check_movers` then tells."""
        if self._built is None:
            return False
        old = self._built
        host = batch.host
        if not (np.array_equal(host.offsets, old.offsets) and np.array_equal(host.pbc, old.pbc)):
            return False
        deformation, shrink = np.broadcast_to(np.eye(3), host.cells.shape), np.ones(host.n_structures)
        if not np.array_equal(host.lattice, old.lattice):
            deformation = old.inverse_lattice @ host.lattice
            shrink = np.linalg.svd(deformation, compute_uv=False)[:, -1]
            self._write("displacement", self._displacements(host))
        radius = self.cutoff + self.skin
        way = np.minimum(shrink * radius - self.cutoff, shrink * self._nearest - COINCIDENT) / 2
        way -= ROUNDING * radius * (self.skin > 0.0)
        if not (way >= 0.0).all():
            return False
        self._write("deformation", deformation)
        self._write("limit2", way * way)
        return True

    def check_movers(self, batch: DeviceBatch) -> None:
        """Launch the test whether the list still serves; `has_moved` waits for its answer. Can be captured."""
        buffers = self._buffers
        self.device.launch(
            kernels.find_movers, batch.n_atoms, batch.positions, buffers["reference"], batch.structure,
            buffers["deformation"], buffers["limit2"], self.moved,
        )  # fmt: skip

    def has_moved(self) -> bool:
        """Whether an atom had moved too far in any `check_movers` since the last call."""
        moved = bool(self.device.download(self.moved)[0])
        if moved:
            with self.device.active():
                self.moved.fill(0)
        return moved

    def geometry(self, batch: DeviceBatch) -> Geometry:
        """What the stages need; arrays may be longer than the list."""
        b = self._buffers
        return Geometry(
            batch.species, batch.structure, b["row_start"], b["neighbor"], b["shift"], b["displacement"],
            b["reverse"], batch.n_structures,
        )  # fmt: skip

    # building --------------------------------------------------------------------------------------------------------

    def build(self, batch: DeviceBatch) -> None:
        """Search all pairs afresh."""
        self._built = None  # a refused batch must not leave the list of an older one behind
        device, host, n_atoms = self.device, batch.host, batch.n_atoms
        with device.active():
            cells = Cells(*map(device.upload, (host.lattice, host.inverse_lattice, host.pbc)))
            atoms, bounds = self._wrap(batch, cells)
            plan = _Plan(host, bounds, self.cutoff + self.skin)
            self.shifts, self.shift_structure = plan.shifts, plan.shift_structure
            grid = Grid(*map(device.upload, plan.grid))
            key, code, center_code = (device.empty(n_atoms, np.int64) for _ in range(3))
            numbers = ShiftNumbers(device.upload(plan.stride), device.upload(plan.zero), code, center_code)
            device.launch(kernels.bin_atoms, n_atoms, atoms, grid, numbers, key)
            order = device.stable_argsort(key)
            bins = device.xp.arange(int(plan.grid.first_bin[-1]) + 1)
            binned = BinnedAtoms(device.xp.searchsorted(key[order], bins), order, atoms.positions[order])
            search = binned, atoms, cells, grid
            self._count(batch, search)
            while not self._fill(n_atoms, search, numbers):
                self._reserve("neighbor", int(SPARE_PAIRS * self.n_pairs) + TILE, np.int32)
                self._reserve("shift", int(SPARE_PAIRS * self.n_pairs) + TILE, np.int32)
            self._write("displacement", self._displacements(host))
            self._reserve("reverse", len(self._buffers["neighbor"]), np.int32)
            find_reverse(device, self.geometry(batch))
            self._reserve("reference", (n_atoms, 3), np.float64)
            self._buffers["reference"][...] = batch.positions
            self.moved.fill(0)
        self._built = host
        self.prepare(batch)
        self.n_builds += 1

    def _wrap(self, batch: DeviceBatch, cells: Cells) -> tuple[WrappedAtoms, np.ndarray]:
        """Wrapped atoms, and the bounds of each structure on the host."""
        device, host, n = self.device, batch.host, batch.n_atoms
        wrapped, fractional = device.empty((n, 3), np.float64), device.empty((n, 3), np.float64)
        atoms = WrappedAtoms(batch.structure, wrapped, fractional, device.empty((n, 3), np.int64))
        bad = device.zeros(1, np.int32)
        device.launch(kernels.wrap_atoms, n, batch.positions, cells, atoms, bad)
        n_tiles = -(-np.diff(host.offsets) // TILE)
        first_tile = np.concatenate(([0], np.cumsum(n_tiles)))
        structure = np.repeat(np.arange(host.n_structures), n_tiles)
        first = host.offsets[structure] + TILE * (np.arange(len(structure)) - first_tile[structure])
        last = np.minimum(first + TILE, host.offsets[structure + 1])
        bounds = device.empty((len(first), 3, 4), np.float64)
        device.launch(kernels.tile_bounds, len(first), device.upload(first), device.upload(last), atoms, bounds)
        tiles = device.download(bounds)
        if device.download(bad)[0]:
            self._refuse_positions(batch)
        result = np.zeros((host.n_structures, 3, 4))
        filled = n_tiles > 0
        if filled.any():
            starts = first_tile[:-1][filled]
            result[filled, :, 0::2] = np.minimum.reduceat(tiles[:, :, 0::2], starts, axis=0)
            result[filled, :, 1::2] = np.maximum.reduceat(tiles[:, :, 1::2], starts, axis=0)
        return atoms, result

    def _count(self, batch: DeviceBatch, search: tuple) -> None:
        """Fill row_start, n_pairs and the smallest distance."""
        device, n = self.device, batch.n_atoms
        count, nearest2 = device.empty(n, np.int64), device.empty(n, np.float64)
        device.launch(kernels.count_rows, n, *search, (self.cutoff + self.skin) ** 2, count, nearest2)
        self._reserve("row_start", n + 1, np.int64)
        row_start = self._buffers["row_start"]
        row_start[:1] = 0
        device.xp.cumsum(count, out=row_start[1:])
        self.n_pairs = int(device.download(row_start[-1:])[0])
        wanted, budget = list_bytes(0, self.n_pairs), device.budget()
        if wanted > budget:
            raise DeviceMemoryError(wanted, budget)
        self._nearest = math.sqrt(float(nearest2.min())) if n else math.inf
        if self._nearest < COINCIDENT:
            self._refuse_coincident(batch)

    def _fill(self, n_atoms: int, search: tuple, numbers: ShiftNumbers) -> bool:
        """Write the pairs; whether there was room for all of them."""
        device, buffers = self.device, self._buffers
        for name in ("neighbor", "shift"):
            if name not in buffers:
                self._reserve(name, int(SPARE_PAIRS * self.n_pairs) + TILE, np.int32)
        overflow = device.zeros(1, np.int32)
        device.launch(
            kernels.fill_rows, n_atoms, *search, numbers, (self.cutoff + self.skin) ** 2,
            buffers["row_start"], buffers["neighbor"], buffers["shift"], overflow,
        )  # fmt: skip
        return not device.download(overflow)[0]

    def _reserve(self, name: str, shape: int | tuple[int, ...], dtype: type) -> None:
        """An array of this shape, the one that is there if it has it. Another address voids recorded graphs."""
        shape = (shape,) if isinstance(shape, int) else shape
        old = self._buffers.get(name)
        if old is None or old.shape != shape:
            self._buffers[name] = self.device.empty(shape, dtype)
            self.generation += 1

    def _write(self, name: str, values: np.ndarray) -> None:
        """Copy host values into the array of this name; one with more rows than needed is kept."""
        old = self._buffers.get(name)
        if old is None or len(old) < len(values):
            self._reserve(name, (int(SPARE_PAIRS * len(values)) + 1, *values.shape[1:]), np.float64)
        with self.device.active():
            self._buffers[name][: len(values)] = self.device.upload(values, np.float64)

    def _displacements(self, host: Batch) -> np.ndarray:
        return np.einsum("sa,sab->sb", self.shifts, host.cells[self.shift_structure])

    # refusals --------------------------------------------------------------------------------------------------------

    def _on_host(self, batch: DeviceBatch) -> Batch:
        host = batch.host
        return Batch(self.device.download(batch.positions), host.numbers, host.cells, host.pbc, host.offsets)

    def _refuse_positions(self, batch: DeviceBatch) -> None:
        self._on_host(batch)  # says which atom it is
        raise StructureError(f"positions must be finite and below {kernels.MAX_COORDINATE:g} A")

    def _refuse_coincident(self, batch: DeviceBatch) -> None:
        build_pairs(self._on_host(batch), self.cutoff)  # says which atoms they are
        raise NeighborError(f"atoms must lie at least {COINCIDENT:g} A apart, got {self._nearest:.2g} A")
