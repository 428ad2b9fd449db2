"""The steps of a workflow: commands, with the files that they read and make."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gmcore.config.dynamics import MDConfig
from gmcore.config.loading import load_config, load_runs
from gmcore.config.training import TrainConfig
from gmcore.config.workflow import Workflow
from gmcore.version import __version__


@dataclass(frozen=True)
class Step:
    """One step of a workflow.

    Attributes
    ----------
    arguments : arguments of `gmtensor`.
    reads : files that influence the result.
    makes : files that the step writes.
    settings : the resolved configuration as text, without comments.
    outcomes : exit codes above 0 that are no failure; the files of `makes` may then be missing.
    training : configuration of a training; None for other steps.
    """

    arguments: tuple[str, ...]
    reads: tuple[Path, ...]
    makes: tuple[Path, ...]
    settings: str
    outcomes: frozenset[int] = field(default_factory=frozenset)
    training: TrainConfig | None = field(default=None, compare=False)

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
    """Return all steps in order, without those of the rounds, after reading and checking all configurations.

    Raises
    ------
    ConfigError : a configuration cannot be used.
    """
    steps = [training_step(path) for path in workflow.train]
    if workflow.md is not None:
        for name, run in load_runs(workflow.md, MDConfig).items():
            steps += [dynamics_step(workflow.md, run, name), analysis_step(run), report_step(run)]
    return steps


def training_step(path: Path) -> Step:
    """Return `gmtensor train` of a configuration file."""
    config = load_config(path)
    return Step(("train", str(path)), tuple(config.reads), model_files(config), config.to_yaml(), training=config)


def dynamics_step(path: Path, config: MDConfig, run: str = "", outcomes: frozenset[int] = frozenset()) -> Step:
    """Return `gmtensor md` of a configuration file, or of one of its runs."""
    wanted = config.d_tensor
    starts = (config.structure.file, *([wanted.reference] if wanted and wanted.reference else []))
    reads = (*starts, *_models_of_run(config))
    arguments = ("md", str(path), *(("--run", run) if run else ()))
    return Step(arguments, reads, (config.output / "trajectory.h5",), config.to_yaml(), outcomes)


def analysis_step(config: MDConfig) -> Step:
    """Return `gmtensor analyze` of a run."""
    run = config.output
    reads = (run / "trajectory.h5", *_models_of_run(config))
    return Step(("analyze", str(run)), reads, (run / "analysis.json",), config.to_yaml())


def report_step(config: MDConfig, rounds: Path | None = None) -> Step:
    """Return `gmtensor report` of a run, with the table of the rounds if their file is given."""
    run = config.output
    arguments = ["report", str(run), *(["--rounds", str(rounds)] if rounds else [])]
    reads = (run / "analysis.json", *([rounds] if rounds else []))
    return Step(tuple(arguments), reads, (run / "report.html",), config.to_yaml())


def model_files(config: TrainConfig) -> tuple[Path, ...]:
    """Return the model files that a training writes."""
    names: Sequence[str] = config.properties.names
    if config.training.separate_models and len(names) > 1:
        return tuple(config.output / name / "model.h5" for name in names)
    return (config.output / "model.h5",)


def _models_of_run(config: MDConfig) -> tuple[Path, ...]:
    return (config.potential, *([config.d_tensor.model] if config.d_tensor else []))
