"""The two differentiable stages on the GPU: the twins of `gmcore.engine.stages`, with arrays that live on the device.

`DeviceMoments` and `DeviceContractions` have the methods, arguments and results of `Moments` and `Contractions`. They
differ in three things: all members of a committee can be computed by one launch, into arrays that are there already
(`..._stack`); scratch is kept between calls, so that a second call of the same size allocates nothing and can be
recorded as a graph; and a gradient in positions reads `Geometry.reverse`, which `find_reverse` fills once per neighbor
list. A geometry without it, such as training makes for every batch, gets it when such a gradient is asked for.

Inputs are not copied and hardly checked: shapes and types are those of arrays that this package made. All arrays are
C-contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.stages import Contractions, Moments, PackedBeta
from gmcore.kernels import contractions_cuda, moments_cuda, pair_sums_cuda
from gmcore.kernels.arguments import Geometry, RadialBasis

MAX_BETA_BLOCKS = 512  # partial sums of a gradient in beta; enough to fill a large card
ATOMS_PER_PART = 1024  # atoms that one block sums up for a strain derivative
MAX_PARTS = 256
TOGETHER = 32768  # atoms, those of all members counted: smaller systems wait for launches, larger ones for memory


class Scratch(NamedTuple):
    """Partial sums of the members of a committee that are computed together, the first axis of every array.

    pairs (n, n_pairs, 3), centers (n, n_atoms, 3, 3), parts (n, n_structures, n_parts, 9) float64.
    """

    pairs: Array
    centers: Array
    parts: Array


def find_reverse(device: Device, geometry: Geometry) -> Geometry:
    """The geometry with `reverse` filled: once per neighbor list. An array that is there and fits is written to."""
    if len(geometry.reverse) != len(geometry.neighbor):
        geometry = geometry._replace(reverse=device.empty(len(geometry.neighbor), np.int32))
    device.launch_blocks(pair_sums_cuda.find_reverse, len(geometry.species), moments_cuda.LANES, geometry)
    return geometry


def members_together(n_members: int, n_atoms: int) -> int:
    """How many members of a committee have their gradients computed at a time: all of a small system, else one."""
    return n_members if n_members * n_atoms <= TOGETHER else 1


class DeviceMoments:
    """Stage "moments" on the device.

    Parameters
    ----------
    device : see `gmcore.device.cuda.open_device`.
    settings : cutoff, basis sizes and species of the descriptor.
    dtype : working type of M and beta; positions and their gradients are always float64.

    Attributes
    ----------
    warps : of a block in `forward`; one in the simulator, to save threads.
    """

    def __init__(self, device: Device, settings: DescriptorSettings, dtype: str = "float32"):
        host = Moments(settings, dtype)  # checks the settings
        self.device, self.settings, self.dtype, self.beta_shape = device, settings, host.dtype, host.beta_shape
        self.warps = 1 if device.simulated else moments_cuda.MAX_WARPS
        self.radial = RadialBasis(device.upload(host.radial.scalars), device.upload(host.radial.centers))
        n_species, _, _, n_basis = self.beta_shape
        self._packed_shape = (n_species, n_species, n_basis, moments_cuda.MAX_RADIAL)
        self._packed = PackedBeta(device.empty((1, *self._packed_shape), self.dtype))
        self._no_vectors = device.empty((1, 1, 3), self.dtype)
        self._no_strain = device.empty((1, 1, 3, 3), self.dtype)
        self._no_beta = device.empty((1, 1, 1, 1, 1), self.dtype)
        self._scratch: Scratch | None = None
        self._beta_blocks = self._no_beta

    @property
    def row_shape(self) -> tuple[int, int]:
        """(n_radial, 16), shape of the moments of one atom."""
        return self.settings.n_radial, moments_cuda.N_COMPONENTS

    def scratch_bytes(self, n_pairs: int, n_atoms: int, n_members: int = 1) -> int:
        """Memory that gradients in positions take for partial sums."""
        return members_together(n_members, n_atoms) * self.dtype.itemsize * (3 * n_pairs + 9 * n_atoms)

    def pack(self, beta: Array, *, out: PackedBeta | None = None) -> PackedBeta:
        """beta (n_species, n_species, n_radial, n_basis) for many calls; a call that is given an array packs it."""
        return self.pack_stack([beta], out=out)

    def pack_stack(self, betas: Sequence[Array], *, out: PackedBeta | None = None) -> PackedBeta:
        """As `pack`, for all members: values (n_members, n_species, n_species, n_basis, 8)."""
        out = PackedBeta(self.device.empty((len(betas), *self._packed_shape), self.dtype)) if out is None else out
        for beta, values in zip(betas, out.values):
            self.device.launch(pair_sums_cuda.pack_beta, values.size, beta, values)
        return out

    def forward(self, geometry: Geometry, positions: Array, beta: Array | PackedBeta) -> Array:
        """M (n_centers, n_radial, 16)."""
        out = self.device.empty((1, len(geometry.row_start) - 1, *self.row_shape), self.dtype)
        self.forward_stack(geometry, positions, self._packed_beta(beta), out)
        return out[0]

    def forward_stack(self, geometry: Geometry, positions: Array, beta: PackedBeta, out: Array) -> None:
        """M of all members into out (n_members, n_centers, n_radial, 16); beta from `pack_stack`."""
        grid = len(geometry.row_start) - 1, len(out)
        arguments = geometry, positions, self.radial, beta.values, out
        self.device.launch_blocks(moments_cuda.forward, grid, (moments_cuda.LANES, self.warps), *arguments)

    def backward(
        self,
        geometry: Geometry,
        positions: Array,
        beta: Array | PackedBeta,
        g_moments: Array,
        *,
        want_positions: bool = True,
        want_beta: bool = True,
    ) -> tuple[Array | None, Array | None, Array | None]:
        """J^T g_moments.

        Returns
        -------
        g_positions, g_strain and g_beta with the shape of beta; None for what is not wanted.
        """
        scratch = self._partial_sums(geometry, want_positions)
        blocks = self._clear_beta(len(g_moments), want_beta)
        values = self._packed_beta(beta).values
        n_blocks = len(blocks) if want_beta else len(g_moments)
        self._launch_backward(n_blocks, geometry, positions, values, g_moments[None], scratch, blocks, want_beta)
        sums = self._sum_positions(geometry, scratch) if want_positions else (None, None)
        return *sums, self._sum_beta(blocks) if want_beta else None

    def backward_stack(
        self, geometry: Geometry, positions: Array, beta: PackedBeta, g_moments: Array, out: tuple[Array, Array]
    ) -> None:
        """Gradients of all members in positions and strain.

        Parameters
        ----------
        beta : from `pack_stack`.
        g_moments : (n_members, n_atoms, n_radial, 16).
        out : g_positions (n_members, n_atoms, 3) and g_strain (n_members, n_structures, 3, 3), float64, to write to.
        """
        for own, scratch in self._backward_groups(geometry, positions, beta, g_moments):
            self._launch_sums(geometry, scratch, (out[0][own], out[1][own]))

    def pair_gradients_stack(
        self, geometry: Geometry, positions: Array, beta: PackedBeta, g_moments: Array, out: Array
    ) -> None:
        """Add the derivatives in the vector of each pair, summed over the members, to out (n_pairs, 3) float64."""
        for own, scratch in self._backward_groups(geometry, positions, beta, g_moments):
            out += scratch.pairs[: len(g_moments[own])].sum(axis=0, dtype=np.float64)

    def _backward_groups(
        self, geometry: Geometry, positions: Array, beta: PackedBeta, g_moments: Array
    ) -> Iterator[tuple[slice, Scratch]]:
        """Launch the backward pass for groups of members; yield which ones, and their partial sums."""
        n_members, n_centers = g_moments.shape[:2]
        together = members_together(n_members, n_centers)
        scratch = self._partial_sums(geometry, True, together)
        for first in range(0, n_members, together):
            own = slice(first, first + together)
            arguments = geometry, positions, beta.values[own], g_moments[own], scratch
            self._launch_backward(n_centers, *arguments, self._no_beta, False)
            yield own, scratch

    def _launch_backward(
        self, n_blocks: int, geometry: Geometry, positions: Array, beta: Array, g_moments: Array, scratch: Scratch,
        blocks: Array, want_beta: bool,
    ) -> None:  # fmt: skip
        wanted = scratch.pairs is not self._no_vectors, want_beta
        self.device.launch_blocks(
            moments_cuda.backward, (n_blocks, len(g_moments)), moments_cuda.LANES,
            geometry, positions, self.radial, beta, g_moments, wanted, scratch.pairs, scratch.centers, blocks,
        )  # fmt: skip

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
        packed = self._packed_beta(beta).values[0]
        gg_moments = self.device.empty(g_moments.shape, self.dtype)
        n_blocks = len(blocks) if want_beta else len(g_moments)
        self.device.launch_blocks(
            moments_cuda.double_backward, n_blocks, moments_cuda.LANES,
            geometry, positions, self.radial, packed, g_moments, gg_positions, gg_strain,
            (want_positions, want_beta), gg_moments, scratch.pairs[0], scratch.centers[0], blocks,
        )  # fmt: skip
        sums = self._sum_positions(geometry, scratch) if want_positions else (None, None)
        return gg_moments, *sums, self._sum_beta(blocks) if want_beta else None

    def _packed_beta(self, beta: Array | PackedBeta) -> PackedBeta:
        """What the kernels read; an array is packed into room that is there already."""
        return beta if isinstance(beta, PackedBeta) else self.pack(beta, out=self._packed)

    def _partial_sums(self, geometry: Geometry, wanted: bool, n_members: int = 1) -> Scratch:
        if not wanted:
            return Scratch(self._no_vectors, self._no_strain, self._no_strain)
        n_pairs, n_atoms = len(geometry.neighbor), len(geometry.row_start) - 1
        n_parts = min(MAX_PARTS, -(-n_atoms // (ATOMS_PER_PART * max(geometry.n_structures, 1))) or 1)
        shapes = (
            (n_members, n_pairs, 3), (n_members, n_atoms, 3, 3), (n_members, geometry.n_structures, n_parts, 9)
        )  # fmt: skip
        old = self._scratch
        # groups of a committee that differ in size share the arrays: once there, a step must not replace them
        if old is None or len(old.pairs) < n_members or any(a.shape[1:] != s[1:] for a, s in zip(old, shapes)):
            self._scratch = old = None  # frees the old arrays first
            dtypes = self.dtype, self.dtype, np.float64
            old = self._scratch = Scratch(*(self.device.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes)))
        return Scratch(*(array[:n_members] for array in old))

    def _clear_beta(self, n_atoms: int, wanted: bool) -> Array:
        if not wanted:
            return self._no_beta
        n_blocks = max(1, min(n_atoms, MAX_BETA_BLOCKS))
        if len(self._beta_blocks) != n_blocks or self._beta_blocks is self._no_beta:
            self._beta_blocks = self.device.empty((n_blocks, *self._packed_shape), self.dtype)
        with self.device.active():
            self._beta_blocks[...] = 0
        return self._beta_blocks

    def _sum_positions(self, geometry: Geometry, scratch: Scratch) -> tuple[Array, Array]:
        if not len(geometry.reverse):
            geometry = find_reverse(self.device, geometry)
        shapes = (1, len(geometry.species), 3), (1, geometry.n_structures, 3, 3)
        g_positions, g_strain = (self.device.empty(shape, np.float64) for shape in shapes)
        self._launch_sums(geometry, scratch, (g_positions, g_strain))
        return g_positions[0], g_strain[0]

    def _launch_sums(self, geometry: Geometry, scratch: Scratch, out: tuple[Array, Array]) -> None:
        """From partial sums to gradients of as many members as `out` has."""
        launch, (g_positions, g_strain) = self.device.launch_blocks, out
        grid, lanes = (len(geometry.species), len(g_positions)), moments_cuda.LANES
        launch(pair_sums_cuda.sum_positions, grid, lanes, geometry, scratch.pairs, g_positions)
        n_structures, n_parts = scratch.parts.shape[1:3]
        parts = scratch.parts if n_parts > 1 else g_strain.reshape(len(g_strain), n_structures, 1, 9)
        grid_of_parts, lanes = (n_structures, n_parts, len(g_strain)), self.device.lanes(pair_sums_cuda.MAX_LANES)
        launch(pair_sums_cuda.sum_strain_parts, grid_of_parts, lanes, geometry.structure, scratch.centers, parts)
        if n_parts > 1:
            flat = parts.reshape(-1, n_parts, 9), g_strain.reshape(-1, 3, 3)
            self.device.launch(pair_sums_cuda.sum_strain, g_strain.size, *flat)

    @property
    def scratch(self) -> object:
        """What gradients in positions write partial sums to; a graph that was recorded with it must keep it."""
        return self._scratch

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

    def forward(self, moments: Array) -> Array:
        """G (n_atoms, n_features) of M (n_atoms, n_radial, 16)."""
        out = self.device.empty((len(moments), self.n_features), self.dtype)
        self._launch(contractions_cuda.forward, 1, moments, out)
        return out

    def forward_stack(self, moments: Array, mean: Array, out: Array) -> None:
        """G - mean of all members into out (n_members, n_atoms, n_features); mean (n_members, n_features)."""
        for m, center, features in self._blocks(moments, mean[:, None], out):
            self._launch(contractions_cuda.forward_centered, 1, m, center.reshape(-1, self.n_features), features)

    def backward(self, moments: Array, g_features: Array) -> Array:
        """J^T g_features, shaped as M."""
        out = self.device.empty(moments.shape, self.dtype)
        self._launch(contractions_cuda.backward, 1, moments, g_features, out)
        return out

    def backward_stack(self, moments: Array, g_features: Array, out: Array) -> None:
        """J^T g_features of all members into out, shaped as moments (n_members, n_atoms, n_radial, 16)."""
        for m, g, g_moments in self._blocks(moments, g_features, out):
            self._launch(contractions_cuda.backward, 1, m, g, g_moments)

    def _blocks(self, *stacks: Array) -> Iterator[tuple[Array, ...]]:
        """The stacks as matrices that lie in one piece: all members at once, or one after another."""
        if all(stack.flags.c_contiguous for stack in stacks):
            yield tuple(stack.reshape(-1, *stack.shape[2:]) for stack in stacks)
        else:
            yield from zip(*stacks)

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
