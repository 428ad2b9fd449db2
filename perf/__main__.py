"""Run benchmarks: `python -m perf [names] [--threads N] [--patience S] [--no-save]`, from the root of a checkout.

`python -m perf training --to-error` trains instead of timing single steps (`bench_to_error`).

`python -m perf card` is what a machine with a GPU is asked (`perf.card`), `python -m perf gpu_model` what one should
answer (`perf.gpu_model`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

BENCHES = {
    "kernels": "the two stages alone",
    "energy_forces": "energy and forces",
    "presets": "energy and forces with the presets",
    "training": "training steps",
    "neighbors": "neighbor lists",
    "memory": "peak memory of energy and forces",
    "startup": "import and first prediction",
    "dynamics": "molecular dynamics of many replicas",
    "errors": "predictions with errors",
    "lammps": "steps of LAMMPS on two processes",
    "predict": "predictions of files with many frames",
    "gpu": "energy and forces on a GPU",
}
PROGRAMS = ("card", "gpu_model")
"""Commands with options of their own."""

RMD17 = Path(__file__).resolve().parents[2] / "shared" / "data" / "rmd17"


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in PROGRAMS:
        sys.exit(importlib.import_module(f".{sys.argv[1]}", __package__).main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m perf", description="Run benchmarks and keep the results.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--threads", type=int, default=None, help="threads of every pool; all usable cores by default")
    parser.add_argument(
        "--patience", type=float, default=60.0, help="seconds to wait for a quiet machine, per comparison"
    )
    parser.add_argument("--no-save", action="store_true", help="show only, leave perf/results alone")
    parser.add_argument(
        "--to-error", action="store_true", help="training: epochs and seconds to given errors, a quarter of an hour"
    )
    parser.add_argument("--data", type=Path, default=RMD17, help="folder of revised MD17, for --to-error")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of each training of --to-error")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHES]
    if unknown:
        parser.error(f"benchmarks are {', '.join(BENCHES)}, got {unknown[0]!r}")
    if arguments.threads is not None:
        # before NumPy, Numba and TensorFlow are loaded: some pools never change size afterwards
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[name] = str(arguments.threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments.to_error and arguments.names != ["training"]:
        parser.error("--to-error belongs to training alone: python -m perf training --to-error")
    to_error = (arguments.data, arguments.epochs) if arguments.to_error else None
    names = arguments.names or list(BENCHES)
    _run(names, arguments.threads, arguments.patience, not arguments.no_save, to_error)


def _run(
    names: list[str], threads: int | None, patience_s: float, save: bool, to_error: tuple[Path, int] | None = None
) -> None:
    from gmcore.threads import available_cores, set_threads
    from perf import harness
    from perf.peers import installed
    from perf.report import Report, commit, machine, show

    if installed("tensorflow"):
        importlib.import_module("tensorflow")  # so that `set_threads` reaches its pools before they start
    harness.PATIENCE_S = patience_s
    threads = threads or available_cores()
    set_threads(threads)
    print(f"{machine()['name']}, {threads} threads, commit {commit()}")
    report = Report(threads=threads)
    for name in names:
        if to_error is not None:
            name, title = "to_error", "epochs and seconds of processor to an error"
            rows = importlib.import_module(".bench_to_error", __package__).run(*to_error)
        else:
            title, rows = BENCHES[name], importlib.import_module(f".bench_{name}", __package__).run()
        show(f"{name}: {title}", rows)
        if save:
            report.benches = {name: rows}
            for left_out in report.save():
                print(f"{left_out} is not saved: the machine was busy with other things")


if __name__ == "__main__":
    main()
