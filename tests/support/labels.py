"""Frames and functions for the tests of labels: every frame has its own number, which its label repeats."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

FUNCTION = """
import fcntl, os, subprocess, sys, time
import numpy as np

HERE = os.path.dirname(__file__)
alive = open(os.path.join(HERE, "alive"))
fcntl.flock(alive, fcntl.LOCK_SH)  # until the process ends


def d_tensor(numbers, positions):
    x = float(positions[0, 0])
    with open(os.path.join(HERE, "log"), "a") as log:
        log.write(f"{x!r}\\n")
    return x * np.diag([-1.0, -1.0, 2.0])


def fails(numbers, positions):
    x = positions[0, 0]
    if x == 0.0:
        raise ValueError("the first frame is not liked")
    if x == 1.0:
        os.kill(os.getpid(), 11)
    if x == 2.0:
        return {"energy": 1.0}
    if x == 3.0:
        return np.full((3, 3), np.nan)
    if x == 4.0:
        return 1j * np.diag([-1.0, -1.0, 2.0])
    print("printed by the function")
    return d_tensor(numbers, positions)


def hangs(numbers, positions):
    d_tensor(numbers, positions)
    if positions[0, 0] == 2.0:
        # a child that outlives its parent, and holds the lock as well
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], pass_fds=[alive.fileno()])
        time.sleep(1000)
    return d_tensor(numbers, positions)


def energy(atoms, scale):
    return {"energy": scale * atoms.info["total_charge"], "forces": atoms.positions}
"""


def frame(k: int) -> Atoms:
    """Water, k A along x."""
    return Atoms(
        "OHH", [[float(k), 0.0, 0.0], [k + 0.96, 0.0, 0.1], [k - 0.24, 0.93, 0.0]], info={"source": f"run {k}"}
    )


def write_frames(folder: Path, count: int, **info) -> Path:
    """Write frames, the function above and what it needs; return the file of the frames."""
    frames = [frame(k) for k in range(count)]
    for atoms in frames:
        atoms.info.update(info)
    ase.io.write(folder / "frames.extxyz", frames)
    (folder / "function.py").write_text(FUNCTION)
    for name in ("alive", "log"):
        (folder / name).touch()
    return folder / "frames.extxyz"


def numbers_of(path: Path) -> list[float]:
    """Numbers of the frames in a labeled file, by their D tensors."""
    return [np.asarray(atoms.info["d_tensor"])[2, 2] / 2.0 for atoms in ase.io.read(path, index=":")]


def finished(work: Path) -> set[float]:
    """Numbers of the frames whose labels are in a work folder."""
    records = [json.loads(path.read_text()) for path in (work / "frames").glob("[0-9a-f]*.json")]
    return {record["values"]["d_tensor"][2][2] / 2.0 for record in records}


def computed(folder: Path) -> list[float]:
    """Numbers of the frames for which the function was called."""
    return [float(line) for line in (folder / "log").read_text().split()]
