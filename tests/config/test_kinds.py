"""Which kind of configuration a file is, by its keys; `validate` and `schema` for all kinds."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from gmcore.commands.app import app
from gmcore.config.analysis import Analysis
from gmcore.config.dynamics import MDConfig
from gmcore.config.kinds import kind_of
from gmcore.config.labeling import LabelConfig
from gmcore.config.loading import load_config
from gmcore.config.templates import template
from gmcore.config.training import TrainConfig
from gmcore.config.workflow import Workflow

runner = CliRunner()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (template("potential"), TrainConfig),
        (template("md"), MDConfig),
        (template("label"), LabelConfig),
        (template("workflow"), Workflow),
        (template("analysis"), Analysis),
        ("output: a\ntrain: [b.yaml]\n", Workflow),
        ("output: a\nmd: b.yaml\n", Workflow),
        ("output: a\nreplcas: {}\nduration: 3\n", MDConfig),
        ("[not, a, mapping]", TrainConfig),
        ("{broken", TrainConfig),
    ],
)
def test_kind_by_keys(tmp_path, text, kind):
    (tmp_path / "file.yaml").write_text(text)
    assert kind_of(tmp_path / "file.yaml") is kind
    if not text.startswith(("[", "{")) and "replcas" not in text:
        assert load_config(tmp_path / "file.yaml", kind)


def test_the_analysis_of_a_template_has_every_value_that_is_commented_out(tmp_path):
    text = re.sub("^# (?=metal|modes|reference|  )", "", template("analysis"), flags=re.M)
    (tmp_path / "file.yaml").write_text(text)
    found = load_config(tmp_path / "file.yaml", Analysis)
    assert (found.metal, found.modes, found.reference.values[0].value) == ("Co", True, -105.7)
    assert runner.invoke(app, ["validate", str(tmp_path / "file.yaml")]).exit_code == 0


def test_validate_says_what_is_wrong_in_its_kind(tmp_path):
    (tmp_path / "md.yaml").write_text(template("md").replace("replicas:", "replcas:"))
    done = runner.invoke(app, ["validate", str(tmp_path / "md.yaml")])
    assert done.exit_code == 2
    assert "unknown key 'replcas' in the configuration; did you mean 'replicas'" in done.output


def test_validate_shows_the_steps_of_a_workflow(tmp_path):
    (tmp_path / "md.yaml").write_text(template("md"))
    (tmp_path / "all.yaml").write_text("output: here\nmd: md.yaml\n")
    done = runner.invoke(app, ["validate", str(tmp_path / "all.yaml")])
    assert done.exit_code == 0, done.output
    assert [line.split()[1] for line in done.output.splitlines()[:3]] == ["md", "analyze", "report"]


@pytest.mark.parametrize(
    ("kind", "key"),
    [("train", "descriptor"), ("md", "replicas"), ("label", "jobs"), ("workflow", "train"), ("analysis", "reference")],
)
def test_schema_of_every_kind(kind, key):
    assert key in json.loads(runner.invoke(app, ["schema", kind]).output)["properties"]


def test_schema_of_no_kind():
    done = runner.invoke(app, ["schema", "dm"])
    assert (
        done.exit_code == 2
        and "unknown kind of configuration 'dm'; known: train, md, label, workflow, analysis" in done.output
    )
