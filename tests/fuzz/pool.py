"""Two workers, a watchdog for each, and what they find."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread

from support.places import ROOT, environment

CPU_SECONDS = 5.0
WALL_SECONDS = 90.0
"""Only for a reader that waits without working; a slow machine must not find anything."""


@dataclass(frozen=True)
class Finding:
    """A file that was neither read nor refused in a sentence."""

    kind: str
    seed: int
    mutation: str
    found: str
    detail: str

    def __str__(self) -> str:
        command = f"PYTHONPATH=.:tests python -m fuzz {self.kind} {self.seed}"
        return f"{self.kind} {self.seed} ({self.mutation}): {self.found}: {self.detail}\n    {command}"

    @property
    def cause(self) -> tuple[str, str, str]:
        """Findings that are alike in this are shown once."""
        return self.kind, self.found, self.detail.partition(": ")[0]


class WorkerError(RuntimeError):
    """A worker failed outside of the reader: a fault of the fuzzer or of a sample."""


class Worker:
    """A process of `fuzz.worker`; started again after it crashed, hung or grew."""

    def __init__(self, table: str, samples: Path, kinds: Sequence[str], cpu: float, wall: float):
        self.arguments, self.cpu, self.wall = (table, samples, kinds), cpu, wall
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the process and wait until it has read the samples."""
        table, samples, kinds = self.arguments
        self.scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.log = open(Path(self.scratch.name) / "log.txt", "w+b")
        self.buffer, self.ended = b"", False
        single = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        command = [sys.executable, "-m", "fuzz.worker", table, str(samples), self.scratch.name, str(self.cpu), *kinds]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment(**single),
            cwd=ROOT,
            start_new_session=True,  # ended together with what it started
        )
        if self._answer(600.0) is None:
            raise WorkerError(f"a worker did not start: {self._log()}")

    def read(self, kind: str, seed: int) -> Finding | None:
        """Let the worker damage and read a file."""
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{kind} {seed}\n".encode())
        self.process.stdin.flush()
        first = self._answer(600.0)
        if first is None:
            raise WorkerError(f"{kind} {seed} could not be damaged: {self._log()}")
        answer = self._answer(self.wall)
        if answer is not None and not answer["outcome"]:
            return None
        outcome = answer["outcome"] if answer is not None else self._ended()
        if answer is None or outcome["found"] in ("hang", "growth"):  # an exception leaves the process usable
            self.stop()
        return Finding(kind, seed, first["mutation"], outcome["found"], outcome["detail"])

    def _answer(self, seconds: float) -> dict | None:
        """The next line of the worker; None if it ended or waits for too long."""
        assert self.process is not None and self.process.stdout is not None
        stream = self.process.stdout.fileno()
        grace = True
        while b"\n" not in self.buffer:
            if not select.select([stream], [], [], seconds)[0]:
                if not grace:
                    return None
                grace, seconds = False, self.wall / 6.0  # this process and the worker may have been paused together
                continue
            block = os.read(stream, 65536)
            if not block:
                self.ended = True
                return None
            self.buffer += block
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def _ended(self) -> dict[str, str]:
        assert self.process is not None
        try:
            code = self.process.wait(5.0 if self.ended else 0.0)
        except subprocess.TimeoutExpired:
            return {"found": "hang", "detail": f"no answer in {self.wall:g} s"}
        if code == -signal.SIGPROF:
            return {"found": "hang", "detail": f"more than {self.cpu:g} s of processor time"}
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"found": f"crash, {name}", "detail": " ".join(self._log().split())[-300:]}

    def _log(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-3000:]

    def stop(self) -> None:
        """End the process and everything that it started."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        self.scratch.cleanup()
        self.process = None


def fuzz(
    samples: Path,
    inputs: Iterable[tuple[str, int]],
    table: str = "fuzz.readers",
    *,
    cpu: float = CPU_SECONDS,
    wall: float = WALL_SECONDS,
    n_workers: int = 2,
) -> tuple[list[Finding], Counter[str]]:
    """Read damaged files, (kind, seed) each; return what was found and how many were read of each kind."""
    inputs = list(inputs)
    kinds = list(dict.fromkeys(kind for kind, _ in inputs))
    tasks: Queue[tuple[str, int]] = Queue()
    for task in inputs:
        tasks.put(task)
    findings: list[Finding] = []
    counts: Counter[str] = Counter()
    failures: list[BaseException] = []
    lock = Lock()

    def work() -> None:
        worker = Worker(table, samples, kinds, cpu, wall)
        try:
            while not failures:
                kind, seed = tasks.get_nowait()
                finding = worker.read(kind, seed)
                with lock:
                    counts[kind] += 1
                    if finding is not None:
                        findings.append(finding)
        except Empty:
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            worker.stop()

    threads = [Thread(target=work) for _ in range(min(n_workers, len(inputs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sorted(findings, key=lambda finding: (finding.cause, finding.seed)), counts


def summary(findings: Sequence[Finding], at_most: int = 60) -> str:
    """One example of each cause and how often it was met."""
    causes: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        causes.setdefault(finding.cause, []).append(finding)
    lines = [f"{len(found)} times {found[0]}" for found in list(causes.values())[:at_most]]
    return "\n".join([f"{len(findings)} findings with {len(causes)} causes", *lines])


def spread(table: dict, n: int, first: int = 0) -> list[tuple[str, int]]:
    """(kind, seed) of `n` inputs, the same number of each kind."""
    names = sorted(table)
    return [(names[k % len(names)], first + k // len(names)) for k in range(n)]
