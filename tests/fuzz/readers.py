"""How the program reads each kind of file: as far as a command would go with it before it computes for long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support.labeled_data import UNITS


class Kind(NamedTuple):
    """A kind of file: which one of its folder is damaged, how it is built, and how the folder is read."""

    file: str
    structure: str
    read: Callable[[Path], object]


def _model(folder: Path) -> None:
    from gmcore.model import load_model
    from gmcore.model_file import read_model
    from gmcore.model_summary import model_facts, model_lines

    path = folder / "model.h5"
    model_lines(model_facts(*read_model(path), folder))
    load_model(path)


def _data(folder: Path, name: str) -> None:
    from gmcore.data.datasets import read_dataset

    own = name == "data.h5" and folder.name == "data-hdf5"
    arrays = name == "data.npz" or folder.name == "data-flat-hdf5"
    labels = tuple(UNITS)[1:] if own else ("energy", "forces", "d_tensor")
    keys = {"energy": "E", "forces": "F", "d_tensor": "D"} if arrays else {}
    units = {} if own else {key: UNITS[key] for key in ("length", *labels)}
    dataset = read_dataset(folder / name, labels, units=units, keys=keys, total_charge="Q" if arrays else None)
    dataset.summary()


def _structure(folder: Path) -> None:
    from gmcore.config.dynamics import MDConfig
    from gmcore.config.loading import parse_config
    from gmcore.dynamics.setup import starting_state, starting_structures
    from gmcore.engine.structures import Batch

    text = (
        f"output: {folder / 'out'}\npotential: m.h5\nstructure: {{file: {folder / 'start.extxyz'}}}\n"
        "replicas: {temperatures: [100]}\nduration: 1\n"
    )
    config = parse_config(text, kind=MDConfig)
    starts = starting_structures(config)
    Batch.from_atoms(starts)  # checked by the model before the first step
    starting_state(config, starts)


def _splits(folder: Path) -> None:
    from gmcore.data.splits import read_splits

    read_splits(folder / "splits.json")


def _config(folder: Path) -> None:
    from gmcore.config.kinds import kind_of
    from gmcore.config.loading import load_config

    load_config(folder / "config.yaml", kind_of(folder / "config.yaml")).to_yaml()


def _workflow(folder: Path) -> None:
    """The first step is looked at, not run."""
    from gmcore.config.loading import load_config
    from gmcore.config.workflow import Workflow
    from gmcore.workflow.workflow import run_workflow

    steps = run_workflow(load_config(folder / "config.yaml", Workflow))
    next(steps)
    steps.close()


def _label_settings(folder: Path) -> None:
    from gmcore.config.labeling import LabelConfig
    from gmcore.config.loading import load_config

    config = load_config(folder / "config.yaml", LabelConfig)
    if not config.wanted:
        raise AssertionError(config.files)


def _labels(folder: Path) -> None:
    from gmcore.labeling.store import Store

    store = Store(folder / "work")
    store.refusal("another")
    record = store.record("data")
    if record is not None and record["geometry"] is not None:
        store.nearest("rasscf.h5", record["geometry"])


def _analysis_settings(folder: Path) -> None:
    from gmcore.config.analysis_file import read_settings, with_options

    with_options(read_settings(folder / "config.yaml"), {"blocks": 3})


def _analysis(folder: Path) -> None:
    from matplotlib.figure import Figure

    from gmcore.report.html import write_report

    saving = Figure.savefig
    Figure.savefig = lambda figure, target, *args, **kwargs: target.write(  # drawing takes a second for each report
        "<svg></svg>" if hasattr(target, "encoding") else b"<svg></svg>"
    )
    try:
        write_report(folder / "run", folder / "report.html")
    finally:
        Figure.savefig = saving


def _training_results(folder: Path) -> None:
    from gmcore.analysis.sections.training import training_results
    from gmcore.model import load_model

    path = folder / "model.h5"
    training_results(path, load_model(path), "cm^-1")


def _trajectory(folder: Path) -> None:
    from gmcore.dynamics.export import export
    from gmcore.dynamics.trajectory import Trajectory

    trajectory = Trajectory(folder / "run")
    for name in trajectory.names():
        trajectory.steps(name), trajectory.times(name), trajectory.values(name, 0), trajectory.unit(name)
    for suffix in ("extxyz", "csv"):
        export(trajectory, folder / f"exported.{suffix}", replicas=[0])


def _state(folder: Path) -> None:
    from gmcore.config.dynamics import MDConfig
    from gmcore.config.loading import load_config
    from gmcore.dynamics.checkpoint import identity_of
    from gmcore.dynamics.run_folder import earlier_checkpoint

    earlier_checkpoint(folder, identity_of(load_config(folder / "config.yaml", MDConfig)), resume=True)


def _modes(folder: Path) -> None:
    from gmcore.analysis.mode_files import load_expansion

    load_expansion(folder / "modes.h5")


def _tensor(folder: Path) -> None:
    from gmcore.exchange.tensor_files import read_tensors

    asked = {"level": "nevpt2", "contribution": "effective"} if folder.name == "orca-qdpt" else {}
    unit = "cm^-1" if folder.name == "plain-tensor" else None
    read_tensors(folder / "job.out", unit=unit, **asked)


def _rassi(folder: Path) -> None:
    from gmcore.exchange.tensor_files import read_tensors

    read_tensors(folder / "job.rassi.h5")


def _imported(folder: Path) -> None:
    from gmcore.commands.exchange import import_tensors

    import_tensors([folder / "job.out"], folder / "imported.extxyz", unit=["d_tensor=cm^-1"])


def _data_kinds() -> dict[str, Kind]:
    files = {
        "data-hdf5": ("data.h5", "hdf5"),
        "data-flat-hdf5": ("data.h5", "hdf5"),
        "data-npz": ("data.npz", "npz"),
        "data-extxyz": ("data.extxyz", "text"),
        "data-traj": ("data.traj", "bytes"),
        "data-ase-json": ("data.json", "json"),
        "data-ase-db": ("data.db", "sqlite"),
    }
    return {kind: Kind(file, structure, partial(_data, name=file)) for kind, (file, structure) in files.items()}


KINDS = {
    "model": Kind("model.h5", "hdf5", _model),
    **_data_kinds(),
    "structure": Kind("start.extxyz", "text", _structure),
    "splits": Kind("splits.json", "json", _splits),
    "training-yaml": Kind("config.yaml", "yaml", _config),
    "md-yaml": Kind("config.yaml", "yaml", _config),
    "workflow-yaml": Kind("config.yaml", "yaml", _workflow),
    "workflow-json": Kind("workflow.json", "json", _workflow),
    "label-yaml": Kind("config.yaml", "yaml", _label_settings),
    "labels": Kind("work/frames/data.json", "json", _labels),
    "labels-refused": Kind("work/refused.json", "json", _labels),
    "analysis-yaml": Kind("config.yaml", "yaml", _analysis_settings),
    "analysis": Kind("run/analysis.json", "json", _analysis),
    "metrics": Kind("metrics.json", "json", _training_results),
    "learning-curve": Kind("learning_curve/learning_curve.json", "json", _training_results),
    "trajectory": Kind("run/trajectory.h5", "hdf5", _trajectory),
    "state": Kind("state.npz", "npz", _state),
    "modes": Kind("modes.h5", "hdf5", _modes),
    **{
        kind: Kind("job.out", "text", _tensor)
        for kind in ("orca-scf", "orca-qdpt", "orca-property-5", "orca-property-6", "single-aniso", "plain-tensor")
    },
    "rassi-h5": Kind("job.rassi.h5", "hdf5", _rassi),
    "import": Kind("job.xyz", "text", _imported),
}
