"""Error against cost: `python -m perf.pareto [--only NAMES] [--minutes M]`, from the root of a checkout."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gmcore.threads import available_cores
from perf.harness import QUIET, ROOT
from perf.pareto import table
from perf.pareto.figure import draw
from perf.pareto.frames import NoDataError, Sizes, read_frames
from perf.pareto.runs import Results, run, settings_of

SMOKE_SIZES = Sizes(train=40, validation=10, test=20)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.pareto", description="Train and measure models, row by row.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="peers or models (see --list)")
    parser.add_argument("--list", action="store_true", help="show the names of the models and stop")
    parser.add_argument("--molecules", nargs="+", default=["ethanol", "aspirin"], help="files of revised MD17")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "rmd17", help="their folder")
    parser.add_argument("--minutes", type=float, default=10.0, help="time to train each model, where it is a choice")
    parser.add_argument(
        "--threads", type=int, default=available_cores(), help="of everyone; all usable cores by default"
    )
    parser.add_argument("--train", type=int, default=Sizes.train, help="training frames")
    parser.add_argument("--validation", type=int, default=Sizes.validation, help="frames that choose the epoch")
    parser.add_argument("--test", type=int, default=Sizes.test, help="test frames")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a quiet machine, per model")
    parser.add_argument("--again", action="store_true", help="measure rows that the results have already")
    parser.add_argument("--results", type=Path, default=ROOT / "perf" / "results", help="folder of the results")
    cache = Path.home() / ".cache" / "gmtensor-pareto"
    parser.add_argument("--cache", type=Path, default=cache, help="folder of environments and models")
    parser.add_argument("--figure", action="store_true", help="only draw what the results have")
    parser.add_argument("--smoke", action="store_true", help="a tiny gmtensor model in seconds; keeps nothing")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a training ends with the process that began it
    try:
        models = [table.SMOKE] if given.smoke else table.chosen(given.only)
    except ValueError as error:
        parser.error(str(error))
    if given.list:
        print("\n".join(f"{model.peer:10s} {model.name}" for model in models))
    elif given.smoke:
        with tempfile.TemporaryDirectory() as folder:
            given.cache = given.results = Path(folder)
            given.molecules, given.patience = given.molecules[:1], 0.0
            _all(models, SMOKE_SIZES, given)
    elif given.figure:
        draw(Results(given.results).molecules, given.results / "pareto.png")
    else:
        _all(models, Sizes(given.train, given.validation, given.test), given)


def _all(models: list[table.Model], sizes: Sizes, given: argparse.Namespace) -> None:
    results = Results(given.results)
    for molecule in given.molecules:
        try:
            frames = read_frames(given.data, molecule, sizes)
        except (NoDataError, ValueError) as error:
            print(f"{molecule} is skipped: {error}", file=sys.stderr)
            continue
        for model in models:
            settings = settings_of(model, sizes, given.minutes, given.threads)
            missing = "all" if given.again else results.missing(molecule, model, settings)
            if not missing:
                continue
            print(f"{molecule}, {model.name} ...", flush=True)
            folder = given.cache / "runs" / molecule / model.name.replace(" ", "_")
            row = run(model, frames, settings, given.cache, folder, given.patience, cost_only=missing == "cost")
            results.keep(molecule, model, row)
            draw(results.molecules, given.results / "pareto.png")
        _show(molecule, results.molecules.get(molecule, {}))


def _show(molecule: str, rows: dict[str, dict]) -> None:
    columns = ("model", "forces, meV/A", "energy, meV", "us/atom", "quartiles", "training, min", "")
    shown = Table(*columns, title=f"{molecule}: MAE, cost of energy and forces, time of training", title_justify="left")
    for name, row in rows.items():
        if "absent" in row:
            shown.add_row(name, "", "", "", "", "", row["absent"])
            continue
        quartiles = " .. ".join(f"{value:.3g}" for value in row["cost_quartiles_us"])
        numbers = (row[key] for key in ("forces_mae", "energy_mae", "cost_us"))
        details = ", ".join(f"{value} {key}" for key, value in row["details"].items())
        note = "; cost disturbed" if row["cost_disturbed"] else ""
        if row["training_foreign"] > QUIET:
            note += f"; others used {row['training_foreign']:.0%} of the processors during the training"
        minutes = f"{row['training_minutes']:.2g}"
        shown.add_row(name, *(f"{number:.3g}" for number in numbers), quartiles, minutes, details + note)
    Console(width=150).print(shown)


if __name__ == "__main__":
    main()
