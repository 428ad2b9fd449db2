"""The trainable model: descriptor, network and heads as a Keras model whose force loss is differentiated twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ase.data import chemical_symbols

from gmcore.config.presets import PRESETS
from gmcore.data.datasets import Dataset
from gmcore.engine.settings import DescriptorSettings, HeadSettings, ModelSettings
from gmcore.errors import GMError, excerpt
from gmcore.model_file import read_model, write_model
from gmcore.quantities import predicted_by
from gmcore.suggest import did_you_mean
from gmkeras import fitting
from gmkeras.heads import as_head, head_outputs
from gmkeras.initial import initialize
from gmkeras.layers import DecorrelatedDense, GaussianMomentsLayer, NTKDense, ScaleShift, Standardization
from gmkeras.trainer import StructureModel

STANDARD = PRESETS["standard"]


@keras.saving.register_keras_serializable("gmtensor")
class GMModel(StructureModel):
    """Gaussian-moment network with one or several heads, trained with `model.fit`.

    Input and labels are the dicts of `gmkeras.data`; the output is a dict of the quantities below, float64. `fit`,
    `evaluate` and `predict` take data sets (`gmcore.Dataset`), their batches and structures of ASE as well.

    ==========  ======================================  ====================
    head        quantities                              unit
    ==========  ======================================  ====================
    energy      energy, forces*, stress*                eV, eV/A, eV/A^3
    charges     charges, dipole                         e, e A
    d_tensor    d_tensor                                cm^-1
    tensor      tensor                                  that of the labels
    ==========  ======================================  ====================

    `*` F = -dE/dr, stress = (dE/dstrain)/V, NaN without a cell. They are computed where a loss or a metric asks for
    them, and in `predict`.

    Parameters
    ----------
    species : elements, as symbols or atomic numbers, in any order.
    heads : names of heads, dicts such as {"kind": "charges", "conserve": False}, or `HeadSettings`; outputs have this
        order.
    r_max, r_min, n_basis, n_radial : of the descriptor, see `gmcore.engine.settings.DescriptorSettings`.
    hidden : sizes of the hidden layers.
    seed : of beta and of the weights of the network.
    decorrelate : whether the first layer sees the features partly decorrelated (`DecorrelatedDense`); if not given,
        where no energy is learned.
    initial_radial : "smooth" or "uniform", see `GaussianMomentsLayer`.
    dtype : "float32" or "float64".

    Raises
    ------
    ValueError, GMError : settings that are no model.

    Examples
    --------
    ::

        model = GMModel(species=data.species, heads=["energy"], r_max=5.0)
        model.adapt(train)
        model.compile(optimizer="adam", loss_weights={"energy": 1.0, "forces": 4.0})
        model.fit(train.batches(8, seed=1), validation_data=valid.batches(8), epochs=300)
        model.to_file("model.h5")
    """

    def __init__(
        self,
        species: Sequence[int | str],
        heads: Sequence[str | Mapping[str, Any] | HeadSettings],
        r_max: float = STANDARD["descriptor"]["r_max"],
        r_min: float = STANDARD["descriptor"]["r_min"],
        n_basis: int = STANDARD["descriptor"]["n_basis"],
        n_radial: int = STANDARD["descriptor"]["n_radial"],
        hidden: Sequence[int] = tuple(STANDARD["hidden"]),
        seed: int = 0,
        decorrelate: bool | None = None,
        initial_radial: str = STANDARD["initial_radial"],
        dtype: str = "float32",
        name: str = "gm_model",
    ):
        super().__init__(name=name, dtype=dtype, autocast=False)
        self.supports_jit = False
        self.descriptor = DescriptorSettings(_atomic_numbers(species), float(r_max), float(r_min), n_basis, n_radial)
        self.head_settings = tuple(as_head(head, n_radial) for head in heads)
        _check(self.head_settings)
        predicts_energy = any(head.kind == "energy" for head in self.head_settings)
        decorrelate = not predicts_energy if decorrelate is None else decorrelate
        self.hidden, self.seed, self.decorrelate, self.initial_radial = tuple(hidden), seed, decorrelate, initial_radial
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(self.hidden) + 2) >> 1]
        self.moments_layer = GaussianMomentsLayer(
            **asdict(self.descriptor), beta_initializer=initial_radial, seed=seeds[0], dtype=dtype, name="descriptor"
        )
        self.standardization = Standardization(dtype=dtype, name="standardization")
        self.dense_layers = [
            (DecorrelatedDense if decorrelate and k == 0 else NTKDense)(
                size, "scaled_swish", seed=s, dtype=dtype, name=f"hidden_{k}"
            )
            for k, (size, s) in enumerate(zip(self.hidden, seeds[1:]))
        ]
        n_outputs = sum(head.n_outputs for head in self.head_settings)
        self.dense_layers.append(NTKDense(n_outputs, seed=seeds[-1], dtype=dtype, name="output"))
        self.scale_shift = {
            head.name: ScaleShift(len(self.descriptor.species), head.n_outputs, dtype=dtype, name=head.name)
            for head in self.head_settings
        }
        self._build_layers()

    def _build_layers(self) -> None:
        """Make all variables now: initial values, restarts and optimizers need them before the first batch."""
        self.moments_layer.build()
        shape = (None, self.moments_layer.n_features)
        self.standardization.build(shape)
        for layer in self.dense_layers:
            layer.build(shape)
            shape = (None, layer.n_outputs)
        for layer in self.scale_shift.values():
            layer.build()
        self.built = True

    @classmethod
    def from_file(cls, path: str | PathLike, member: int = 0) -> GMModel:
        """Return a member of a model file as a model that can be trained on.

        Parameters
        ----------
        path : model file of `gmtensor train` or `to_file`.
        member : which member of the committee, from 0.

        Raises
        ------
        GMError : the file is no usable model, has no such member, or has a head that cannot be trained.

        Examples
        --------
        Freeze the radial functions, then train as usual::

            model = GMModel.from_file("model.h5")
            model.moments_layer.trainable = False
            model.compile(optimizer="adam")
            model.fit(data)
        """
        settings, members = read_model(path)
        if not 0 <= member < len(members):
            raise GMError(f"{path} has the members 0 to {len(members) - 1}, got {member}")
        check_trainable(path, settings)
        chosen = members[member]
        hidden = [len(bias) for bias in chosen.biases[:-1]]
        descriptor = asdict(settings.descriptor)
        model = cls(heads=settings.heads, hidden=hidden, decorrelate=False, dtype=settings.dtype, **descriptor)
        model.set_member(chosen)
        return model

    def to_file(
        self,
        path: str | PathLike,
        *others: GMModel,
        train: Dataset | None = None,
        validation: Dataset | None = None,
    ) -> None:
        """Write a model file for `gmcore.load_model`, `GMCalculator` and the commands of gmtensor.

        Parameters
        ----------
        others : further members of a committee, trained from other seeds.
        train, validation : the data sets of the training. With both the file has calibrated errors and extrapolation
            grades, see docs/method.md.

        Raises
        ------
        GMError : the models are no committee, only one data set is given, or the file cannot be written.
        """
        if (train is None) != (validation is None):
            raise GMError("to_file needs both data sets, train and validation, or none of them")
        models = (self, *others)
        for other in others:
            if (other.descriptor, other.head_settings) != (self.descriptor, self.head_settings):
                raise GMError("the members of a committee must have the same species, descriptor and heads")
        provenance = {"made_by": "gmkeras.GMModel.to_file"}
        settings = ModelSettings(self.descriptor, self.head_settings, self.variable_dtype, provenance)
        members, uncertainty, smallest = [model.member() for model in models], None, None
        if train is not None and validation is not None:
            from gmcore.evaluation.trust import learn_uncertainty

            members, uncertainty = learn_uncertainty(settings, members, train, validation)
            smallest = min(train.atoms, key=len)
        write_model(path, settings, members, smallest, uncertainty)

    def adapt(self, data: Any, *, standardize: bool = True, initial_scale: str = "spread") -> None:
        """Set what comes from the training data before the first step: feature statistics, scales and shifts.

        Parameters
        ----------
        data : data set or batches; labels that no head predicts are not used.
        standardize, initial_scale : see `gmkeras.initial.initialize`.

        Raises
        ------
        GMError : the data are no data set, have elements that the model does not know, or no label of one of the heads.
        """
        batches = fitting.as_batches(data, None, None)
        if batches is None:
            raise GMError(f"adapt needs a data set, see gmcore.Dataset.from_atoms, got {excerpt(data)}")
        dataset = batches.dataset
        for head in self.head_settings:
            names = [quantity.name for quantity in predicted_by(head.kind)]
            if not set(names) & dataset.labels.keys():
                raise GMError(
                    f"adapt needs labels for the head {head.name}, got no {' or '.join(names)}: name them in units of "
                    "Dataset.from_atoms"
                )
        self.head_settings = tuple(
            replace(head, unit=dataset.units.get("tensor", head.unit)) if head.kind == "tensor" else head
            for head in self.head_settings
        )
        initialize(
            self,
            fitting.prepare(self.descriptor, dataset, self.predicted),
            standardize=standardize,
            initial_scale=initial_scale,
        )

    def groups(self) -> dict[str, list[keras.Variable]]:
        """Trainable parameters by the names that `freeze` knows, but for "network": all layers of it."""
        groups = {"radial": [self.moments_layer.beta]}
        groups |= {layer.name: [layer.kernel, layer.bias] for layer in self.dense_layers}
        for name in ("scale", "shift"):
            groups[name] = [getattr(layer, name) for layer in self.scale_shift.values()]
        return groups

    def freeze(self, names: Sequence[str]) -> None:
        """Leave parameters out of the training, before the optimizer is built.

        Parameters
        ----------
        names : of "radial", "network", its layers "hidden_0", "hidden_1", ..., "output", and "scale", "shift".

        Raises
        ------
        GMError : an unknown name, or nothing is left to train.
        """
        groups = self.groups()
        layers = [layer.name for layer in self.dense_layers]
        for name in names:
            if name != "network" and name not in groups:
                raise GMError(f"training.freeze: the model has no {excerpt(name)}{did_you_mean(name, groups)}")
        frozen = {*names, *(layers if "network" in names else [])}
        if frozen >= groups.keys():
            raise GMError("training.freeze leaves nothing to train: remove a name from it")
        for name in frozen:
            for variable in groups[name]:
                variable.trainable = False

    def quantities(self, inputs: Mapping[str, tf.Tensor], derivatives: bool) -> dict[str, tf.Tensor]:
        """All quantities; with `derivatives` also forces and stress, for which there must be an energy."""
        if not derivatives:
            return self._outputs(inputs)
        positions, strain = inputs["positions"], inputs["strain"]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([positions, strain])
            outputs = self._outputs(inputs)
        g_positions, g_strain = tape.gradient(outputs["energy"], [positions, strain])
        return outputs | {"forces": -g_positions, "stress": _stress(g_strain, inputs["volume"])}

    def _outputs(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        features, moments = self.moments_layer(inputs)
        h = self.standardization(features)
        for layer in self.dense_layers:
            h = layer(h)
        outputs: dict[str, tf.Tensor] = {}
        columns = tf.split(h, [head.n_outputs for head in self.head_settings], axis=1)
        for head, y in zip(self.head_settings, columns):
            m = self.scale_shift[head.name](y, species=inputs["species"])
            moments = tf.identity(moments)  # cotangents of several heads are added two at a time, see the layer
            outputs |= head_outputs(head, self.descriptor, m, tf.identity(moments), inputs)
        return outputs

    def get_config(self):
        return {
            **asdict(self.descriptor),
            "species": list(self.descriptor.species),
            "heads": [head.to_dict() for head in self.head_settings],
            "hidden": list(self.hidden),
            "seed": self.seed,
            "decorrelate": self.decorrelate,
            "initial_radial": self.initial_radial,
            "dtype": self.dtype_policy.name,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"heads": [HeadSettings.from_dict(head) for head in config["heads"]]})


def check_trainable(path: str | PathLike, settings: ModelSettings) -> None:
    """Refuse the model of a file that has a head that cannot be trained.

    Raises
    ------
    GMError : a head with another name than its kind, or with a core radius.
    """
    for head in settings.heads:
        if head.name != head.kind or head.options.core_radius is not None:
            raise GMError(
                f"head {head.name} of {path} cannot be trained on: its name must be {head.kind} and it must not have a "
                "core_radius; start from another model"
            )


def _stress(g_strain: tf.Tensor, volume: tf.Tensor) -> tf.Tensor:
    """g_strain/V; NaN where there is no volume, but with a gradient that is finite (zero) there."""
    volume = volume[:, None, None]
    periodic = tf.math.is_finite(volume)
    stress = g_strain / tf.where(periodic, volume, tf.ones_like(volume))
    return tf.where(periodic, stress, tf.fill(tf.shape(stress), tf.constant(np.nan, stress.dtype)))


def _check(heads: Sequence[HeadSettings]) -> None:
    """Refuse heads that cannot be trained together."""
    if not heads:
        raise ValueError("a model needs at least one head, for example heads=['energy']")
    for head in heads:
        if head.name != head.kind:
            raise ValueError(f"a head that is trained must be named after its kind, {head.kind}, got {head.name!r}")
    names = [head.name for head in heads]
    if len(set(names)) < len(names):
        raise ValueError(f"each head can be there once only, got {', '.join(names)}")


def _atomic_numbers(species: Sequence[int | str]) -> tuple[int, ...]:
    """Atomic numbers of elements, ascending, each once."""
    numbers = set()
    for element in species:
        number = chemical_symbols.index(element) if element in chemical_symbols else element
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or not 1 <= number < 119:
            raise ValueError(f"species must be symbols or atomic numbers of elements, got {excerpt(element)}")
        numbers.add(int(number))
    if not numbers:
        raise ValueError("a model needs at least one element, for example species=['C', 'H'] or data.species")
    return tuple(sorted(numbers))
