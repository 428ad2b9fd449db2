"""The processes of the steps: started on a safe path, told of signals, and ended with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from gmcore.running.interruption import listen

START = """
import sys
sys.path[:] = [path for path in sys.path if path]
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.append(root)
from gmcore.workflow.processes import end_with_parent
end_with_parent()
from gmcore.commands.app import main
main()
"""
"""What the process of a step executes.

`python -m` would put the current folder first on the import path: a file yaml.py there would be executed in place of
the package. The folder that holds gmcore comes last, for programs that found it by a path of their own.
"""
PAUSE = 0.05
"""s between two looks at the processes."""


class Call(NamedTuple):
    """A call of `gmtensor` in a process of its own.

    Attributes
    ----------
    arguments : of `gmtensor`.
    threads : number of its threads (None: as many as its libraries choose).
    log : file for its output, which is written anew (None: it writes where this process does).
    """

    arguments: tuple[str, ...]
    threads: int | None = None
    log: Path | None = None


class Change(NamedTuple):
    """A call is about to start, or has ended.

    Attributes
    ----------
    number : place of the call in its list.
    code : exit code, negative for a signal; None if the call is about to start.
    seconds : its duration.
    stopped : whether it was told to end, by a signal to this process or because another call had failed.
    """

    number: int
    code: int | None = None
    seconds: float = 0.0
    stopped: bool = False


class _Running(NamedTuple):
    number: int
    process: subprocess.Popen
    threads: int
    start: float


def run_step(arguments: tuple[str, ...], threads: int | None = None) -> int:
    """Run `gmtensor` with these arguments in its own process and return the exit code.

    It writes where this process does. Signals and the end of this process reach it as in `run_calls`.

    Parameters
    ----------
    threads : number of its threads (default: as many as its libraries choose).
    """
    *_, last = run_calls([Call(arguments, threads)], at_once=1, cores=1)
    return last.code or 0


def run_calls(calls: Sequence[Call], at_once: int, cores: int) -> Generator[Change, None, None]:
    """Run calls side by side, and yield each before it starts and when it has ended.

    If one fails, the others are ended and those that wait are not started. Signals that ask this process to end are
    passed on to all that run; when these have ended, the signals have their usual effect here. If this process is
    killed, they end too: see `end_with_parent`.

    Parameters
    ----------
    at_once : largest number of calls that run at the same time.
    cores : largest number of their threads in all; a call that has more runs alone.
    """
    waiting, running, stopping = deque(enumerate(calls)), list[_Running](), False
    with _Signals() as signals:
        try:
            while running or (waiting and not stopping):
                while waiting and not stopping and _fits(waiting[0][1], running, at_once, cores):
                    number, call = waiting.popleft()
                    yield Change(number)
                    running.append(_Running(number, _start(call), call.threads or 1, time.monotonic()))
                stopping |= signals.pass_on(running)
                ended = [one for one in running if one.process.poll() is not None]
                running = [one for one in running if one not in ended]
                failure = any(one.process.returncode for one in ended)
                if failure and not stopping:
                    _terminate(running)
                for one in ended:
                    _close(one)
                    yield Change(one.number, one.process.returncode, time.monotonic() - one.start, stopping)
                stopping |= failure
                if not ended:
                    time.sleep(PAUSE)
        finally:  # nothing runs any more, unless whoever asks for the changes has given up
            _terminate(running)
            for one in running:
                _close(one)


def end_with_parent() -> None:
    """Let this process end when its standard input ends, which is a pipe that its parent holds open and never fills."""

    def watch() -> None:
        if os.read(0, 1) == b"":  # at once: SIGTERM would wait for a good moment
            os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _fits(call: Call, running: Sequence[_Running], at_once: int, cores: int) -> bool:
    if not running:
        return True
    return len(running) < at_once and sum(other.threads for other in running) + (call.threads or 1) <= cores


def _start(call: Call) -> subprocess.Popen:
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", START, root, *call.arguments]
    environment = dict(os.environ)
    if call.threads is not None:
        from gmcore.threads import thread_variables  # imports Numba, which the steps must not before they are told

        environment |= thread_variables(call.threads, environment)
    # In a session of its own the step gets Ctrl-C once, from here, and not from the terminal as well.
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "start_new_session": True}
    if call.log is None:
        return subprocess.Popen(command, env=environment, **options)
    # bars that move are not for files, even if the environment asks for colors everywhere
    environment |= {"PYTHONIOENCODING": "utf-8", "TERM": "dumb"}
    with open(call.log, "wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, **options)


def _terminate(running: Iterable[_Running]) -> None:
    """Ask processes to end at once: at any moment they leave only whole files behind, and checkpoints to go on from."""
    for call in running:
        call.process.terminate()


def _close(call: _Running) -> None:
    """Wait for the end of a process and close the pipe to it."""
    call.process.wait()
    if call.process.stdin is not None:
        call.process.stdin.close()


class _Signals:
    """Context in which signals that ask this process to end or to pause wait until they are passed on.

    Afterwards the first of them that asks this process to end has the effect that it had before.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._passed: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        self._before = listen((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP), self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number in (*self._passed, *self._waiting)[:1]:
            os.kill(os.getpid(), number)

    def pass_on(self, running: Iterable[_Running]) -> bool:
        """Tell processes what has come since the last call; return whether they were ever asked to end."""
        while self._waiting:
            number = self._waiting.popleft()
            if sys.platform != "win32" and number == signal.SIGTSTP:
                _send(running, signal.SIGSTOP)
                os.kill(os.getpid(), signal.SIGSTOP)  # returns when this process is continued
                _send(running, signal.SIGCONT)
            else:
                self._passed.append(number)
                _send(running, number)
        return bool(self._passed)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._waiting.append(number)


def _send(running: Iterable[_Running], number: int) -> None:
    for call in running:
        call.process.send_signal(number)
