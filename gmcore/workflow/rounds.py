"""Rounds that improve models: choose frames of a run, label them, train on, run again, until the error is small enough.

    round 0      the trainings and the dynamics of the workflow, in their own folders
    round_1/     NAME_chosen.extxyz, NAME_labeled.extxyz     frames of the run before, and their labels
                 NAME.yaml, NAME/                            training on the data so far
                 md.yaml, md/                                dynamics with the new models
    round_2/     ...
    check/       random frames of the last run, their labels, and what the last model predicts for them
    rounds.json  a table of all of this (`gmcore.evaluation.rounds`)

NAME is that of the training's configuration file. Everything is decided from files, so an interrupted loop goes on
where it was. A run that a stop condition ended is not analyzed; frames are chosen from what it has recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gmcore.config.dynamics import MDConfig
from gmcore.config.labeling import LabelConfig
from gmcore.config.loading import load_config, load_runs, read_yaml
from gmcore.config.training import TrainConfig
from gmcore.config.workflow import Improvement, Workflow
from gmcore.config.workflow import Rounds as Settings
from gmcore.errors import GMError
from gmcore.evaluation.rounds import ROUNDS_FILE, Round, RoundsResult
from gmcore.files import atomic_path
from gmcore.workflow import results
from gmcore.workflow.record import Record, WorkflowError
from gmcore.workflow.steps import (
    Step,
    analysis_step,
    dynamics_step,
    model_files,
    report_step,
    training_step,
)

STOPPED, NOTHING_CHOSEN = 3, 4
"""Exit codes of `gmtensor md` after a stop condition, and of `gmtensor select` where no frame qualifies."""
SEEDS = 1_000_000
"""What is added to the seeds of the dynamics in each round."""


class Stage(NamedTuple):
    """Steps that follow each other without a decision between them, and their name for the screen."""

    name: str
    steps: list[Step]


@dataclass(frozen=True)
class Improved:
    """A model on its way through the rounds.

    Attributes
    ----------
    name : of the configuration file of its training.
    settings : of its improvement.
    config : configuration of its latest training.
    quantity : what it predicts and is judged by: "d_tensor" or "forces".
    added : files of labels so far.
    n_chosen, n_labeled : frames of this round.
    """

    name: str
    settings: Improvement
    config: TrainConfig
    quantity: str
    added: tuple[Path, ...] = ()
    n_chosen: int | None = None
    n_labeled: int | None = None

    @property
    def model(self) -> Path:
        """The latest model file."""
        return model_files(self.config)[0]


class Rounds:
    """The rounds of a workflow.

    Parameters
    ----------
    workflow : the whole workflow.
    settings : its section `rounds`.

    Raises
    ------
    ConfigError : a configuration cannot be used.
    GMError : a model to improve has no part in the dynamics, or is not one that rounds can improve.
    """

    def __init__(self, workflow: Workflow, settings: Settings):
        self._workflow, self._settings = workflow, settings
        if workflow.md is None:
            raise GMError("rounds need a molecular dynamics run (md), which gives the frames to choose from")
        self._md_file, runs = workflow.md, load_runs(workflow.md, MDConfig)
        if len(runs) > 1 or "" not in runs:
            raise GMError(
                f"rounds choose their frames from one run, got {', '.join(runs)} in {workflow.md}: leave runs out"
            )
        self._dynamics = runs[""]
        self._models = [self._improved(entry) for entry in settings.improve]
        names = [model.name for model in self._models]
        if len({*names, "md"}) <= len(names):
            raise GMError(
                "the trainings that rounds improve need files of different names, none of them md, because these name "
                f"the files of the rounds, got {', '.join(names)}: rename one"
            )
        self._result = RoundsResult()
        self._path = workflow.output / ROUNDS_FILE

    def stages(self, record: Record) -> Iterator[Stage]:
        """Yield the stages in order; each must be done before the next one is asked for.

        Raises
        ------
        WorkflowError : the dynamics of the last round was stopped.
        """
        trainings = [training_step(path) for path in self._workflow.train]
        for number in range(self._settings.at_most + 1):
            name, done = f"round {number}", []
            if number > 0:
                trainings = []
                for k, model in enumerate(self._models):
                    choice = self._choice(model, number)
                    yield Stage(f"{name}, {model.name}", [choice])
                    done.append(choice)
                    if record.code(choice) == NOTHING_CHOSEN:
                        self._models[k] = replace(model, n_chosen=0, n_labeled=0)
                        continue
                    labels = self._labels(model, self._chosen(model, number), self._folder(number))
                    yield Stage(f"{name}, {model.name}", [labels])
                    done.append(labels)
                    self._models[k] = self._trained_on(model, number, labels.makes[0])
                    trainings.append(training_step(self._folder(number) / f"{model.name}.yaml"))
                if not trainings:
                    self._result.ended = "no frame of the run is worth a label"
                    break
                self._dynamics = self._next_dynamics(number)
            steps = [*trainings, dynamics_step(self._md_file, self._dynamics, outcomes=frozenset({STOPPED}))]
            yield Stage(name, steps)
            done += steps
            stopped = record.code(steps[-1]) == STOPPED
            if not stopped:
                analysis = analysis_step(self._dynamics)
                yield Stage(name, [analysis])
                done.append(analysis)
            self._result.rounds.append(self._collected(number, stopped, done, record))
            self._result.write(self._path)
            if all(model.reached for model in self._result.rounds[-1].models):
                self._result.ended = "the errors are below their targets"
                break
        else:
            self._result.ended = "their number was used up"
        self._result.write(self._path)
        if self._result.rounds[-1].stopped:
            raise WorkflowError(
                f"a stop condition ended the dynamics of the last round, {self._dynamics.output}; the table of the "
                f"rounds is in {self._path}: allow more rounds or more frames, or begin with more data"
            )
        yield from self._checks(record)
        yield Stage("report", [report_step(self._dynamics, self._path)])

    def _improved(self, entry: Improvement) -> Improved:
        config, labels = load_config(entry.train), load_config(entry.label, LabelConfig)
        files = model_files(config)
        if len(files) > 1:
            raise GMError(
                f"{entry.train} trains separate models, which rounds do not support: write one training for each"
            )
        wanted = self._dynamics.d_tensor
        if wanted is not None and wanted.model == files[0]:
            quantity = "d_tensor"
        elif self._dynamics.potential == files[0]:
            quantity = "forces"
        else:
            raise GMError(
                f"the model of {entry.train}, {files[0]}, must be the potential or the D model of {self._md_file}"
            )
        if quantity not in labels.wanted:
            raise GMError(f"{entry.label} must give {quantity}, got quantities: {', '.join(labels.wanted)}")
        return Improved(entry.train.stem, entry, config, quantity, tuple(config.data.added_files))

    def _folder(self, number: int) -> Path:
        return self._workflow.output / f"round_{number}"

    def _chosen(self, model: Improved, number: int) -> Path:
        return self._folder(number) / f"{model.name}_chosen.extxyz"

    def _choice(self, model: Improved, number: int) -> Step:
        """The choice of frames from the run of the round before."""
        chosen = self._chosen(model, number)
        chosen.parent.mkdir(parents=True, exist_ok=True)
        options = ["--random"] if self._settings.choose == "random" else []
        return self._select(model, chosen, model.settings.frames, number, options)

    def _select(self, model: Improved, output: Path, n: int, seed: int, options: list[str]) -> Step:
        run = self._dynamics.output
        sources = [run / name for name in ("trajectory.h5", "trajectory", "stopped.extxyz")]
        found = [str(run) if path.name != "stopped.extxyz" else str(path) for path in sources if path.exists()]
        known = [*model.config.data.files, *model.added]
        arguments = ["select", *dict.fromkeys(found), "-n", str(n), "-o", str(output), "--model", str(model.model)]
        arguments += ["--for", model.quantity, "--seed", str(seed), *options]
        arguments += [part for path in known for part in ("--known", str(path))]
        chunks = sorted((run / "trajectory").glob("*"))  # of a run that was stopped
        reads = (*(path for path in sources if path.is_file()), *chunks, model.model, *known)
        return Step(tuple(arguments), reads, (output,), "", frozenset({NOTHING_CHOSEN}))

    def _labels(self, model: Improved, chosen: Path, folder: Path) -> Step:
        """The labels of chosen frames."""
        labeled = folder / chosen.name.replace("_chosen", "_labeled")
        config = load_config(model.settings.label, LabelConfig)
        arguments = ("label", str(chosen), str(model.settings.label), "-o", str(labeled))
        return Step(arguments, (chosen, *config.files), (labeled,), config.model_dump_json())

    def _trained_on(self, model: Improved, number: int, labeled: Path) -> Improved:
        """Write the configuration of the training of this round, and return the model that it will make."""
        folder = self._folder(number)
        content = _written(model.config, folder)
        given = read_yaml(model.settings.train).get("training") or {}
        added = (*model.added, labeled)
        training = content["training"]
        # rates that the preset has filled in would override those of training on
        for key in ("learning_rates", "initial_scale"):
            training.pop(key, None)
            if key in given:
                training[key] = given[key]
        if self._settings.start == "continue":
            training["start_from"] = [str(model.model)]
        if model.settings.epochs is not None:
            training["epochs"] = model.settings.epochs
        content["data"]["added_files"] = [str(path) for path in added]
        content["output"] = model.name
        path = folder / f"{model.name}.yaml"
        _write(path, content)
        return replace(
            model,
            config=load_config(path),
            added=added,
            n_chosen=results.n_frames(self._chosen(model, number)),
            n_labeled=results.n_frames(labeled),
        )

    def _next_dynamics(self, number: int) -> MDConfig:
        """Write the configuration of the dynamics of this round and return it."""
        folder = self._folder(number)
        content = _written(self._dynamics, folder)
        content["output"] = "md"
        content["replicas"]["seeds"] = [seed + SEEDS for seed in self._dynamics.replicas.seeds]
        for model in self._models:
            if model.quantity == "forces":
                content["potential"] = str(model.model)
            else:
                content["d_tensor"]["model"] = str(model.model)
        self._md_file = folder / "md.yaml"
        _write(self._md_file, content)
        return load_config(self._md_file, MDConfig)

    def _collected(self, number: int, stopped: bool, done: list[Step], record: Record) -> Round:
        """What a round did."""
        run = None if stopped else self._dynamics.output
        models = [
            results.model_in_round(
                model.name,
                model.quantity,
                model.config.output,
                run,
                n_chosen=model.n_chosen,
                n_labeled=model.n_labeled,
                target=model.settings.target,
            )
            for model in self._models
        ]
        seconds: dict[str, float] = {}
        for step in done:
            seconds[step.arguments[0]] = seconds.get(step.arguments[0], 0.0) + record.seconds(step)
        return Round(number=number, stopped=stopped, models=models, seconds=seconds)

    def _checks(self, record: Record) -> Iterator[Stage]:
        """Compare the last models with the reference method on random frames of the last run."""
        folder = self._workflow.output / "check"
        for model in self._models:
            if not model.settings.check:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            chosen, evaluation = folder / f"{model.name}_chosen.extxyz", folder / model.name
            predicted = folder / f"{model.name}_predicted.csv"
            choice = self._select(model, chosen, model.settings.check, 0, ["--random"])
            yield Stage(f"check, {model.name}", [choice])
            if record.code(choice) == NOTHING_CHOSEN:
                continue
            labels = self._labels(model, chosen, folder)
            labeled = labels.makes[0]
            reads, arguments = (labeled, model.model), (str(model.model), str(labeled))
            yield Stage(
                f"check, {model.name}",
                [
                    labels,
                    Step(("evaluate", *arguments, "-o", str(evaluation)), reads, (evaluation / "metrics.json",), ""),
                    Step(("predict", *arguments, "-o", str(predicted)), reads, (predicted,), ""),
                ],
            )
            method = load_config(model.settings.label, LabelConfig).method
            self._result.checks.append(
                results.check(model.name, model.quantity, str(method), labeled, predicted, evaluation)
            )
        self._result.write(self._path)


def _written(config: TrainConfig | MDConfig, folder: Path) -> dict[str, Any]:
    """Return a configuration as plain values, with paths as seen from `folder`."""
    return config.model_dump(mode="json", exclude_none=True, context={"relative_to": folder})


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
