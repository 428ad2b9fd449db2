"""The folder of a run: which files belong to it and may be removed, and checks before a run uses it.

config.yaml      the configuration with all defaults filled in
state.npz        the checkpoint
trajectory/      one file per chunk, until the run is complete
trajectory.h5    the whole trajectory, when the run is complete
stopped.extxyz   the frames that met a stop condition
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gmcore.dynamics.checkpoint import CHECKPOINT, Checkpoint, RunError, check_unchanged, read_checkpoint
from gmcore.dynamics.trajectory import MERGED, SEGMENTS, TrajectoryError, segments_in, trajectory_files
from gmcore.files import PART, remove_parts

CONFIG = "config.yaml"
DUMP = "stopped.extxyz"


def earlier_checkpoint(folder: Path, identity: dict[str, Any], resume: bool) -> Checkpoint | None:
    """Return the checkpoint of an earlier run, with the present identity; None if a new run begins.

    Parameters
    ----------
    folder : folder of the run.
    identity : `identity_of` the configuration.
    resume : continue an earlier run; otherwise None is returned.

    Raises
    ------
    RunError : the folder belongs to something else, to a run of another configuration, or it has a trajectory but no
        checkpoint; or an earlier run cannot be removed without other files.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"output must be a folder, but {folder} is a file: choose another output")
    for name in (CONFIG, DUMP):
        if (folder / name).exists() and not (folder / CHECKPOINT).exists():
            raise RunError(
                f"output must be a new folder or that of an earlier run, but {folder} has a {name} and no "
                f"{CHECKPOINT}: choose another output"
            )
    if not resume:
        _check_segments(folder)
        return None
    checkpoint = read_checkpoint(folder)
    if checkpoint is not None:
        check_unchanged(folder, identity, checkpoint.identity)
        checkpoint = replace(checkpoint, identity=identity)  # an older version wrote down less
    elif (folder / MERGED).exists() or (folder / SEGMENTS).exists():
        raise RunError(
            f"{folder} has a trajectory but no {CHECKPOINT}: restore this file, "
            "or start over with gmtensor md --no-resume"
        )
    return checkpoint


def _check_segments(folder: Path) -> None:
    """Make sure that a folder of chunks, which is going to be removed, has nothing else in it."""
    if not (folder / SEGMENTS).exists():
        return
    if not (folder / SEGMENTS).is_dir():
        raise RunError(f"{folder / SEGMENTS} must be a folder, but is a file: move it away, or choose another output")
    own = {path.name for path in segments_in(folder)}
    names = sorted(path.name for path in (folder / SEGMENTS).iterdir())
    foreign = [name for name in names if name not in own and not PART.fullmatch(name)]
    if foreign:
        shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise RunError(
            f"{folder / SEGMENTS} has files that no run has written, {shown}: move them away, or choose another output"
        )


def check_trajectory(folder: Path, n_chunks: int) -> None:
    """Make sure that the trajectory of the first `n_chunks` chunks of the production is complete.

    Raises
    ------
    RunError : a file is missing or damaged; the message names it.
    """
    try:
        trajectory_files(folder, n_chunks)
    except TrajectoryError as error:
        raise RunError(
            f"{error}; the run in {folder} needs this file to continue: "
            "restore it, or start over with gmtensor md --no-resume"
        ) from error


def clear_run(folder: Path) -> None:
    """Remove an earlier run; other files, such as those of an analysis, stay."""
    # config.yaml and stopped.extxyz first: left alone, they would seem to belong to something else
    for name in (CONFIG, DUMP, CHECKPOINT, MERGED):
        (folder / name).unlink(missing_ok=True)
    remove_segments(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete files of a killed process and the frames of an earlier stop."""
    remove_parts(folder)
    remove_parts(folder / SEGMENTS)
    (folder / DUMP).unlink(missing_ok=True)


def remove_segments(folder: Path) -> None:
    """Remove the trajectory files of the chunks."""
    for path in segments_in(folder):
        path.unlink()
    with suppress(OSError):  # does not exist, or has other files
        (folder / SEGMENTS).rmdir()
