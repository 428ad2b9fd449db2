"""Commands for training: `gmtensor train` and `gmtensor learning-curve`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmcore.commands.options import ConfigFile, MaxTime
from gmcore.errors import GMError, excerpt

if TYPE_CHECKING:
    from gmcore.config.training import TrainConfig


def train(
    config: ConfigFile,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue an interrupted training, or start over.")
    ] = True,
    member: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Train only this member of the committee, from 0; when all are trained, the same command without it "
            "writes the model.",
        ),
    ] = None,
    max_time: MaxTime = None,
) -> None:
    """Train models.

    Models, logs, metrics and figures are written to the output folder of the configuration. After an interruption (exit
    code 75), run the same command again to continue.
    """
    from gmcore.commands.ending import may_end_early
    from gmcore.config.loading import load_config

    settings = load_config(config)
    _check_outputs(config, settings)
    again = f"gmtensor train {config}" + ("" if member is None else f" --member {member}")
    with may_end_early(again, "epoch", max_time=max_time) as interruption:
        if member is not None:
            for path in _training("train_member")(settings, member, resume=resume, interruption=interruption):
                typer.echo(f"written: {path}")
            return
        result = _training()(settings, resume=resume, interruption=interruption)
    from gmcore.evaluation.evaluation import metrics_table

    for part, metrics in result.metrics.items():
        typer.echo(f"{part}:")
        for line in metrics_table(metrics):
            typer.echo(f"  {line}")
    for words in result.advice:
        typer.echo(f"advice: {words}")
    typer.echo(f"models: {', '.join(str(path) for path in result.models)}")


def learning_curve(
    config: ConfigFile,
    sizes: Annotated[str, typer.Option(help="Numbers of training structures, for example 100,200,400.")],
    max_time: MaxTime = None,
) -> None:
    """Train with several numbers of structures.

    The errors are plotted against the number of structures on logarithmic axes.
    """
    from gmcore.commands.ending import may_end_early
    from gmcore.config.loading import load_config
    from gmcore.evaluation.learning_curve import FOLDER, TABLE, run_learning_curve
    from gmcore.outputs import LEARNING_CURVE, check_outputs

    settings = load_config(config)
    check_outputs([settings.output / FOLDER / TABLE], [config], makes=(LEARNING_CURVE, settings.output))
    try:
        numbers = [int(size) for size in sizes.replace(",", " ").split()]
    except ValueError:
        raise GMError(f"--sizes must be whole numbers, for example 100,200,400, got {excerpt(sizes)}") from None
    again = f"gmtensor learning-curve {config} --sizes {sizes}"
    with may_end_early(again, "epoch", max_time=max_time) as interruption:
        paths = run_learning_curve(settings, numbers, partial(_training(), interruption=interruption))
    for path in paths:
        typer.echo(f"written: {path}")


def _check_outputs(config: Path, settings: TrainConfig) -> None:
    """Make sure that a training replaces neither its own input nor the files of other results."""
    from gmcore.outputs import TRAINING, check_outputs

    output, copy, reads = settings.output, settings.output / "config.yaml", [config]
    if copy.is_file() and (output / "splits.json").is_file() and copy.samefile(config):
        reads = []  # the settings of an earlier training in this folder, which this one writes again
    names = [name for name in settings.properties.names if settings.training.separate_models]
    models = [output / "model.h5", *(output / name / "model.h5" for name in names)]
    reads += settings.reads
    others = [output / name for name in ("splits.json", "metrics.json")]
    check_outputs([copy, *others, *models], reads, makes=(TRAINING, output))


def _training(name: str = "train") -> Any:
    """Import and return the function that trains, which needs TensorFlow."""
    import os
    from importlib.util import find_spec

    # TensorFlow logs a missing GPU as an error; real errors are exceptions
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if find_spec("tensorflow") is None:
        raise GMError("training needs TensorFlow: install it with pip install 'gmtensor[train]'")
    with _stderr_held_back():
        import gmkeras.training

    return getattr(gmkeras.training, name)


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Show the output on file descriptor 2 only if the block fails.

    TensorFlow's libraries write there while they are loaded, whatever the log level.
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
