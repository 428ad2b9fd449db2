"""The parts of `perf.card`, one a process: `python -m perf.card_parts NAME ROWS KNOWN`.

Rows are written to the file ROWS as soon as they are known, one JSON object a line, so that a part that hangs keeps
those it had; KNOWN has the rows of the parts before. In the CUDA simulator the sizes are tiny.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perf.harness import Comparison

if TYPE_CHECKING:
    from perf.bench_gpu import Sizes

ROOT = Path(__file__).resolve().parents[1]
SHOWN_PACKAGES = ("numpy", "scipy", "numba", "numba-cuda", "cupy-cuda12x", "cupy-cuda13x", "h5py", "ase")
SMALLEST_TESTS = (
    "tests/device/test_cuda.py::test_device_equals_host_at_every_order[water_molecule-float64-1]",
    "tests/engine/test_cuda_driver.py::test_on_the_device[replay_equals_eager]",
)
METRICS = {
    "gpu__time_duration.sum": "time",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "arithmetic",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy",
}
"""What ncu is asked for."""
FEW_KERNELS = ("network_cuda",)
"""Files whose kernels a rehearsal compiles in float32, without a card."""


class Rows:
    """Writes rows to a file; those of the parts before are in `known`."""

    def __init__(self, path: Path, known: list[dict]):
        self._path, self.known = path, known

    def add(self, what: str, value: object = "", unit: str = "", status: str = "ok", **fields: object) -> None:
        """One row; fields are target, predicted, note, and what else is worth keeping."""
        row = {"what": what, "status": status, "value": value, "unit": unit, **fields}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def absent(self, what: str, note: str, **fields: object) -> None:
        """A row for what cannot be had here."""
        self.add(what, status="absent", note=note, **fields)


def environment(rows: Rows) -> None:
    """Card, driver, memory and versions."""
    found = {"python": sys.version.split()[0]}
    for name in SHOWN_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    rows.add("versions", ", ".join(f"{name} {number}" for name, number in found.items()))
    rows.add("processors", len(os.sched_getaffinity(0)))
    from gmcore.device.cuda import open_device
    from perf.report import commit

    rows.add("commit", commit())
    device = open_device()
    rows.add("card", device.name)
    if not device.simulated:
        runtime = device.xp.cuda.runtime
        rows.add("CUDA driver and runtime", f"{runtime.driverGetVersion()}, {runtime.runtimeGetVersion()}")
        properties = runtime.getDeviceProperties(runtime.getDevice())
        rows.add("compute capability", "{major}.{minor}".format(**properties))
        rows.add("multiprocessors", properties["multiProcessorCount"])
        rows.add("free memory", round(device.free_memory() / 2**30, 1), "GiB")


def compile_kernels(rows: Rows) -> None:
    """Every kernel for this card, file by file in processes of their own, and those of the CPU beside them.

    They end up in the cache on disk, where all later parts find them.
    """
    from perf import cuda_compile

    files = sorted({name.split(".")[0] for name in cuda_compile.SIGNATURES})
    start = time.monotonic()
    if _simulated():
        tasks = [f"ptx:{name}" for name in FEW_KERNELS]
    else:
        tasks = [*(f"card:{name}" for name in files), "cpu:float32", "cpu:float64"]
    workers = max(1, min(len(tasks), len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(_compile_apart, tasks))
    for task, (done, trouble) in zip(tasks, outcomes):
        if trouble:
            rows.add(f"compile {task}", status="failed", note=trouble)
        elif done is None:
            rows.absent(f"compile {task}", "no compiler for PTX here")
    rows.add(
        "kernels compiled", sum(done or 0 for done, _ in outcomes), seconds=round(time.monotonic() - start, 1),
        note=f"{time.monotonic() - start:.0f} s in {workers} processes",
    )  # fmt: skip


def _compile_apart(task: str) -> tuple[int | None, str]:
    """Number of kernels of a task, and what went wrong, from a process of its own."""
    environment = dict(os.environ)
    if task.startswith("ptx:"):
        environment |= {"NUMBA_ENABLE_CUDASIM": "0", "NUMBA_DISABLE_JIT": "0"}
    command = [sys.executable, "-c", "import sys; from perf.card_parts import compile_task; compile_task(sys.argv[1])"]
    done = subprocess.run([*command, task], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return 0, (done.stderr.strip().splitlines() or ["no output"])[-1]
    return json.loads(done.stdout.splitlines()[-1]), ""


def compile_task(task: str) -> None:
    """Compile the kernels of a task and print their number; null where there is no compiler."""
    import importlib

    from perf import cuda_compile

    kind, name = task.split(":")
    cases = [
        (kernel, dtype)
        for kernel in cuda_compile.SIGNATURES
        if kernel.split(".")[0] == name
        for dtype in cuda_compile.dtypes_of(kernel)
        if kind != "ptx" or dtype == "float32"
    ]
    if kind == "cpu":
        from support.cuda_cases import CASES
        from support.cuda_comparison import Problem, frames

        case = dict(CASES[0], dtype=name)
        Problem(frames(case.pop("system")), **case).on_the_host()
        count: int | None = 0
    elif kind == "ptx":
        count = None if cuda_compile.missing() else len(cases)
        for kernel, dtype in cases if count else ():
            capability = cuda_compile.CAPABILITIES[-1]
            cuda_compile.assemble(cuda_compile.compile_ptx(kernel, dtype, capability), capability)
    else:
        for kernel, dtype in cases:
            module, function = kernel.split(".")
            dispatcher = getattr(importlib.import_module(f"gmcore.kernels.{module}"), function)
            dispatcher.compile(cuda_compile.argument_types(kernel, dtype))  # the key under which a launch looks it up
        count = len(cases)
    print(json.dumps(count))


def first(rows: Rows) -> None:
    """A tiny model against plain NumPy."""
    from gmcore.evaluation.self_test import TOLERANCE, self_test

    for dtype in ("float32",) if _simulated() else ("float32", "float64"):
        found = self_test("cuda", dtype)
        rows.add(
            f"self-test, {dtype}", f"{max(found.energy_error, found.forces_error):.1e}", "relative error",
            "ok" if found.passed else "failed", target=f"<= {TOLERANCE[dtype]:.0e}",
            note=f"first call {found.first_s:.1f} s",
        )  # fmt: skip


def measure(name: str) -> Callable[[Rows], None]:
    """A part that is a benchmark of `perf.bench_gpu`."""

    def part(rows: Rows) -> None:
        from gmcore.device.cuda import open_device
        from perf import bench_gpu, gpu_model, harness

        device, sizes = open_device(), _sizes()
        harness.QUIET = float("inf")  # the host hardly matters: a busy one spoils no ratio of times on the card
        if device.simulated:
            bench_gpu.compare = _once
        for row in bench_gpu.BENCHES[name](device, sizes):
            what = f"{row.what}, {row.system.removesuffix(device.name).rstrip(', ')}"
            asked = {"target": row.target}
            if row.target and row.what != "apax":
                asked["predicted"] = gpu_model.predicted_cell(name)
            if row.value is None or device.simulated:
                rows.absent(what, row.note or "not measured: a simulator is no GPU", **asked)
                continue
            ratio = f"{row.ratio[0]:.2f} x {row.to}; " if row.ratio else ""
            quartiles = f"quartiles {row.lower:.4g} .. {row.upper:.4g}; " if row.lower is not None else ""
            note = f"{ratio}{quartiles}{row.note}".rstrip("; ")
            rows.add(what, f"{row.value:.4g}", row.unit, note=note, ratio=row.ratio, **asked)

    return part


def _once(functions: Mapping[str, Callable[[], object]], **_: object) -> Comparison:
    """Stands in for `perf.harness.compare` where times mean nothing."""
    for function in functions.values():
        function()
    nothing = dict.fromkeys(functions, float("nan"))
    return Comparison({name: np.full(1, np.nan) for name in functions}, nothing, 0.0)


def kernels(rows: Rows) -> None:
    """Time of every kernel of a step, the slowest first."""
    from gmcore.device.cuda import open_device
    from perf import gpu_model
    from perf.kernel_times import launch_times

    device, step, expected = open_device(), _step(), gpu_model.kernel_times("energy_forces")
    seconds = launch_times(device, step, 1 if _simulated() else 3)
    for name, taken in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        note = f"{len(taken)} launches"
        predicted = f"{1e6 * expected[name]:.0f} us" if name in expected else ""
        if device.simulated:
            rows.absent(name, note, predicted=predicted)
        else:
            rows.add(name, f"{1e6 * sum(taken):.0f}", "us", predicted=predicted, note=note, kernel=name)


def _step() -> Callable[[], None]:
    """Launches of energy and forces, one by one, of the largest system of the table."""
    from gmcore.engine.structures import Batch
    from perf.bench_gpu import make_model
    from perf.systems import bulk

    sizes = _sizes()
    evaluator = make_model(sizes).evaluator
    pairs = evaluator.find_pairs(Batch.from_atoms(bulk(sizes.largest, sizes.n_neighbors)))
    step = evaluator.step(pairs, forces=True)
    return lambda: step.run(pairs.geometry, None)  # without a token nothing is recorded


def _sizes() -> Sizes:
    from perf import bench_gpu

    return bench_gpu.REHEARSAL if _simulated() else bench_gpu.CARD


def _program_for_cards(rows: Rows, name: str) -> str | None:
    """Path of a program that needs a card; None, and a row that says why, where it cannot be used."""
    program = None if _simulated() else find_program(name)
    if program is None:
        rows.absent(name, f"not run: {'a simulator is no GPU' if _simulated() else 'it is not installed'}")
    return program


def sanitizer(rows: Rows) -> None:
    """Out-of-bounds accesses and races in the smallest tests."""
    program = _program_for_cards(rows, "compute-sanitizer")
    if program is None:
        return
    records = Path(os.environ.get("TMPDIR", "/tmp"), f"gmtensor-sanitizer-{os.getpid()}")
    extra = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "GMTENSOR_CARD_RECORDS": str(records),
        "GMTENSOR_CARD_PLAIN_MEMORY": "1",
    }
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "perf.card_pytest", "-p", "no:cacheprovider"]
    for tool in ("memcheck", "racecheck"):
        for test in SMALLEST_TESTS:
            records.unlink(missing_ok=True)
            done = subprocess.run(
                [program, "--tool", tool, *pytest, test],
                cwd=ROOT, env=os.environ | extra, capture_output=True, text=True, check=False,
            )  # fmt: skip
            output = done.stdout + done.stderr
            summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", output)
            clean = bool(summary) and summary[-1].startswith("0 ") and done.returncode == 0
            note = "" if clean else " ".join(output.split())[-300:]
            rows.add(
                f"{tool}, {test.split('::')[1]}", summary[-1] if summary else "no summary", "",
                "ok" if clean else "failed", target="0 errors", note=note,
            )  # fmt: skip


def profile(rows: Rows) -> None:
    """What limits the slowest kernel of ours."""
    program = _program_for_cards(rows, "ncu")
    if program is None:
        return
    slowest = next((row["kernel"] for row in rows.known if "_cuda." in row.get("kernel", "")), "moments_cuda.backward")
    module, function = slowest.split(".")
    done = subprocess.run(
        [
            program, "--clock-control", "none", "--csv", "--metrics", ",".join(METRICS), "--launch-count", "1",
            "--kernel-name-base", "mangled", "--kernel-name", f"regex:{module}.*{function}",
            sys.executable, "-c", "from perf.card_parts import _step; _step()()",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    found = {line["Metric Name"]: f"{line['Metric Value']} {line['Metric Unit']}" for line in csv.DictReader(lines)}
    if not found:
        rows.add("ncu", status="failed", note=" ".join((done.stdout + done.stderr).split())[-300:])
        return
    for metric, name in METRICS.items():
        rows.add(f"{slowest}, {name}", found.get(metric, "not reported"))


def find_program(name: str) -> str | None:
    """A program on the path or in the usual folders of CUDA and Nsight."""
    on_path = shutil.which(name)
    if on_path:
        return on_path
    for pattern in (f"usr/local/cuda*/bin/{name}", f"opt/nvidia/*/{name}", f"opt/nvidia/*/*/{name}"):
        found = sorted(Path("/").glob(pattern))
        if found:
            return str(found[-1])
    return None


def _simulated() -> bool:
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


PARTS: dict[str, Callable[[Rows], None]] = {
    "environment": environment,
    "compile": compile_kernels,
    "first": first,
    **{name: measure(name) for name in ("energy_forces", "fast", "md_step", "replicas", "neighbors", "million")},
    "kernels": kernels,
    "sanitizer": sanitizer,
    "profile": profile,
}


def main() -> None:
    name, path, known = sys.argv[1:]
    if _simulated():
        from support.simulator import prepare

        prepare()
    PARTS[name](Rows(Path(path), json.loads(Path(known).read_text())))


if __name__ == "__main__":
    main()
