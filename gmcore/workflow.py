"""From data to a report in one go: train -> md -> analyze -> report, each step a command of its own.

Steps are the same commands that a user would type, in processes of their own: TensorFlow's memory and threads are gone
when the dynamics begins, and a step that is killed leaves what the command itself leaves, a training at its last
checkpoint, a run at its last chunk. What is done is kept in `workflow.json` with a hash of everything that a step read,
its configuration and the files named in it, so that the same command goes on where it stopped and repeats only what a
change concerns.

Not supported: steps side by side, and steps on other machines.
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
from gmcore.files import atomic_path
from gmcore.version import __version__


class WorkflowError(GMError):
    """A step that failed."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes
    ----------
    arguments : of `gmtensor`.
    reads : files that decide the result.
    makes : files that the step leaves.
    settings : the resolved configuration as text; where things are said, but not how comments stand.
    """

    arguments: tuple[str, ...]
    reads: tuple[Path, ...]
    makes: tuple[Path, ...]
    settings: str

    @property
    def name(self) -> str:
        return " ".join(self.arguments)

    def fingerprint(self) -> str:
        """Hash of the settings and of all files read; a file that is missing counts as such."""
        digest = hashlib.sha256(f"{__version__}\n{self.name}\n{self.settings}".encode())
        for path in self.reads:
            digest.update(str(path).encode())
            if path.is_file():
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def steps_of(workflow: Workflow) -> list[Step]:
    """All steps in order; every configuration is read and checked before the first one begins.

    Raises
    ------
    ConfigError : a configuration that cannot be used.
    """
    steps = []
    for path in workflow.train:
        config = load_config(path)
        data = (*config.data.files, *config.data.test_files)
        steps.append(Step(("train", str(path)), data, tuple(_models(config)), config.to_yaml()))
    if workflow.md is not None:
        config = load_config(workflow.md, MDConfig)
        run, settings = config.output, config.to_yaml()
        trajectory, analysis = run / "trajectory.h5", run / "analysis.json"
        wanted = config.d_tensor
        models = (config.potential, *([wanted.model] if wanted else []))
        starts = (config.structure.file, *([wanted.reference] if wanted and wanted.reference else []))
        steps += [
            Step(("md", str(workflow.md)), (*starts, *models), (trajectory,), settings),
            Step(("analyze", str(run)), (trajectory, *models), (analysis,), settings),
            Step(("report", str(run)), (analysis,), (run / "report.html",), settings),
        ]
    return steps


def run_workflow(workflow: Workflow) -> Iterator[tuple[int, int, Step, bool]]:
    """Run what is not done yet; yields (number, how many, step, whether it was done already) before each step.

    Raises
    ------
    ConfigError : a configuration that cannot be used.
    WorkflowError : a step that failed; it has said why.
    """
    steps = steps_of(workflow)
    record = workflow.output / "workflow.json"
    done: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for number, step in enumerate(steps, 1):
        finished = done.get(step.name) == step.fingerprint() and all(path.is_file() for path in step.makes)
        yield number, len(steps), step, finished
        if finished:
            continue
        code = subprocess.run([sys.executable, "-m", "gmcore", *step.arguments], check=False).returncode
        if code != 0:
            raise WorkflowError(
                f"step {number} of {len(steps)}, gmtensor {step.name}, ended with exit code {code}; "
                "the same command continues there once its cause is mended"
            )
        done[step.name] = step.fingerprint()
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")


def _models(config: TrainConfig) -> list[Path]:
    """Model files that a training makes."""
    names = config.properties.names
    if config.training.separate_models and len(names) > 1:
        return [config.output / name / "model.h5" for name in names]
    return [config.output / "model.h5"]
