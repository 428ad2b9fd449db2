"""What the compiler makes of the CUDA kernels: registers, spills and memory, on a machine without GPU and driver.

    python -m perf.cuda_compile            one line per kernel, type and compute capability
    python -m perf.cuda_compile --write    the same into perf/cuda_budget.json, which a test holds the kernels to

Numba translates to PTX with NVVM, `ptxas` assembles it; both come with the extras cuda12 and cuda13 (and test).
Registers in the budget are rounded up to a multiple of eight, as the hardware hands them out, and eight more are
allowed, because compilers differ.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numba
from numba import types

from gmcore.kernels.arguments import (
    Bath,
    BinnedAtoms,
    Cells,
    Chain,
    Geometry,
    Grid,
    Motion,
    RadialBasis,
    ShiftNumbers,
    WrappedAtoms,
)

BUDGET = Path(__file__).with_name("cuda_budget.json")
CAPABILITIES = ((8, 0), (9, 0))
SLACK = 8  # registers

# Types of the arguments: r working real, d float64, i int32, u uint32, l int64, b bool, with the number of axes
# (0 a scalar); the named tuples of `gmcore.kernels.arguments` stand in TUPLES; `wanted` is a tuple of two flags.
TUPLES = {
    "geometry": (Geometry, "i1 i1 l1 i1 i1 d2 i1 l0"),
    "radial": (RadialBasis, "r1 r1"),
    "cells": (Cells, "d3 d3 b2"),
    "atoms": (WrappedAtoms, "i1 d2 d2 l2"),
    "grid": (Grid, "d2 d3 l2 l1"),
    "binned": (BinnedAtoms, "l1 l1 d2"),
    "numbers": (ShiftNumbers, "l2 l1 l1 l1"),
    "bath": (Bath, "d0 d2 u2 d2"),
    "motion": (Motion, "d3 d3 d4 d1 d1"),
    "chain": (Chain, "d2 d2 d2 d2"),
}
SIGNATURES = {
    "committee_cuda.mean_and_deviation": "d3 d2 d1",
    "contractions_cuda.forward": "r3 r2",
    "contractions_cuda.forward_centered": "r3 r2 r2",
    "contractions_cuda.backward": "r3 r2 r3",
    "contractions_cuda.double_backward": "r3 r2 r3 r2 r3",
    "moments_cuda.forward": "geometry d2 radial r5 r4",
    "moments_cuda.backward": "geometry d2 radial r5 r4 wanted r3 r4 r5",
    "moments_cuda.double_backward": "geometry d2 radial r4 r3 d2 d3 wanted r3 r2 r3 r5",
    "molecules_cuda.unwrap": "d3 l2 l2 d3 d3 d1 d2 d2",
    "motion_cuda.kick": "motion l0",
    "motion_cuda.kick_and_drift": "motion l0 d0",
    "motion_cuda.kick_and_diffuse": "motion l0 d0 bath l1 l0",
    "motion_cuda.kinetic": "motion d2",
    "motion_cuda.advance_chains": "d1 chain l0 d0 d1",
    "motion_cuda.scale_velocities": "motion d1",
    "motion_cuda.mark_infinite": "d3 i1",
    "neighbors_cuda.wrap_atoms": "d2 cells atoms i1",
    "neighbors_cuda.tile_bounds": "l1 l1 atoms d3",
    "neighbors_cuda.bin_atoms": "atoms grid numbers l1",
    "neighbors_cuda.count_rows": "binned atoms cells grid d0 l1 d1",
    "neighbors_cuda.fill_rows": "binned atoms cells grid numbers d0 l1 i1 i1 i1",
    "neighbors_cuda.find_movers": "d2 d2 i1 d3 d1 i1",
    "network_cuda.activate": "r3 r2 r3",
    "network_cuda.multiply": "r3 r3",
    "network_cuda.output_layer": "r3 r2 r3 r2 i1 d3 d3 r3 l0 b0 d3",
    "pair_sums_cuda.find_reverse": "geometry",
    "pair_sums_cuda.sum_positions": "geometry r3 d3",
    "pair_sums_cuda.sum_strain_parts": "i1 r4 d4",
    "pair_sums_cuda.sum_strain": "d3 d3",
    "pair_sums_cuda.sum_beta": "r5 r4",
    "pair_sums_cuda.pack_beta": "r4 r4",
    "segments_cuda.sum_segments": "l1 l1 d2 d2",
}

# Double precision in float32 kernels: none, unless it is named here. Differences of positions are taken in float64
# before they are rounded; what is summed over a structure, and the search for neighbors, is float64 altogether.
DIFFERENCES = frozenset({"ld.global.f64", "sub.f64", "add.f64", "cvt.rn.f32.f64"})
DOUBLE = {
    "moments_cuda.forward": DIFFERENCES,
    "moments_cuda.backward": DIFFERENCES,
    "moments_cuda.double_backward": DIFFERENCES,
    **{name: None for name in SIGNATURES if name.startswith(("neighbors_cuda", "segments_cuda"))},
    **{f"pair_sums_cuda.{name}": None for name in ("find_reverse", "sum_positions", "sum_strain_parts", "sum_strain")},
    # scale and shift of the outputs, after the float32 sums
    "network_cuda.output_layer": frozenset(
        {
            "ld.global.f64",
            "st.global.f64",
            "cvt.f64.f32",
            "mul.f64",
            "add.f64",
            "fma.rn.f64",
        }
    ),
}


def kernel_names() -> set[str]:
    """All kernels in the files `*_cuda.py`."""
    import gmcore.kernels

    names = set()
    for folder in gmcore.kernels.__path__:
        for path in Path(folder).glob("*_cuda.py"):
            found = re.findall(r"^@cuda_jit\s*\ndef (\w+)", path.read_text(), re.MULTILINE)
            names.update(f"{path.stem}.{name}" for name in found)
    return names


def dtypes_of(name: str) -> tuple[str, ...]:
    """Working types that a kernel is compiled for; float64 alone where none of its arguments has the working type."""
    codes = " ".join(TUPLES[code][1] if code in TUPLES else code for code in SIGNATURES[name].split())
    return ("float32", "float64") if "r" in codes else ("float64",)


def argument_types(name: str, dtype: str) -> tuple[types.Type, ...]:
    """Numba types of a kernel's arguments for one working type."""
    scalars = {
        "r": getattr(types, dtype),
        "d": types.float64,
        "i": types.int32,
        "u": types.uint32,
        "l": types.int64,
        "b": types.boolean,
    }

    def of(code: str) -> types.Type:
        if code in TUPLES:
            kind, fields = TUPLES[code]
            return types.BaseTuple.from_types([of(c) for c in fields.split()], kind)
        if code == "wanted":
            return types.UniTuple(types.boolean, 2)
        scalar, n_axes = scalars[code[0]], int(code[1])
        return types.Array(scalar, n_axes, "C") if n_axes else scalar

    return tuple(map(of, SIGNATURES[name].split()))


def missing() -> str | None:
    """Why nothing can be compiled here, None if it can."""
    if numba.config.ENABLE_CUDASIM:
        return "the CUDA simulator is on"
    if find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    if find_ptxas() is None:
        return "ptxas is not installed"
    return None


def find_ptxas() -> str | None:
    """The assembler: of the installed wheels, else of a CUDA toolkit."""
    spec = find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for path in sorted(Path(folder).glob("*/bin/ptxas*")):
            return str(path)
    return shutil.which("ptxas")


@contextmanager
def capability_of(capability: tuple[int, int]) -> Iterator[None]:
    """Numba asks the card for its capability when it compiles device functions; answer in its place."""
    from numba.cuda import dispatcher

    original = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = original


def compile_ptx(name: str, dtype: str, capability: tuple[int, int]) -> str:
    """PTX of one kernel."""
    from numba import cuda

    module, kernel = name.split(".")
    function = getattr(importlib.import_module(f"gmcore.kernels.{module}"), kernel).py_func
    with capability_of(capability):
        ptx, _ = cuda.compile_ptx(function, types.void(*argument_types(name, dtype)), cc=capability)
    return ptx


def assemble(ptx: str, capability: tuple[int, int]) -> dict[str, int]:
    """Registers per thread, spills and stack (bytes per thread), static shared memory (bytes per block)."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [find_ptxas(), "-v", f"-arch=sm_{capability[0]}{capability[1]}", source, "-o", source.with_suffix("")]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    pattern = r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    stack, stores, loads = max(tuple(map(int, found)) for found in re.findall(pattern, report))
    shared = re.search(r"(\d+) bytes smem", report)
    return {
        "registers": int(re.search(r"Used (\d+) registers", report).group(1)),
        "spill_stores": stores,
        "spill_loads": loads,
        "stack": stack,
        "shared": int(shared.group(1)) if shared else 0,
    }


def double_instructions(ptx: str) -> set[str]:
    """Instructions on 64-bit floating-point numbers."""
    return set(re.findall(r"\b(?!reg\b)([a-z][a-z0-9_.]*\.f64(?:\.[a-z0-9]+)*)\b", ptx))


def usage() -> Iterator[tuple[str, str, str, dict[str, int]]]:
    """(capability, working type, kernel, what it takes) of all kernels."""
    for name in sorted(SIGNATURES):
        for dtype in dtypes_of(name):
            for capability in CAPABILITIES:
                yield (
                    "{}.{}".format(*capability),
                    dtype,
                    name,
                    assemble(compile_ptx(name, dtype, capability), capability),
                )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {BUDGET.name}")
    options = parser.parse_args(arguments)
    reason = missing()
    if reason:
        print(f"cannot compile CUDA kernels: {reason}", file=sys.stderr)
        return 2
    budget: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for capability, dtype, name, taken in usage():
        print(f"{name:36} {dtype} sm {capability}  " + "  ".join(f"{k} {v}" for k, v in taken.items()), flush=True)
        taken["registers"] = -(-taken["registers"] // 8) * 8
        budget.setdefault(name, {}).setdefault(dtype, {})[capability] = taken
    if options.write:
        BUDGET.write_text(json.dumps(budget, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
