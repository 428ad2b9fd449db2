"""One row: environment, worker, result. It is kept as soon as it is there, so that a killed run goes on."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from gmcore.files import atomic_path
from perf.harness import ROOT
from perf.pareto.environments import NotInstalledError, interpreter
from perf.pareto.frames import Sizes
from perf.pareto.table import PEERS, Model
from perf.report import commit, machine, slug

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass
class Results:
    """The file of this machine: molecule -> name of a model -> what was found, or {"absent": why}."""

    folder: Path = ROOT / "perf" / "results"
    molecules: dict[str, dict[str, dict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.is_file():
            self.molecules = json.loads(self.path.read_text())["molecules"]

    @property
    def path(self) -> Path:
        return self.folder / f"pareto-{slug(str(machine()['name']))}.json"

    def missing(self, molecule: str, model: Model, settings: dict) -> str:
        """What a row lacks: "all" (also if it was absent or had other settings), "cost" (it was disturbed), or ""."""
        row = self.molecules.get(molecule, {}).get(model.name, {})
        if row.get("settings") != settings:
            return "all"
        return "cost" if row["cost_disturbed"] else ""

    def keep(self, molecule: str, model: Model, row: dict) -> None:
        """Write a row into the file."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        row = {"peer": model.peer, **_rounded(row), "measured": now, "commit": commit()}
        self.molecules.setdefault(molecule, {})[model.name] = row
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as path:
            text = json.dumps({"machine": machine(), "molecules": self.molecules}, indent=1)
            Path(path).write_text(text + "\n")


def settings_of(model: Model, sizes: Sizes, minutes: float, threads: int) -> dict:
    """What a row depends on, as JSON gives it back."""
    found = {"options": model.options, "sizes": asdict(sizes), "minutes": minutes, "threads": threads}
    return json.loads(json.dumps(found))


def run(
    model: Model,
    frames: dict[str, np.ndarray],
    settings: dict,
    cache: Path,
    folder: Path,
    patience_s: float,
    cost_only: bool = False,
) -> dict:
    """Train and measure one model in a process of its own.

    Parameters
    ----------
    cache : where the environments of the peers are.
    folder : of this row, with its model and its log; cleared before a training.
    cost_only : only measure the speed again, if the folder has the model of these settings.

    Returns
    -------
    What `perf.pareto.worker` writes and `settings`; or "absent", a sentence that says why there is nothing.
    """
    peer = PEERS[model.peer]
    if peer.absent:
        return {"absent": peer.absent}
    try:
        python = interpreter(cache / model.peer, peer.packages)
    except NotInstalledError as error:
        return {"absent": f"not installed: {error}"}
    file = folder / "task.json"
    if not (cost_only and file.is_file() and json.loads(file.read_text())["settings"] == settings):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        np.savez(folder / "frames.npz", **frames)
    task = {"peer": model.peer, "settings": settings, "versions": peer.versions, "patience_s": patience_s, "seed": 1}
    file.write_text(json.dumps(task))
    command = [str(python), "-m", "perf.pareto.worker", str(file)]
    why = _finished(command, folder, settings["threads"], limit_s=60 * (4 * settings["minutes"] + 15))
    return {"absent": why} if why else json.loads((folder / "result.json").read_text()) | {"settings": settings}


def _finished(command: list[str], folder: Path, threads: int, limit_s: float) -> str:
    """Run the worker; returns why it did not end well, or nothing."""
    environment = (
        os.environ | dict.fromkeys(THREADS, str(threads)) | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    with open(folder / "log.txt", "wb") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = worker.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s / 60:.0f} minutes"
        finally:
            if worker.poll() is None:  # also when this process is interrupted; the worker has children of its own
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
    lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines() or [""]
    return f"failed: {lines[-1].strip()[:300]}" if code else ""


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value
