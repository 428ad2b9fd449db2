"""What a newcomer waits for: importing gmcore, and a first prediction from a model file, in fresh processes.

The first prediction is timed from the start of the interpreter to energy and forces of a molecule, with the compiled
kernels on disk and with an empty cache.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from perf.harness import Timing, foreign_share, in_child, processor_time
from perf.report import Row, disturbance

REPEATS = 7


def run() -> list[Row]:
    from gmcore.model_file import write_model
    from perf.systems import model_parts

    before = processor_time()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.h5")
        settings, member = model_parts()
        write_model(path, settings, [member])
        env = {"NUMBA_CACHE_DIR": str(Path(folder) / "cache")}
        cold = in_child("perf.bench_startup", "first_prediction", {"path": path}, env)
        warm = [in_child("perf.bench_startup", "first_prediction", {"path": path}, env) for _ in range(REPEATS)]
        imports = [in_child("perf.bench_startup", "import_time", {}, env) for _ in range(REPEATS)]

    disturbed = disturbance(foreign_share(before, processor_time()))

    def row(what, samples, target):
        timing = Timing.of(np.array(samples))
        spread = (timing.median, timing.lower, timing.upper)
        return Row(what, "fresh process", "s", *spread, target=target, **disturbed)

    return [
        row("import gmcore", [one["gmcore"] for one in imports], "<= 1"),
        row("import gmcore.model", [one["model"] for one in imports], "<= 1"),
        row("first prediction, warm cache", [one["wall_s"] for one in warm], "<= 3"),
        row("first prediction, cold cache", [cold["wall_s"]], "<= 45"),
    ]


def import_time() -> dict:
    """Seconds for `import gmcore`, then for the rest of what a prediction needs."""
    # `perf` has imported gmcore on the way here; a process that has not is timed instead
    import subprocess
    import sys

    code = (
        "import time; t = time.perf_counter(); import gmcore; a = time.perf_counter(); "
        "import gmcore.model; b = time.perf_counter(); print(a - t, b - t)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, whole = map(float, done.stdout.split())
    return {"gmcore": first, "model": whole}


def first_prediction(path: str) -> dict:
    """Load a model and predict for one molecule; seconds of both."""
    start = time.perf_counter()
    from ase.build import molecule

    from gmcore.model import load_model

    model = load_model(path)
    loaded = time.perf_counter()
    model.predict(molecule("CH3CH2OH"), ["energy", "forces"])
    return {"load": loaded - start, "predict": time.perf_counter() - loaded}
