"""Labels from Python code that the configuration names: an ASE calculator, or a function of the user's."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from gmcore.config.labeling import LabelConfig
from gmcore.errors import shortened
from gmcore.labeling.methods import FrameJob, LabelError, Labels, Refused
from gmcore.labeling.processes import Interrupted, Processes, Supervised, described, environment_with, over_time
from gmcore.labeling.worker import START

if TYPE_CHECKING:
    from ase import Atoms

START_LIMIT = 600.0
"""s in which the code must be imported; a slow disk may take minutes."""


class CodeMethod:
    """Code in worker processes, each of which computes one frame after the other.

    Parameters
    ----------
    config : with the section `ase` or `python`.
    processes : where the workers run.
    """

    needs_charge = False
    retries = False

    def __init__(self, config: LabelConfig, processes: Processes):
        section = config.ase or config.python
        if section is None:
            raise LabelError(f"method {config.method} is no Python code")
        self._settings: dict[str, Any] = {"method": config.method, "quantities": list(config.wanted)}
        self._settings |= section.model_dump(mode="json")
        self._name = self._settings["calculator" if config.method == "ase" else "function"]
        self._threads = config.threads
        self._processes = processes
        self._idle: SimpleQueue[Supervised] = SimpleQueue()
        self._versions: str | None = None

    def check(self) -> None:
        """Import the code in a worker.

        Raises
        ------
        LabelError : it cannot be imported.
        """
        self._idle.put(self._started())

    def identity(self) -> str:
        """Settings, versions and the content of the user's file."""
        settings = self._settings
        if self._settings["method"] == "python":  # the content decides, and a folder may be moved
            settings = settings | {"function": Path(self._name).name}
        return json.dumps(settings, sort_keys=True) + f" {self._versions}"

    def label(self, atoms: Atoms, job: FrameJob) -> Labels:
        """Let a worker compute a frame.

        Raises
        ------
        Refused : the code raised an error, its process ended, or it reached the time limit.
        """
        deadline = time.monotonic() + job.time_limit
        try:
            worker = self._idle.get_nowait()
        except Empty:
            worker = self._started()
            deadline = time.monotonic() + job.time_limit
        worker.send(
            {
                "folder": str(job.folder),
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": atoms.cell.array.tolist(),
                "pbc": atoms.pbc.tolist(),
                "total_charge": job.total_charge,
                "multiplicity": job.multiplicity,
            }
        )
        try:
            answer = worker.receive(deadline)
        except TimeoutError:
            self._processes.end(worker)
            raise over_time(job.time_limit) from None
        except BaseException:
            self._processes.end(worker)
            raise
        if "exit" in answer:
            self._processes.end(worker)
            self._unless_stopped()
            raise Refused(f"the process that computes {self._name} ended with {described(answer['exit'])}")
        self._idle.put(worker)
        if "error" in answer:
            raise Refused(answer["error"])
        return Labels(answer["values"])

    def close(self) -> None:
        """End the workers."""
        while True:
            try:
                self._processes.end(self._idle.get_nowait())
            except Empty:
                return

    def _started(self) -> Supervised:
        """Return a new worker that has imported the code."""
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-c", START, root]
        with tempfile.TemporaryFile() as log:
            here = Path(tempfile.gettempdir())
            worker = self._processes.start(command, here, environment_with(self._threads), log, replies=True)
            worker.send(self._settings)
            try:
                answer = worker.receive(time.monotonic() + START_LIMIT)
            except TimeoutError:
                answer = {"error": f"it was not imported within {START_LIMIT:g} s"}
            except BaseException:
                self._processes.end(worker)
                raise
            if "identity" in answer:
                if self._versions not in (None, answer["identity"]):
                    self._processes.end(worker)
                    raise LabelError(f"{self._name} was changed while frames were labeled: run the same command again")
                self._versions = answer["identity"]
                return worker
            self._processes.end(worker)
            self._unless_stopped()
            reason = answer.get("error") or f"its process ended with {described(answer['exit'])}: {_last_line(log)}"
        raise LabelError(f"{self._name} cannot be used: {reason}{self._advice(reason)}")

    def _advice(self, reason: str) -> str:
        package = self._name.split(".")[0]
        if self._settings["method"] == "ase" and f"No module named '{package}'" in reason:
            return f" ({package} is not installed: pip install {package})"
        return ""

    def _unless_stopped(self) -> None:
        if self._processes.stopped:
            raise Interrupted("labeling is being stopped")


def _last_line(log: Any) -> str:
    log.seek(0)
    lines = log.read()[-10_000:].decode(errors="replace").split("\n")
    return shortened(next((line for line in reversed(lines) if line.strip()), "it printed nothing"))
