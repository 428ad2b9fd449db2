"""Does this installation work, and what is missing: the facts behind `gmtensor doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from gmcore.engine import machine
from gmcore.errors import GMError
from gmcore.evaluation.self_test import self_test
from gmcore.version import __version__

REQUIRED = (
    "numpy", "numba", "ase", "h5py", "scipy", "matplotlib", "pydantic", "pyyaml", "typer", "rich", "threadpoolctl",
    "jinja2", "networkx", "memspectrum",
)  # fmt: skip
"""Packages that every installation has."""
EXTRAS = {
    "train": ("training", ("tensorflow", "keras")),
    "cuda12": ("NVIDIA GPUs", ("CuPy", "numba-cuda")),
    "label": ("labels by GFN2-xTB", ("tblite",)),
}
"""Extra: what it is for, and its packages. Drivers of CUDA 13 need `cuda13` in place of `cuda12`."""
DISTRIBUTIONS = {"CuPy": ("cupy-cuda12x", "cupy-cuda13x")}
MODULES = {"pyyaml": "yaml", **machine.CUDA_MODULES}
"""Packages that are called otherwise where they are installed from, or imported."""


def examine(must_have_gpu: bool = False) -> dict[str, Any]:
    """Look at everything and compute a tiny model on the CPU and, where there is one, on the GPU.

    Parameters
    ----------
    must_have_gpu : whether a GPU that cannot be used is a problem, even where none is there.

    Returns
    -------
    dict that JSON can hold; under "problems" one sentence for each thing that should work and does not.
    """
    problems = []
    packages = {name: _version(name) for name in REQUIRED}
    for name in (name for name, found in packages.items() if found is None):
        problems.append(f"{name} is not installed: pip install {name}")
    extras = {}
    for extra, (purpose, names) in EXTRAS.items():
        found = {name: _version(name) for name in names}
        extras[extra] = {"purpose": purpose, "packages": found, "complete": None not in found.values()}
    gpu = machine.gpu()
    tests = {"cpu": _tested("cpu", problems)}
    if gpu["usable"]:
        tests["cuda"] = _tested("cuda", problems)
    elif must_have_gpu or (gpu["present"] and extras["cuda12"]["complete"]):
        problems.append(f"the GPU cannot be used: {gpu['reason']}")
    cache = machine.kernel_cache()  # after the tests, which fill it
    if cache["folder"] is None:
        problems.append(
            "compiled kernels cannot be kept, so that every process compiles for a minute: set NUMBA_CACHE_DIR to a "
            "folder of your own that nobody else can write to"
        )
    return {
        "gmtensor": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "extras": extras,
        "threads": machine.threads(),
        "blas": machine.blas_libraries(),
        "cache": cache,
        "gpu": gpu,
        "self_test": tests,
        "problems": problems,
    }


def _tested(device: str, problems: list[str]) -> dict[str, Any]:
    """Result of the self-test on a device; what is wrong with it goes to `problems`."""
    name = {"cpu": "CPU", "cuda": "GPU"}[device]
    try:
        found = self_test(device)
    except Exception as error:  # whatever goes wrong here is what the doctor is for
        message = " ".join(str(error).split()) if isinstance(error, GMError) else f"{type(error).__name__}: {error}"
        problems.append(f"the self-test on the {name} failed: {message}")
        return {"passed": False, "error": message}
    if not found.passed:
        problems.append(
            f"the self-test on the {name} gave wrong numbers: energy off by {found.energy_error:.1e}, forces by "
            f"{found.forces_error:.1e} of plain NumPy; remove the cache folder and try again, then report it"
        )
    return found._asdict()


def _version(name: str) -> str | None:
    """Version of a package, None where it is not installed."""
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown" if find_spec(MODULES.get(name, name)) is not None else None
