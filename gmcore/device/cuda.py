"""The CUDA device: the only file that knows CuPy. Imported when device="cuda" is asked for, never before.

CuPy owns memory, sorting and scans; Numba launches the kernels; matrix products go to cuBLAS through a handle of our
own (`gmcore.device.cublas`): CuPy refuses cuBLAS while a graph is captured, and has one precision for the whole
process.
Everything runs on one stream of this package, in order with CuPy's current stream of the caller (`active`). Another
library does not wait for it: `synchronize` before handing an array on.

With NUMBA_ENABLE_CUDASIM=1 Numba runs the kernels in Python on the host and NumPy stands in for CuPy, so that the whole
path is tested on machines without a GPU. Nothing can be captured then, and callers run step by step.

Not supported: several devices in one process (choose one with CUDA_VISIBLE_DEVICES).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np

from gmcore.device import MODULES
from gmcore.device.memory import DeviceMemoryError
from gmcore.errors import GMError

MIN_CAPABILITY = (7, 0)
"""Oldest compute capability (Volta): independent thread scheduling, and what current compilers still support."""
BLOCK = 128
"""Threads per block."""
SIMULATED_LANES = 4
"""A thread of the simulator is one of Python, and waits in a busy loop."""
SIMULATED_MEMORY = 1 << 40
HEADROOM = 0.9
"""Share of the free memory that may be used; the rest is for fragmentation and other libraries."""

Array = Any
"""An array on the device: cupy.ndarray, or numpy.ndarray in the simulator."""
Extent = int | tuple[int, ...]
"""Length of a grid or a block along one axis or several."""


class CudaError(GMError):
    """There is no usable CUDA device."""


@cache
def open_device() -> Device:
    """Return the device of this process.

    Raises
    ------
    CudaError : CuPy or numba-cuda is not installed, there is no driver or card, or the card is too old.
    """
    if numba.config.ENABLE_CUDASIM:
        return Device(np)
    cupy, _ = map(_required, MODULES)
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise CudaError(f"device='cuda' needs an NVIDIA card and its driver, but CUDA reports: {error}") from error
    if n_devices == 0:
        raise CudaError("device='cuda' needs an NVIDIA card and its driver, but CUDA finds no card")
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    check_capability(properties["name"].decode(), (properties["major"], properties["minor"]))
    return Device(cupy, properties["name"].decode())


def _required(name: str) -> Any:
    """Import a package that only this device needs."""
    module = MODULES[name]
    if find_spec(module) is None:
        raise CudaError(f"device='cuda' needs {name}: pip install 'gmtensor[cuda12]' or 'gmtensor[cuda13]'")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CudaError(f"device='cuda' needs {name}, which cannot be imported: {error}") from error


def check_capability(name: str, capability: tuple[int, int]) -> None:
    """Refuse a card that is too old for the kernels.

    Raises
    ------
    CudaError : the compute capability is below `MIN_CAPABILITY`.
    """
    if capability < MIN_CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (MIN_CAPABILITY, capability))
        raise CudaError(f"the compute capability of the card must be at least {needed}, got {found} ({name})")


class Device:
    """Arrays, launches and products on one device; made by `open_device`.

    Attributes
    ----------
    xp : cupy, or numpy in the simulator, for array methods that both have.
    name : of the card.
    simulated : whether this is the simulator.
    memory_limit : bytes that an evaluation may use in addition to its inputs; nine tenths of the free memory if None.
    """

    def __init__(self, xp: Any, name: str = "CUDA simulator"):
        self.xp, self.name, self.simulated = xp, name, xp is np
        self.memory_limit: int | None = None
        # these stay None in the simulator, which does not use them
        self._stream: Any = None
        self._numba_stream: Any = None
        self._blas: Any = None
        if not self.simulated:
            from numba import cuda

            self._stream = xp.cuda.Stream(non_blocking=True)
            self._numba_stream = cuda.external_stream(self._stream.ptr)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Return a context in which CuPy works on the stream of this package.

        Its work runs after what the caller has already queued on its current stream, and before what it queues next.
        """
        if self.simulated:
            yield
            return
        caller = self.xp.cuda.get_current_stream()
        if caller.ptr == self._stream.ptr:
            yield
            return
        self._stream.wait_event(caller.record())
        with self._stream:
            yield
        caller.wait_event(self._stream.record())

    # arrays ----------------------------------------------------------------------------------------------------------

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an array of undefined content.

        In the simulator it is filled with NaN or a huge integer, so that a value that is read before it is written is
        noticed.

        Raises
        ------
        DeviceMemoryError : the device does not have enough free memory.
        """
        if self.simulated:
            dtype = np.dtype(dtype)
            return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max // 3, dtype)
        return self._allocated(self.xp.empty, shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an array of zeros.

        Raises
        ------
        DeviceMemoryError : the device does not have enough free memory.
        """
        return self._allocated(self.xp.zeros, shape, dtype)

    def _allocated(self, make: Callable, shape: int | tuple[int, ...], dtype: Any) -> Array:
        with self.active():
            if self.simulated:
                return make(shape, dtype)
            try:
                return make(shape, dtype)
            except self.xp.cuda.memory.OutOfMemoryError as error:
                wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
                raise DeviceMemoryError(wanted, self.free_memory()) from error

    def upload(self, array: np.ndarray, dtype: Any = None) -> Array:
        """Return a C-contiguous copy on the device."""
        with self.active():
            return self.xp.array(np.ascontiguousarray(array, dtype))

    def download(self, array: Array) -> np.ndarray:
        """Return a copy on the host, after all work on the array is done."""
        if self.simulated:
            return np.array(array)
        with self.active():
            return self.xp.asnumpy(array)

    def download_later(self, array: Array) -> Callable[[], np.ndarray]:
        """Queue a copy of a C-contiguous array to the host; what is returned waits for it and gives it.

        The copy is what the array holds after all work queued so far, whatever is queued next.
        """
        if self.simulated:
            copy = np.array(array)
            return lambda: copy
        out = importlib.import_module("cupyx").empty_pinned(array.shape, array.dtype)
        with self.active():
            array.data.copy_to_host_async(out.ctypes.data, array.nbytes, self._stream)
            done = self._stream.record()

        def result() -> np.ndarray:
            done.synchronize()
            return out

        return result

    def is_device_array(self, array: Any) -> bool:
        """Return whether an array is on this device."""
        return isinstance(array, self.xp.ndarray)

    def free_memory(self) -> int:
        """Return the bytes that can be allocated, including unused blocks of CuPy's pool."""
        if self.simulated:
            return SIMULATED_MEMORY
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return int(free) + int(self.xp.get_default_memory_pool().free_bytes())

    def budget(self) -> int:
        """Return the bytes that an evaluation may use."""
        return int(HEADROOM * self.free_memory()) if self.memory_limit is None else int(self.memory_limit)

    def stable_argsort(self, keys: Array) -> Array:
        """Return the order of integer keys; equal keys keep their order."""
        with self.active():
            return self.xp.argsort(keys, kind="stable")

    def synchronize(self) -> None:
        """Wait for all work on the stream."""
        if not self.simulated:
            self._stream.synchronize()

    # work ------------------------------------------------------------------------------------------------------------

    def launch(self, kernel: Any, n_threads: int, *arguments: Any) -> None:
        """Run a kernel of independent threads, with at least `n_threads` threads."""
        block = 1 if self.simulated else BLOCK  # a thread of the simulator is one of Python: none is started to idle
        self.launch_blocks(kernel, -(-n_threads // block), block, *arguments)

    def lanes(self, n_threads: int) -> int:
        """Return how many threads of a block work together: those asked for, or four in the simulator."""
        return min(n_threads, SIMULATED_LANES) if self.simulated else n_threads

    def launch_blocks(
        self,
        kernel: Any,
        n_blocks: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *arguments: Any,
        shared: int = 0,
    ) -> None:
        """Run a kernel with `n_blocks` blocks of `block` threads that work together, along one axis or several.

        Parameters
        ----------
        shared : bytes of dynamic shared memory of a block.
        """
        if np.prod(n_blocks) == 0:
            return
        if not self.simulated:
            arguments = tuple(map(self._argument, arguments))
        kernel[n_blocks, block, self._numba_stream or 0, shared](*arguments)

    def _argument(self, value: Any) -> Any:
        """Numba's view of an array; by itself Numba would wait for the stream at every launch."""
        from numba import cuda

        if isinstance(value, self.xp.ndarray):
            return cuda.as_cuda_array(value, sync=False)
        if isinstance(value, tuple):
            values = map(self._argument, value)
            return type(value)(*values) if hasattr(value, "_fields") else tuple(values)
        return value

    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_b: bool = False,
        tf32: bool = False,
    ) -> None:
        """out (n, i, k) = a b for stacks of C-contiguous matrices; float32 is full float32 unless `tf32`.

        a is (n, i, j); b is (n, j, k), or (n, k, j) if transposed.
        """
        if self.simulated:
            np.matmul(a, b.swapaxes(1, 2) if transpose_b else b, out=out)
            return
        if self._blas is None:
            from gmcore.device.cublas import Cublas

            workspace = self.empty(Cublas.WORKSPACE, np.uint8)
            version = self.xp.cuda.runtime.runtimeGetVersion() // 1000
            self._blas = Cublas(version, self._stream.ptr, workspace.data.ptr, owner=workspace)
        n, rows, columns = out.shape
        shape = n, rows, a.shape[2], columns
        self._blas.matmul(a.data.ptr, b.data.ptr, out.data.ptr, shape, a.dtype, transpose_b, tf32)

    def capture(self, function: Callable[[], None]) -> Callable[[], None] | None:
        """Record what `function` launches as a graph and return what replays it; None where that is not possible.

        The function must have run before (nothing is compiled or allocated during a capture), and use the same arrays
        in every replay, which the caller keeps alive.
        """
        if self.simulated:
            return None
        stream = self._stream
        with self.active():
            stream.begin_capture()
            try:
                function()
            except Exception:  # whatever cannot be recorded is run step by step, where true errors show
                self._abandon_capture()
                return None
            graph = stream.end_capture()
        return lambda: graph.launch(stream)

    def _abandon_capture(self) -> None:
        try:
            self._stream.end_capture()
        except self.xp.cuda.runtime.CUDARuntimeError:  # the capture was invalidated: ending it says so
            return

    # exchange --------------------------------------------------------------------------------------------------------

    def from_dlpack(self, tensor: Any) -> Array:
        """Return an array that shares the memory of an object with `__dlpack__`; its producer must have finished."""
        if self.simulated:  # which writes arguments back, and these are read-only
            return np.array(np.from_dlpack(tensor))
        with self.active():
            return self.xp.from_dlpack(tensor)
