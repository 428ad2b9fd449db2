"""Long work ends when it is asked to, at a good moment, and says where it is."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from gmcore.errors import GMError
from gmcore.running.interruption import EndedEarly, Interruption, parse_time, time_text
from gmcore.running.progress import PlainLines, Reporter
from support.places import environment


def test_time_limits():
    assert [parse_time(text) for text in ("23:30", "1-12:00", "100:00", "0:00:30")] == [84600, 129600, 360000, 30]
    for text in ("90", "1:60", "1:2:3", "-1:00", "23.30", ""):
        with pytest.raises(GMError, match=r"a time limit must be hours and minutes, such as 23:30"):
            parse_time(text)
    assert parse_time(time_text(84629.9)) == 84629


def test_work_ends_before_its_time_limit(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Interruption(100.0, "chunk") as interruption:
        now[0] = 15.0  # loading is no chunk
        interruption.begin()
        for now[0] in (35.0, 55.0, 75.0):  # a chunk of 20 s still fits before 100
            interruption.check()
        assert interruption.seconds_left == 25.0
        now[0] = 90.0
        with pytest.raises(EndedEarly, match="ended by the time limit"):
            interruption.check()


WORK = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background of a shell may ignore it
import typer
from gmcore.commands.ending import may_end_early

def work(piece: str):
    with may_end_early("gmtensor work", piece, "pieces are saved") as interruption:
        print("began", flush=True)
        while sys.stdin.readline():
            interruption.check()

typer.run(work)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are a matter of POSIX")
@pytest.mark.parametrize(
    ("piece", "signals", "code", "said"),
    [
        (
            "chunk",
            [signal.SIGTERM],
            75,
            "SIGTERM: ending after this chunk; a second signal ends at once\n"
            "ended by SIGTERM; pieces are saved, continue with: gmtensor work\n",
        ),
        ("chunk", [signal.SIGTERM, signal.SIGTERM], -signal.SIGTERM, "a second signal ends at once\n"),
        ("chunk", [signal.SIGINT, signal.SIGINT], 75, "interrupted; pieces are saved, continue with: gmtensor work\n"),
        ("", [signal.SIGTERM], 75, "ended by SIGTERM; pieces are saved, continue with: gmtensor work\n"),
    ],
)
def test_signals(piece, signals, code, said):
    command = [sys.executable, "-c", WORK, piece]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **options) as process:
        assert process.stdout.readline() == "began\n"
        for number in signals:
            process.send_signal(number)
            if len(signals) > 1:
                time.sleep(0.05)  # two that come at once are one
        if len(signals) == 1 and piece:
            process.stdin.write("piece is done\n")
            process.stdin.flush()
        _, err = process.communicate(timeout=60)
    assert process.returncode == code and err.endswith(said), err


def test_plain_lines_and_bars():
    now, text = [0.0], io.StringIO()
    lines = PlainLines(1000, 200, "frames", "predict", Console(file=text, width=40), clock=lambda: now[0])
    asked = []
    with Reporter(lines, Console(file=text)) as reporter:
        for now[0], done in ((30.0, 230), (61.0, 261), (90.0, 290), (125.0, 325)):
            reporter.update(done, lambda: asked.append(1) or "1 frame/s, 300 K")
    written = text.getvalue().splitlines()
    assert len(written) == len(asked) == 2  # one a minute, and nothing is computed for those that are not written
    assert " predict, 261 of 1000 frames (26.1 %), 1 frame/s, 300 K, 12 min left, " in written[0]
    bar = io.StringIO()
    with Reporter(lines, Console(file=bar, force_terminal=True, width=100)) as reporter:
        reporter.update(600, title="production")
    assert "production" in bar.getvalue() and "frames/s" in bar.getvalue()
