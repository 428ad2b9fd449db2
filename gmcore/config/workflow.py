"""The configuration of a workflow: its trainings and its molecular dynamics."""

from __future__ import annotations

from pydantic import Field, model_validator

from gmcore.config.section import ConfigPath, ConfigPaths, Section


class Workflow(Section):
    """The configuration files of the steps; paths are relative to the file of the workflow."""

    section = "the workflow"

    output: ConfigPath = Field(description="folder for the record of finished steps; created if it does not exist")
    train: ConfigPaths = Field(default_factory=list, description="configuration files of the trainings, in order")
    md: ConfigPath | None = Field(None, description="configuration file of the molecular dynamics")

    @model_validator(mode="after")
    def _something(self) -> Workflow:
        if not self.train and self.md is None:
            raise ValueError(
                "a workflow needs at least one training (train) or a molecular dynamics run (md), got neither"
            )
        return self
