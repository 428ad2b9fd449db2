"""Errors of a single model: last layers that the training data allow as well as the one that was trained.

The outputs y = [h, 1] w are linear in the last layer w, and every quantity q of a structure is linear in y. With the
rows phi = dq/dw of the training data, the posterior of w about the trained one is, up to a factor that calibration
finds, a normal distribution with the covariance

    (sum phi phi^T + ridge 1)^-1

Draws from it take the place of members: they give a deviation to every quantity, and to everything that follows from
it. Source: F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn. Sci. Technol. 2024, 5, 045018 (last-layer
prediction rigidity); K. Daxberger et al., NeurIPS 2021 (last-layer Laplace approximation).

Rows of forces are derivatives along random directions of a whole structure, taken by central differences of h: one row
per direction, instead of a pass for each of the last layer's weights. Rows of each kind are divided by their root mean
square length, so that energy and forces count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from ase import Atoms

from gmcore.engine.evaluator import Evaluator
from gmcore.engine.heads import head_columns, output_cotangents, structure_sum
from gmcore.engine.settings import HeadSettings, Member, ModelSettings
from gmcore.engine.structures import Batch
from gmcore.quantities import UNIQUE

N_DRAWS = 16
MAX_STRUCTURES = 400
MAX_ROWS = 2400
DIRECTIONS = 4
"""Random directions of each structure that the energy is differentiated along."""
STEP = 1e-3  # A
RIDGE = 1e-3
"""Relative to the mean square length of the rows."""


def with_draws(settings: ModelSettings, member: Member, atoms: Sequence[Atoms], seed: int = 0) -> Member:
    """Return the member of a single model with draws of its last layer.

    Parameters
    ----------
    atoms : training structures; at most MAX_STRUCTURES of them are used, evenly spaced.
    """
    rng = np.random.default_rng(seed)
    chosen = list(atoms)[:: -(-len(atoms) // MAX_STRUCTURES)]
    evaluator = Evaluator(settings, [replace(member, draws=None)], "float64")
    scale, _ = evaluator.scale_and_shift(member)
    n_hidden = len(member.weights[-1])
    draws = np.zeros((N_DRAWS, n_hidden + 1, scale.shape[1]), np.float32)
    for head, columns in head_columns(settings.heads):
        parts = [_rows(evaluator, head, scale[:, columns], frames, rng) for frames in _groups(chosen)]
        rows = np.concatenate([_normalized(np.concatenate(part)) for part in zip(*parts)])
        rows = rows[rng.permutation(len(rows))[:MAX_ROWS]]
        draws[..., columns] = _posterior(rows, rng).reshape(N_DRAWS, n_hidden + 1, head.n_outputs)
    return replace(member, draws=draws)


def _groups(atoms: list[Atoms], n: int = 20) -> list[list[Atoms]]:
    """Structures that are evaluated together."""
    return [atoms[k : k + n] for k in range(0, len(atoms), n)]


def _rows(
    evaluator: Evaluator, head: HeadSettings, scale: np.ndarray, frames: list[Atoms], rng: np.random.Generator
) -> list[np.ndarray]:
    """Derivatives in the last layer of what is learned: one array (n_rows, n_hidden + 1, n_outputs) for each kind."""
    batch = Batch.from_atoms(frames)
    species = batch.species(evaluator.species)

    def extended(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = batch.with_positions(positions)
        _, hidden, moments = evaluator.hidden(moved, evaluator.find_pairs(moved))
        return np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1), moments

    hidden, moments = extended(batch.positions)
    if head.kind == "energy":
        weights = scale[species, :1]
        rows = [structure_sum(weights * hidden, batch.offsets)]
        for _ in range(DIRECTIONS):
            direction = rng.normal(size=batch.positions.shape)
            ahead, _ = extended(batch.positions + STEP * direction)
            behind, _ = extended(batch.positions - STEP * direction)
            rows.append(structure_sum(weights * (ahead - behind), batch.offsets) / (2.0 * STEP))
        return [rows[0][..., None], np.concatenate(rows[1:])[..., None]]
    if head.kind == "charges":
        return [(scale[species, :1] * hidden)[..., None]]
    rows = []
    for a, b in UNIQUE:
        cotangents = np.zeros((batch.n_structures, 3, 3))
        cotangents[:, a, b] = 1.0
        response = scale[species] * output_cotangents(head, batch, moments, cotangents)
        rows += [hidden[i:j].T @ response[i:j] for i, j in pairwise(batch.offsets)]
    return [np.stack(rows)]


def _normalized(rows: np.ndarray) -> np.ndarray:
    """Rows (n_rows, ...) divided by the root mean square of their lengths, flattened."""
    flat = rows.reshape(len(rows), -1)
    return flat / max(float(np.sqrt(np.mean(np.sum(flat**2, axis=1)))), 1e-30)


def _posterior(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws (N_DRAWS, n_parameters) from the normal distribution with the covariance of the module's text."""
    n_rows, n_parameters = rows.shape
    rows = rows.astype(np.float32)
    if n_parameters <= n_rows:
        values, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    else:
        values, left = np.linalg.eigh((rows @ rows.T).astype(np.float64))
        kept = values > 1e-6 * values[-1]
        values = values[kept]
        vectors = rows.T @ (left[:, kept] / np.sqrt(values)).astype(np.float32)
    values = np.maximum(values, 0.0)
    ridge = RIDGE * values.sum() / min(n_rows, n_parameters)
    drawn = rng.normal(size=(n_parameters, N_DRAWS))
    shrunk = (1.0 / np.sqrt(values + ridge) - 1.0 / np.sqrt(ridge))[:, None] * (vectors.T @ drawn)
    return (drawn / np.sqrt(ridge) + vectors @ shrunk).T
