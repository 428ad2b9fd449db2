"""Ending long work at a good moment: after a chunk, an epoch or a part, when a signal or a time limit asks for it.

The first SIGTERM or SIGINT is remembered, and the work ends where it can go on later. A second one has its usual effect
at once, in which case everything since the last good moment is lost. Batch systems send SIGTERM before they kill.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from gmcore.errors import GMError, excerpt

AGAIN = 75
"""Exit code of work that has ended early and goes on if the same command is run again (EX_TEMPFAIL of sysexits.h)."""

_TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d)(?::([0-5]\d))?")


def listen(numbers: Iterable[int], receive: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let `receive` handle signals; return the handlers before.

    What is ignored, SIGHUP under nohup for example, stays ignored, in child processes too.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, receive)
    return before


class EndedEarly(Exception):
    """Work has ended early, at a moment from which it can go on; the message says why."""


class Interruption:
    """Context in which work is asked to end, and asks at its good moments whether it should.

    Parameters
    ----------
    seconds : time limit; the work ends before it if the next piece would not be finished by then.
    piece : what is finished before the work ends, for the message: "chunk". Without one a signal ends the work at once,
        by an exception wherever it is.
    say : called with that message when a signal has come.
    """

    def __init__(
        self, seconds: float | None = None, piece: str = "piece", say: Callable[[str], object] = lambda words: None
    ):
        self._limit, self._piece, self._say = seconds, piece, say
        self._began = self._last = time.monotonic()
        self._longest = 0.0
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Begin to listen for signals; those that are ignored stay ignored."""
        self._began = self._last = time.monotonic()
        if threading.current_thread() is threading.main_thread():  # only there may signals be handled
            self._before = listen((signal.SIGTERM, signal.SIGINT), self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the signals their usual effects back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def requested(self) -> bool:
        """Whether a signal has asked for an end."""
        return self._signal is not None

    @property
    def seconds_left(self) -> float | None:
        """Time to the limit; None if there is none."""
        return None if self._limit is None else self._limit - (time.monotonic() - self._began)

    def begin(self) -> None:
        """Say that a piece begins: what was done before is not measured as a part of it."""
        self._last = time.monotonic()

    def why(self) -> str:
        """Say that a piece is finished; return why the work should end before the next one, or nothing."""
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        if self._signal is not None:
            return f"ended by {signal.Signals(self._signal).name}"
        if self._limit is not None and now - self._began + self._longest > self._limit:
            return "ended by the time limit"
        return ""

    def check(self) -> None:
        """Say that a piece is finished and everything is written down.

        Raises
        ------
        EndedEarly : the work should end here.
        """
        if why := self.why():
            raise EndedEarly(why)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            signal.signal(number, self._before.get(number, signal.SIG_DFL))
            os.kill(os.getpid(), number)
            return
        self._signal = number
        name = signal.Signals(number).name
        if not self._piece:
            raise EndedEarly(f"ended by {name}")
        self._say(f"{name}: ending after this {self._piece}; a second signal ends at once")


def parse_time(text: str) -> float:
    """Return the seconds of a time limit: hours and minutes, "23:30", with days or seconds "1-12:00" or "0:00:30".

    Raises
    ------
    GMError : it has another form.

    Examples
    --------
    >>> parse_time("23:30"), parse_time("1-00:00"), parse_time("0:00:30")
    (84600.0, 86400.0, 30.0)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise GMError(f"a time limit must be hours and minutes, such as 23:30, 0:00:30 or 1-12:00, got {excerpt(text)}")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 60.0 * (60.0 * (24.0 * days + hours) + minutes) + seconds


def time_text(seconds: float) -> str:
    """Return a duration as `parse_time` reads it, rounded down to seconds.

    Examples
    --------
    >>> time_text(84629.7)
    '23:30:29'
    """
    whole = max(int(seconds), 0)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
