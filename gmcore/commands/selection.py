"""The command `gmtensor select`, which chooses frames for reference calculations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gmcore.commands.options import Elements, Format, Threads, Topology
from gmcore.errors import GMError

if TYPE_CHECKING:
    from gmcore.selection.candidates import Run
    from gmcore.selection.scores import Judge

NOTHING_CHOSEN = 4
"""Exit code if no frame qualifies: neither success nor an error of the user."""
BOTH = "both"
SUFFIXES = (".extxyz", ".xyz")


def select(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE", help="Folders of runs, and files with structures.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .extxyz.")],
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Number of frames.")] = 50,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Model file (HDF5); may be repeated (default: the models of the run)."),
    ] = None,
    wanted: Annotated[
        str | None,
        typer.Option(
            "--for", help="What the frames are to improve: d_tensor, forces or both (default: d_tensor if predicted)."
        ),
    ] = None,
    min_error: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[QUANTITY=]X",
            help="Smallest calibrated error, cm^-1 for d_tensor, eV/A for forces; may be repeated for both.",
        ),
    ] = None,
    min_grade: Annotated[float | None, typer.Option(min=0.0, help="Smallest extrapolation grade.")] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="File with labeled structures; may be repeated (default: the training data of the models)."),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Draw the frames at random: the baseline to compare with.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --random.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Use only every N-th structure of each source.")] = 1,
    format: Format = "auto",
    element: Elements = None,
    topology: Topology = None,
    threads: Threads = None,
) -> None:
    """Choose frames that are worth a reference calculation.

    Frames are chosen where the model is unsure: where its calibrated error is at least --min-error or its
    extrapolation grade at least --min-grade; without either, where the error is above the median or the grade above 1.
    They are spread over the space of features, away from the training data and from each other. Broken structures,
    frames close in time and near-duplicates of labeled structures are left out. The exit code is 4 if no frame
    qualifies; no file is written then.
    """
    from rich.console import Console

    from gmcore.commands.data import source_of
    from gmcore.outputs import check_outputs
    from gmcore.selection.candidates import Run, open_sources, read_candidates
    from gmcore.selection.choose import Wishes, select_frames
    from gmcore.selection.known import known_files, known_frames, training_files
    from gmcore.selection.records import summary, table, write_chosen
    from gmcore.selection.scores import D_TENSOR, FORCES
    from gmcore.threads import set_threads

    given = [*sources, *(known or ()), *(model or ()), *([topology] if topology else ())]
    check_outputs([output], given, suffixes=SUFFIXES)
    set_threads(threads)
    opened = open_sources(sources, source_of(Path(), format, element, topology))
    runs = [source for source in opened if isinstance(source, Run)]
    judges = _judges(wanted, model or [], runs)
    files = [known_files(judge.model, judge.path, known or ()) for judge in judges]
    check_outputs(
        [output],
        [
            *(file for run in runs for file in run.files()),
            *(judge.path for judge in judges),
            *(path for part in files for path, _ in part),
        ],
    )
    quantities = [judge.quantity for judge in judges]
    wishes = Wishes(number, _limits(min_error, quantities), min_grade, random, seed)
    if random and wishes.has_limits:
        raise GMError("--random draws frames whatever their errors: leave out --min-error and --min-grade")
    with Console(stderr=True).status("reading the structures") as status:
        candidates = read_candidates(opened, D_TENSOR in quantities, FORCES in quantities, every)
        labeled = [known_frames(part, judge.model) for part, judge in zip(files, judges)]
        selection = select_frames(candidates, judges, labeled, wishes, lambda words: status.update(words))
    for line in summary(selection, len(candidates)):
        typer.echo(line)
    for judge in judges if not known else ():
        for path, _ in training_files(judge.model, judge.path):
            if not path.is_file():
                typer.echo(f"training data of {judge.path} not found: {path}; name them with --known", err=True)
    if not selection.chosen:
        typer.echo("no frame qualifies: nothing is written", err=True)
        raise typer.Exit(NOTHING_CHOSEN)
    for line in table(selection):
        typer.echo(line)
    write_chosen(output, selection, [judge.model for judge in judges], labeled)
    fewer = f", fewer than the {number} asked for" if len(selection.chosen) < number else ""
    typer.echo(f"written: {output} ({len(selection.chosen)} structures{fewer})")


def _judges(wanted: str | None, given: list[Path], runs: list[Run]) -> list[Judge]:
    """Return the model for each wanted quantity: the first of those given, or that of the runs, which predicts it."""
    from gmcore.model import load_model
    from gmcore.selection.scores import D_TENSOR, QUANTITIES, Judge, predicts

    if wanted not in (None, BOTH, *QUANTITIES):
        raise GMError(f"--for must be one of {', '.join(QUANTITIES)}, {BOTH}, got {wanted!r}")
    paths = given or _models_of(runs)
    if not paths:
        raise GMError("no run names its models: give the model with --model")
    models = {path: load_model(path) for path in dict.fromkeys(paths)}
    if wanted is None:
        wanted = next((one for one in QUANTITIES if any(predicts(model, one) for model in models.values())), D_TENSOR)
    judges = []
    for quantity in QUANTITIES if wanted == BOTH else (wanted,):
        found = [path for path, model in models.items() if predicts(model, quantity)]
        if not found:
            raise GMError(f"a model must predict {quantity}, got {', '.join(map(str, models))}: give one with --model")
        if len(found) > 1:
            raise GMError(
                f"one model must predict {quantity}, got {', '.join(map(str, found))}: name that to use with --model"
            )
        judges.append(Judge(quantity, models[found[0]], found[0]))
    return judges


def _models_of(runs: list[Run]) -> list[Path]:
    """Return the model files of runs, potential and D model, each once."""
    found = []
    for run in runs:
        if run.config is not None:
            found += [run.config.potential, *([run.config.d_tensor.model] if run.config.d_tensor else [])]
    return list(dict.fromkeys(found))


def _limits(given: list[str] | None, quantities: list[str]) -> dict[str, float]:
    """Parse --min-error: a number, or QUANTITY=NUMBER where there are two quantities."""
    limits: dict[str, float] = {}
    for text in given or ():
        name, equals, value = text.rpartition("=")
        if not equals and len(quantities) > 1:
            raise GMError(f"--min-error must say which error it is about: {quantities[0]}={text} or forces={text}")
        quantity = name.strip() or quantities[0]
        if quantity not in quantities:
            raise GMError(f"--min-error must be about {' or '.join(quantities)}, got {quantity!r}")
        try:
            limits[quantity] = float(value)
        except ValueError:
            limits[quantity] = -1.0
        if not 0.0 <= limits[quantity] < float("inf"):
            raise GMError(f"--min-error must be a number that is not negative, got {value!r}")
    return limits
