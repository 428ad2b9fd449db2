"""From a configuration to a model file with its metrics and figures.

    output/config.yaml, splits.json           what was done with which structures
    output/member_0/history.csv, events/      logs of each committee member; TensorBoard reads events/
    output/member_0/checkpoint.npz            where an interrupted training goes on
    output/model.h5                           the committee (`gmcore.load_model`)
    output/metrics.json, *.png                errors of train, validation and test parts, parity plots, loss curves

With `separate_models` each property has a folder of its own in between. Members differ by their seed, seed + member,
which decides initial parameters and the order of the batches; the same configuration gives the same weights, also when
the training was interrupted. With `training.start_from` the parameters are those of trained models (`gmkeras.start`).
A callback of `training.callbacks` may end the training of a member early; the same command then leaves it as it is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from gmcore.config.training import Properties, TrainConfig
from gmcore.data.datasets import Dataset
from gmcore.data.splits import describe_parts, load_datasets
from gmcore.engine.heads import check_heads, count_outputs
from gmcore.engine.settings import DescriptorSettings, HeadOptions, HeadSettings, Member, ModelSettings
from gmcore.errors import GMError
from gmcore.evaluation.advice import training_advice
from gmcore.evaluation.evaluation import evaluate_model, write_evaluation
from gmcore.evaluation.figures import loss_curves
from gmcore.evaluation.outside import stated_values
from gmcore.evaluation.trust import learn_uncertainty
from gmcore.files import atomic_path, lock_folder
from gmcore.model import Model, load_model
from gmcore.model_file import ModelFileError, model_identity, read_model, write_model
from gmcore.quantities import BY_NAME
from gmcore.running.interruption import Interruption
from gmcore.running.progress import PlainLines
from gmcore.threads import set_threads
from gmcore.version import __version__
from gmkeras.callbacks import BestWeights, Checkpoints, Logs, ProgressBar
from gmkeras.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from gmkeras.data import PreparedData
from gmkeras.initial import initialize, take_over
from gmkeras.model import GMModel
from gmkeras.optimizer import OPTIMIZERS
from gmkeras.start import Start, checked_heads, completed, descriptor_of, read_start, start_notes
from gmkeras.user_callbacks import CallbackMaker, import_callbacks

MODEL_FILE = "model.h5"
LAYOUT = 3
"""Of the variables in a checkpoint; those of another layout are refused."""


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves behind.

    Attributes
    ----------
    folder : output folder.
    models : model files; one, or one per property.
    metrics : part -> quantity -> {"mae", "rmse", "unit", ...}, as in metrics.json.
    notes : what reading changed in the data.
    advice : sentences on whether more epochs or more data would lower the errors, as in metrics.json.
    """

    folder: Path
    models: tuple[Path, ...]
    metrics: dict[str, dict]
    notes: tuple[str, ...]
    advice: tuple[str, ...]


def train(config: TrainConfig, resume: bool = True, interruption: Interruption | None = None) -> TrainResult:
    """Train the committee that `config` describes, evaluate it, write everything.

    Parameters
    ----------
    resume : go on where an interrupted training in the same folder stopped; otherwise begin again.
    interruption : is asked after each epoch whether the training should end.

    Raises
    ------
    EndedEarly : the interruption said so; the same call goes on.
    LockError : another process writes to the folder, or the folder cannot be created.
    GMError : data, settings, callbacks or a checkpoint that cannot be used.
    """
    if config.training.threads is not None:  # otherwise each library takes all cores
        set_threads(config.training.threads)
    with lock_folder(config.output):
        return _train(config, resume, interruption)


def train_member(
    config: TrainConfig, member: int, resume: bool = True, interruption: Interruption | None = None
) -> list[Path]:
    """Train one member of the committee that `config` describes, for `train` to take over.

    Members may be trained at the same time, by several processes and on several machines.

    Parameters
    ----------
    member : its number, from 0.
    resume, interruption : as for `train`.

    Returns
    -------
    Checkpoints of the member, one for each model.

    Raises
    ------
    LockError : another process trains this member, or the folder cannot be created.
    GMError : there is no such member; data, settings, callbacks or a checkpoint that cannot be used.
    EndedEarly : the interruption said so; the same call goes on.
    """
    if not 0 <= member < config.training.members:
        raise GMError(f"the member must be one of 0 to {config.training.members - 1}, got {member}")
    if config.training.threads is not None:
        set_threads(config.training.threads)
    with _prepared(config) as prepared:
        for folder, own in _committees(prepared.config):
            _Trainer(prepared, own, folder, interruption).run(member, resume)
        return [folder / f"member_{member}" / "checkpoint.npz" for folder, _ in _committees(prepared.config)]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What all committees of a training share: completed configuration, data, start, callbacks, and the display."""

    config: TrainConfig
    parts: dict[str, Dataset]
    start: Start | None
    callbacks: Sequence[CallbackMaker]
    progress: Progress


@contextmanager
def _prepared(config: TrainConfig) -> Iterator[_Prepared]:
    """Read what a training needs, write its configuration, and show its progress."""
    callbacks = import_callbacks(config.training.callbacks)
    start = read_start(config.training.start_from) if config.training.start_from else None
    config = completed(config, start) if start else config
    parts = load_datasets(config)
    if start:
        train_part = parts["train"]
        notes = (*train_part.notes, *start_notes(start, config, train_part))
        parts["train"] = replace(train_part, notes=notes)
    with atomic_path(config.output / "config.yaml") as temporary:
        temporary.write_text(config.to_yaml(), encoding="utf-8")
    status = TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn(), status
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for line in describe_parts(parts):
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        yield _Prepared(config, parts, start, callbacks, progress)


def _train(config: TrainConfig, resume: bool, interruption: Interruption | None) -> TrainResult:
    """Train in the locked folder `config.output`."""
    with _prepared(config) as prepared:
        config, parts = prepared.config, prepared.parts
        models = [_train_committee(prepared, own, folder, resume, interruption) for folder, own in _committees(config)]
    loaded: list[Model] = [load_model(path) for path in models]
    evaluations = {part: evaluate_model(loaded, data) for part, data in parts.items()}
    metrics = {part: evaluation.metrics for part, evaluation in evaluations.items()}
    n_structures = {part: len(data) for part, data in parts.items()}
    advice = []
    for folder, own in _committees(config):
        members = own.training.members
        advice += training_advice(folder, members, own.labels, metrics, n_structures["train"], config.output)
    write_evaluation(config.output, evaluations, {"n_structures": n_structures, "advice": advice})
    words = tuple(str(found["words"]) for found in advice)
    return TrainResult(config.output, tuple(models), metrics, parts["train"].notes, words)


def _committees(config: TrainConfig) -> list[tuple[Path, TrainConfig]]:
    """Folder and configuration of each model file."""
    names = config.properties.names
    if not config.training.separate_models or len(names) == 1:
        return [(config.output, config)]
    others = {name: dict.fromkeys(set(names) - {name}) for name in names}
    return [
        (
            config.output / name,
            config.model_copy(update={"properties": config.properties.model_copy(update=others[name])}),
        )
        for name in names
    ]


def _train_committee(
    prepared: _Prepared, config: TrainConfig, folder: Path, resume: bool, interruption: Interruption | None
) -> Path:
    """Train all members one after another and write the model file."""
    parts, start, training = prepared.parts, prepared.start, prepared.parts["train"]
    trainer = _Trainer(prepared, config, folder, interruption)
    descriptor, heads = trainer.descriptor, trainer.heads
    members, states = zip(*(trainer.run(k, resume) for k in range(config.training.members)))
    columns = [name for name in states[0].history[0] if name in ("loss", "val_loss") or name.endswith("_mae")]
    loss_curves(
        folder / "loss_curves.png",
        [{name: [row[name] for row in state.history] for name in columns} for state in states],
        {f"{head.name}_mae": head.unit for head in heads if head.unit},
    )
    path = folder / MODEL_FILE
    provenance = _provenance(config, parts, list(states), folder)
    if start:
        provenance["start_from"] = start.provenance(folder, replayed=not config.data.added_only)
    settings = ModelSettings(descriptor, heads, config.training.dtype, provenance)
    if not (resume and _holds(path, settings, members)):
        known, uncertainty = learn_uncertainty(settings, members, training, parts["validation"])
        write_model(path, settings, known, min(training.atoms, key=len), uncertainty)
    return path


def _head_settings(properties: Properties, n_radial: int, data: Dataset) -> tuple[HeadSettings, ...]:
    """Heads for the properties of a configuration; units and a total charge that never changes come from the data."""
    heads = []
    for name in properties.names:
        section, options = getattr(properties, name), HeadOptions()
        unit = BY_NAME[name].unit or data.units[name]
        if name == "charges":
            constant = section.conserve and np.ptp(data.total_charge) == 0.0
            total_charge = float(data.total_charge[0]) if constant else None
            options = HeadOptions(conserve=section.conserve, origin=section.origin, total_charge=total_charge)
        elif name != "energy":
            options = HeadOptions(basis=section.basis)
        heads.append(HeadSettings(name, name, count_outputs(name, options, n_radial), unit, options))
    return tuple(heads)


def _holds(path: Path, settings: ModelSettings, members: Sequence[Member]) -> bool:
    """Whether a file is this very model, however old it is; its date and its hash then stay as they are."""
    try:
        return path.is_file() and model_identity(*read_model(path)) == model_identity(settings, members)
    except ModelFileError:  # damaged, or something else
        return False


class _Trainer:
    """Trains the members of a committee one after another with one model, whose graph is traced once.

    Attributes
    ----------
    descriptor, heads : settings of the model.
    """

    def __init__(self, prepared: _Prepared, config: TrainConfig, folder: Path, interruption: Interruption | None):
        parts, start, training = prepared.parts, prepared.start, prepared.parts["train"]
        descriptor = (
            descriptor_of(start, training.species, config.training.new_species)
            if start
            else DescriptorSettings(training.species, **config.descriptor.model_dump())
        )
        heads = _head_settings(config.properties, descriptor.n_radial, training)
        heads = checked_heads(start, heads) if start else heads
        check_heads(heads, descriptor.n_radial)
        labels = config.labels
        data = {
            part: PreparedData(
                parts[part].atoms,
                descriptor,
                {label: parts[part].labels[label] for label in labels},
                parts[part].total_charge,
            )
            for part in ("train", "validation")
        }
        self.descriptor, self.heads = descriptor, heads
        self._config, self._start, self._data, self._callbacks = config, start, data, prepared.callbacks
        self._folder, self._progress, self._interruption = folder, prepared.progress, interruption
        self._settings = config.training
        self._weights = config.properties.loss_weights
        self._steps = -(-data["train"].n_structures // config.batch_size)
        self._model = self._new_model(config.seed)
        self._model.freeze(self._settings.freeze)
        optimizer = OPTIMIZERS[str(self._settings.optimizer)]
        self._optimizer = optimizer(self._settings.epochs * self._steps, self._settings.learning_rates.model_dump())
        self._optimizer.build(self._model.trainable_variables)
        self._model.compile(optimizer=self._optimizer, loss_weights=self._weights)

    def run(self, member: int, resume: bool) -> tuple[Member, TrainingState]:
        """Train one member from its beginning or its checkpoint; returns the parameters of its best epoch."""
        with lock_folder(self._folder / f"member_{member}"):
            return self._run(member, resume)

    def _run(self, member: int, resume: bool) -> tuple[Member, TrainingState]:
        seed, settings, data = self._config.seed + member, self._settings, self._data
        n_epochs, steps, model = settings.epochs, self._steps, self._model
        folder = self._folder / f"member_{member}"
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint.npz"
        if not resume:
            checkpoint.unlink(missing_ok=True)
        model.set_weights(self._initial_weights(seed, member))
        self._optimizer.restart()
        fingerprint = _fingerprint(self._config, data, member, self._start)
        state = load_checkpoint(checkpoint, fingerprint, model)

        title = f"{self._folder.name} member {member}"
        task = self._progress.add_task(title, total=n_epochs * steps, status="")
        self._progress.update(task, completed=state.epoch * steps)
        spreads = {quantity: _spread(data["train"].label(quantity)) for quantity in self._weights}
        best = BestWeights(state, spreads, n_epochs)
        best.set_model(model)
        validation = data["validation"].dataset(self._config.batch_size)
        lines = PlainLines(n_epochs, state.epoch, "epochs", title, self._progress.console)
        if state.epoch < n_epochs and not state.stopped:
            model.fit(
                data["train"].dataset(self._config.batch_size, seed=seed, first_epoch=state.epoch),
                validation_data=validation,
                steps_per_epoch=steps,
                initial_epoch=state.epoch,
                epochs=n_epochs,
                shuffle=False,  # the data come shuffled
                verbose=0,
                callbacks=[
                    best,
                    Logs(folder, state),
                    *(make() for make in self._callbacks),
                    Checkpoints(checkpoint, fingerprint, state, n_epochs, interruption=self._interruption),
                    ProgressBar(self._progress, task, state, lines),
                ],
            )
        if state.n_mean > 1:
            best.compare_mean(validation)
            save_checkpoint(checkpoint, fingerprint, model, state)
        if state.stopped:
            self._progress.update(task, completed=n_epochs * steps)
        model.set_weights(state.best_weights)
        return model.member(), state

    def _new_model(self, seed: int) -> GMModel:
        network = self._config.network
        return GMModel(
            heads=self.heads,
            hidden=network.hidden or (),
            seed=seed,
            decorrelate=bool(network.decorrelate),
            initial_radial=self._settings.initial_radial or "uniform",
            dtype=self._settings.dtype,
            **asdict(self.descriptor),
        )

    def _initial_weights(self, seed: int, member: int) -> list[np.ndarray]:
        model, data, initial_scale = self._new_model(seed), self._data["train"], str(self._settings.initial_scale)
        if self._start is None:
            initialize(model, data, standardize=bool(self._config.network.standardize), initial_scale=initial_scale)
        else:
            start, refit = self._start, "shift" not in self._settings.freeze
            trained = start.member(member)
            for note in take_over(model, start.settings, trained, data, initial_scale=initial_scale, refit=refit):
                line = f"member {member}: {note}"
                self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        return [weight.numpy() for weight in model.weights]


def _spread(values: np.ndarray) -> float:
    """Mean absolute deviation from the mean; 1 where nothing varies."""
    values = values[np.isfinite(values)]
    return float(np.abs(values - values.mean()).mean()) or 1.0


def _fingerprint(config: TrainConfig, data: dict[str, PreparedData], member: int, start: Start | None) -> str:
    """Hash of everything that decides the weights of a member, but for the number of threads.

    Models to start from and added data count by their content, callbacks by their names and arguments.
    """
    left_out = {"members", "threads", "start_from", "freeze", "new_species", "callbacks"}
    content = config.model_dump(
        mode="json", exclude={"output": True, "training": left_out, "data": {"added_files", "added_only"}}
    )
    start_content = [start.identity(member)] if start else []
    frozen = [sorted(set(config.training.freeze))] if config.training.freeze else []
    callbacks = [{"callbacks": config.training.callbacks}] if config.training.callbacks else []
    described = json.dumps([LAYOUT, content, member, *start_content, *frozen, *callbacks], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    for part in data.values():
        for arrays in part.batches(part.n_structures):
            for values in arrays:
                for name in sorted(values):
                    digest.update(np.ascontiguousarray(values[name]).tobytes())
    return digest.hexdigest()


def _provenance(config: TrainConfig, parts: dict[str, Dataset], states: list[TrainingState], folder: Path) -> dict:
    """Where the model comes from: settings with paths as seen from `folder`, data, versions, how far members came."""
    return {
        "config": config.model_dump(mode="json", exclude_none=True, context={"relative_to": folder}),
        "n_structures": {part: len(data) for part, data in parts.items()},
        "data_notes": list(parts["train"].notes),
        **stated_values(parts["train"].atoms),
        "members": [
            {
                "seed": config.seed + k,
                "best_epoch": state.best_epoch,
                "averaged": bool(state.averaged),
                "validation": {
                    name: value
                    for name, value in (state.averaged or state.history[state.best_epoch - 1]).items()
                    if name.startswith("val_")
                },
            }
            for k, state in enumerate(states)
        ],
        "versions": {
            "gmtensor": __version__,
            "python": sys.version.split()[0],
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
