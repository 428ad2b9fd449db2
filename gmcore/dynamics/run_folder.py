"""The folder of a run: what belongs to it, what may be removed, and what it refuses to touch.

config.yaml      all defaults filled in
state.npz        the state to go on from
trajectory/      one file per chunk, while the run goes on
trajectory.h5    all of them, once it is done
stopped.extxyz   the frames that ended it before its time
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gmcore.dynamics.checkpoint import CHECKPOINT, Checkpoint, RunError, read_checkpoint, refuse_changes
from gmcore.dynamics.trajectory import MERGED, SEGMENTS, TrajectoryError, trajectory_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CONFIG = "config.yaml"
DUMP = "stopped.extxyz"


def earlier_checkpoint(folder: Path, identity: dict[str, Any], resume: bool) -> Checkpoint | None:
    """Return the checkpoint to go on from, None where a run begins.

    RunError: the folder holds something else, a run of another configuration, or a trajectory without its state.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"output must be a folder, {folder} is a file")
    if (folder / CONFIG).exists() and not (folder / CHECKPOINT).exists():
        raise RunError(f"{folder} must be empty or hold a run, it holds a {CONFIG} without {CHECKPOINT}")
    if not resume:
        return None
    checkpoint = read_checkpoint(folder)
    if checkpoint is not None:
        refuse_changes(folder, identity, checkpoint.identity)
    elif (folder / MERGED).exists() or (folder / SEGMENTS).exists():
        raise RunError(f"{folder} holds a trajectory without {CHECKPOINT}: start over with gmtensor md --no-resume")
    return checkpoint


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, which is made where missing; the lock ends with the process, however that ends.

    Where folders cannot be locked, as on Windows and some network disks, it keeps nobody out.

    RunError: another process runs there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"output must be a folder that can be made, {folder} cannot: {error.strerror}") from error
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"one process at a time may run in {folder}, got a second one") from None
        except OSError:  # a disk without locks
            pass
        yield
    finally:
        os.close(descriptor)


def refuse_losses(folder: Path, n_chunks: int) -> None:
    """Refuse to go on after `n_chunks` chunks of the production where samples of them are gone; RunError names them."""
    try:
        trajectory_files(folder, n_chunks)
    except TrajectoryError as error:
        raise RunError(
            f"{error}, but the run in {folder} needs it to go on: "
            "put it back, or start over with gmtensor md --no-resume"
        ) from error


def clear_run(folder: Path) -> None:
    """Remove an earlier run; files of others, such as an analysis, stay."""
    for name in (CONFIG, CHECKPOINT, MERGED):  # the configuration first: alone it would look like that of another job
        (folder / name).unlink(missing_ok=True)
    remove_segments(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written, and the frames of a stop that is being overcome."""
    for part in (*folder.glob(".*.part.*"), *folder.glob(f"{SEGMENTS}/.*.part.*"), folder / DUMP):
        part.unlink(missing_ok=True)


def remove_segments(folder: Path) -> None:
    """Remove the files of chunks."""
    for path in (folder / SEGMENTS).glob("*.h5"):
        path.unlink()
    with suppress(OSError):  # not there, or holds files of someone else
        (folder / SEGMENTS).rmdir()
