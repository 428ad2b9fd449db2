"""Commands that train: `gmtensor train` and `gmtensor learning-curve`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from gmcore.commands.options import INTERRUPTED, ConfigFile
from gmcore.errors import GMError


def train(
    config: ConfigFile,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue where an interrupted training stopped.")
    ] = True,
) -> None:
    """Train the models of a configuration; writes models, logs, metrics and figures to its output folder."""
    from gmcore.config.loading import load_config

    settings = load_config(config)
    train_models = _training()
    try:
        result = train_models(settings, resume=resume)
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; continue with: gmtensor train {config}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    from gmcore.evaluation.evaluation import metrics_table

    for part, metrics in result.metrics.items():
        typer.echo(f"{part}:")
        for line in metrics_table(metrics):
            typer.echo(f"  {line}")
    typer.echo(f"models: {', '.join(str(path) for path in result.models)}")


def learning_curve(
    config: ConfigFile,
    sizes: Annotated[str, typer.Option(help="Numbers of training structures, as in 100,200,400.")],
) -> None:
    """Train with several numbers of structures and draw errors against size in log-log."""
    from gmcore.config.loading import load_config
    from gmcore.evaluation.learning_curve import run_learning_curve

    settings = load_config(config)
    try:
        numbers = [int(size) for size in sizes.replace(",", " ").split()]
    except ValueError:
        raise GMError(f"--sizes must be whole numbers such as 100,200,400, got {sizes!r}") from None
    train_models = _training()
    try:
        paths = run_learning_curve(settings, numbers, train_models)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; the same command continues where it stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None
    for path in paths:
        typer.echo(f"written: {path}")


def _training() -> Any:
    """Return the function that trains; it lives in the package that needs TensorFlow."""
    import os
    from importlib.util import find_spec

    # on a machine without a GPU TensorFlow reports that as an error; real ones arrive as exceptions
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if find_spec("tensorflow") is None:
        raise GMError("training needs TensorFlow: pip install 'gmtensor[train]'")
    with _stderr_held_back():
        from gmkeras.training import train as train_models

    return train_models


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Show what is written to file descriptor 2 only if the block fails.

    TensorFlow's libraries log there while they are loaded, whatever its log level is.
    """
    import os
    import sys
    import tempfile

    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(terminal, held.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
