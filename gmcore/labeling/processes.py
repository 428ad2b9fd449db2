"""Programs that end with everything they have started: at a time limit, at an interruption, and when this process dies.

Between this process and a program stands a supervisor, a small process that leads a group of its own. Its standard
input is a pipe that this process holds open. When that pipe ends, because this process has ended in whatever way, the
supervisor kills its group. It passes on to the program what comes through the pipe, and reports the program's end.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any

from gmcore.errors import GMError
from gmcore.labeling.methods import Refused
from gmcore.threads import VARIABLES

SUPERVISE = r"""
import os, signal, subprocess, sys, threading
replies, *command = sys.argv[1:]

def report(child):
    os.write(1, b'\n{"exit": %d}\n' % child.wait())

try:
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=None if replies == "replies" else 2)
    threading.Thread(target=report, args=(child,), daemon=True).start()
    while piece := os.read(0, 65536):
        try:
            child.stdin.write(piece)
            child.stdin.flush()
        except OSError:  # it has ended, which is reported
            pass
finally:
    os.killpg(0, signal.SIGKILL)
"""


class Interrupted(GMError):
    """Labeling is being stopped."""


class Processes:
    """The processes that are running; all of them can be ended at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: set[Supervised] = set()
        self._stopped = False

    def start(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: IO[bytes],
        replies: bool = False,
    ) -> Supervised:
        """Start a program.

        Parameters
        ----------
        environment : all its variables.
        log : file that takes its output, or only its errors if `replies`.
        replies : whether the program writes lines of JSON, for `Supervised.receive`, to its standard output.

        Raises
        ------
        Interrupted : labeling is being stopped.
        """
        with self._lock:
            if self._stopped:
                raise Interrupted("labeling is being stopped")
            process = Supervised(command, folder, environment, log, replies)
            self._running.add(process)
            return process

    def end(self, process: Supervised) -> None:
        """End a process and all that it has started."""
        with self._lock:
            self._running.discard(process)
        process.kill()
        process.close()

    def stop(self) -> None:
        """End all processes; no other can be started."""
        with self._lock:
            self._stopped = True
            for process in self._running:  # closed by the threads that wait for them
                process.kill()

    @property
    def stopped(self) -> bool:
        """Whether labeling is being stopped."""
        return self._stopped


class Supervised:
    """A program under its supervisor; parameters as of `Processes.start`."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: IO[bytes],
        replies: bool,
    ):
        supervisor = [sys.executable, "-I", "-S", "-c", SUPERVISE, "replies" if replies else "none", *command]
        self._process = subprocess.Popen(
            supervisor,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=dict(environment),
            bufsize=0,
            start_new_session=True,
        )
        self._lock = Lock()
        self._buffer = b""

    def send(self, message: Any) -> None:
        """Write a line of JSON to the standard input of the program."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        with suppress(BrokenPipeError):  # it has been killed, which `receive` will notice
            while data:
                data = data[os.write(self._input, data) :]

    def receive(self, deadline: float) -> Any:
        """Return the next message: one of the program, or {"exit": code} when it has ended, -9 for signal 9.

        Parameters
        ----------
        deadline : time of `time.monotonic`.

        Raises
        ------
        TimeoutError : no message came until then.
        """
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                with suppress(ValueError):  # what a program had begun to write when it ended
                    return json.loads(line)
                continue
            with selectors.DefaultSelector() as selector:
                selector.register(self._output, selectors.EVENT_READ)
                if not selector.select(max(deadline - time.monotonic(), 0.0)):
                    raise TimeoutError
            piece = os.read(self._output, 65536)
            if not piece:
                return {"exit": -signal.SIGKILL}
            self._buffer += piece

    def kill(self) -> None:
        """Kill the supervisor, the program and all that it has started."""
        with self._lock:
            if self._process.returncode is None:  # not waited for, so the number belongs to no other group
                with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of dead processes
                    os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait for the end of a process that was killed, and close its pipes."""
        with self._lock:
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def _input(self) -> int:
        return self._process.stdin.fileno()  # type: ignore[union-attr]

    @property
    def _output(self) -> int:
        return self._process.stdout.fileno()  # type: ignore[union-attr]


def environment_with(threads: int, others: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of this process, with a number of threads for all libraries, and others."""
    return {**os.environ, **dict.fromkeys(VARIABLES, str(threads)), **(others or {})}


def described(code: int) -> str:
    """Return how a process ended: "exit code 3", "signal SIGSEGV"."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def over_time(limit: float) -> Refused:
    """Return the error for a frame that has reached its time limit, s."""
    return Refused(f"it was not finished within the time limit of {limit:g} s: raise time_limit and use --retry")
