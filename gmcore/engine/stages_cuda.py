"""The two differentiable stages on the GPU: the twins of `gmcore.engine.stages`, with arrays that live on the device.

`DeviceMoments` and `DeviceContractions` have the methods, arguments and results of `Moments` and `Contractions`. They
differ in three things: results can be written to arrays that are there already (`out`); scratch is kept between calls,
so that a second call of the same size allocates nothing and can be recorded as a graph; and a gradient in positions
reads `Geometry.reverse`, which `find_reverse` fills once per neighbor list. A geometry without it, such as training
makes for every batch, gets it when such a gradient is asked for.

Inputs are not copied and hardly checked: shapes and types are those of arrays that this package made. All arrays are
C-contiguous.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.stages import Contractions, Moments, PackedBeta
from gmcore.kernels import contractions_cuda, moments_cuda, pair_sums_cuda
from gmcore.kernels.arguments import Geometry, RadialBasis

MAX_BETA_BLOCKS = 512  # partial sums of a gradient in beta; enough to fill a large card
ATOMS_PER_PART = 4096  # atoms that one block sums up for a strain derivative
MAX_PARTS = 256


class Scratch(NamedTuple):
    """Partial sums: pairs (n_pairs, 3), centers (n_atoms, 3, 3), parts (n_structures, n_parts, 9) float64."""

    pairs: Array
    centers: Array
    parts: Array


def find_reverse(device: Device, geometry: Geometry) -> Geometry:
    """The geometry with `reverse` filled: once per neighbor list. An array that is there and fits is written to."""
    if len(geometry.reverse) != len(geometry.neighbor):
        geometry = geometry._replace(reverse=device.empty(len(geometry.neighbor), np.int32))
    device.launch_blocks(pair_sums_cuda.find_reverse, len(geometry.species), moments_cuda.LANES, geometry)
    return geometry


class DeviceMoments:
    """Stage "moments" on the device.

    Parameters
    ----------
    device : see `gmcore.device.cuda.open_device`.
    settings : cutoff, basis sizes and species of the descriptor.
    dtype : working type of M and beta; positions and their gradients are always float64.
    """

    def __init__(self, device: Device, settings: DescriptorSettings, dtype: str = "float32"):
        host = Moments(settings, dtype)  # checks the settings
        self.device, self.settings, self.dtype, self.beta_shape = device, settings, host.dtype, host.beta_shape
        self.radial = RadialBasis(device.upload(host.radial.scalars), device.upload(host.radial.centers))
        n_species, _, _, n_basis = self.beta_shape
        self._packed_shape = (n_species, n_species, n_basis, moments_cuda.MAX_RADIAL)
        self._packed = PackedBeta(device.empty(self._packed_shape, self.dtype))
        self._no_vectors = device.empty((1, 3), self.dtype)
        self._no_strain = device.empty((1, 3, 3), self.dtype)
        self._no_beta = device.empty((1, 1, 1, 1, 1), self.dtype)
        self._scratch: Scratch | None = None
        self._beta_blocks = self._no_beta

    @property
    def row_shape(self) -> tuple[int, int]:
        """(n_radial, 16), shape of the moments of one atom."""
        return self.settings.n_radial, moments_cuda.N_COMPONENTS

    def scratch_bytes(self, n_pairs: int, n_atoms: int) -> int:
        """Memory that gradients in positions take for partial sums."""
        return self.dtype.itemsize * (3 * n_pairs + 9 * n_atoms)

    def pack(self, beta: Array, *, out: PackedBeta | None = None) -> PackedBeta:
        """beta (n_species, n_species, n_radial, n_basis) for many calls; a call that is given an array packs it."""
        out = PackedBeta(self.device.empty(self._packed_shape, self.dtype)) if out is None else out
        self.device.launch(pair_sums_cuda.pack_beta, out.values.size, beta, out.values)
        return out

    def forward(
        self, geometry: Geometry, positions: Array, beta: Array | PackedBeta, *, out: Array | None = None
    ) -> Array:
        """M (n_atoms, n_radial, 16)."""
        n_atoms = len(geometry.species)
        out = self.device.empty((n_atoms, *self.row_shape), self.dtype) if out is None else out
        packed = self._values(beta)
        self.device.launch_blocks(
            moments_cuda.forward, n_atoms, moments_cuda.LANES, geometry, positions, self.radial, packed, out
        )
        return out

    def backward(
        self,
        geometry: Geometry,
        positions: Array,
        beta: Array | PackedBeta,
        g_moments: Array,
        *,
        want_positions: bool = True,
        want_beta: bool = True,
        out: tuple[Array, Array] | None = None,
    ) -> tuple[Array | None, Array | None, Array | None]:
        """J^T g_moments.

        Parameters
        ----------
        out : g_positions (n_atoms, 3) and g_strain (n_structures, 3, 3), float64, to write to.

        Returns
        -------
        g_positions, g_strain and g_beta with the shape of beta; None for what is not wanted.
        """
        scratch = self._partial_sums(geometry, want_positions)
        blocks = self._clear_beta(len(g_moments), want_beta)
        packed = self._values(beta)
        n_blocks = len(blocks) if want_beta else len(g_moments)
        self.device.launch_blocks(
            moments_cuda.backward, n_blocks, moments_cuda.LANES,
            geometry, positions, self.radial, packed, g_moments, (want_positions, want_beta),
            scratch.pairs, scratch.centers, blocks,
        )  # fmt: skip
        sums = None, None
        if want_positions:
            sums = self._sum_positions(geometry, scratch, out)
        return *sums, self._sum_beta(blocks) if want_beta else None

    def double_backward(
        self,
        geometry: Geometry,
        positions: Array,
        beta: Array | PackedBeta,
        g_moments: Array,
        gg_positions: Array,
        gg_strain: Array,
        *,
        want_positions: bool = True,
        want_beta: bool = True,
    ) -> tuple[Array, Array | None, Array | None, Array | None]:
        """Derivatives of <g_positions, gg_positions> + <g_strain, gg_strain> at zero strain.

        Returns
        -------
        gg_moments (as M), h_positions, h_strain, h_beta; None for what is not wanted.
        """
        scratch = self._partial_sums(geometry, want_positions)
        blocks = self._clear_beta(len(g_moments), want_beta)
        packed = self._values(beta)
        gg_moments = self.device.empty(g_moments.shape, self.dtype)
        n_blocks = len(blocks) if want_beta else len(g_moments)
        self.device.launch_blocks(
            moments_cuda.double_backward, n_blocks, moments_cuda.LANES,
            geometry, positions, self.radial, packed, g_moments, gg_positions, gg_strain,
            (want_positions, want_beta), gg_moments, scratch.pairs, scratch.centers, blocks,
        )  # fmt: skip
        sums = self._sum_positions(geometry, scratch, None) if want_positions else (None, None)
        return gg_moments, *sums, self._sum_beta(blocks) if want_beta else None

    def _values(self, beta: Array | PackedBeta) -> Array:
        """What the kernels read; an array is packed into room that is there already."""
        return (beta if isinstance(beta, PackedBeta) else self.pack(beta, out=self._packed)).values

    def _partial_sums(self, geometry: Geometry, wanted: bool) -> Scratch:
        if not wanted:
            return Scratch(self._no_vectors, self._no_strain, self._no_strain)
        n_pairs, n_atoms = len(geometry.neighbor), len(geometry.species)
        n_parts = min(MAX_PARTS, -(-n_atoms // (ATOMS_PER_PART * max(geometry.n_structures, 1))) or 1)
        shapes = (n_pairs, 3), (n_atoms, 3, 3), (geometry.n_structures, n_parts, 9)
        old = self._scratch
        if old is None or (old.pairs.shape, old.centers.shape, old.parts.shape) != shapes:
            self._scratch = old = None  # frees the old arrays first
            dtypes = self.dtype, self.dtype, np.float64
            old = self._scratch = Scratch(*(self.device.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes)))
        return old

    def _clear_beta(self, n_atoms: int, wanted: bool) -> Array:
        if not wanted:
            return self._no_beta
        n_blocks = max(1, min(n_atoms, MAX_BETA_BLOCKS))
        if len(self._beta_blocks) != n_blocks or self._beta_blocks is self._no_beta:
            self._beta_blocks = self.device.empty((n_blocks, *self._packed_shape), self.dtype)
        with self.device.active():
            self._beta_blocks[...] = 0
        return self._beta_blocks

    def _sum_positions(
        self, geometry: Geometry, scratch: Scratch, out: tuple[Array, Array] | None
    ) -> tuple[Array, Array]:
        launch, lanes = self.device.launch_blocks, moments_cuda.LANES
        n_atoms, n_structures = len(geometry.species), geometry.n_structures
        if not len(geometry.reverse):
            geometry = find_reverse(self.device, geometry)
        if out is None:
            shapes = (n_atoms, 3), (n_structures, 3, 3)
            out = tuple(self.device.empty(shape, np.float64) for shape in shapes)
        g_positions, g_strain = out
        launch(pair_sums_cuda.sum_positions, n_atoms, lanes, geometry, scratch.pairs, g_positions)
        grid = (n_structures, scratch.parts.shape[1])
        launch(pair_sums_cuda.sum_strain_parts, grid, lanes, geometry.structure, scratch.centers, scratch.parts)
        self.device.launch(pair_sums_cuda.sum_strain, 9 * n_structures, scratch.parts, g_strain)
        return g_positions, g_strain

    def _sum_beta(self, blocks: Array) -> Array:
        g_beta = self.device.empty(self.beta_shape, self.dtype)
        self.device.launch(pair_sums_cuda.sum_beta, g_beta.size, blocks, g_beta)
        return g_beta


class DeviceContractions:
    """Stage "contractions" on the device.

    Parameters
    ----------
    device : see `gmcore.device.cuda.open_device`.
    n_radial : number of radial channels.
    dtype : working type.
    """

    def __init__(self, device: Device, n_radial: int, dtype: str = "float32"):
        host = Contractions(n_radial, dtype)  # checks the type
        self.device, self.n_radial, self.n_features, self.dtype = device, n_radial, host.n_features, host.dtype

    def forward(self, moments: Array, *, out: Array | None = None) -> Array:
        """G (n_atoms, n_features) of M (n_atoms, n_radial, 16)."""
        out = self.device.empty((len(moments), self.n_features), self.dtype) if out is None else out
        self._launch(contractions_cuda.forward, 1, moments, out)
        return out

    def backward(self, moments: Array, g_features: Array, *, out: Array | None = None) -> Array:
        """J^T g_features, shaped as M."""
        out = self.device.empty(moments.shape, self.dtype) if out is None else out
        self._launch(contractions_cuda.backward, 1, moments, g_features, out)
        return out

    def double_backward(self, moments: Array, g_features: Array, gg_moments: Array) -> tuple[Array, Array]:
        """Derivatives of <g_moments, gg_moments>: gg_features (as G) and h_moments (as M)."""
        gg_features = self.device.empty(g_features.shape, self.dtype)
        h_moments = self.device.empty(moments.shape, self.dtype)
        self._launch(contractions_cuda.double_backward, 2, moments, g_features, gg_moments, gg_features, h_moments)
        return gg_features, h_moments

    def _launch(self, kernel: object, n_tiles: int, moments: Array, *arguments: Array) -> None:
        sizes = self.n_radial, self.n_features
        lanes = contractions_cuda.choose_lanes(*sizes, self.dtype.itemsize, n_tiles)
        shared = contractions_cuda.shared_bytes(*sizes, lanes, self.dtype.itemsize, n_tiles)
        n_blocks = -(-len(moments) // lanes)
        self.device.launch_blocks(kernel, n_blocks, (lanes, self.n_radial), moments, *arguments, shared=shared)
