"""The configuration of a workflow: its trainings, its molecular dynamics, and the rounds that improve its models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gmcore.config.section import ConfigPath, ConfigPaths, Section


class Improvement(Section):
    """A model that the rounds improve."""

    section = "rounds.improve"

    train: ConfigPath = Field(description="configuration file of its training, one of those in train")
    label: ConfigPath = Field(description="configuration file of gmtensor label, the reference method")
    frames: int = Field(20, ge=1, le=100_000, description="number of frames to choose and label in each round")
    epochs: int | None = Field(
        None, ge=1, le=1_000_000, description="epochs of the trainings in the rounds (default: those of the training)"
    )
    target: float | None = Field(
        None,
        gt=0.0,
        description="calibrated error to reach at every temperature: of <D>, cm^-1, or of the forces along the run, "
        "eV/A (default: all rounds are done)",
    )
    check: int = Field(
        0,
        ge=0,
        le=100_000,
        description="number of random frames of the last run to label at the end, for the comparison in the report",
    )


class Rounds(Section):
    """Rounds of choosing frames, labeling them, training on, and dynamics."""

    section = "rounds"

    at_most: int = Field(3, ge=1, le=1000, description="number of rounds after the first dynamics")
    choose: Literal["uncertain", "random"] = Field(
        "uncertain", description="uncertain: frames with large errors that differ from each other; random: any frames"
    )
    start: Literal["continue", "afresh"] = Field(
        "continue",
        description="continue: train on from the model of the round before; afresh: train from the beginning",
    )
    improve: list[Improvement] = Field(min_length=1, description="the models to improve")


class Workflow(Section):
    """The configuration files of the steps; paths are relative to the file of the workflow."""

    section = "the workflow"

    output: ConfigPath = Field(
        description="folder for the record of finished steps and for the rounds; created if it does not exist"
    )
    train: ConfigPaths = Field(default_factory=list, description="configuration files of the trainings, in order")
    md: ConfigPath | None = Field(None, description="configuration file of the molecular dynamics")
    trainings_at_once: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="largest number of trainings that run at the same time (default: one for each core; 1: one after "
        "another)",
    )
    rounds: Rounds | None = Field(None, description="rounds that improve the models with frames of the dynamics")

    @model_validator(mode="after")
    def _something(self) -> Workflow:
        if not self.train and self.md is None:
            raise ValueError(
                "a workflow needs at least one training (train) or a molecular dynamics run (md), got neither"
            )
        return self

    @model_validator(mode="after")
    def _rounds_have_steps(self) -> Workflow:
        if self.rounds is None:
            return self
        if self.md is None:
            raise ValueError("rounds need a molecular dynamics run (md), which gives the frames to choose from")
        improved = [entry.train for entry in self.rounds.improve]
        for path in improved:
            if path not in self.train:
                raise ValueError(f"rounds.improve.train must be one of the trainings of the workflow, got {path}")
        if len(set(improved)) < len(improved):
            raise ValueError("rounds.improve must list each training once")
        return self
