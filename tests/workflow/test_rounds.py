"""`gmtensor run` with rounds: what is chosen, labeled and trained on, when it ends, and what is not done twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from gmcore.config.loading import ConfigError, load_config, parse_config
from gmcore.config.workflow import Workflow
from gmcore.errors import GMError
from gmcore.evaluation.rounds import RoundsError, RoundsResult, read_rounds
from gmcore.report import rounds as blocks
from gmcore.workflow import processes, side_by_side
from gmcore.workflow.record import WorkflowError
from gmcore.workflow.workflow import run_workflow
from support.command_line import refused
from support.command_line import run as run_command
from support.workflows import write_trainings

WORKFLOW = """
output: loop
train: [potential.yaml, d.yaml]
md: md.yaml
rounds:
  at_most: 3
  improve:
    - {train: d.yaml, label: label.yaml, frames: 4, target: 1.0, check: 2, epochs: 7}
"""
TENSOR = np.diag([1.0, 1.0, -2.0])


@pytest.fixture
def folder(tmp_path) -> Path:
    """Configurations of two trainings, a run and a loop; nothing but their text is used."""
    write_trainings(tmp_path)
    (tmp_path / "md.yaml").write_text(
        "output: md\npotential: potential/model.h5\nstructure: {file: d.xyz}\nreplicas: {temperatures: [100]}\n"
        "duration: 1\nd_tensor: {model: d/model.h5, molecule: {metal: Co}}\n"
    )
    (tmp_path / "label.yaml").write_text("method: python\npython: {function: f.py:f}\n")
    (tmp_path / "loop.yaml").write_text(WORKFLOW)
    (tmp_path / "f.py").write_text("")
    for name in ("e.xyz", "d.xyz"):
        (tmp_path / name).write_text(name)
    return tmp_path


class Commands:
    """Stands in for the commands: writes what the next ones read. Errors fall by half in each round."""

    def __init__(self):
        self.run: list[tuple[str, ...]] = []
        self.stopped: set[int] = set()
        self.nothing_from = 99
        self.failing: str | None = None

    def __call__(self, arguments: tuple[str, ...], threads: int | None = None) -> int:
        command, *rest = arguments
        self.run.append(arguments)
        if command == self.failing:
            return 2
        return getattr(self, f"_{command}")(*rest) or 0

    def names(self) -> list[str]:
        return [" ".join(Path(part).name for part in arguments[:2]) for arguments in self.run]

    def _train(self, path: str) -> None:
        config = load_config(path)
        config.output.mkdir(parents=True, exist_ok=True)
        (config.output / "model.h5").write_text(config.to_yaml())
        n = 8 + sum(len(read(file, ":")) for file in config.data.added_files)
        metrics = {"n_structures": {"train": n}, "test": {"d_tensor_D": {"rmse": 8.0 / n}}}
        (config.output / "metrics.json").write_text(json.dumps(metrics))

    def _md(self, path: str) -> int:
        from gmcore.config.dynamics import MDConfig

        config = load_config(path, MDConfig)
        config.output.mkdir(parents=True, exist_ok=True)
        if _round(path) in self.stopped:
            write(config.output / "stopped.extxyz", Atoms("Co"))
            return 3
        (config.output / "trajectory.h5").write_text(config.to_yaml())
        return 0

    def _analyze(self, run: str) -> None:
        error = 3.0 / 2 ** _round(run)
        state = {"anisotropy": {"D": {"model": error}}, "extrapolation": {"d_tensor": {"share": {"value": 0.1}}}}
        content = {"format": "gmtensor-analysis", "schema": 1, "date": "", "gmtensor": "", "unit": "cm^-1"}
        content |= {"run": {}, "states": [state], "training": {}, "missing": {}}
        (Path(run) / "analysis.json").write_text(json.dumps(content))

    def _report(self, run: str, *options: str) -> None:
        (Path(run) / "report.html").write_text("")

    def _select(self, *arguments: str) -> int:
        output, n = (arguments[arguments.index(name) + 1] for name in ("-o", "-n"))
        if _round(output) >= self.nothing_from:
            return 4
        write(output, [Atoms("Co", info={"k": k}) for k in range(int(n))])
        return 0

    def _label(self, frames: str, config: str, option: str, output: str) -> None:
        labeled = [frame for frame in read(frames, ":")][1:]  # the first one is refused
        for frame in labeled:
            frame.info["d_tensor"] = TENSOR
        write(output, labeled)

    def _evaluate(self, model: str, data: str, option: str, output: str) -> None:
        Path(output).mkdir(exist_ok=True)
        metrics = {"rmse": 0.5, "error_coverage": [0.7, 0.95]}
        (Path(output) / "metrics.json").write_text(json.dumps({Path(data).name: {"d_tensor_D": metrics}}))

    def _predict(self, model: str, data: str, option: str, output: str) -> None:
        rows = ["D [cm^-1],D_error [cm^-1]", *(["-2.9,0.2"] * len(read(data, ":")))]
        Path(output).write_text("\n".join(rows))


def _round(path: str) -> int:
    found = re.search(r"round_(\d+)", path)
    return int(found[1]) if found else 0


@pytest.fixture
def commands(monkeypatch) -> Commands:
    stand_in = Commands()
    monkeypatch.setattr(processes, "run_step", stand_in)
    monkeypatch.setattr(side_by_side, "available_cores", lambda: 1)  # one step after another
    return stand_in


def run(folder: Path) -> RoundsResult:
    for _ in run_workflow(load_config(folder / "loop.yaml", Workflow)):
        pass
    return read_rounds(folder / "loop" / "rounds.json")


FIRST = ["train potential.yaml", "train d.yaml", "md md.yaml", "analyze md"]
ROUND = ["select {}", "label d_chosen.extxyz", "train d.yaml", "md md.yaml", "analyze md"]


def test_rounds_end_at_the_target(folder, commands):
    """Errors of 3, 1.5 and 0.75: two rounds are needed for a target of 1."""
    result = run(folder)
    sources = ["md", "md"]
    later = [name.format(source) for source in sources for name in ROUND]
    check = ["select md", "label d_chosen.extxyz", "evaluate model.h5", "predict model.h5"]
    assert commands.names() == [*FIRST, *later, *check, "report md"]
    assert result.ended == "the errors are below their targets"
    assert [entry.models[0].error for entry in result.rounds] == [3.0, 1.5, 0.75]
    assert [entry.models[0].n_structures for entry in result.rounds] == [8, 11, 14]  # 3 of 4 are labeled
    assert [entry.models[0].n_labeled for entry in result.rounds] == [None, 3, 3]
    assert result.checks[0].reference == [-3.0] and result.checks[0].within == [0.7, 0.95]
    assert commands.run[-1] == (
        "report",
        str(folder / "loop" / "round_2" / "md"),
        "--rounds",
        str(folder / "loop" / "rounds.json"),
    )


def test_a_round_trains_on_and_runs_with_the_new_model(folder, commands):
    run(folder)
    loop = folder / "loop"
    training = load_config(loop / "round_2" / "d.yaml")
    assert training.training.start_from == [loop / "round_1" / "d" / "model.h5"] and training.training.epochs == 7
    assert training.data.added_files == [loop / f"round_{k}" / "d_labeled.extxyz" for k in (1, 2)]
    assert training.data.files == [folder / "d.xyz"] and training.output == loop / "round_2" / "d"
    from gmcore.config.dynamics import MDConfig

    dynamics = load_config(loop / "round_2" / "md.yaml", MDConfig)
    assert dynamics.d_tensor.model == loop / "round_2" / "d" / "model.h5"
    assert dynamics.potential == folder / "potential" / "model.h5"
    assert dynamics.replicas.seeds == [2_000_001]  # other random numbers in each round
    choice = next(arguments for arguments in commands.run if arguments[0] == "select" and "round_2" in arguments[5])
    assert choice[1] == str(loop / "round_1" / "md") and "--random" not in choice
    assert choice[choice.index("--model") + 1] == str(loop / "round_1" / "d" / "model.h5")


def test_done_once_and_resumed_where_it_failed(folder, commands):
    commands.failing = "label"
    with pytest.raises(WorkflowError, match=r"step round 1, d, 1 of 1, gmtensor label .* failed with exit code 2"):
        run(folder)
    commands.failing = None
    before = len(commands.run)
    first = run(folder)
    assert commands.names()[before] == "label d_chosen.extxyz"
    n = len(commands.run)
    assert run(folder) == first and len(commands.run) == n


def test_random_frames_and_training_afresh(folder, commands):
    text = WORKFLOW.replace("at_most: 3", "at_most: 1\n  choose: random\n  start: afresh")
    (folder / "loop.yaml").write_text(text)
    result = run(folder)
    assert result.ended == "their number was used up" and len(result.rounds) == 2
    choices = [arguments for arguments in commands.run if arguments[0] == "select"]
    assert all("--random" in arguments for arguments in choices)
    assert not load_config(folder / "loop" / "round_1" / "d.yaml").training.start_from


def test_a_stopped_run_gives_frames_but_no_average(folder, commands):
    commands.stopped = {0}
    result = run(folder)
    assert result.rounds[0].stopped and result.rounds[0].models[0].error is None
    choice = next(arguments for arguments in commands.run if arguments[0] == "select")
    assert choice[1] == str(folder / "md" / "stopped.extxyz")
    assert "analyze md" not in commands.names()[:4]


def test_a_stop_in_the_last_round_is_an_error(folder, commands):
    commands.stopped = {0, 1, 2, 3}
    with pytest.raises(WorkflowError, match=r"a stop condition ended the dynamics of the last round, .*round_3/md"):
        run(folder)
    assert len(read_rounds(folder / "loop" / "rounds.json").rounds) == 4


def test_ends_where_no_frame_is_worth_a_label(folder, commands):
    commands.nothing_from = 1
    result = run(folder)
    assert result.ended == "no frame of the run is worth a label" and len(result.rounds) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WORKFLOW.replace("md: md.yaml\n", ""), r"rounds need a molecular dynamics run \(md\)"),
        (WORKFLOW.replace("{train: d.yaml", "{train: e.yaml"), "must be one of the trainings of the workflow, got e"),
    ],
)
def test_refuses_rounds_without_their_steps(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(text, kind=Workflow)


def test_refuses_several_runs_to_choose_from(folder, commands):
    with (folder / "md.yaml").open("a") as file:
        file.write("\nruns: {cold: {}, hot: {duration: 2}}\n")
    with pytest.raises(GMError, match="choose their frames from one run, got cold, hot in"):
        run(folder)


def test_refuses_a_model_that_the_dynamics_does_not_use(folder, commands):
    (folder / "d.yaml").write_text((folder / "d.yaml").read_text().replace("output: d", "output: other"))
    with pytest.raises(GMError, match=r"other/model.h5, must be the potential or the D model of .*md.yaml"):
        run(folder)
    assert commands.run == []


def test_table_and_figure_of_the_report(folder, commands):
    result = run(folder)
    table = blocks.table({}, result)
    assert table.columns == ["", "round 0", "round 1", "round 2"]
    assert [cell.text for cell in table.rows[0][1]] == ["8", "11", "14"]
    assert [cell.text for cell in table.rows[1][1]] == ["–", "3 of 4", "3 of 4"]
    figure = blocks.comparison({}, result)
    assert len(figure.panels) == 1 and "70 % of the values lie within one error and 95 %" in figure.caption
    assert blocks.table({}, RoundsResult()) is None and blocks.comparison({}, RoundsResult()) is None


def test_refuses_a_damaged_file_of_rounds(tmp_path):
    (tmp_path / "rounds.json").write_text('{"rounds": [{"number": "x"}]}')
    with pytest.raises(RoundsError, match=r"rounds.json does not hold what it should"):
        read_rounds(tmp_path / "rounds.json")


def test_validate_checks_the_rounds_too(folder):
    done = run_command("validate", folder / "loop.yaml")
    assert done.code == 0 and "at most 3 rounds of select, label, train, md and analyze" in done.out
    (folder / "f.py").unlink()
    assert "f.py does not exist" in refused("validate", folder / "label.yaml")
    (folder / "label.yaml").write_text("method: ase\nase: {calculator: a.B}\n")
    assert "label.yaml must give d_tensor" in refused("validate", folder / "loop.yaml")


def test_refuses_names_that_would_be_shared(folder, commands):
    (folder / "md.yaml").rename(folder / "dynamics.yaml")
    (folder / "d.yaml").rename(folder / "md.yaml")
    text = WORKFLOW.replace("md: md.yaml", "md: dynamics.yaml").replace("d.yaml", "md.yaml")
    (folder / "loop.yaml").write_text(text.replace("dynamics.ymd.yaml", "dynamics.yaml"))
    with pytest.raises(GMError, match=r"files of different names, none of them md, .* got md: rename one"):
        run(folder)


def test_a_changed_function_makes_new_labels(folder, commands):
    run(folder)
    commands.run.clear()
    (folder / "f.py").write_text("# another one")
    run(folder)
    assert "label d_chosen.extxyz" in commands.names()


def test_files_that_the_training_adds_itself_stay(folder, commands):
    write(folder / "more.extxyz", [Atoms("Co", info={"d_tensor": TENSOR})])
    text = (folder / "d.yaml").read_text().replace("d.xyz], units", "d.xyz], added_files: [more.extxyz], units")
    (folder / "d.yaml").write_text(text)
    run(folder)
    added = load_config(folder / "loop" / "round_1" / "d.yaml").data.added_files
    assert added == [folder / "more.extxyz", folder / "loop" / "round_1" / "d_labeled.extxyz"]
