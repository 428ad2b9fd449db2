"""Commands on a trained model: `gmtensor evaluate`, `gmtensor predict` and `gmtensor info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import (
    Charge,
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


def evaluate(
    model: ModelFile,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Configuration (.yaml), whose part is used, or data.")],
    part: Annotated[str, typer.Option(help="Part of a configuration's data: train, validation, test or all.")] = "test",
    unit: UnitOptions = None,
    key: KeyOptions = None,
    total_charge: Charge = None,
    pbc: Periodic = None,
    format: Format = "auto",
    rotate: Annotated[
        int | None,
        typer.Option(min=0, help="Rotate every structure at random first, with this seed: tests the equivariance."),
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
    from gmcore.data.datasets import read_dataset
    from gmcore.evaluation.evaluation import evaluate_model, metrics_table, write_evaluation
    from gmcore.quantities import BY_NAME

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
            "keys": name_value_pairs("--key", key, BY_NAME),
            "total_charge": charge_or_key(total_charge),
        }
        parts = {data.name: read_dataset(data, labels, format=format, pbc=pbc, **options)}
    evaluations = {}
    for name, dataset in parts.items():
        evaluations[name] = evaluate_model(loaded, dataset if rotate is None else dataset.rotated(rotate))
        typer.echo(f"{name}: {len(dataset)} structures")
        for line in (*dataset.notes, *metrics_table(evaluations[name].metrics)):
            typer.echo(f"  {line}")
    if output is not None:
        typer.echo(f"written: {write_evaluation(output, evaluations)}")


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


def _load_model(path: Path, threads: int | None, device: str) -> Model:
    from gmcore.model import load_model
    from gmcore.threads import set_threads

    set_threads(threads)
    return load_model(path, device=device)
