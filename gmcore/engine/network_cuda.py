"""The networks of all committee members on the device, up and down by hand; each layer is one batched product.

Between the products stand fused loops: bias, activation and its derivative in one, and all that lies above the last
hidden layer, upward and downward, in another. A network of two hidden layers takes seven launches for energy and
forces, whatever the number of members.

Arrays are stacks over the members, C-contiguous: (n_members, n_atoms, n_columns). The formulas are those of
`gmcore.engine.network`, the folded weights those of `gmcore.engine.folding`. float32 products are full float32; TF32
(10 bits of mantissa, relative errors near 1e-3) only when asked for by name.

Not supported: members whose layers differ in size, derivatives in the weights, second derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gmcore.device.cuda import Array, Device
from gmcore.engine.folding import fold
from gmcore.engine.settings import Member
from gmcore.errors import GMError
from gmcore.kernels import network_cuda as kernels

MATMUL = ("float32", "tf32")


def check_matmul(matmul: str) -> str:
    """The precision of float32 matrix products, by name."""
    if matmul not in MATMUL:
        raise GMError(f"matmul must be one of {', '.join(MATMUL)}, got {matmul!r}")
    return matmul


class OutputTables(NamedTuple):
    """What follows the last layer, (n_members, n_species, n_outputs): outputs are scale y + shift.

    energy_scale is dE/dy, 0 for outputs of other heads.
    """

    scale: np.ndarray
    shift: np.ndarray
    energy_scale: np.ndarray


class DeviceNetworks:
    """The networks of members whose layers have the same sizes; each layer is one batched product.

    Parameters
    ----------
    members : all with the same sizes of layers, at least one of them hidden.
    tables : scales and shifts of their outputs.
    matmul : "float32" or "tf32".

    Attributes
    ----------
    layer_sizes : columns from features to outputs.
    mean : device, (n_members, n_features), what is subtracted from the features.
    """

    def __init__(
        self,
        device: Device,
        members: Sequence[Member],
        tables: OutputTables,
        dtype: np.dtype,
        matmul: str = "float32",
    ):
        self.device, self.dtype, self.n_members = device, np.dtype(dtype), len(members)
        self._tf32 = check_matmul(matmul) == "tf32"
        folded = [fold(member) for member in members]
        self.layer_sizes = folded[0].layer_sizes
        if len(self.layer_sizes) < 3:
            raise GMError(f"a network on the GPU must have a hidden layer, got sizes {self.layer_sizes}")
        if self.layer_sizes[-2] > (most := kernels.max_width(self.dtype.itemsize)):
            raise GMError(
                f"the last hidden layer must have at most {most} columns on the GPU, "
                f"got {self.layer_sizes[-2]}: use the CPU"
            )
        weights, biases = zip(*(network.weights for network in folded)), zip(*(network.biases for network in folded))
        self._weights = [device.upload(np.stack(layer), self.dtype) for layer in weights]
        self._biases = [device.upload(np.stack(layer), self.dtype) for layer in biases]
        self.mean = device.upload(np.stack([network.mean for network in folded]), self.dtype)
        self._scale, self._shift = device.upload(tables.scale), device.upload(tables.shift)
        self._energy_scale = device.upload(tables.energy_scale, self.dtype)

    def workspace(self, rows: int) -> Workspace:
        """Arrays for up to `rows` atoms at a time."""
        return Workspace(self.device, self.n_members, rows, self.layer_sizes, self.dtype)

    def forward(self, work: Workspace, species: Array, first: int, outputs: Array, want_backward: bool) -> None:
        """Outputs of the atoms whose centered features are in `work.features`.

        Parameters
        ----------
        species : (n_all_atoms,) int32.
        first : number of the atom in row 0 of the features.
        outputs : (n_members, n_all_atoms, n_outputs) float64, after scale and shift; written for these atoms.
        want_backward : whether `backward` follows.
        """
        h = work.features
        for z, slope, weight, bias in zip(work.hidden, work.slopes, self._weights, self._biases):
            self._product(h, weight, z)
            self.device.launch(kernels.activate, kernels.n_threads(z.shape), z, bias, slope)
            h = z
        z, (*_, weight, last_weight), (*_, bias, last_bias) = work.hidden[-1], self._weights, self._biases
        self._product(h, weight, z)
        lanes, rows = kernels.output_block(z.shape[2])
        lanes, rows = self.device.lanes(lanes), min(rows, 2) if self.device.simulated else rows
        self.device.launch_blocks(
            kernels.output_layer, (-(-z.shape[1] // rows), self.n_members), (lanes, rows),
            z, bias, last_weight, last_bias, species, self._scale, self._shift, self._energy_scale, first,
            want_backward, outputs, shared=rows * (z.shape[2] + lanes) * self.dtype.itemsize,
        )  # fmt: skip

    def backward(self, work: Workspace) -> Array:
        """Cotangent of the features of the last `forward`, in `work.features`."""
        g = work.hidden[-1]
        for slope, g_h, weight in zip(work.slopes[::-1], work.hidden[-2::-1], self._weights[-2:0:-1]):
            self._product(g, weight, g_h, transpose_b=True)
            self.device.launch(kernels.multiply, kernels.n_threads(slope.shape), slope, g_h)
            g = g_h
        self._product(g, self._weights[0], work.features, transpose_b=True)
        return work.features

    def _product(self, a: Array, b: Array, out: Array, transpose_b: bool = False) -> None:
        self.device.matmul(a, b, out, transpose_b=transpose_b, tf32=self._tf32)


class Workspace:
    """Features, hidden layers and slopes, for a number of rows chosen later.

    `take(n_rows)` lays the stacks out anew in the same memory, each C-contiguous.

    Attributes
    ----------
    rows : atoms that there is room for.
    features : (n_members, n_rows, n_features).
    hidden : list of (n_members, n_rows, n_columns), one per hidden layer.
    slopes : the same for all hidden layers but the last.
    """

    def __init__(self, device: Device, n_members: int, rows: int, layer_sizes: Sequence[int], dtype: np.dtype):
        self.rows, self._n_members, self._columns = rows, n_members, workspace_columns(layer_sizes)
        self._flat = [device.empty(n_members * rows * columns, dtype) for columns in self._columns]
        self.take(rows)

    def take(self, n_rows: int) -> Workspace:
        """Stacks of `n_rows` rows, at most `rows`."""
        n = self._n_members
        stacks = [flat[: n * n_rows * c].reshape(n, n_rows, c) for flat, c in zip(self._flat, self._columns)]
        self.features, *hidden = stacks
        self.hidden, self.slopes = hidden[::2], hidden[1::2]
        return self


def workspace_columns(layer_sizes: Sequence[int]) -> list[int]:
    """Columns of every stack of a workspace: features, each hidden layer, and the slopes of all but the last."""
    hidden = [size for size in layer_sizes[1:-1] for _ in range(2)]
    return [layer_sizes[0], *hidden[:-1]]
