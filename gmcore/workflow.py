"""From data to a report with one command: train -> md -> analyze -> report.

Each step is the command that a user would type, in its own process. TensorFlow's memory and threads are therefore
released before the dynamics starts. A step that is killed can be resumed like the command itself: a training at its
last checkpoint, a run at its last chunk. `workflow.json` lists the finished steps, each with a hash of its
configuration and of the files that it reads. The same command later skips the finished steps and repeats only those
affected by a change.

Not supported: running steps in parallel or on other machines.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import load_config
from gmcore.config.training import TrainConfig
from gmcore.config.workflow import Workflow
from gmcore.errors import GMError
from gmcore.files import atomic_path, lock_folder, read_json
from gmcore.version import __version__

LOCK = ".gmtensor-run.lock"
"""Not the lock of trainings and dynamics: the output of a workflow may be that of one of its steps."""

START = """
import sys
sys.path[:] = [path for path in sys.path if path]
root = sys.argv.pop(1)
if root not in sys.path:
    sys.path.append(root)
from gmcore.workflow import end_with_parent
end_with_parent()
from gmcore.commands.app import main
main()
"""
"""What the process of a step executes.

`python -m` would put the current folder first on the import path: a file yaml.py there would be executed in place of
the package. The folder that holds gmcore comes last, for programs that found it by a path of their own.
"""


class WorkflowError(GMError):
    """A step of a workflow has failed."""


@dataclass(frozen=True)
class Step:
    """One step of a workflow.

    Attributes
    ----------
    arguments : arguments of `gmtensor`.
    reads : files that influence the result.
    makes : files that the step writes.
    settings : the resolved configuration as text, without comments.
    """

    arguments: tuple[str, ...]
    reads: tuple[Path, ...]
    makes: tuple[Path, ...]
    settings: str

    @property
    def name(self) -> str:
        """The command without `gmtensor`."""
        return " ".join(self.arguments)

    def fingerprint(self) -> str:
        """Return a hash of the settings and of all files that the step reads; a missing file is skipped."""
        digest = hashlib.sha256(f"{__version__}\n{self.name}\n{self.settings}".encode())
        for path in self.reads:
            digest.update(str(path).encode())
            if path.is_file():
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def steps_of(workflow: Workflow) -> list[Step]:
    """Return all steps in order, after reading and checking all configurations.

    Raises
    ------
    ConfigError : a configuration cannot be used.
    """
    steps = []
    for path in workflow.train:
        config = load_config(path)
        data = (*config.data.files, *config.data.test_files)
        steps.append(Step(("train", str(path)), data, tuple(_models(config)), config.to_yaml()))
    if workflow.md is not None:
        dynamics = load_config(workflow.md, MDConfig)
        run, settings = dynamics.output, dynamics.to_yaml()
        trajectory, analysis = run / "trajectory.h5", run / "analysis.json"
        wanted = dynamics.d_tensor
        models = (dynamics.potential, *([wanted.model] if wanted else []))
        starts = (dynamics.structure.file, *([wanted.reference] if wanted and wanted.reference else []))
        steps += [
            Step(("md", str(workflow.md)), (*starts, *models), (trajectory,), settings),
            Step(("analyze", str(run)), (trajectory, *models), (analysis,), settings),
            Step(("report", str(run)), (analysis,), (run / "report.html",), settings),
        ]
    return steps


def run_workflow(workflow: Workflow) -> Iterator[tuple[int, int, Step, bool]]:
    """Run the steps that are not done yet.

    Yields
    ------
    (number, total, step, done) before each step; `done` says whether it was finished earlier.

    Raises
    ------
    ConfigError : a configuration cannot be used.
    WorkflowError : a step has failed; its own message says why.
    LockError : another process runs a workflow with the same output.
    """
    steps = steps_of(workflow)
    with lock_folder(workflow.output, LOCK):
        yield from _run(workflow, steps)


def _run(workflow: Workflow, steps: list[Step]) -> Iterator[tuple[int, int, Step, bool]]:
    """Run the steps in the locked folder of the workflow."""
    record = workflow.output / "workflow.json"
    advice = "remove it, and all steps are done again"
    done = read_json(record, dict[str, str], WorkflowError, advice) if record.is_file() else {}
    for number, step in enumerate(steps, 1):
        finished = done.get(step.name) == step.fingerprint() and all(path.is_file() for path in step.makes)
        yield number, len(steps), step, finished
        if finished:
            continue
        code = run_step(step.arguments)
        if code != 0:
            raise WorkflowError(
                f"step {number} of {len(steps)}, gmtensor {step.name}, failed with exit code {code}: "
                "fix the problem and run the same command again; it resumes at this step"
            )
        done[step.name] = step.fingerprint()
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")


def run_step(arguments: tuple[str, ...]) -> int:
    """Run `gmtensor` with these arguments in its own process and return the exit code.

    Signals that ask this process to end are passed on to the step, then they have their usual effect here. If this
    process is killed, the step ends too: see `end_with_parent`.
    """
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", START, root, *arguments]
    # In a session of its own the step gets Ctrl-C once, from here, and not from the terminal as well.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process, _passed_on(process):
        return process.wait()


def end_with_parent() -> None:
    """Let this process end when its standard input ends, which is a pipe that its parent holds open and never fills."""

    def watch() -> None:
        if os.read(0, 1) == b"":
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _passed_on(process: subprocess.Popen) -> Iterator[None]:
    """Pass signals on to a process and wait for its end; then they have the effect that they had before."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(number)

    def suspend(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # returns when this process is continued
        process.send_signal(signal.SIGCONT)

    handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), pass_on) | {signal.SIGTSTP: suspend}
    # what is ignored, SIGHUP under nohup for example, stays ignored, in the step too
    before = {n: signal.getsignal(n) for n in handlers if signal.getsignal(n) not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        os.kill(os.getpid(), received[0])


def _models(config: TrainConfig) -> list[Path]:
    """Model files that a training writes."""
    names = config.properties.names
    if config.training.separate_models and len(names) > 1:
        return [config.output / name / "model.h5" for name in names]
    return [config.output / "model.h5"]
