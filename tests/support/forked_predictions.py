"""Predictions in processes that were started after a prediction: `python -m support.forked_predictions WAY MODEL`.

Prints one energy a line: that of the first process, then those of the others.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time

from gmcore.model import Model, load_model
from gmcore.threads import get_threads, serial_blas
from support.systems import large_cluster

MODEL: Model | None = None
"""What a forked process finds loaded, and one that was spawned does not."""


def energy(path: str) -> float:
    """Energy of a structure with enough atoms that every loop is parallel."""
    global MODEL
    MODEL = MODEL or load_model(path)
    return float(MODEL.predict(large_cluster())["energy"][0])


def in_fork(path: str, generations: int) -> None:
    """Print energies in a child, its child and so on; each waits for the one that it has started."""
    child = os.fork()
    if child == 0:
        print(energy(path), flush=True)
        if get_threads() != 1:
            raise SystemExit(f"a forked process must use one thread, it uses {get_threads()}")
        if generations > 1:
            in_fork(path, generations - 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        os._exit(1)


def hold_kernels(held: threading.Event) -> None:
    """Behave as a kernel that runs for a second in another thread."""
    with serial_blas():
        held.set()
        time.sleep(1.0)


def main(way: str, path: str) -> None:
    """Run one of the ways."""
    print(energy(path), flush=True)
    if way == "generations":
        in_fork(path, 3)
    elif way == "thread":
        held = threading.Event()
        threading.Thread(target=hold_kernels, args=[held]).start()
        held.wait()
        in_fork(path, 1)
    else:
        with multiprocessing.get_context(way).Pool(2) as pool:
            energies = pool.map(energy, [path] * 3)
            pool.close()
            pool.join()
        print(*energies, sep="\n", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
