"""The configuration of a workflow: which trainings and which dynamics make it up."""

from __future__ import annotations

from pydantic import Field, model_validator

from gmcore.config.section import ConfigPath, ConfigPaths, Section


class Workflow(Section):
    """The configurations of the steps, relative to the workflow's own file."""

    section = "the workflow"

    output: ConfigPath = Field(description="folder for the record of what is done; made where missing")
    train: ConfigPaths = Field(default_factory=list, description="configurations of trainings, in order")
    md: ConfigPath | None = Field(None, description="configuration of the molecular dynamics")

    @model_validator(mode="after")
    def _something(self) -> Workflow:
        if not self.train and self.md is None:
            raise ValueError("a workflow must name at least one training (train) or a molecular dynamics (md)")
        return self
