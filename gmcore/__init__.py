"""The engine of gmtensor: structures, neighbor lists, Gaussian moments, models and what is done with them.

Never imports TensorFlow. The public names below are imported when first used, so that `import gmcore` is quick.
"""

from importlib import import_module

from gmcore.version import __version__

_HOMES = {
    "Dataset": "data.datasets",
    "GMCalculator": "calculator",
    "GMError": "errors",
    "GaussianMoments": "engine.descriptor",
    "Model": "model",
    "zfs_parameters": "anisotropy",
    "load_model": "model",
    "read_dataset": "data.datasets",
    "set_threads": "threads",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str):
    if name == "invariants":  # the name in version 0.1; warns
        return import_module("gmcore.anisotropy").invariants
    if name not in _HOMES:
        raise AttributeError(f"module 'gmcore' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
