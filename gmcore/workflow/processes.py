"""The processes of the steps: started on a safe path, told of signals, and ended with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

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


def run_step(arguments: tuple[str, ...]) -> int:
    """Run `gmtensor` with these arguments in its own process and return the exit code.

    Signals that ask this process to end are passed on to the step, then they have their usual effect here. If this
    process is killed, the step ends too: see `end_with_parent`.
    """
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", START, root, *arguments]
    # In a session of its own the step gets Ctrl-C once, from here, and not from the terminal as well.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process, _passed_on(process):
        return process.wait()


def end_with_parent() -> None:
    """Let this process end when its standard input ends, which is a pipe that its parent holds open and never fills."""

    def watch() -> None:
        if os.read(0, 1) == b"":
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _passed_on(process: subprocess.Popen) -> Iterator[None]:
    """Pass signals on to a process and wait for its end; then they have the effect that they had before."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    def suspend(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # returns when this process is continued
        process.send_signal(signal.SIGCONT)

    handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), pass_on) | {signal.SIGTSTP: suspend}
    # what is ignored, SIGHUP under nohup for example, stays ignored, in the step too
    before = {n: signal.getsignal(n) for n in handlers if signal.getsignal(n) not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        os.kill(os.getpid(), received[0])
