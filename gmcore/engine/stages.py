"""The two differentiable stages.

    moments:       positions, strain, beta -> M (n_atoms, n_radial, 16)
    contractions:  M -> G (n_atoms, n_features)

Each stage has `forward`, `backward` and `double_backward` (see the derivative contract in docs/derivatives.md). The
classes here allocate, check and choose the thread layout; the loops are in `gmcore.kernels`.

Per channel M holds the 16 independent components 1; x y z; xx xy xz yy yz; xxx xxy xxz xyy xyz yyy yyz of
sum_j R_s(rho) u^(x)L; because |u| = 1 the others follow (zz = 1 - xx - yy, ...). Derivatives "with respect to M" are
derivatives with respect to these sixteen numbers.

Formulas: docs/method.md, sections 1, 2, 3, 6 and 7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from gmcore.engine.neighbors import Pairs
from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.kernels import contractions_cpu, moments_cpu
from gmcore.kernels.arguments import Blocks, Geometry, RadialBasis
from gmcore.threads import one_at_a_time

DTYPES = ("float32", "float64")
NO_REVERSE = np.empty(0, np.int32)
"""`Geometry.reverse` where nothing reads it."""


def make_geometry(batch: Batch, species: np.ndarray, pairs: Pairs) -> Geometry:
    """Group what the stages need but do not differentiate; `species` (n_atoms,) int32 are indices, not numbers.

    Pairs with rows for the first n_centers atoms only make the others neighbors without an environment of their own:
    moments are those of the centers then, gradients in positions those of all atoms.
    """
    return Geometry(
        np.ascontiguousarray(species, np.int32),
        np.ascontiguousarray(batch.structure, np.int32),
        pairs.row_start,
        pairs.neighbor,
        pairs.shift,
        pairs.displacements(batch.cells),
        NO_REVERSE,
        batch.n_structures,
    )


def check_dtype(dtype: str) -> np.dtype:
    """The NumPy type of a working precision; anything but float32 and float64 is refused."""
    name = np.dtype(dtype).name
    if name not in DTYPES:
        raise GMError(f"dtype must be one of {', '.join(DTYPES)}, got {name}")
    return np.dtype(name)


class PackedBeta(NamedTuple):
    """beta as the kernels read it, from `Moments.pack`: the channels of one Gaussian side by side, padded with zeros.

    values (n_species, n_species, n_basis, 8) in working type.
    """

    values: np.ndarray


class Moments:
    """Stage "moments" (docs/method.md, sections 1, 2, 6.3, 7.3 and 7.4).

    Parameters
    ----------
    settings : cutoff, basis sizes and species of the descriptor.
    dtype : working type of M and beta; positions and their gradients are always float64.
    """

    def __init__(self, settings: DescriptorSettings, dtype: str = "float32"):
        if not 0.0 <= settings.r_min < settings.r_max:
            raise GMError(f"r_min must lie between 0 and r_max, got r_min={settings.r_min}, r_max={settings.r_max}")
        if settings.n_basis < 1:
            raise GMError(f"n_basis must be at least 1, got {settings.n_basis}")
        if not 1 <= settings.n_radial <= moments_cpu.MAX_RADIAL:
            raise GMError(f"n_radial must be between 1 and {moments_cpu.MAX_RADIAL}, got {settings.n_radial}")
        self.settings = settings
        self.dtype = check_dtype(dtype)
        n, r_max = settings.n_basis, settings.r_max
        gamma = n**2 / r_max**2
        height = (2 * gamma / math.pi) ** 0.25 / math.sqrt(n)
        centers = settings.r_min + np.arange(n) * (r_max - settings.r_min) / n
        self.radial = RadialBasis(np.array([r_max, gamma, height], self.dtype), centers.astype(self.dtype))
        self._scratch: Blocks | None = None

    @property
    def beta_shape(self) -> tuple[int, int, int, int]:
        """(n_species, n_species, n_radial, n_basis)."""
        n = len(self.settings.species)
        return (n, n, self.settings.n_radial, self.settings.n_basis)

    @property
    def _packed_shape(self) -> tuple[int, int, int, int]:
        n = len(self.settings.species)
        return (n, n, self.settings.n_basis, moments_cpu.MAX_RADIAL)

    def pack(self, beta: np.ndarray) -> PackedBeta:
        """beta (n_species, n_species, n_radial, n_basis) for many calls; a call that is given an array packs it."""
        if np.shape(beta) != self.beta_shape:
            raise GMError(f"beta must have shape {self.beta_shape}, got {np.shape(beta)}")
        values = np.zeros(self._packed_shape, self.dtype)
        values[..., : self.settings.n_radial] = np.swapaxes(beta, 2, 3)
        return PackedBeta(values)

    def forward(self, geometry: Geometry, positions: np.ndarray, beta: np.ndarray | PackedBeta) -> np.ndarray:
        """M (n_centers, n_radial, 16)."""
        positions, packed = self._inputs(geometry, positions, beta)
        moments = np.empty((len(geometry.row_start) - 1, self.settings.n_radial, moments_cpu.N_COMPONENTS), self.dtype)
        with one_at_a_time:
            moments_cpu.forward(geometry, positions, self.radial, packed, self._blocks(geometry), moments)
        return moments

    def backward(self, geometry, positions, beta, g_moments, *, want_positions=True, want_beta=True):
        """J^T g_moments.

        Returns
        -------
        g_positions (n_atoms, 3) and g_strain (n_structures, 3, 3), float64, and g_beta with the shape of beta; None
        for what is not wanted.
        """
        positions, packed = self._inputs(geometry, positions, beta)
        g_moments = self._cotangent(g_moments, len(geometry.row_start) - 1)
        sums = self._partial_sums(geometry, packed, want_positions, want_beta)
        with one_at_a_time:
            moments_cpu.backward(
                geometry, positions, self.radial, packed, self._blocks(geometry), g_moments,
                (want_positions, want_beta), *sums,
            )  # fmt: skip
        return self._totals(*sums, want_positions, want_beta)

    def double_backward(
        self, geometry, positions, beta, g_moments, gg_positions, gg_strain, *, want_positions=True, want_beta=True
    ):
        """Derivatives of <g_positions, gg_positions> + <g_strain, gg_strain> at zero strain.

        Returns
        -------
        gg_moments (as M), h_positions, h_strain, h_beta; None for what is not wanted.
        """
        positions, packed = self._inputs(geometry, positions, beta)
        g_moments = self._cotangent(g_moments, len(geometry.row_start) - 1)
        gg_positions = np.ascontiguousarray(gg_positions, np.float64)
        gg_strain = np.ascontiguousarray(gg_strain, np.float64)
        gg_moments = np.empty_like(g_moments)
        sums = self._partial_sums(geometry, packed, want_positions, want_beta)
        with one_at_a_time:
            moments_cpu.double_backward(
                geometry, positions, self.radial, packed, self._blocks(geometry), g_moments, gg_positions, gg_strain,
                (want_positions, want_beta), gg_moments, *sums,
            )  # fmt: skip
        return gg_moments, *self._totals(*sums, want_positions, want_beta)

    def _inputs(self, geometry, positions, beta):
        positions = np.ascontiguousarray(positions, np.float64)
        n_atoms = len(geometry.species)
        if positions.shape != (n_atoms, 3):
            raise GMError(f"positions must have shape ({n_atoms}, 3), got {positions.shape}")
        packed = (beta if isinstance(beta, PackedBeta) else self.pack(beta)).values
        if packed.shape != self._packed_shape or packed.dtype != self.dtype:
            expected = f"shape {self._packed_shape} and type {self.dtype}"
            raise GMError(f"a packed beta must have {expected}, got {packed.shape} and {packed.dtype}")
        return positions, packed

    def _cotangent(self, g_moments, n_centers: int) -> np.ndarray:
        expected = (n_centers, self.settings.n_radial, moments_cpu.N_COMPONENTS)
        if np.shape(g_moments) != expected:
            raise GMError(f"g_moments must have shape {expected}, got {np.shape(g_moments)}")
        return np.ascontiguousarray(g_moments, self.dtype)

    def _blocks(self, geometry: Geometry) -> Blocks:
        """One block of centers per thread, with about the same number of pairs; scratch is kept between calls."""
        n_blocks, lanes = numba.get_num_threads(), moments_cpu.LANES
        bounds = np.empty(n_blocks + 1, np.int64)
        longest = moments_cpu.share(geometry.row_start, bounds)
        capacity = max(lanes, -(-longest // lanes) * lanes)
        scratch = self._scratch
        if scratch is None or scratch.reals.shape[0] < n_blocks or scratch.reals.shape[2] < capacity:
            reals = np.zeros((n_blocks, moments_cpu.n_scratch_rows(self.settings.n_basis), capacity), self.dtype)
            scratch = Blocks(np.empty(0, np.int64), reals, np.zeros((n_blocks, 2, capacity), np.int32))
            self._scratch = scratch
        return Blocks(bounds, scratch.reals, scratch.integers)

    def _partial_sums(
        self, geometry: Geometry, packed: np.ndarray, want_positions: bool, want_beta: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Zeros for the gradients in positions, strain and beta of every block; next to nothing where not wanted."""
        n_blocks, n_atoms = numba.get_num_threads(), len(geometry.species)
        return (
            np.zeros((n_blocks, n_atoms if want_positions else 0, 3)),
            np.zeros((n_blocks, geometry.n_structures, 3, 3)),
            np.zeros((n_blocks, *packed.shape) if want_beta else (1, 1, 1, 1, 1), self.dtype),
        )

    def _totals(self, positions, strain, beta, want_positions: bool, want_beta: bool):
        """Add the blocks up, always in the same order; None for what is not wanted."""
        sums = (positions.sum(0), strain.sum(0)) if want_positions else (None, None)
        if not want_beta:
            return *sums, None
        return *sums, np.ascontiguousarray(np.swapaxes(beta.sum(0), 2, 3)[:, :, : self.settings.n_radial])


class Contractions:
    """Stage "contractions" (docs/method.md, sections 3, 6.2 and 7.2): the invariants of the moments of each atom.

    Parameters
    ----------
    n_radial : number of radial channels.
    dtype : working type.
    """

    def __init__(self, n_radial: int, dtype: str = "float32"):
        self.n_radial = n_radial
        self.n_features = contractions_cpu.n_features(n_radial)
        self.dtype = check_dtype(dtype)
        self._scratch = np.zeros((0, contractions_cpu.n_scratch(n_radial)), self.dtype)

    def forward(self, moments: np.ndarray) -> np.ndarray:
        """G (n_atoms, n_features) of M (n_atoms, n_radial, 16)."""
        (moments,) = self._inputs(moments)
        features = np.empty((len(moments), self.n_features), self.dtype)
        with one_at_a_time:
            contractions_cpu.forward(moments, self._blocks(), features)
        return features

    def backward(self, moments: np.ndarray, g_features: np.ndarray) -> np.ndarray:
        """J^T g_features, shaped as M."""
        moments, g_features = self._inputs(moments, g_features)
        g_moments = np.empty_like(moments)
        with one_at_a_time:
            contractions_cpu.backward(moments, g_features, self._blocks(), g_moments)
        return g_moments

    def double_backward(self, moments, g_features, gg_moments) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of <g_moments, gg_moments>: gg_features (as G) and h_moments (as M)."""
        moments, g_features, gg_moments = self._inputs(moments, g_features, gg_moments)
        gg_features, h_moments = np.empty_like(g_features), np.empty_like(moments)
        with one_at_a_time:
            contractions_cpu.double_backward(moments, g_features, gg_moments, self._blocks(), gg_features, h_moments)
        return gg_features, h_moments

    def _inputs(self, moments, g_features=None, gg_moments=None):
        shape = (len(moments), self.n_radial, moments_cpu.N_COMPONENTS)
        checked = []
        for name, array, expected in (
            ("moments", moments, shape),
            ("g_features", g_features, (shape[0], self.n_features)),
            ("gg_moments", gg_moments, shape),
        ):
            if array is None:
                continue
            if np.shape(array) != expected:
                raise GMError(f"{name} must have shape {expected}, got {np.shape(array)}")
            checked.append(np.ascontiguousarray(array, self.dtype))
        return checked

    def _blocks(self) -> np.ndarray:
        n_blocks = numba.get_num_threads()
        if len(self._scratch) < n_blocks:
            self._scratch = np.zeros((n_blocks, self._scratch.shape[1]), self.dtype)
        return self._scratch[:n_blocks]
