"""The command line `gmtensor`.

Everything heavy is imported inside the commands, so that `gmtensor --help` answers at once. An error that the user
can mend is one sentence on stderr and exit code 2; `gmtensor --debug COMMAND` shows where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gmcore.commands import analysis as cli_analysis
from gmcore.commands import dynamics as cli_dynamics
from gmcore.commands import exchange as cli_exchange
from gmcore.commands import modes as cli_modes
from gmcore.commands import workflow as cli_workflow
from gmcore.commands.options import (
    INTERRUPTED,
    USER_ERROR,
    Charge,
    ConfigFile,
    DeviceOption,
    Format,
    KeyOptions,
    ModelFile,
    Periodic,
    Threads,
    UnitOptions,
)
from gmcore.errors import GMError

if TYPE_CHECKING:
    from gmcore.model import Model


class _Commands(TyperGroup):
    """Turns errors of the user into one sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # "gmtensor schema | head" is no error
            raise
        except (ValueError, OSError) as error:  # GMError is a ValueError
            if ctx.params.get("debug"):
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(USER_ERROR) from None


app = typer.Typer(
    cls=_Commands,
    help="Gaussian-moment models: potentials, charges and magnetic anisotropy tensors.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="gmtensor")


def _show_version(wanted: bool) -> None:
    if wanted:
        from gmcore.version import __version__

        typer.echo(f"gmtensor {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def template(
    kind: Annotated[str, typer.Argument(help="d-tensor, potential, charges, tensor or md.")] = "d-tensor",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; the screen if not given.")] = None,
) -> None:
    """Write a configuration to start from."""
    from gmcore.config.templates import template as text_of
    from gmcore.files import atomic_path

    text = text_of(kind, str(output or "config.yaml"))
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.exists():
        raise GMError(f"{output} exists already; choose another name or remove it")
    with atomic_path(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


@app.command()
def validate(
    config: ConfigFile,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Also read the files that it names.")] = True,
) -> None:
    """Check a configuration of a training, a run or a workflow, and what it names; nothing is written."""
    from gmcore.config.kinds import kind_of
    from gmcore.config.training import load_config

    settings = load_config(config, kind_of(config))
    for line in _description(settings) if data else ():
        typer.echo(line)
    typer.echo(f"{config} is valid")


def _description(settings: Any) -> list[str]:
    """What a configuration leads to, found by reading the files that it names."""
    from gmcore.config.dynamics import MDConfig
    from gmcore.config.training import TrainConfig

    if isinstance(settings, TrainConfig):
        from gmcore.data.splits import describe_parts, load_datasets

        return describe_parts(load_datasets(settings, write=False))
    if isinstance(settings, MDConfig):
        from gmcore.dynamics.runner import describe_run

        return describe_run(settings)
    from gmcore.workflow import steps_of

    return [f"gmtensor {step.name}" for step in steps_of(settings)]


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="train, md or workflow.")] = "train") -> None:
    """Print the JSON schema of configurations: every key with its type, default, bounds and meaning."""
    from gmcore.config.kinds import kind_named

    typer.echo(json.dumps(kind_named(kind).model_json_schema(), indent=2))


@app.command()
def train(
    config: ConfigFile,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue where an interrupted training stopped.")
    ] = True,
) -> None:
    """Train the models of a configuration; writes models, logs, metrics and figures to its output folder."""
    from gmcore.config.training import load_config

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


@app.command()
def evaluate(
    model: ModelFile,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Configuration (.yaml), whose part is used, or data.")],
    part: Annotated[str, typer.Option(help="Part of a configuration's data: train, validation, test or all.")] = "test",
    unit: UnitOptions = None,
    key: KeyOptions = None,
    total_charge: Charge = None,
    pbc: Periodic = None,
    format: Format = "auto",
    turn: Annotated[
        int | None,
        typer.Option(min=0, help="Turn every structure at random first, with this seed: tests the equivariance."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for metrics.json and parity figures."),
    ] = None,
    threads: Threads = None,
    device: DeviceOption = "cpu",
) -> None:
    """Compare a model with reference data.

    DATA is a configuration, or a data file with the unit of each label to compare: --unit energy=eV --unit
    forces=eV/A --key energy=energy_ref. Lengths of extended XYZ and ASE files are A unless stated otherwise; an HDF5
    data set of this project states its units itself.
    """
    from gmcore.commands.data import charge_or_key, labels_in, name_value_pairs, parts_of_config, stated_units
    from gmcore.config.sections import LABELS
    from gmcore.data.datasets import read_dataset
    from gmcore.evaluation.evaluation import evaluate_model, metrics_table, write_evaluation

    loaded = _load_model(model, threads, device)
    if data.suffix.lower() in (".yaml", ".yml"):
        if unit or key or total_charge or pbc is not None:
            raise GMError("--unit, --key, --total-charge and --pbc belong to a data file; a configuration states them")
        parts = parts_of_config(loaded, data, part)
    else:
        stated = stated_units(data, format, unit)
        labels = [label for label in stated if label != "length"] or labels_in(data, format, loaded)
        options = {
            "units": stated,
            "keys": name_value_pairs("--key", key, LABELS),
            "total_charge": charge_or_key(total_charge),
        }
        parts = {data.name: read_dataset(data, labels, format=format, pbc=pbc, **options)}
    evaluations = {}
    for name, dataset in parts.items():
        evaluations[name] = evaluate_model(loaded, dataset if turn is None else dataset.turned(turn))
        typer.echo(f"{name}: {len(dataset)} structures")
        for line in (*dataset.notes, *metrics_table(evaluations[name].metrics)):
            typer.echo(f"  {line}")
    if output is not None:
        typer.echo(f"written: {write_evaluation(output, evaluations)}")


@app.command()
def predict(
    model: ModelFile,
    structures: Annotated[Path, typer.Argument(metavar="STRUCTURES", help="Structures in any readable format.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output: .extxyz, .h5, .npz or .csv.")],
    quantity: Annotated[
        list[str] | None,
        typer.Option("--property", help="What to predict; repeat. Everything the model can if not given."),
    ] = None,
    unit: UnitOptions = None,
    total_charge: Charge = None,
    pbc: Periodic = None,
    format: Format = "auto",
    threads: Threads = None,
    device: DeviceOption = "cpu",
) -> None:
    """Predict for structures; units are written into the output."""
    from gmcore.commands.data import read_structures
    from gmcore.evaluation.predictions import check_suffix, write_predictions

    check_suffix(output)
    loaded = _load_model(model, threads, device)
    dataset = read_structures(structures, unit, total_charge, pbc, format)
    predictions = loaded.predict(dataset.atoms, properties=quantity or None)
    left_out = write_predictions(output, dataset.atoms, predictions, loaded.units)
    if left_out:
        typer.echo(f"left out, one row per structure has no place for them: {', '.join(left_out)}", err=True)
    typer.echo(f"written: {output} ({len(dataset)} structures: {', '.join(predictions)})")


@app.command()
def info(
    model: ModelFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is in a model file."""
    from gmcore.model_file import read_model
    from gmcore.model_summary import model_facts, model_lines

    facts = model_facts(*read_model(model), model.parent)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for line in model_lines(facts):
            typer.echo(line)


@app.command("learning-curve")
def learning_curve(
    config: ConfigFile,
    sizes: Annotated[str, typer.Option(help="Numbers of training structures, as in 100,200,400.")],
) -> None:
    """Train with several numbers of structures and draw errors against size in log-log."""
    from gmcore.config.training import load_config
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


app.command("run")(cli_workflow.run)
app.command("md")(cli_dynamics.md)
app.command("convert")(cli_dynamics.convert)
app.command("analyze")(cli_analysis.analyze)
app.command("report")(cli_analysis.report)
app.command("import")(cli_exchange.import_tensors)
app.command("modes")(cli_modes.modes)
app.command("export")(cli_modes.export_tensors)


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


def _load_model(path: Path, threads: int | None, device: str) -> Model:
    from gmcore.model import load_model
    from gmcore.threads import set_threads

    set_threads(threads)
    return load_model(path, device=device)
