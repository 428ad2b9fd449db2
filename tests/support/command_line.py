"""The command line in this process."""

from __future__ import annotations

from types import SimpleNamespace

from typer.testing import CliRunner

import gmcore.commands.app


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
