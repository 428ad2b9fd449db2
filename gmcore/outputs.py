"""Which files a command may write: never one that it reads, one that belongs to other results, or one twice.

Files that belong to results, such as the model of a training or the trajectory of a run, are known by their names and
by the folder in which they lie. Other files may be overwritten: whoever names them as an output means it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from gmcore.errors import GMError


class OutputError(GMError):
    """A file that a command must not write."""


class Results(NamedTuple):
    """A folder of results of one kind.

    Attributes
    ----------
    kind : for messages.
    marks : names; a folder that has one of them is of this kind.
    files : names, or patterns of names, of the files and folders that belong to the results.
    """

    kind: str
    marks: tuple[str, ...]
    files: tuple[str, ...]


RUN, REPORT, TRAINING = "a run of molecular dynamics", "a report", "a training"
LEARNING_CURVE, MODES, WORKFLOW = "a learning curve", "a calculation of modes", "a workflow"
_RUN_MARKS = ("state.npz", "trajectory.h5")
_RUN_FILES = ("config.yaml", "state.npz", "trajectory.h5", "trajectory", "stopped.extxyz", "analysis.json")
_TRAINING_FILES = (
    *("config.yaml", "splits.json", "metrics.json", "train.log"),
    *("loss_curves.png", "parity_*.png", "member_[0-9]*"),
)
RESULTS = (
    Results(RUN, _RUN_MARKS, _RUN_FILES),
    Results(REPORT, _RUN_MARKS, ("report.html", "report.json")),
    Results(TRAINING, ("splits.json", "member_0"), (*_TRAINING_FILES, "model.h5")),
    Results(TRAINING, ("model.h5",), ("model.h5",)),
    Results(LEARNING_CURVE, ("learning_curve.json",), ("learning_curve*",)),
    Results(MODES, ("modes.h5",), ("modes.h5", "modes.json", "modes.xyz", "relaxed.extxyz")),
    Results(WORKFLOW, ("workflow.json",), ("workflow.json", "rounds.json")),
)


def check_outputs(
    outputs: Iterable[str | os.PathLike],
    inputs: Iterable[str | os.PathLike | None] = (),
    *,
    suffixes: Sequence[str] = (),
    makes: tuple[str, str | os.PathLike] | None = None,
) -> None:
    """Check all files that a command is going to write, before it computes anything.

    Parameters
    ----------
    outputs : the files to write; they need not exist.
    inputs : the files that the command reads; entries that are None are skipped. Other spellings, symbolic links and
        hard links of these files are noticed.
    suffixes : allowed suffixes of the outputs, in lower case (default: any).
    makes : kind and folder of the results that the command makes; their files may be written in and below this folder.

    Raises
    ------
    OutputError : an output must not be written.
    """
    given = [Path(path) for path in inputs if path is not None]
    names: dict[str, Path] = {}
    for output in map(Path, outputs):
        if suffixes and output.suffix.lower() not in suffixes:
            raise OutputError(f"the suffix of the output must be {' or '.join(suffixes)}, got {str(output)!r}")
        if output.is_dir():
            raise OutputError(f"the output {output} must be a file, but is a folder: choose another name")
        if output.exists() and not output.is_file():
            raise OutputError(f"the output {output} must be a file, but is a device or a pipe: choose another name")
        for read in given:
            if _same(output, read):
                as_given = "" if str(output) == str(read) else f" as {read}"
                raise OutputError(f"the output {output} must not be a file that is read{as_given}: choose another name")
        for kind, folder in _owners(output):
            if makes is None or kind != makes[0] or not folder.is_relative_to(_real(makes[1])):
                raise OutputError(f"the output {output} is a file of {kind} in {folder}: choose another name or folder")
        # disks may take names that differ in case only for one
        name = str(_real(output)).casefold()
        if name in names:
            raise OutputError(
                f"each output needs a file of its own, got {names[name]} and {output}: choose other names"
            )
        names[name] = output


def _real(path: str | os.PathLike) -> Path:
    """Return the absolute path without symbolic links, also of a file that does not exist."""
    return Path(os.path.realpath(path))


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist
        return _real(one) == _real(other)


def _owners(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield kind and folder of the results to which a file belongs, under its own name or that which it links to."""
    for place in dict.fromkeys((_real(path.parent) / path.name, _real(path))):
        for folder in place.parents:
            first = place.relative_to(folder).parts[0].casefold()
            for results in RESULTS:
                if any(fnmatch(first, pattern) for pattern in results.files) and any(
                    os.path.lexists(folder / mark) for mark in results.marks
                ):
                    yield results.kind, folder
