"""Commands that may end early, and go on when they are called again: signals, time limits, Ctrl-C."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from gmcore.running.interruption import AGAIN, EndedEarly, Interruption, parse_time


@contextmanager
def may_end_early(again: str, piece: str, kept: str = "", max_time: str | None = None) -> Iterator[Interruption]:
    """Context of work that SIGTERM, SIGINT or a time limit end after a piece, with exit code 75.

    Parameters
    ----------
    again : command that goes on.
    piece : what is finished first: "chunk".
    kept : what is saved, for the message: "finished chunks are saved".
    max_time : option of the command.

    Raises
    ------
    GMError : the time limit has another form.
    """
    say = functools.partial(typer.echo, err=True)
    interruption = Interruption(None if max_time is None else parse_time(max_time), piece, say)
    words = f"{kept}, continue with" if kept else "continue with"
    try:
        with interruption:
            yield interruption
    except EndedEarly as why:
        typer.echo(f"{why}; {words}: {again}", err=True)
        raise typer.Exit(AGAIN) from None
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; {words}: {again}", err=True)
        raise typer.Exit(AGAIN) from None
