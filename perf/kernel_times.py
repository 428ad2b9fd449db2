"""What a step launches on a device, and how long each launch takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gmcore.device.cuda import Device
from perf.gpu_model import PRODUCT


@contextmanager
def launches(device: Device) -> Iterator[list[str]]:
    """Names of all kernels and products that are launched meanwhile, in their order."""
    with timed_launches(device, lambda: None) as records:
        names: list[str] = []
        yield names
    names += [name for name, *_ in records]


@contextmanager
def timed_launches(device: Device, mark: Callable[[], Any]) -> Iterator[list[tuple[str, Any, Any]]]:
    """Name of each launch, and what `mark` gave before and after it."""
    records: list[tuple[str, Any, Any]] = []
    launch_blocks, matmul = device.launch_blocks, device.matmul

    def launch(kernel, *arguments, **options):
        before = mark()
        launch_blocks(kernel, *arguments, **options)
        records.append((kernel_name(kernel), before, mark()))

    def multiply(a, b, out, **options):
        before = mark()
        matmul(a, b, out, **options)
        records.append((PRODUCT, before, mark()))

    device.launch_blocks, device.matmul = launch, multiply  # type: ignore[method-assign]
    try:
        yield records
    finally:
        del device.launch_blocks, device.matmul  # the class's own again


def kernel_name(kernel: Any) -> str:
    """File and name, such as "moments_cuda.forward"."""
    function = getattr(kernel, "py_func", None) or kernel.fn
    return f"{function.__module__.rsplit('.')[-1]}.{function.__name__}"


def launch_times(device: Device, step: Callable[[], None], repeats: int = 3) -> dict[str, list[float]]:
    """Seconds of every launch of a step by name, from the last of several steps in a row.

    The host runs ahead of the device during the first ones, so that its own time does not stand between two marks.
    """
    stream = device._stream

    def mark() -> Any:
        if device.simulated:
            return time.perf_counter()
        event = device.xp.cuda.Event()
        event.record(stream)
        return event

    step()
    device.synchronize()
    runs = []
    for _ in range(repeats):
        with timed_launches(device, mark) as records:
            step()
        runs.append(records)
    device.synchronize()
    seconds: dict[str, list[float]] = {}
    for name, before, after in runs[-1]:
        if device.simulated:
            taken = after - before
        else:
            taken = 1e-3 * device.xp.cuda.get_elapsed_time(before, after)
        seconds.setdefault(name, []).append(taken)
    return seconds
