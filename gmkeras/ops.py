"""TensorFlow operations over the two stages of the engine: value, gradient, gradient of the gradient.

For a stage y = f(x) three functions are nested, each calling one method of the stage (docs/derivatives.md; who computes
what: docs/method.md, section 7.5):

    value            y                                    forward
    gradient         J^T gy                               backward
    second           d<J^T gy, ggx> in gy, x, beta        double_backward

Positions are differentiated twice, the radial coefficients beta once; a third derivative raises. Forces come from
`gradient` on an inner tape, the parameter gradient of a force loss from `second` on the outer one.

On the CPU every call into the engine is stateless (`gmkeras.backends`), so that TensorFlow drops from a graph those
whose results nobody uses: a training on D never computes a force, the inner tape never computes a gradient of beta, the
outer one never a Hessian. The results that are wanted apart are therefore separate calls.

The strain enters as a derivative only: it must be zero, and values are those of the unstrained structure.

Not supported: XLA (`jit_compile=True`), serialization of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from gmcore.engine.settings import DescriptorSettings
from gmkeras.backends import choose_backend
from gmkeras.geometry import geometry_from

N_COMPONENTS = 16
"""Independent components of the moments of one radial channel, ranks 0 to 3."""


class MomentsOp:
    """M (n_atoms, n_radial, 16) of positions, strain and radial coefficients.

    Parameters
    ----------
    settings : the descriptor.
    dtype : "float32" or "float64": type of beta, of M and of its cotangents. Positions and strain are float64 always.
    """

    def __init__(self, settings: DescriptorSettings, dtype: str = "float32"):
        self._backend = choose_backend()
        self._stage = self._backend.moments(settings, dtype)
        self._dtype = tf.as_dtype(dtype)
        n_species = len(settings.species)
        self._beta_shape = (n_species, n_species, settings.n_radial, settings.n_basis)
        self._moments_shape = (None, settings.n_radial, N_COMPONENTS)

    def __call__(
        self, positions: tf.Tensor, strain: tf.Tensor, beta: tf.Tensor, geometry: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        """Moments (n_atoms, n_radial, 16) of a batch.

        Parameters
        ----------
        positions, strain : (n_atoms, 3) A and (n_structures, 3, 3), both float64.
        beta : (n_species, n_species, n_radial, n_basis).
        geometry : from `gmkeras.geometry.geometry_inputs`.
        """
        stage, real = self._stage, self._dtype
        n_geometry = len(geometry)

        def call(method: Callable, inputs: Sequence[tf.Tensor], *outputs: str) -> list[tf.Tensor]:
            """Call `method(geometry, *inputs)` of the stage; `outputs` names what it returns."""

            def run(*arrays):
                return method(geometry_from(arrays[:n_geometry]), *arrays[n_geometry:])

            kinds = {
                "moments": (real, self._moments_shape),
                "beta": (real, self._beta_shape),
                "positions": (tf.float64, (None, 3)),
                "strain": (tf.float64, (None, 3, 3)),
            }
            return self._backend.call(run, [*geometry, *inputs], [kinds[name] for name in outputs])

        @tf.custom_gradient
        def value(positions, strain, beta):
            (moments,) = call(lambda g, r, b: (stage.forward(g, r, b),), (positions, beta), "moments")

            def gradient_of_value(g_moments):
                g_positions, g_strain = gradient(positions, strain, beta, g_moments)
                return g_positions, g_strain, gradient_beta(positions, strain, beta, g_moments)

            return moments, gradient_of_value

        @tf.custom_gradient
        def gradient(positions, strain, beta, g_moments):
            g_positions, g_strain = call(
                lambda g, *x: stage.backward(g, *x, want_beta=False)[:2],
                (positions, beta, g_moments),
                "positions",
                "strain",
            )

            def second_order(gg_positions, gg_strain):
                arguments = (positions, beta, g_moments, gg_positions, gg_strain)
                gg_moments, h_beta = parameters_second(*arguments)
                h_positions, h_strain = positions_second(*arguments)
                return h_positions, h_strain, h_beta, gg_moments

            return (g_positions, g_strain), second_order

        @_last_derivative("the radial coefficients are differentiated once only, got a second derivative")
        def gradient_beta(positions, strain, beta, g_moments):
            return call(
                lambda g, *x: stage.backward(g, *x, want_positions=False)[2:], (positions, beta, g_moments), "beta"
            )[0]

        @_last_derivative("moments are differentiated twice at most, got a third derivative")
        def parameters_second(positions, beta, g_moments, gg_positions, gg_strain):
            def run(g, *x):
                gg_moments, _, _, h_beta = stage.double_backward(g, *x, want_positions=False)
                return gg_moments, h_beta

            return call(run, (positions, beta, g_moments, gg_positions, gg_strain), "moments", "beta")

        @_last_derivative("moments are differentiated twice at most, got a third derivative")
        def positions_second(positions, beta, g_moments, gg_positions, gg_strain):
            return call(
                lambda g, *x: stage.double_backward(g, *x, want_beta=False)[1:3],
                (positions, beta, g_moments, gg_positions, gg_strain),
                "positions",
                "strain",
            )

        return value(positions, strain, beta)


class ContractionsOp:
    """Features G (n_atoms, n_features) of moments M (n_atoms, n_radial, 16); both in `dtype`."""

    def __init__(self, n_radial: int, dtype: str = "float32"):
        self._backend = choose_backend()
        self._stage = self._backend.contractions(n_radial, dtype)
        self.n_features = self._stage.n_features
        self._features = (tf.as_dtype(dtype), (None, self.n_features))
        self._moments = (tf.as_dtype(dtype), (None, n_radial, N_COMPONENTS))

    def __call__(self, moments: tf.Tensor) -> tf.Tensor:
        """Invariant contractions of the moments."""
        stage, call = self._stage, self._backend.call

        @tf.custom_gradient
        def value(moments):
            (features,) = call(lambda m: (stage.forward(m),), [moments], [self._features])
            return features, lambda g_features: gradient(moments, g_features)

        @tf.custom_gradient
        def gradient(moments, g_features):
            (g_moments,) = call(lambda m, g: (stage.backward(m, g),), [moments, g_features], [self._moments])

            def second_order(gg_moments):
                gg_features, h_moments = second(moments, g_features, gg_moments)
                return h_moments, gg_features

            return g_moments, second_order

        @_last_derivative("contractions are differentiated twice at most, got a third derivative")
        def second(moments, g_features, gg_moments):
            return call(stage.double_backward, [moments, g_features, gg_moments], [self._features, self._moments])

        return value(moments)


def _last_derivative(message: str) -> Callable:
    """Decorate a function whose results cannot be differentiated again: trying raises `message`."""

    def decorate(function: Callable) -> Callable:
        @tf.custom_gradient
        def wrapped(*arguments):
            def refuse(*_):
                raise NotImplementedError(message)

            return function(*arguments), refuse

        return wrapped

    return decorate
