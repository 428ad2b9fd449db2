"""Commands for trained models: `gmtensor evaluate`, `gmtensor predict` and `gmtensor info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import (
    Charge,
    DeviceOption,
    Elements,
    Format,
    KeyOptions,
    MaxTime,
    ModelFile,
    Periodic,
    Threads,
    Topology,
    UnitOptions,
)
from gmcore.errors import GMError

if TYPE_CHECKING:
    from gmcore.model import Model

ERRORS = {"default": None, "all": True, "none": False}
"""Choices of `predict --errors`, and what `Model.predict` calls them."""


def evaluate(
    model: ModelFile,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data file, or configuration of a training (.yaml).")],
    part: Annotated[
        str, typer.Option(help="Part of the data of a configuration: train, validation, test or all.")
    ] = "test",
    unit: UnitOptions = None,
    key: KeyOptions = None,
    total_charge: Charge = None,
    pbc: Periodic = None,
    format: Format = "auto",
    rotate: Annotated[
        int | None,
        typer.Option(min=0, help="Test equivariance: first rotate each structure randomly, with this seed."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for metrics.json and parity plots."),
    ] = None,
    threads: Threads = None,
    device: DeviceOption = "cpu",
) -> None:
    """Compare a model with reference data.

    DATA is the configuration of a training or a data file. For a data file, give the unit of each label to compare,
    for example: --unit energy=eV --unit forces=eV/A --key energy=energy_ref. Lengths in extended XYZ and ASE files are
    in A by default. A file of gmtensor (predict, convert) states its units: without --unit all its labels are compared.
    """
    from gmcore.commands.data import (
        CONFIGURATIONS,
        charge_or_key,
        data_files,
        labels_in,
        name_value_pairs,
        parts_of_config,
        stated_units,
    )
    from gmcore.data.datasets import read_dataset
    from gmcore.evaluation.evaluation import METRICS_FILE, evaluate_model, metrics_table, write_evaluation
    from gmcore.outputs import check_outputs
    from gmcore.quantities import BY_NAME

    if output is not None:
        check_outputs([output / METRICS_FILE], [model, data, *data_files(data)])
    loaded = _load_model(model, threads, device)
    if data.suffix.lower() in CONFIGURATIONS:
        if unit or key or total_charge or pbc is not None:
            raise GMError(
                "--unit, --key, --total-charge and --pbc are only for data files; a configuration already contains them"
            )
        parts = parts_of_config(loaded, data, part)
    else:
        stated, keys = stated_units(data, format, unit), name_value_pairs("--key", key, BY_NAME)
        labels = [label for label in stated if label != "length"] or labels_in(data, format, loaded, keys)
        dataset = read_dataset(
            data,
            labels,
            units=stated,
            keys=keys,
            total_charge=charge_or_key(total_charge),
            format=format,
            pbc=pbc,
        )
        parts = {data.name: dataset}
    evaluations = {}
    for name, dataset in parts.items():
        evaluations[name] = evaluate_model(loaded, dataset if rotate is None else dataset.rotated(rotate))
        typer.echo(f"{name}: {len(dataset)} structures")
        for line in (*dataset.notes, *metrics_table(evaluations[name].metrics), *evaluations[name].outside_lines()):
            typer.echo(f"  {line}")
    if output is not None:
        typer.echo(f"written: {write_evaluation(output, evaluations)}")


def predict(
    model: ModelFile,
    structures: Annotated[Path, typer.Argument(metavar="STRUCTURES", help="File with structures.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .extxyz, .h5, .npz or .csv.")],
    quantity: Annotated[
        list[str] | None,
        typer.Option("--property", help="Property to predict; may be repeated (default: all properties of the model)."),
    ] = None,
    unit: UnitOptions = None,
    total_charge: Charge = None,
    pbc: Periodic = None,
    format: Format = "auto",
    element: Elements = None,
    topology: Topology = None,
    errors: Annotated[
        str,
        typer.Option(
            help="Calibrated errors and extrapolation grades: default (all, but those of forces and stress of a single "
            "model, which take several times as long as the forces), all or none."
        ),
    ] = "default",
    shard: Annotated[
        str | None, typer.Option(metavar="K/N", help="Predict only for the K-th of N equal shares of the structures.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue an interrupted prediction, or start over.")
    ] = True,
    max_time: MaxTime = None,
    threads: Threads = None,
    device: DeviceOption = "cpu",
) -> None:
    """Predict the properties of structures.

    The output states the units, the errors and how far each structure is from the training data. Files of any length
    are predicted part by part. After an interruption (exit code 75), run the same command again to continue.
    """
    import shlex
    import sys

    from gmcore.commands.data import charge_or_key, source_of, stated_units
    from gmcore.commands.ending import may_end_early
    from gmcore.evaluation.predictions import SUFFIXES
    from gmcore.evaluation.streaming import Shard, Task, predict_file
    from gmcore.outputs import check_outputs
    from gmcore.running.progress import PlainLines, Reporter

    if errors not in ERRORS:
        raise GMError(f"--errors must be one of {', '.join(ERRORS)}, got {errors!r}")
    share = Shard() if shard is None else Shard.parse(shard)
    check_outputs([output], [model, structures, topology], suffixes=SUFFIXES)
    source = source_of(structures, format, element, topology)
    again = shlex.join(["gmtensor", *sys.argv[1:]])
    with may_end_early(again, "part", "finished parts are saved", max_time) as interruption:
        loaded = _load_model(model, threads, device)
        task = Task(
            source,
            stated_units(source, format, unit),
            charge_or_key(total_charge),
            pbc,
            tuple(quantity) if quantity else None,
            ERRORS[errors],
            share,
            device,
        )
        done = predict_file(
            loaded,
            model,
            task,
            output,
            resume=resume,
            interruption=interruption,
            progress=lambda total, earlier: Reporter(PlainLines(total, earlier, "frames", "predict")),
        )
    for sentence in done.outside.sentences(loaded):
        typer.echo(sentence, err=True)
    if done.left_out:
        typer.echo(f"not written, because CSV has one row per structure: {', '.join(done.left_out)}", err=True)
    typer.echo(f"written: {output} ({done.n_structures} structures: {', '.join(done.names)})")


def info(
    model: ModelFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the contents of a model file."""
    from gmcore.model_file import read_content
    from gmcore.model_summary import model_facts, model_lines

    content = read_content(model)
    facts = model_facts(content.settings, content.members, model.parent, content.uncertainty)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for line in model_lines(facts):
            typer.echo(line)


def _load_model(path: Path, threads: int | None, device: str) -> Model:
    """Load a model after setting the number of threads."""
    from gmcore.model import load_model
    from gmcore.threads import set_threads

    set_threads(threads)
    return load_model(path, device=device)
