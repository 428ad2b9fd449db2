"""What the machine offers to the engine: threads, BLAS, the cache of compiled kernels, and a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numba
from threadpoolctl import threadpool_info

from gmcore.device import MODULES as CUDA_MODULES
from gmcore.kernels.compile import CACHE_FOLDER
from gmcore.threads import VARIABLES, available_cores, get_threads

BLAS_VARIABLES = ("OPENBLAS_CORETYPE", "NUMBA_CACHE_DIR", "NUMBA_ENABLE_CUDASIM", "CUDA_VISIBLE_DEVICES")
"""Environment variables that change what is used, besides those of `gmcore.threads`."""
__all__ = ["CUDA_MODULES", "blas_libraries", "gpu", "kernel_cache", "threads"]

CARD_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
"""Files that the driver of a GPU makes on Linux and in WSL."""


def threads() -> dict[str, Any]:
    """Usable cores, threads of Numba, its threading layer (None before the first parallel kernel), and variables."""
    try:
        layer: str | None = numba.threading_layer()
    except ValueError:  # nothing has run in parallel so far
        layer = None
    variables = {name: os.environ[name] for name in (*VARIABLES, *BLAS_VARIABLES) if name in os.environ}
    return {"cores": available_cores(), "numba": get_threads(), "layer": layer, "variables": variables}


def blas_libraries() -> list[dict[str, Any]]:
    """The BLAS libraries of this process: whose, name, version, kernel (of which processor) and threads."""
    found = []
    for library in threadpool_info():
        if library["user_api"] == "blas":
            folders = [part.removesuffix(".libs") for part in Path(library["filepath"]).parts if part.endswith(".libs")]
            found.append({
                "of": folders[-1] if folders else library["filepath"],
                "name": library["internal_api"],
                "version": library["version"],
                "kernel": library.get("architecture"),
                "threads": library["num_threads"],
            })  # fmt: skip
    return found


def kernel_cache() -> dict[str, Any]:
    """Folder of compiled kernels (None where none can be used), its bytes, and those of folders of older versions."""
    if CACHE_FOLDER is None:
        return {"folder": None, "bytes": 0, "older": 0}
    folder = Path(CACHE_FOLDER)
    others = [other for other in folder.parent.glob("kernels-*") if other != folder]
    return {"folder": CACHE_FOLDER, "bytes": _size(folder), "older": sum(map(_size, others))}


def _size(folder: Path) -> int:
    """Bytes of all files in a folder; other processes may remove some meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def gpu() -> dict[str, Any]:
    """Whether device="cuda" can be used, the name and free memory (bytes) of the card, or the reason why not.

    `present` says whether a driver of a card is there, whatever is installed for it.
    """
    from gmcore.device.cuda import CudaError, open_device

    present = any(Path(name).exists() for name in CARD_FILES)
    try:
        device = open_device()
    except CudaError as error:
        return {"usable": False, "present": present, "reason": str(error)}
    return {"usable": True, "present": present, "name": device.name, "free_bytes": device.free_memory()}
