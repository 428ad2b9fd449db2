"""How much arithmetic a kernel does: it is run in the CUDA simulator on numbers that count what is done with them.

    NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 python -m perf.count_operations

prints, as JSON, operations per atom of every kernel of a step, for models of the sizes of the presets and 96 pairs per
atom, a multiple of the lanes of a warp. An operation is an addition, a product, a comparison; a division or a square
root counts for one, an exponential for the `EXP` operations of its polynomial. A fused multiply-add is two.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import threading
from types import SimpleNamespace

import numpy as np

from gmcore.config.presets import PRESETS
from gmcore.kernels import contractions_cuda, formulas, moments_cuda, network_cpu, network_cuda
from gmcore.kernels.arguments import Geometry, RadialBasis
from gmcore.kernels.contractions_cpu import n_features

EXP = 22
N_PAIRS = 96
MODELS = {
    name: (preset["descriptor"]["n_radial"], preset["descriptor"]["n_basis"], preset["hidden"][0])
    for name, preset in PRESETS.items()
}
"""n_radial, n_basis and the size of a hidden layer."""

_operations = itertools.count()


class Number(float):
    """A float that counts."""

    __slots__ = ()


def _counting(name: str):
    plain = getattr(float, name)

    def method(self, *others):
        next(_operations)
        result = plain(self, *map(float, others))
        return Number(result) if type(result) is float else result

    return method


for _name in "add radd sub rsub mul rmul truediv rtruediv neg abs lt le gt ge".split():
    setattr(Number, f"__{_name}__", _counting(f"__{_name}__"))


def _sqrt(x: float) -> Number:
    next(_operations)
    return Number(math.sqrt(x))


def _exp(x: float) -> Number:
    for _ in range(EXP):
        next(_operations)
    return Number(math.exp(x))


def counted() -> int:
    """Operations since the last call."""
    global _operations
    total, _operations = next(_operations), itertools.count()
    return total


def numbers(array) -> np.ndarray:
    """An array of numbers that count."""
    array = np.asarray(array, float)
    return np.array([Number(x) for x in array.ravel()] + [None], object)[:-1].reshape(array.shape)


def prepare(room: int) -> None:
    """Let the simulator give shared memory for `room` numbers where the launch says how much, and count functions."""
    from numba.cuda.simulator import kernelapi

    sys.setswitchinterval(1e-5)
    lock = threading.Lock()

    def array(shared, shape, dtype):
        caller = sys._getframe(1)
        place = caller.f_code.co_filename, caller.f_lineno
        with lock:
            if place not in shared._allocations:
                nothing = Number(0.0) if np.dtype(dtype).hasobject else 0
                shared._allocations[place] = np.full(room if shape == 0 else shape, nothing, dtype)
            return shared._allocations[place]

    kernelapi.FakeCUDAShared.array = array
    shim = SimpleNamespace(**{name: getattr(math, name) for name in ("pi", "floor", "log2", "e", "factorial")})
    shim.sqrt, shim.exp = _sqrt, _exp
    formulas.math, network_cpu.exp, formulas.exp = shim, _exp, _exp


def count_model(n_radial: int, n_basis: int, hidden: int) -> dict[str, float]:
    """Operations per atom of the kernels that do more than add."""
    rng = np.random.default_rng(1)
    n = N_PAIRS + 1  # a center and its neighbors, each a row of its own but only the first one filled
    index = lambda values: np.asarray(values, np.int32)  # noqa: E731
    row_start = np.full(n + 1, N_PAIRS, np.int64)
    row_start[0] = 0
    geometry = Geometry(
        index(np.zeros(n)), index(np.zeros(n)), row_start, index(np.arange(1, n)), index(np.zeros(N_PAIRS)),
        numbers(np.zeros((1, 3))), index(np.zeros(N_PAIRS)), 1,
    )  # fmt: skip
    positions = numbers(np.vstack((np.zeros((1, 3)), rng.uniform(1.0, 2.0, (N_PAIRS, 3)))))
    radial = RadialBasis(numbers([6.5, 1.2, 0.5]), numbers(np.linspace(0.5, 5.0, n_basis)))
    beta = numbers(rng.normal(size=(1, 1, 1, n_basis, moments_cuda.MAX_RADIAL)))
    moments, g_moments = (numbers(rng.normal(size=(1, n, n_radial, 16))) for _ in range(2))
    features = numbers(rng.normal(size=(1, n_features(n_radial))))
    outputs: dict[str, float] = {}
    counted()

    moments_cuda.forward[(1, 1), 32](geometry, positions, radial, beta, moments)
    outputs["moments_cuda.forward"] = counted()
    vectors, strain = numbers(np.zeros((1, N_PAIRS, 3))), numbers(np.zeros((1, n, 3, 3)))
    none = numbers(np.zeros((1, 1, 1, 1, 1)))
    one = numbers(np.asarray(g_moments[:, :1], float))  # the loop over centers ends after the first
    arguments = geometry, positions, radial, beta, one, (True, False), vectors, strain, none
    moments_cuda.backward[(1, 1), 32](*arguments)
    outputs["moments_cuda.backward"] = counted()

    m, g_m, mean = moments[0, :1], g_moments[0, :1], numbers(np.zeros((1, features.shape[1])))
    contractions_cuda.forward_centered[1, (1, n_radial)](m, mean, features)
    outputs["contractions_cuda.forward_centered"] = counted()
    contractions_cuda.backward[1, (1, n_radial)](m, features, g_m)
    outputs["contractions_cuda.backward"] = counted()

    z, slope, bias = (numbers(rng.normal(size=(1, 1, hidden))) for _ in range(3))
    network_cuda.activate[hidden, 1](z, bias[0], slope)
    outputs["network_cuda.activate"] = counted()
    network_cuda.multiply[hidden, 1](slope, z)
    outputs["network_cuda.multiply"] = counted()
    weight, table = numbers(rng.normal(size=(1, hidden, 1))), numbers(np.ones((1, 1, 1)))
    network_cuda.output_layer[(1, 1), (4, 1)](
        z, bias[0], weight, table[0], index([0]), table, table, table, 0, True, numbers(np.zeros((1, 1, 1)))
    )
    outputs["network_cuda.output_layer"] = counted()
    return outputs


def main() -> None:
    prepare(20_000)
    print(json.dumps({name: count_model(*sizes) for name, sizes in MODELS.items()}, indent=1))


if __name__ == "__main__":
    main()
