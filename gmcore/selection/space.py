"""Distances between structures in the space of the features of a model.

The features of the atoms of a species are averaged over the structure, and zero where it has no such atom. Each
averaged feature is divided by its standard deviation over labeled structures and candidates that qualify together, so
that every species counts alike, a single metal atom as much as all hydrogen atoms. The distance of two structures is

    d^2 = mean over species and features of (difference / standard deviation)^2

It does not change when a structure is rotated, when atoms of an element are exchanged, or when a cell is repeated.
The unit of distances is the median distance of a labeled structure to the nearest other one; without labeled
structures it is the standard deviation.

The features are those of the first member of a committee, as for extrapolation grades.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from gmcore.engine.evaluator import Evaluator
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.model import Model, batches

BLOCK = 2048
"""Rows of a matrix of distances that are computed together; the whole matrix would not fit."""
MAX_NEIGHBORS = 2048
"""Labeled structures whose nearest neighbor is looked for, evenly spaced."""
SMALLEST_SPREAD = 1e-3
"""Least standard deviation, in units of the largest of the same species: rounding must not turn into distance."""


class FeatureSpace:
    """Candidates in the space of the features of a model, and how far they are from what is labeled or chosen.

    Parameters
    ----------
    model : gives the features.
    candidates, known : structures to choose from, and structures that have labels.

    Attributes
    ----------
    has_known : whether there are labeled structures.
    distances : (n_candidates,) distance to the nearest labeled or chosen structure; infinite if there is none yet.

    Raises
    ------
    GMError : the model is on a GPU.
    """

    def __init__(self, model: Model, candidates: Sequence[Atoms], known: Sequence[Atoms]):
        points = species_means(model, [*candidates, *known])
        n_columns = points.shape[1] * points.shape[2]
        spread = points.std(axis=0)
        largest = np.maximum(spread.max(axis=1, keepdims=True), 1e-5 * np.abs(points).max(axis=(0, 2))[:, None])
        points -= points.mean(axis=0)
        points /= np.maximum(np.maximum(spread, SMALLEST_SPREAD * largest), 1e-30)
        points = points.reshape(len(points), n_columns) / np.sqrt(n_columns)
        self._points, labeled = points[: len(candidates)], points[len(candidates) :]
        self._squares = np.einsum("ik,ik->i", self._points, self._points)
        self.has_known, unit = len(labeled) > 0, 0.0
        self.distances = np.full(len(candidates), np.inf)
        if len(labeled):
            self.distances = nearest_distances(self._points, labeled)
        if len(labeled) > 1:
            rows = np.arange(0, len(labeled), -(-len(labeled) // MAX_NEIGHBORS))
            unit = float(np.median(nearest_distances(labeled[rows], labeled, rows)))
        self._unit = unit if unit > 0.0 else 1.0
        self.distances /= self._unit

    def choose(self, row: int) -> None:
        """Count a candidate as labeled from now on."""
        squared = self._squares + self._squares[row] - 2.0 * (self._points @ self._points[row])
        self.distances = np.minimum(self.distances, np.sqrt(np.maximum(squared, 0.0)) / self._unit)


def species_means(model: Model, frames: Sequence[Atoms]) -> np.ndarray:
    """(n, n_species, n_features) float64: features of the atoms of each structure, averaged over each species.

    Raises
    ------
    GMError : the model is on a GPU.
    """
    evaluator, n_species = model.evaluator, len(model.species)
    if not isinstance(evaluator, Evaluator):
        raise GMError("frames are chosen with models on the CPU: load the model with device='cpu'")
    whole = Batch.from_atoms(frames)
    whole.species(model.species)
    means = []
    for first, last in batches(whole.offsets, None, evaluator.batch_atoms):
        part = whole.part(first, last)
        features = evaluator.features(part, evaluator.find_pairs(part))
        structure = np.repeat(np.arange(last - first), np.diff(part.offsets))
        group = structure * n_species + part.species(model.species)
        order = np.argsort(group, kind="stable")
        filled, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
        own = np.zeros(((last - first) * n_species, features.shape[1]))
        own[filled] = np.add.reduceat(features[order].astype(np.float64), starts) / counts[:, None]
        means.append(own.reshape(last - first, n_species, -1))
    return np.concatenate(means)


def nearest_distances(points: np.ndarray, others: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """(n,) distance of each point (n, n_columns) to the nearest of `others` (m, n_columns).

    Parameters
    ----------
    own : (n,) rows of `others` that are the points themselves and do not count.
    """
    found = np.empty(len(points))
    squares = np.einsum("ik,ik->i", others, others)
    for start in range(0, len(points), BLOCK):
        part = points[start : start + BLOCK]
        squared = squares - 2.0 * (part @ others.T)
        if own is not None:
            squared[np.arange(len(part)), own[start : start + BLOCK]] = np.inf
        nearest = others[np.argmin(squared, axis=1)]
        found[start : start + BLOCK] = np.linalg.norm(part - nearest, axis=1)  # exact, where squares would cancel
    return found
