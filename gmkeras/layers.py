"""Keras layers of a Gaussian-moment model: descriptor, standardization, dense layer in NTK form, scale and shift.

Atoms of all structures of a batch lie end to end on the first axis; nothing is padded. Positions and outputs are
float64, everything between them has the dtype of the layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from gmcore.engine.settings import DescriptorSettings
from gmkeras.activation import scaled_swish
from gmkeras.geometry import geometry_inputs
from gmkeras.heads import structure_sum
from gmkeras.ops import ContractionsOp, MomentsOp


@keras.saving.register_keras_serializable("gmtensor")
class SmoothRadial(keras.initializers.Initializer):
    """Radial coefficients of smooth random functions that decay with the distance.

    Normally distributed, correlated over the centers mu_n by exp(-(mu_n - mu_m)^2 / 2 s^2), times min(1, exp(-(mu_n -
    1 A)/l)), scaled to a mean square of 1/3, that of the uniform distribution on (-1, 1). Near neighbors matter more
    than distant ones, and energies change smoothly: what a model begins with it need not learn from data.

    Parameters
    ----------
    r_min, r_max : centers mu_n of the first and the last Gaussian, A.
    smoothness, decay : s and l, A.
    """

    def __init__(
        self, r_min: float, r_max: float, smoothness: float = 0.7, decay: float = 1.0, seed: int | None = None
    ):
        self.r_min, self.r_max, self.smoothness, self.decay, self.seed = r_min, r_max, smoothness, decay, seed

    def __call__(self, shape, dtype=None):
        centers = np.linspace(self.r_min, self.r_max, shape[-1])
        variances, directions = np.linalg.eigh(np.exp(-0.5 * np.square((centers[:, None] - centers) / self.smoothness)))
        correlate = directions * np.sqrt(np.maximum(variances, 0.0))
        damping = np.exp(-np.maximum(centers - 1.0, 0.0) / self.decay)
        damping /= np.sqrt(3.0 * np.mean(damping**2))
        normal = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)(shape, dtype)
        return tf.linalg.matmul(normal, tf.constant(correlate.T * damping, normal.dtype))

    def get_config(self):
        return {
            "r_min": self.r_min,
            "r_max": self.r_max,
            "smoothness": self.smoothness,
            "decay": self.decay,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("gmtensor")
class GaussianMomentsLayer(keras.layers.Layer):
    """Gaussian-moment features of every atom, with trainable radial coefficients beta (P, section 2.1).

    Input is a dict of tensors as made by `gmkeras.data.model_inputs`: `positions` (n_atoms, 3) A and `strain`
    (n_structures, 3, 3), zeros, both float64, and the geometry `species`, `structure`, `row_start`, `neighbor`,
    `shift`, `displacement` of `gmcore.kernels.arguments.Geometry`. Output: features (n_atoms, n_features) and moments
    (n_atoms, n_radial, 16). Differentiable twice in positions and strain, once in beta; not compilable by XLA.

    Parameters
    ----------
    species : atomic numbers, ascending; `species` in the input counts in this order.
    r_max, r_min, n_basis, n_radial : as in `gmcore.engine.settings.DescriptorSettings`.
    beta_initializer : "uniform" on (-1, 1), "smooth" (`SmoothRadial`), or an initializer of Keras.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from gmkeras.data import model_inputs
    >>> layer = GaussianMomentsLayer([1, 8], r_max=4.0, n_radial=2, beta_initializer="ones", dtype="float64")
    >>> features, moments = layer(model_inputs(molecule("H2O"), layer.settings))
    >>> features.shape, moments.shape
    (TensorShape([3, 35]), TensorShape([3, 2, 16]))
    >>> [round(float(x), 6) for x in features[0, :3]]  # oxygen: M0, M0 and M1 . M1 of the first channel
    [1.515449, 1.515449, 0.870498]
    """

    supports_jit = False

    def __init__(
        self,
        species: Sequence[int],
        r_max: float,
        r_min: float = 0.5,
        n_basis: int = 7,
        n_radial: int = 5,
        beta_initializer="uniform",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = False  # the layer's own __init__ has set it to True
        self.settings = DescriptorSettings(tuple(int(z) for z in species), r_max, r_min, n_basis, n_radial)
        if beta_initializer == "uniform":
            beta_initializer = keras.initializers.RandomUniform(-1.0, 1.0, seed=seed)
        elif beta_initializer == "smooth":
            beta_initializer = SmoothRadial(r_min, r_max, seed=seed)
        self.beta_initializer = keras.initializers.get(beta_initializer)

    def build(self, input_shape=None):
        n_species = len(self.settings.species)
        self.beta = self.add_weight(
            name="beta",
            shape=(n_species, n_species, self.settings.n_radial, self.settings.n_basis),
            initializer=self.beta_initializer,
            autocast=False,
        )
        self._moments = MomentsOp(self.settings, self.variable_dtype)
        self._contractions = ContractionsOp(self.settings.n_radial, self.variable_dtype)
        self.n_features = self._contractions.n_features
        self.built = True

    def call(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        beta = tf.convert_to_tensor(self.beta)
        moments = self._moments(inputs["positions"], inputs["strain"], beta, geometry_inputs(inputs))
        # TensorFlow adds three or more cotangents in an order that changes from step to step (AddN reuses whichever
        # buffer is free), two in one that does not matter: an identity makes the two of the contractions one.
        return self._contractions(tf.identity(moments)), moments

    def get_config(self):
        s = self.settings
        return super().get_config() | {
            "species": list(s.species),
            "r_max": s.r_max,
            "r_min": s.r_min,
            "n_basis": s.n_basis,
            "n_radial": s.n_radial,
            "beta_initializer": keras.initializers.serialize(self.beta_initializer),
        }


@keras.saving.register_keras_serializable("gmtensor")
class Standardization(keras.layers.Layer):
    """(x - mean) / std with constants that are set once and never trained; at first mean 0 and std 1.

    Examples
    --------
    >>> layer = Standardization()
    >>> layer.build((None, 2))
    >>> layer.set_constants([1.0, 2.0], [0.5, 4.0])
    >>> layer(np.array([[2.0, 2.0]], np.float32)).numpy().tolist()
    [[2.0, 0.0]]
    """

    def build(self, input_shape):
        def constant(name, initializer):
            return self.add_weight(name=name, shape=input_shape[-1:], initializer=initializer, trainable=False)

        self.mean, self.std = constant("mean", "zeros"), constant("std", "ones")
        self.built = True

    def set_constants(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Set mean and deviation, (n_features,) each."""
        self.mean.assign(mean)
        self.std.assign(std)

    def call(self, features: tf.Tensor) -> tf.Tensor:
        return (features - self.mean) * (1.0 / tf.convert_to_tensor(self.std))


@keras.saving.register_keras_serializable("gmtensor")
class NTKDense(keras.layers.Layer):
    """Dense layer in NTK parametrization: z = x W / sqrt(n_in) + 0.1 b, W ~ N(0, 1), b = 0.

    Formulas: docs/method.md, section 4.

    Parameters
    ----------
    n_outputs : size of the layer.
    activation : None or "scaled_swish".

    Examples
    --------
    >>> layer = NTKDense(1, kernel_initializer="ones")
    >>> layer(np.ones((1, 4), np.float32)).numpy().tolist()
    [[2.0]]
    """

    def __init__(
        self,
        n_outputs: int,
        activation: str | None = None,
        kernel_initializer="normal",
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if activation not in (None, "scaled_swish"):
            raise ValueError(f"activation must be None or 'scaled_swish', got {activation!r}")
        self.n_outputs = n_outputs
        self.activation = activation
        if kernel_initializer == "normal":
            kernel_initializer = keras.initializers.RandomNormal(0.0, 1.0, seed=seed)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        n_in = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(n_in, self.n_outputs), initializer=self.kernel_initializer)
        self.bias = self.add_weight(name="bias", shape=(self.n_outputs,), initializer="zeros")
        self.built = True

    def effective_kernel(self) -> tf.Tensor:
        """W (n_in, n_outputs)."""
        return tf.convert_to_tensor(self.kernel)

    def set_effective_kernel(self, weights: np.ndarray) -> None:
        """Make `effective_kernel` return these weights, (n_in, n_outputs)."""
        self.kernel.assign(weights)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        weights = self.effective_kernel() * (self.kernel.shape[0] ** -0.5)  # the smaller factor is scaled
        z = tf.matmul(x, weights) + 0.1 * tf.convert_to_tensor(self.bias)
        return z if self.activation is None else scaled_swish(z)

    def get_config(self):
        return super().get_config() | {
            "n_outputs": self.n_outputs,
            "activation": self.activation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable("gmtensor")
class DecorrelatedDense(NTKDense):
    """NTK layer whose weights are W = P V: V is trained, P (n_in, n_in) is a constant, the identity until it is set.

    As if the inputs were x P, at the cost of a product of two small matrices; see `gmkeras.statistics` for the P that
    makes descriptors train faster.
    """

    def build(self, input_shape):
        n_in = input_shape[-1]
        self.decorrelation = self.add_weight(
            name="decorrelation", shape=(n_in, n_in), initializer="identity", trainable=False
        )
        super().build(input_shape)

    def effective_kernel(self) -> tf.Tensor:
        return tf.matmul(tf.convert_to_tensor(self.decorrelation), tf.convert_to_tensor(self.kernel))

    def set_effective_kernel(self, weights: np.ndarray) -> None:
        self.kernel.assign(np.linalg.solve(self.decorrelation.numpy().astype(np.float64), weights))


@keras.saving.register_keras_serializable("gmtensor")
class ScaleShift(keras.layers.Layer):
    """m_i = unit (scale[Z_i] y_i + shift[Z_i]) + base[Z_i], scale and shift trained: one pair per species and output.

    The constants `unit` and `base`, (n_species, n_outputs) each, 1 and 0 unless they are set, are float64: the energies
    of atoms may be 1e4 eV, their sums are wanted to 1e-3 eV. With the units in the constants, scale and shift are of
    the order of 1, have the dtype of the layer like all other parameters, and suit any optimizer.

    Parameters
    ----------
    n_species, n_outputs : rows and columns of scale and shift.

    Examples
    --------
    >>> layer = ScaleShift(2, 1)
    >>> layer.build()
    >>> layer.set_effective([[1.0], [2.0]], [[-10.0], [4.0]])
    >>> layer(np.array([[1.0], [2.0]], np.float32), species=np.array([1, 0], np.int32)).numpy().tolist()
    [[6.0], [-8.0]]
    """

    def __init__(self, n_species: int, n_outputs: int, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.n_species = n_species
        self.n_outputs = n_outputs

    def build(self, input_shape=None):
        def table(name, initializer, **options):
            shape = (self.n_species, self.n_outputs)
            return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False, **options)

        self.scale, self.shift = table("scale", "ones"), table("shift", "zeros")
        constant = {"dtype": "float64", "trainable": False}
        self.unit, self.base = table("unit", "ones", **constant), table("base", "zeros", **constant)
        self.built = True

    def effective(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift with the constants in them, m = scale y + shift: (n_species, n_outputs) float64 each."""
        unit = self.unit.numpy()
        scale, shift = (values.numpy().astype(np.float64) for values in (self.scale, self.shift))
        return unit * scale, unit * shift + self.base.numpy()

    def set_effective(self, scale: np.ndarray, shift: np.ndarray, relative: bool = True) -> None:
        """Make `effective` return these, with trained shifts of 0.

        Parameters
        ----------
        relative : whether the unit becomes the scale, so that trained scales are 1; otherwise the unit stays.
        """
        scale = np.array(np.broadcast_to(scale, self.unit.shape), np.float64)
        if relative:
            mean = np.abs(scale).mean(axis=0)
            unit = np.where(np.abs(scale) > 0.1 * mean, scale, mean)
            self.unit.assign(np.where(unit != 0.0, unit, 1.0))
        self.scale.assign(scale / self.unit.numpy())
        self.shift.assign(np.zeros(self.shift.shape))
        self.base.assign(np.broadcast_to(shift, self.base.shape))

    def call(self, y: tf.Tensor, species: tf.Tensor) -> tf.Tensor:
        # A product with 0 and 1 rather than tf.gather: its gradient is dense and adds up in a fixed order.
        chosen = tf.one_hot(species, self.n_species, dtype=tf.float64)
        scale, shift, unit, base = (
            tf.matmul(chosen, tf.cast(tf.convert_to_tensor(values), tf.float64))
            for values in (self.scale, self.shift, self.unit, self.base)
        )
        return (scale * tf.cast(y, tf.float64) + shift) * unit + base

    def get_config(self):
        return super().get_config() | {"n_species": self.n_species, "n_outputs": self.n_outputs}


@keras.saving.register_keras_serializable("gmtensor")
class StructureSum(keras.layers.Layer):
    """Sum of values per atom over each structure of a batch: (n_atoms, ...) to (n_structures, ...).

    Examples
    --------
    >>> inputs = {"structure": np.array([0, 0, 1], np.int32), "strain": np.zeros((2, 3, 3))}
    >>> StructureSum()(np.array([[1.0], [2.0], [5.0]], np.float32), inputs).numpy().tolist()
    [[3.0], [5.0]]
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, values: tf.Tensor, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return structure_sum(values, inputs)

    def compute_output_shape(self, values_shape, inputs_shape=None):
        return (None, *values_shape[1:])
