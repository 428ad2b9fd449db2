"""Trains one model, measures its errors and its speed: `python -m perf.pareto.worker task.json`.

Runs in the environment of the peer, so that it and the modules fit_PEER import nothing of gmtensor but `perf.harness`.
A module fit_PEER has

    CELL                                                                     what cell its calculator wants around a
                                                                             molecule: none, vacuum, periodic vacuum
    fit(train, validation, options, folder, minutes, seed) -> training, details
    load(folder) -> calculator                                               a new ASE calculator of the trained model

The frames are `ase.Atoms` with energy and forces (eV, eV/A), `training` is the `Stopwatch` of the training itself,
without trials to see how fast it goes, and `details` are numbers to keep (epochs, parameters).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from perf import harness

VACUUM = 30.0  # A; more than a molecule and two cutoffs
PROBE_S = 5.0


class Stopwatch:
    """Context that measures its minutes and the share of the processors that others used meanwhile."""

    minutes = foreign = float("nan")

    def __enter__(self) -> Stopwatch:
        self._before = harness.processor_time()
        return self

    def __exit__(self, *exception) -> None:
        after = harness.processor_time()
        self.minutes = (after[0] - self._before[0]) / 60
        self.foreign = harness.foreign_share(self._before, after)


def main(task_file: str) -> None:
    """Do what the file says and write result.json beside it."""
    path = Path(task_file)
    task = json.loads(path.read_text())
    if hasattr(os, "sched_setaffinity"):  # JAX has no other switch for its pool of threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["settings"]["threads"]])
    peer = importlib.import_module(f"perf.pareto.fit_{task['peer']}")
    with np.load(path.parent / "frames.npz") as file:
        frames = dict(file)
    train, validation = (labeled(frames, part) for part in ("train", "validation"))
    folder, found, settings = path.parent, path.parent / "result.json", task["settings"]
    if not found.is_file():
        options, minutes = settings["options"], settings["minutes"]
        training, details = peer.fit(train, validation, options, folder, minutes, task["seed"])
        result = {
            "training_minutes": training.minutes,
            "training_foreign": training.foreign,
            **errors(peer.load(folder), frames, peer.CELL),
            "details": details,
            "versions": {name: importlib.metadata.version(name) for name in task["versions"]},
        }
        found.write_text(json.dumps(result))
    result = json.loads(found.read_text()) | cost(peer.load(folder), frames, task["patience_s"])
    found.write_text(json.dumps(result))


def labeled(frames: dict[str, np.ndarray], part: str) -> list[Atoms]:
    """The frames of one part with their labels."""
    found = []
    for positions, energy, forces in zip(*(frames[f"{part}_{key}"] for key in ("positions", "energies", "forces"))):
        atoms = Atoms(frames["numbers"], positions)
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces)
        found.append(atoms)
    return found


def errors(calculator: Calculator, frames: dict[str, np.ndarray], cell: str) -> dict[str, float]:
    """MAE of the energy of a molecule (meV) and of a component of a force (meV/A) over the test part."""
    energies, forces = [], []
    for positions in frames["test_positions"]:
        atoms = Atoms(frames["numbers"], positions)
        if cell != "none":
            atoms.set_cell([VACUUM] * 3)
            atoms.pbc = cell == "periodic vacuum"
        atoms.calc = calculator
        forces.append(atoms.get_forces())
        energies.append(atoms.get_potential_energy())
    return {
        "energy_mae": 1e3 * float(np.abs(np.array(energies) - frames["test_energies"]).mean()),
        "forces_mae": 1e3 * float(np.abs(np.array(forces) - frames["test_forces"]).mean()),
    }


def cost(calculator: Calculator, frames: dict[str, np.ndarray], patience_s: float) -> dict:
    """Time of energy and forces of the periodic box, us per atom: a call of the ASE calculator on moved positions.

    Atoms go to and fro by 0.01 A, as in a step of dynamics: nothing can be taken from the call before but a neighbor
    list, and that by the calculators that keep one.
    """
    atoms = Atoms(frames["box_numbers"], frames["box_positions"], cell=frames["box_cell"], pbc=True)
    atoms.calc = calculator
    places = [atoms.positions + 0.01 * np.random.default_rng(k).uniform(-1, 1, (len(atoms), 3)) for k in (0, 1)]
    turn = 0

    def call() -> None:
        nonlocal turn
        turn += 1
        atoms.positions[:] = places[turn % 2]
        if not np.isfinite(atoms.get_forces()).all() or not np.isfinite(atoms.get_potential_energy()):
            raise ArithmeticError("energy or forces of the box are not finite")

    call()
    call()  # a compiled package may compile twice, once for each length of its list
    timed = harness.compare({"call": call}, sample_s=0.1, budget_s=6.0, patience_s=patience_s)
    time_s = timed.time("call") * (1e6 / len(atoms))
    return {
        "cost_us": time_s.median,
        "cost_quartiles_us": [time_s.lower, time_s.upper],
        "cost_foreign": timed.foreign,
        "cost_disturbed": timed.disturbed,
        "box_atoms": len(atoms),
    }


def epochs_for(minutes: float, command: list[str], log: Path, most: int = 100_000) -> int:
    """Return the number of epochs that fill the time, from the pace of a trial run that is stopped after some seconds.

    Parameters
    ----------
    command : a training that never ends on its own.
    log : its table of epochs, a header and a line for each.

    Raises
    ------
    RuntimeError : the trial ended on its own, or had no second epoch after twice the time.
    """
    start = time.perf_counter()
    limit = start + max(120.0, 120.0 * minutes)
    seen: list[tuple[float, int]] = []  # when the log had grown, and to how many epochs
    trial = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(seen) < 2 or seen[-1][0] - seen[0][0] < PROBE_S:
            if trial.poll() is not None or time.perf_counter() > limit:
                n_epochs = seen[-1][1] if seen else 0
                raise RuntimeError(f"a trial of {' '.join(command)} to see its pace gave {n_epochs} epochs")
            time.sleep(0.02)
            n_epochs = len(log.read_text().splitlines()) - 1 if log.is_file() else 0
            if n_epochs > (seen[-1][1] if seen else 0):
                seen.append((time.perf_counter(), n_epochs))
    finally:
        trial.terminate()
        trial.wait()
    (first, n_first), (last, n_last) = seen[0], seen[-1]
    pace = (last - first) / (n_last - n_first)
    before = first - start - n_first * pace  # imports and compilation
    return int(np.clip((60 * minutes - before) / pace, 1, most))


def checked(command: list[str]) -> None:
    """Run a command, its output in the log of this process.

    Raises
    ------
    RuntimeError : it failed.
    """
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise RuntimeError(f"{' '.join(command)} ended with code {code}")


if __name__ == "__main__":
    main(sys.argv[1])
