"""The command line in this process, and in processes that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import SimpleNamespace

from typer.testing import CliRunner

import gmcore.commands.app
from support.places import ROOT, environment


def run(*arguments) -> SimpleNamespace:
    """Call the command line in this process; errors other than those of the user come through."""
    result = CliRunner().invoke(gmcore.commands.app.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)


def refused(*arguments) -> str:
    """Return the one sentence on stderr."""
    result = run(*arguments)
    assert result.code == 2, result.out
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    return result.err.removeprefix("error: ").strip()


def killed(driver: str, *arguments) -> list[int]:
    """Run the code of a driver, which kills commands and prints their exit codes on stderr as a list; returns the list.

    A command ends well, is killed, or ends by SIGTERM with code 75 or at once.
    """
    done = subprocess.run(
        [sys.executable, "-c", driver, *map(str, arguments)],
        env=environment(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("[")))
    assert set(codes) <= {0, 75, -signal.SIGKILL, -signal.SIGTERM}, done.stderr
    return codes
