"""Where the engine computes for TensorFlow: on the CPU through NumPy arrays, on the GPU without leaving it.

On the CPU a call is a stateless `tf.numpy_function`, which TensorFlow drops from a graph where nobody uses its results.
On the GPU it is a `tf.py_function` whose tensors become arrays of the device and back through DLPack, without a copy:
TensorFlow's side waits until a tensor is ready before it lends it, ours until the work is done before a result is
handed over. TensorFlow knows no stateless form of it, so there all calls of a graph run, needed or not.

TensorFlow keeps small integer tensors on the host even where it computes on a GPU; these are uploaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import tensorflow as tf

from gmcore.engine.settings import DescriptorSettings
from gmcore.engine.stages import Contractions, Moments
from gmcore.threads import one_at_a_time

CPU, CUDA = 1, 2  # DLPack's numbers of devices

Outputs = Sequence[tuple[tf.DType, tuple]]


class HostBackend:
    """Stages of the CPU, called with NumPy arrays."""

    def moments(self, settings: DescriptorSettings, dtype: str) -> Moments:
        """Stage "moments"."""
        return Moments(settings, dtype)

    def contractions(self, n_radial: int, dtype: str) -> Contractions:
        """Stage "contractions"."""
        return Contractions(n_radial, dtype)

    def call(self, function: Callable, inputs: Sequence[tf.Tensor], outputs: Outputs) -> list[tf.Tensor]:
        """Call `function` on arrays from TensorFlow; `outputs` gives type and static shape of what it returns."""
        n_threads = numba.get_num_threads()

        def run(*arrays: np.ndarray):
            numba.set_num_threads(n_threads)  # a setting of the calling thread, and TensorFlow calls from its own
            return tuple(function(*arrays))

        result = tf.numpy_function(run, inputs, [dtype for dtype, _ in outputs], stateful=False)
        return _with_shapes(result, outputs)


class DeviceBackend:
    """Stages of the GPU, called with arrays that share the memory of TensorFlow's tensors."""

    def __init__(self):
        from gmcore.device.cuda import open_device

        self.device = open_device()

    def moments(self, settings: DescriptorSettings, dtype: str) -> Any:
        """Stage "moments"."""
        from gmcore.engine.stages_cuda import DeviceMoments

        return DeviceMoments(self.device, settings, dtype)

    def contractions(self, n_radial: int, dtype: str) -> Any:
        """Stage "contractions"."""
        from gmcore.engine.stages_cuda import DeviceContractions

        return DeviceContractions(self.device, n_radial, dtype)

    def call(self, function: Callable, inputs: Sequence[tf.Tensor], outputs: Outputs) -> list[tf.Tensor]:
        """As that of `HostBackend`, on the device."""

        def run(*tensors: tf.Tensor):
            with one_at_a_time, self.device.active():  # the stages keep their scratch between calls
                results = function(*map(self._borrow, tensors))
                self.device.synchronize()
                return [self._lend(array) for array in results]

        return _with_shapes(tf.py_function(run, inputs, [dtype for dtype, _ in outputs]), outputs)

    def _lend(self, array: Any) -> tf.Tensor:
        """Fresh arrays of CuPy are aligned as TensorFlow asks; those of NumPy, in the simulator, need not be."""
        if self.device.simulated:
            return tf.convert_to_tensor(array)
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())

    def _borrow(self, tensor: tf.Tensor) -> Any:
        if not tensor.shape.rank:
            return tensor.numpy()
        lent = _Lent(tensor)
        if lent.on_gpu or self.device.simulated:
            return self.device.from_dlpack(lent)
        return self.device.upload(tensor.numpy())


class _Lent:
    """A tensor of TensorFlow as a producer of DLPack."""

    def __init__(self, tensor: tf.Tensor):
        self._tensor, self.on_gpu = tensor, "GPU" in tensor.device

    def __dlpack__(self, **_: Any) -> Any:
        return tf.experimental.dlpack.to_dlpack(self._tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CUDA if self.on_gpu else CPU), 0


def tensorflow_has_gpu() -> bool:
    """Whether TensorFlow sees a GPU; if so it is told to leave memory to others, which works before its first use."""
    gpus = tf.config.list_physical_devices("GPU")
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError):  # TensorFlow has been used already
        return bool(gpus)
    return bool(gpus)


def choose_backend() -> HostBackend | DeviceBackend:
    """The GPU where TensorFlow sees one and this package can use it, else the CPU."""
    if not tensorflow_has_gpu():
        return HostBackend()
    from gmcore.device.cuda import CudaError

    try:
        return DeviceBackend()
    except CudaError as error:
        warnings.warn(f"TensorFlow sees a GPU, the descriptor computes on the CPU: {error}", stacklevel=2)
        return HostBackend()


def _with_shapes(result: Any, outputs: Outputs) -> list[tf.Tensor]:
    tensors = tf.nest.flatten(result)  # outside a graph a single result is no list
    for tensor, (_, shape) in zip(tensors, outputs):
        tensor.set_shape(shape)
    return tensors
