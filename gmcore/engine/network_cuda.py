"""The networks of all committee members on the device, up and down by hand; each layer is one batched product.

Arrays are stacks over the members, C-contiguous: (n_members, n_atoms, n_columns). The formulas are those of
`gmcore.engine.network`, the folded weights those of `gmcore.engine.folding`. float32 products are full float32; TF32
(10 bits of mantissa, relative errors near 1e-3) only when asked for by name.

Not supported: members whose layers differ in size, derivatives in the weights, second derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


class DeviceNetworks:
    """The networks of members whose layers have the same sizes; each layer is one batched product.

    Parameters
    ----------
    members : all with the same sizes of layers.
    matmul : "float32" or "tf32".

    Attributes
    ----------
    layer_sizes : columns from features to outputs.
    """

    def __init__(self, device: Device, members: Sequence[Member], dtype: np.dtype, matmul: str = "float32"):
        self.device, self.dtype, self.n_members = device, np.dtype(dtype), len(members)
        self._tf32 = check_matmul(matmul) == "tf32"
        folded = [fold(member) for member in members]
        self.layer_sizes = folded[0].layer_sizes
        weights, biases = zip(*(network.weights for network in folded)), zip(*(network.biases for network in folded))
        self._weights = [device.upload(np.stack(layer), self.dtype) for layer in weights]
        self._biases = [device.upload(np.stack(layer), self.dtype) for layer in biases]
        self._mean = device.upload(np.stack([network.mean for network in folded]), self.dtype)
        self.output_bias = self._biases[-1]

    def workspace(self, rows: int) -> Workspace:
        """Arrays for up to `rows` atoms at a time."""
        return Workspace(self.device, self.n_members, rows, self.layer_sizes, self.dtype)

    def forward(self, work: Workspace) -> Array:
        """Outputs y before the last bias, (n_members, n_rows, n_outputs), of `work.features`, centered in place."""
        self._launch(kernels.subtract, work.features, self._mean)
        h = work.features
        for z, slope, weight, bias in zip(work.hidden, work.slopes, self._weights, self._biases):
            self._product(h, weight, z)
            self._launch(kernels.activate, z, bias, slope)
            h = z
        self._product(h, self._weights[-1], work.outputs)
        return work.outputs

    def backward(self, work: Workspace) -> Array:
        """Cotangent of the features of the last `forward`, in `work.features`, from `work.g_outputs`."""
        g = work.g_outputs
        for l in range(len(self._weights) - 1, 0, -1):
            weight, slope, g_h = self._weights[l], work.slopes[l - 1], work.hidden[l - 1]
            if self.layer_sizes[l + 1] == 1:
                self._launch(kernels.multiply_outer, slope, weight, g, g_h)
            else:
                self._product(g, weight, g_h, transpose_b=True)
                self._launch(kernels.multiply, slope, g_h)
            g = g_h
        self._product(g, self._weights[0], work.features, transpose_b=True)
        return work.features

    def _product(self, a: Array, b: Array, out: Array, transpose_b: bool = False) -> None:
        self.device.matmul(a, b, out, transpose_b=transpose_b, tf32=self._tf32)

    def _launch(self, kernel: Any, stack: Array, *arguments: Array) -> None:
        """One thread per column and `ROWS` rows of the stack."""
        self.device.launch(kernel, kernels.n_threads(stack.shape), stack, *arguments)


class Workspace:
    """Features, hidden layers, slopes, outputs and cotangents of the outputs, for a number of rows chosen later.

    `take(n_rows)` lays the stacks out anew in the same memory, each C-contiguous.

    Attributes
    ----------
    rows : atoms that there is room for.
    features, outputs, g_outputs : (n_members, n_rows, n_features or n_outputs).
    hidden, slopes : lists of (n_members, n_rows, n_columns), one per hidden layer.
    """

    def __init__(self, device: Device, n_members: int, rows: int, layer_sizes: Sequence[int], dtype: np.dtype):
        self.rows, self._n_members, self._columns = rows, n_members, workspace_columns(layer_sizes)
        self._flat = [device.empty(n_members * rows * columns, dtype) for columns in self._columns]
        self.take(rows)

    def take(self, n_rows: int) -> Workspace:
        """Stacks of `n_rows` rows, at most `rows`."""
        n = self._n_members
        stacks = [flat[: n * n_rows * c].reshape(n, n_rows, c) for flat, c in zip(self._flat, self._columns)]
        self.features, *hidden, self.outputs, self.g_outputs = stacks
        self.hidden, self.slopes = hidden[::2], hidden[1::2]
        return self


def workspace_columns(layer_sizes: Sequence[int]) -> list[int]:
    """Columns of every stack of a workspace: features, each hidden layer with its slopes, outputs twice."""
    hidden = [size for size in layer_sizes[1:-1] for _ in range(2)]
    return [layer_sizes[0], *hidden, layer_sizes[-1], layer_sizes[-1]]
