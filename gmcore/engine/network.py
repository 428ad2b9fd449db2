"""Inference network of one committee member, up and down by hand: matrix products and fused loops, nothing else.

    h_0 = (G - mean) / std;  z_l = h_(l-1) W_l / sqrt(n_in) + 0.1 b_l;  h_l = phi(z_l);  y = z_last      (NTK)
    down:  g_h = g_z W_l^T / sqrt(n_in),  g_z = g_h phi'(z)

Formulas: docs/method.md, sections 4 and 6.1. What is constant is folded into the weights once, see
`gmcore.engine.folding`.

Atoms are dealt out in blocks, and where they are too few for every thread the columns of each layer as well; each
thread calls single-threaded BLAS. BLAS's own threads would be idle, yet awake, through all other kernels, and take
cores from them.

Not supported: derivatives in the weights (training is `gmkeras`), second derivatives.
"""

from __future__ import annotations

import math

import numpy as np

from gmcore.engine.folding import fold
from gmcore.engine.settings import Member
from gmcore.errors import GMError
from gmcore.kernels import network_cpu
from gmcore.threads import get_threads, serial_blas

BLOCK = 512  # atoms; the larger, the better the packing of the weights in BLAS is paid off
ROWS_PER_THREAD = 128  # with fewer, copying the weights once for each thread costs more than sharing the columns
COLUMNS = 8  # at most so many blocks of columns: products of a few columns only are slow


class Network:
    """Network with work arrays that are reused from call to call; not safe for two threads at once.

    Parameters
    ----------
    member : parameters as defined in `gmcore.engine.settings.Member`.
    dtype : "float32" or "float64", of features, outputs and all arithmetic.

    Attributes
    ----------
    n_features, n_hidden, n_outputs : int
    draws : (n_draws, n_hidden + 1, n_outputs), those of the member; none if it has none.
    """

    def __init__(self, member: Member, dtype: str = "float32"):
        self.dtype = np.dtype(dtype)
        folded = fold(member)
        self._sizes = np.array(folded.layer_sizes)
        self.n_features, self.n_hidden, self.n_outputs = (folded.layer_sizes[k] for k in (0, -2, -1))
        self._mean = folded.mean.astype(self.dtype)
        self._weights = np.concatenate([w.ravel() for w in folded.weights]).astype(self.dtype)
        self._transposed = np.concatenate([w.T.ravel() for w in folded.weights]).astype(self.dtype)
        self._biases = np.concatenate(folded.biases).astype(self.dtype)
        self._inputs = np.empty((0, self.n_features), self.dtype)
        self._hidden = self._slopes = self._products = np.empty(0, self.dtype)
        self._grid: tuple[np.ndarray, int] | None = None
        draws = np.zeros((0, self._sizes[-2] + 1, self.n_outputs)) if member.draws is None else member.draws
        self.draws = np.asarray(draws, self.dtype)

    def _reserve(self, n_atoms: int) -> None:
        """Work arrays for at least `n_atoms` rows."""
        if n_atoms > len(self._inputs):
            self._inputs = np.empty((n_atoms, self.n_features), self.dtype)
            self._hidden = np.empty(n_atoms * int(self._sizes[1:-1].sum()), self.dtype)
            self._slopes = np.empty_like(self._hidden)
            self._products = np.empty(n_atoms * int(self._sizes.max()), self.dtype)

    def forward(self, features: np.ndarray) -> np.ndarray:
        """Outputs y (n_atoms, n_outputs), before scale and shift, of features (n_atoms, n_features)."""
        n_atoms = len(features)
        self._reserve(n_atoms)
        self._grid = starts, n_columns = _grid(n_atoms, get_threads())
        outputs = np.empty((n_atoms, self.n_outputs), self.dtype)
        features = np.ascontiguousarray(features, self.dtype)
        parameters = features, self._mean, self._transposed, self._biases, self._sizes, starts
        with serial_blas():
            if n_columns == 1:
                network_cpu.forward_rows(*parameters, self._inputs, self._hidden, self._slopes, outputs)
            else:
                arrays = self._inputs, self._hidden, self._slopes, self._products
                network_cpu.forward(*parameters, n_columns, *arrays, outputs)
        return outputs

    def last_hidden(self) -> np.ndarray:
        """The last hidden layer h (n_atoms, n_hidden) of the last `forward`, to be read before `backward`."""
        starts, _ = self._after_forward("last_hidden")
        n_atoms, n_hidden = starts[-1], self._sizes[-2]
        last = n_atoms * int(self._sizes[1:-1].sum())
        return self._hidden[last - n_atoms * n_hidden : last].reshape(n_atoms, n_hidden)

    def drawn_outputs(self) -> np.ndarray:
        """Change of the outputs of the last `forward` by each draw of the last layer, (n_draws, n_atoms, n_outputs)."""
        return self.last_hidden() @ self.draws[:, :-1] + self.draws[:, -1:]

    def drawn_backward(self, draw: int, g_outputs: np.ndarray) -> np.ndarray:
        """As `backward`, for the change of the outputs by a draw of the last layer; once or more.

        It leaves what `backward` needs, which may still follow.
        """
        grid, drawn = self._after_forward("drawn_backward"), self.draws[draw, :-1].ravel()
        last_layer = self._weights[self._weights.size - drawn.size :]
        own = last_layer.copy()
        last_layer[:] = drawn
        try:
            return self.backward(g_outputs)
        finally:
            last_layer[:], self._grid = own, grid

    def _after_forward(self, name: str) -> tuple[np.ndarray, int]:
        """The grid of the last `forward`; GMError if it has been used up."""
        if self._grid is None:
            raise GMError(f"Network.{name} must follow a forward of its own, got a second backward or none before it")
        return self._grid

    def backward(self, g_outputs: np.ndarray) -> np.ndarray:
        """Cotangent of the features of the last `forward`: (n_atoms, n_features) from (n_atoms, n_outputs).

        The result is a work array: the next `forward` overwrites it.

        Raises
        ------
        GMError : no `forward` since the last `backward`.
        """
        (starts, n_columns), self._grid = self._after_forward("backward"), None
        g_outputs = np.ascontiguousarray(g_outputs, self.dtype)
        g_features = self._inputs[: starts[-1]]
        parameters = self._weights, self._sizes, starts
        with serial_blas():
            if n_columns == 1:
                network_cpu.backward_rows(*parameters, self._hidden, self._slopes, g_outputs, g_features)
            else:
                arrays = self._hidden, self._slopes, self._products
                network_cpu.backward(*parameters, n_columns, *arrays, g_outputs, g_features)
        return g_features


def _grid(n_atoms: int, n_threads: int) -> tuple[np.ndarray, int]:
    """Atoms where blocks begin, and the number of blocks that the columns of a layer are cut into."""
    n_blocks = max(1, math.ceil(n_atoms / BLOCK))
    if n_atoms >= ROWS_PER_THREAD * n_threads:
        n_blocks = math.ceil(n_blocks / n_threads) * n_threads
    n_columns = min(n_threads // math.gcd(n_threads, n_blocks), COLUMNS)
    n_blocks = max(n_blocks, math.ceil(n_threads / n_columns))
    return np.arange(n_blocks + 1) * n_atoms // n_blocks, n_columns
