"""The same model in plain TensorFlow: einsum, segment sums and automatic differentiation, nothing derived by hand.

It is what a TensorFlow user would write without gmtensor, with care: one graph for all sizes, float32 throughout
between positions and energies, invariants as batched matrix products, duplicate invariants dropped before they cost.
It serves as the yardstick of the benchmarks and, in float64, as a witness in tests, derivatives of a force loss
included. Moments are kept with all their 1 + 3 + 9 + 27 Cartesian components.

Supported: an energy (with forces and strain derivative) or a D tensor in the basis of positions (P eq. 7).
Source: P = Zaverkin et al., JCTC 2022, 18, 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import keras
import numpy as np
import tensorflow as tf

from gmcore.engine.neighbors import Pairs
from gmcore.engine.settings import DescriptorSettings, Member
from gmcore.engine.structures import Batch

SWISH = 1.6765324703310907
FORCES_WEIGHT = 4.0

INPUTS = {
    "positions": tf.TensorSpec((None, 3), tf.float64),
    "species": tf.TensorSpec((None,), tf.int32),
    "structure": tf.TensorSpec((None,), tf.int32),
    "strain": tf.TensorSpec((None, 3, 3), tf.float64),
    "first": tf.TensorSpec((None,), tf.int32),
    "neighbor": tf.TensorSpec((None,), tf.int32),
    "offset": tf.TensorSpec((None, 3), tf.float64),
}
LABELS = {
    "energy": {"energy": tf.TensorSpec((None,), tf.float64), "forces": tf.TensorSpec((None, 3), tf.float64)},
    "d_tensor": {"d_tensor": tf.TensorSpec((None, 3, 3), tf.float64)},
}


def plain_inputs(batch: Batch, species: np.ndarray, pairs: Pairs) -> dict[str, tf.Tensor]:
    """Tensors of a batch: per pair the two atoms and offset = S @ cell; `species` are indices, (n_atoms,)."""
    values = {
        "positions": batch.positions,
        "species": species,
        "structure": batch.structure,
        "strain": np.zeros((batch.n_structures, 3, 3)),
        "first": pairs.center,
        "neighbor": pairs.neighbor,
        "offset": pairs.displacements(batch.cells)[pairs.shift],
    }
    return {name: tf.constant(values[name], spec.dtype) for name, spec in INPUTS.items()}


class PlainModel(tf.Module):
    """One network with one head, "energy" or "d_tensor", whose parameters are copied from `member`.

    Attributes
    ----------
    parameters : dict of keras.Variable: beta, weights_0, biases_0, ..., scale, shift; the order of all gradients.
    energy(inputs), energy_forces(inputs), energy_forces_strain(inputs), d_tensor(inputs) : compiled functions.
    gradients(inputs, labels) : loss and its gradients in `parameters`.
    train_step(inputs, labels) : one step of Adam, returns the loss. Labels: energy (n_structures,) and forces
        (n_atoms, 3), or d_tensor (n_structures, 3, 3). The loss is that of `gmkeras.losses`, forces with weight 4.
    """

    def __init__(
        self,
        settings: DescriptorSettings,
        member: Member,
        kind: str = "energy",
        dtype: str = "float64",
        learning_rate: float = 1e-3,
    ):
        super().__init__()
        if kind not in LABELS:
            raise ValueError(f"kind must be one of {', '.join(LABELS)}, got {kind!r}")
        self.settings, self.kind, self.dtype = settings, kind, tf.as_dtype(dtype)
        self._mean = tf.constant(member.feature_mean, self.dtype)
        self._std = tf.constant(member.feature_std, self.dtype)
        values = {"beta": member.beta}
        for layer, (weights, biases) in enumerate(zip(member.weights, member.biases)):
            values |= {f"weights_{layer}": weights, f"biases_{layer}": biases}
        (values["scale"],), (values["shift"],) = member.scale.values(), member.shift.values()
        self.parameters = {name: keras.Variable(value, dtype=dtype, name=name) for name, value in values.items()}
        self.n_layers = len(member.weights)
        self.optimizer = keras.optimizers.Adam(learning_rate)
        self.optimizer.build(list(self.parameters.values()))

        n = settings.n_radial
        pairs = list(combinations_with_replacement(range(n), 2))
        self._first, self._second = np.array(pairs).T
        self._triples = [k * n + t for k, (_, s) in enumerate(pairs) for t in range(s, n)]

        def compiled(function, *signature):
            return tf.function(function, input_signature=[INPUTS, *signature])

        self.energy = compiled(self._energy)
        self.energy_forces = compiled(self._energy_forces)
        self.energy_forces_strain = compiled(self._energy_forces_strain)
        self.d_tensor = compiled(self._d_tensor)
        self.gradients = compiled(self._gradients, LABELS[kind])
        self.train_step = compiled(self._train_step, LABELS[kind])

    def moments(self, inputs: Mapping[str, tf.Tensor], strain: tf.Tensor | None = None) -> list[tf.Tensor]:
        """M^0 to M^3: (n_atoms, n_radial), (..., 3), (..., 3, 3), (..., 3, 3, 3)."""
        first, neighbor = inputs["first"], inputs["neighbor"]
        d = tf.gather(inputs["positions"], neighbor) - tf.gather(inputs["positions"], first) + inputs["offset"]
        if strain is not None:
            d += tf.linalg.matvec(tf.gather(strain, tf.gather(inputs["structure"], first)), d)
        d = tf.cast(d, self.dtype)
        rho = tf.norm(d, axis=1, keepdims=True)
        u = d / rho
        radial = self._radial(rho, tf.gather(inputs["species"], first), tf.gather(inputs["species"], neighbor))
        uu = u[:, :, None] * u[:, None, :]
        uuu = uu[:, :, :, None] * u[:, None, None, :]
        monomials = tf.concat([tf.ones_like(rho), u, tf.reshape(uu, (-1, 9)), tf.reshape(uuu, (-1, 27))], axis=1)
        n_atoms, n = tf.shape(inputs["species"])[0], self.settings.n_radial
        summed = tf.math.unsorted_segment_sum(radial[:, :, None] * monomials[:, None, :], first, n_atoms)
        m0, m1, m2, m3 = tf.split(summed, [1, 3, 9, 27], axis=2)
        return [m0[:, :, 0], m1, tf.reshape(m2, (-1, n, 3, 3)), tf.reshape(m3, (-1, n, 3, 3, 3))]

    def _radial(self, rho, species_first, species_neighbor):
        s = self.settings
        centers = tf.constant(s.r_min + np.arange(s.n_basis) * (s.r_max - s.r_min) / s.n_basis, self.dtype)
        gamma = s.n_basis**2 / s.r_max**2
        basis = (2 * gamma / np.pi) ** 0.25 / np.sqrt(s.n_basis) * tf.exp(-gamma * tf.square(rho - centers))
        cutoff = 0.5 * (1.0 + tf.cos(np.pi / s.r_max * rho))
        basis *= tf.where(rho < s.r_max, cutoff, tf.zeros_like(cutoff))
        n_species = len(s.species)
        table = tf.reshape(self.parameters["beta"].value, (n_species**2, s.n_radial, s.n_basis))
        return tf.einsum("psb,pb->ps", tf.gather(table, species_first * n_species + species_neighbor), basis)

    def contractions(self, m0: tf.Tensor, m1: tf.Tensor, m2: tf.Tensor, m3: tf.Tensor) -> tf.Tensor:
        """The invariants, (n_atoms, n_features), in the order of `gmcore.engine.reference`."""

        def pairs(x):
            return tf.gather(x, self._first, axis=1), tf.gather(x, self._second, axis=1)

        (a1, b1), (a2, b2), (a3, b3) = pairs(m1), pairs(m2), pairs(m3)
        triples = tf.einsum("ipac,itac->ipt", tf.matmul(a2, b2, transpose_b=True), m2)
        blocks = [
            m0,
            tf.reduce_sum(a1 * b1, axis=2),
            tf.reduce_sum(a2 * b2, axis=(2, 3)),
            tf.reduce_sum(a3 * b3, axis=(2, 3, 4)),
            tf.gather(self._flat(triples), self._triples, axis=1),
            tf.einsum("ipab,itab->ipt", a1[..., :, None] * b1[..., None, :], m2),
            tf.einsum("ipcd,itcd->ipt", tf.einsum("ipabc,ipabd->ipcd", a3, b3), m2),
            tf.einsum("irsc,itc->irst", tf.einsum("irabc,isab->irsc", m3, m2), m1),
        ]
        return tf.concat([self._flat(block) for block in blocks], axis=1)

    @staticmethod
    def _flat(x):
        return tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))

    def _atomic_outputs(self, inputs, strain=None):
        """m (n_atoms,) float64, after scale and shift."""
        h = (self.contractions(*self.moments(inputs, strain)) - self._mean) / self._std
        for layer in range(self.n_layers):
            if layer > 0:
                h = SWISH * tf.nn.silu(h)
            weights = self.parameters[f"weights_{layer}"].value
            h = tf.matmul(h, weights) / np.sqrt(weights.shape[0]) + 0.1 * self.parameters[f"biases_{layer}"].value
        scale = tf.gather(self.parameters["scale"].value, inputs["species"])
        shift = tf.gather(self.parameters["shift"].value, inputs["species"])
        return tf.cast(scale * h + shift, tf.float64)[:, 0]

    def _energy(self, inputs, strain=None):
        n_structures = tf.shape(inputs["strain"])[0]
        return tf.math.unsorted_segment_sum(self._atomic_outputs(inputs, strain), inputs["structure"], n_structures)

    def _energy_forces(self, inputs):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs["positions"])
            energy = self._energy(inputs)
        return energy, -tf.convert_to_tensor(tape.gradient(energy, inputs["positions"]))

    def _energy_forces_strain(self, inputs):
        """Energy, forces and dE/dstrain (n_structures, 3, 3) = stress times volume."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([inputs["positions"], inputs["strain"]])
            energy = self._energy(inputs, inputs["strain"])
        g_positions, g_strain = tape.gradient(energy, [inputs["positions"], inputs["strain"]])
        return energy, -tf.convert_to_tensor(g_positions), tf.convert_to_tensor(g_strain)

    def _d_tensor(self, inputs):
        n_structures, structure = tf.shape(inputs["strain"])[0], inputs["structure"]
        center = tf.math.segment_mean(inputs["positions"], structure)
        arm = inputs["positions"] - tf.gather(center, structure)
        direction = tf.math.divide_no_nan(arm, tf.norm(arm, axis=1, keepdims=True))
        basis = 3.0 * direction[:, :, None] * direction[:, None, :] - tf.eye(3, dtype=tf.float64)
        m = self._atomic_outputs(inputs)
        return tf.math.unsorted_segment_sum(m[:, None, None] * basis, structure, n_structures)

    def _loss(self, inputs, labels):
        if self.kind == "energy":
            energy, forces = self._energy_forces(inputs)
            total = tf.reduce_sum(tf.square(energy - labels["energy"]))
            total += FORCES_WEIGHT * tf.reduce_sum(tf.square(forces - labels["forces"]))
        else:  # a traceless prediction makes D33 = -(D11 + D22) of P eq. 11 true as it stands
            error = tf.square(self._d_tensor(inputs) - labels["d_tensor"])
            total = 0.5 * (tf.reduce_sum(error) + tf.reduce_sum(tf.linalg.trace(error)))
        return total / tf.cast(tf.shape(inputs["strain"])[0], tf.float64)

    def _gradients(self, inputs, labels) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = self._loss(inputs, labels)
        variables = [variable.value for variable in self.parameters.values()]
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _train_step(self, inputs, labels):
        loss, gradients = self._gradients(inputs, labels)
        self.optimizer.apply_gradients(zip(gradients, self.parameters.values()))
        return loss
