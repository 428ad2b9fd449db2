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
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import load_config
from gmcore.config.training import TrainConfig
from gmcore.config.workflow import Workflow
from gmcore.errors import GMError
from gmcore.files import atomic_path, read_json
from gmcore.version import __version__


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
    """
    steps = steps_of(workflow)
    record = workflow.output / "workflow.json"
    advice = "remove it, and all steps are done again"
    done = read_json(record, dict[str, str], WorkflowError, advice) if record.is_file() else {}
    for number, step in enumerate(steps, 1):
        finished = done.get(step.name) == step.fingerprint() and all(path.is_file() for path in step.makes)
        yield number, len(steps), step, finished
        if finished:
            continue
        code = subprocess.run([sys.executable, "-m", "gmcore", *step.arguments], check=False).returncode
        if code != 0:
            raise WorkflowError(
                f"step {number} of {len(steps)}, gmtensor {step.name}, failed with exit code {code}: "
                "fix the problem and run the same command again; it resumes at this step"
            )
        done[step.name] = step.fingerprint()
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")


def _models(config: TrainConfig) -> list[Path]:
    """Model files that a training writes."""
    names = config.properties.names
    if config.training.separate_models and len(names) > 1:
        return [config.output / name / "model.h5" for name in names]
    return [config.output / "model.h5"]
