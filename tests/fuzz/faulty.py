"""Readers with every fault that the fuzzer looks for, to see that it finds them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fuzz.readers import Kind
from gmcore.errors import GMError


def _bytes(folder: Path) -> bytes | None:
    """Return None for the sample, which every reader here must read."""
    content = (folder / "a.txt").read_bytes()
    return None if content == (folder / "sample.txt").read_bytes() else content


def _reader(fault):
    def read(folder: Path) -> None:
        if _bytes(folder) is not None:
            fault()

    return read


def _spin() -> None:
    while True:
        pass


def _raise(error: Exception):
    def fault() -> None:
        raise error

    return fault


def _memory_in_a_sentence() -> None:
    try:
        bytearray(1 << 34)
    except MemoryError as error:
        raise GMError("too large") from error


FAULTS = {
    "TypeError": _raise(TypeError("a")),
    "ValueError": _raise(ValueError("no error of ours")),
    "SystemExit": _raise(SystemExit(0)),
    "not one sentence: several lines": _raise(GMError("one line\nanother")),
    "not one sentence: no message": _raise(OSError()),
    "not one sentence: too long": _raise(GMError("x" * 2000)),
    "growth": _memory_in_a_sentence,
    "growth (error not caught)": lambda: bytearray(1 << 34),
    "hang": _spin,
    "hang (waiting)": lambda: time.sleep(1000.0),
    "crash, SIGABRT": os.abort,
    "exit": lambda: os._exit(7),
}
GOOD = {
    "refused": _raise(GMError("one sentence")),
    "missing": _raise(FileNotFoundError("no file")),
    "read": lambda: None,
}
KINDS = {name.replace(" ", "_"): Kind("a.txt", "text", _reader(fault)) for name, fault in (FAULTS | GOOD).items()}
