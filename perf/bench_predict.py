"""`gmtensor predict` of many small molecules: frames per second and peak memory, and reading and writing against ASE.

Every file is predicted in a process of its own, from extended XYZ. Reading and writing alone are compared with ASE in
one process: ours, theirs, ours, ...
"""

from __future__ import annotations

import io
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from perf.harness import Timing, foreign_share, in_child, peak_memory, processor_time
from perf.report import Row, disturbance

FRAMES = (10_000, 100_000)
COMPARED = 2_000
REPEATS = 5
OUTPUTS = {".extxyz": "extended XYZ", ".h5": "HDF5"}


def run() -> list[Row]:
    rows, before = [], processor_time()
    with tempfile.TemporaryDirectory() as folder:
        found = in_child("perf.bench_predict", "compare", {"folder": folder})
        disturbed = disturbance(foreign_share(before, processor_time()))
        for what in ("read", "write"):
            ours, theirs = np.array(found[what]), np.array(found[f"{what}_ase"])
            timing = Timing.of(theirs / ours)
            spread = (timing.median, timing.lower, timing.upper)
            system = f"{COMPARED} frames of ethanol with forces"
            rows.append(Row(f"{what} extended XYZ, ASE over ours", system, "x", *spread, target=">= 5", **disturbed))
        for suffix, name in OUTPUTS.items():
            for n_frames in FRAMES:
                before = processor_time()
                found = in_child("perf.bench_predict", "child", {"folder": folder, "n": n_frames, "suffix": suffix})
                disturbed = disturbance(foreign_share(before, processor_time()))
                system = f"{n_frames} frames of ethanol"
                rows.append(Row(f"extended XYZ to {name}", system, "frames/s", n_frames / found["wall"], **disturbed))
                rows.append(Row(f"extended XYZ to {name}, peak, whole process", system, "GB", found["peak"] / 1e9))
    return rows


def frames(n: int) -> Iterator:
    """Ethanol, every atom displaced by about 0.05 A."""
    from ase.build import molecule

    rng, start = np.random.default_rng(1), molecule("CH3CH2OH")
    for _ in range(n):
        atoms = start.copy()
        atoms.positions += rng.normal(scale=0.05, size=(len(start), 3))
        yield atoms


def compare(folder: str) -> dict:
    """Seconds of reading and writing, ours and those of ASE, in turns."""
    from ase.io import iread, write

    from gmcore.data.readers.ase_files import frame_of
    from gmcore.data.reading import read_frames
    from gmcore.extxyz.writing import write_xyz

    rng, structures = np.random.default_rng(2), list(frames(COMPARED))
    for atoms in structures:
        atoms.arrays["forces"] = rng.normal(size=(len(atoms), 3))
        atoms.info = {"energy": float(rng.normal()), "units": "positions=A energy=eV forces=eV/A"}
    path = Path(folder) / "compared.xyz"
    write(path, structures, format="extxyz")
    tasks: dict[str, Callable[[], object]] = {
        "read": lambda: deque(read_frames(path), 0),
        "read_ase": lambda: deque((frame_of(atoms, "") for atoms in iread(path, ":", format="extxyz")), 0),
        "write": lambda: write_xyz(io.StringIO(), structures),
        "write_ase": lambda: write(io.StringIO(), structures, format="extxyz"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(REPEATS):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def child(folder: str, n: int, suffix: str) -> dict:
    """Predict for n frames; seconds and bytes."""
    from gmcore.data.reading import Source
    from gmcore.evaluation.streaming import Task, predict_file
    from gmcore.extxyz.writing import write_xyz
    from gmcore.model import load_model
    from gmcore.model_file import write_model
    from perf.systems import model_parts

    path, model_file = Path(folder) / f"{n}.xyz", Path(folder) / "model.h5"
    if not path.exists():
        with open(path, "w") as stream:
            write_xyz(stream, frames(n))
    if not model_file.exists():
        settings, member = model_parts(r_max=5.0, hidden=(64, 64))
        write_model(model_file, settings, [member])
    model = load_model(model_file, "float32")
    task = Task(Source(path), {"length": "A"})
    start = time.perf_counter()
    predict_file(model, model_file, task, path.with_suffix(suffix).with_stem(f"out{n}"))
    return {"wall": time.perf_counter() - start, "peak": peak_memory()}
