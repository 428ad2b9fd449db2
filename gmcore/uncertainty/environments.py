"""How far an atom is from the training data: the extrapolation grade.

For each species the features of the training atoms are standardized, projected onto their leading principal components,
and divided into clusters, because atoms of one element have different environments (a hydrogen of a methyl group and
one at an oxygen). In its cluster an atom has the squared distance

    d^2 = [ (p - mean)^T C^-1 (p - mean) + rest/s ] / n_features

with p its projection, C the covariance of the cluster, rest the squared length that the projection leaves out, and s
its mean per component: a Mahalanobis distance whose smallest variances are taken to be equal (probabilistic principal
components, M. E. Tipping, C. M. Bishop, J. R. Stat. Soc. B 1999, 61, 611). A feature that never varied in the data thus
counts heavily when it does. The covariance of a small cluster is drawn towards that of all clusters.

    grade of an atom = sqrt(d^2 / 99th percentile of d^2 over the training atoms of its species)
    grade of a structure = largest grade of its atoms / 99th percentile of that over the training structures

For the percentiles each training atom is measured by environments that were learned without its structure (a quarter of
the structures is left out in turn). A grade above 1 is therefore about as rare as one in a hundred among structures
like those trained on.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace

import numpy as np

from gmcore.errors import GMError

N_COMPONENTS = 64
N_CLUSTERS = 12
N_CLUSTER_COMPONENTS = 12
"""Leading components that decide which cluster an atom belongs to."""
ATOMS_PER_COMPONENT = 10
"""Training atoms that a component needs, and so does a component of a cluster."""
MAX_ATOMS = 20000
"""Training atoms of a species that are used, evenly spaced in the data."""
PERCENTILE = 0.99
FOLDS = 4


@dataclass(frozen=True, eq=False)
class Environments:
    """Training atoms of one species.

    Attributes
    ----------
    center, inverse_scale : (n_features,), of the features.
    basis : (n_features, n_components), principal components.
    centers : (n_clusters, n_cluster_components), by which an atom finds its cluster.
    means : (n_clusters, n_components).
    whitening : (n_clusters, n_components, n_components), W with C^-1 = W W^T.
    rest : (n_clusters,), s.
    limit : (1,), 99th percentile of d^2.
    """

    center: np.ndarray
    inverse_scale: np.ndarray
    basis: np.ndarray
    centers: np.ndarray
    means: np.ndarray
    whitening: np.ndarray
    rest: np.ndarray
    limit: np.ndarray

    def grades(self, features: np.ndarray) -> np.ndarray:
        """(n,) float64 grades of features (n, n_features) of atoms of this species."""
        dtype = features.dtype
        standardized = (features - self.center.astype(dtype)) * self.inverse_scale.astype(dtype)
        projected = standardized @ self.basis.astype(dtype, copy=False)
        rest = np.einsum("ik,ik->i", standardized, standardized) - np.einsum("ik,ik->i", projected, projected)
        distance2 = np.maximum(rest, 0.0).astype(np.float64)
        cluster = _nearest(projected, self.centers)
        for c in range(len(self.means)):
            rows = np.flatnonzero(cluster == c)
            if len(rows):
                white = (projected[rows] - self.means[c]) @ self.whitening[c]
                distance2[rows] = distance2[rows] / self.rest[c] + np.einsum("ik,ik->i", white, white)
        return np.sqrt(distance2 / (len(self.center) * self.limit[0]))


@dataclass(frozen=True, eq=False)
class TrainingEnvironments:
    """Training atoms of all species of a model, and the percentile of whole structures.

    Attributes
    ----------
    species : one entry for each species index.
    limit : largest grade of the atoms of a structure that 1 % of the training structures exceed.
    """

    species: tuple[Environments, ...]
    limit: float

    def grades(self, features: np.ndarray, species: np.ndarray) -> np.ndarray:
        """(n_atoms,) grades of features (n_atoms, n_features); `species` (n_atoms,) are indices."""
        result = np.empty(len(features))
        for index, environments in enumerate(self.species):
            rows = np.flatnonzero(species == index)
            if len(rows):
                result[rows] = environments.grades(features[rows])
        return result

    def structure_grades(self, grades: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """(n_structures,) grades of structures from those of their atoms; 0 for an empty structure."""
        padded = np.append(grades, 0.0)
        largest = np.maximum.reduceat(padded, np.minimum(offsets[:-1], len(grades)))
        return np.where(np.diff(offsets) > 0, largest, 0.0) / self.limit

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, for a model file."""
        named = {
            f"{index}/{field.name}": getattr(environments, field.name)
            for index, environments in enumerate(self.species)
            for field in fields(Environments)
        }
        return named | {"limit": np.array([self.limit])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], n_species: int, n_features: int) -> TrainingEnvironments:
        """The inverse of `arrays`.

        Raises
        ------
        GMError : an array is missing, misshapen or not finite.
        """
        species = []
        for index in range(n_species):
            names = [field.name for field in fields(Environments)]
            missing = [name for name in names if f"{index}/{name}" not in arrays]
            if missing:
                raise GMError(f"the training environments of species {index} have no {missing[0]}")
            own = {name: arrays[f"{index}/{name}"] for name in names}
            basis, means, centers = own["basis"], own["means"], own["centers"]
            if np.ndim(basis) != 2 or np.ndim(means) != 2 or np.ndim(centers) != 2:
                raise GMError(
                    f"basis, means and centers of the training environments of species {index} must be matrices"
                )
            n_components, n_clusters = basis.shape[1], len(means)
            shapes = {
                "center": (n_features,),
                "inverse_scale": (n_features,),
                "basis": (n_features, n_components),
                "centers": (n_clusters, min(N_CLUSTER_COMPONENTS, n_components)),
                "means": (n_clusters, n_components),
                "whitening": (n_clusters, n_components, n_components),
                "rest": (n_clusters,),
                "limit": (1,),
            }
            for name, array in own.items():
                if np.shape(array) != shapes[name] or array.dtype.kind != "f" or not np.isfinite(array).all():
                    raise GMError(
                        f"{name} of the training environments of species {index} must be finite numbers of shape "
                        f"{shapes[name]}, got {array.dtype} of shape {np.shape(array)}"
                    )
            if not (n_clusters and np.all(own["rest"] > 0.0) and own["limit"][0] > 0.0):
                raise GMError(f"rest and limit of the training environments of species {index} must be positive")
            species.append(Environments(**own))
        limit = arrays.get("limit", np.empty(0))
        if np.shape(limit) != (1,) or limit.dtype.kind != "f" or not 0.0 < limit[0] < np.inf:
            raise GMError("the limit of the training environments must be a positive number")
        return cls(tuple(species), float(limit[0]))


def learn_environments(
    features: np.ndarray, species: np.ndarray, offsets: np.ndarray, n_species: int
) -> TrainingEnvironments:
    """Return the environments of training structures.

    Parameters
    ----------
    features : (n_atoms, n_features) of all training structures, one after another.
    species : (n_atoms,) species index of each.
    offsets : (n_structures + 1,) first atom of each structure.
    n_species : number of species; each must occur.

    Raises
    ------
    GMError : a species does not occur.
    """
    found, grades = [], np.empty(len(features))
    fold = np.repeat(np.arange(len(offsets) - 1) % FOLDS, np.diff(offsets))
    for index in range(n_species):
        rows = np.flatnonzero(species == index)
        if not len(rows):
            raise GMError(f"the training structures must hold atoms of every species, got none of species {index}")
        for k in range(FOLDS):
            inside, outside = rows[fold[rows] == k], rows[fold[rows] != k]
            learned = _learn_species(features[outside if len(outside) else inside])
            grades[inside] = learned.grades(features[inside])
        limit = max(float(np.quantile(grades[rows] ** 2, PERCENTILE, method="higher")), 1.0)
        grades[rows] /= np.sqrt(limit)
        found.append(replace(_learn_species(features[rows]), limit=np.array([limit])))
    all_species = TrainingEnvironments(tuple(found), 1.0)
    limit = float(np.quantile(all_species.structure_grades(grades, offsets), PERCENTILE, method="higher"))
    return TrainingEnvironments(tuple(found), max(limit, 1.0))


def _learn_species(features: np.ndarray) -> Environments:
    """Return the environments of one species from features (n, n_features), with a limit of 1."""
    features = features[:: -(-len(features) // MAX_ATOMS)].astype(np.float64)
    n, n_features = features.shape
    center, spread = features.mean(axis=0), features.std(axis=0)
    # a feature that hardly varies must not turn its rounding into distance
    spread = np.maximum.reduce([spread, np.full_like(spread, 1e-3 * spread.max()), 1e-5 * np.abs(features).max(axis=0)])
    standardized = (features - center) / np.maximum(spread, 1e-30)
    n_components = int(np.clip(n // ATOMS_PER_COMPONENT, 1, min(N_COMPONENTS, n_features)))
    _, vectors = np.linalg.eigh(standardized.T @ standardized)
    basis = vectors[:, ::-1][:, :n_components]
    projected = standardized @ basis
    rest = np.maximum((standardized**2).sum(axis=1) - (projected**2).sum(axis=1), 0.0)
    cluster, centers = _clusters(projected, n // (ATOMS_PER_COMPONENT * n_components))
    members = [np.flatnonzero(cluster == c) for c in range(len(centers))]
    means = np.array([projected[rows].mean(axis=0) for rows in members])
    offsets = projected - means[cluster]
    common, common_rest = offsets.T @ offsets / n, max(rest.mean(), 1e-6 * n_features)
    whitening, rests = [], []
    for rows in members:
        total = len(rows) + n_components
        covariance = (offsets[rows].T @ offsets[rows] + n_components * common) / total
        covariance += 1e-6 * max(np.trace(covariance) / n_components, 1e-6) * np.eye(n_components)
        whitening.append(np.linalg.inv(np.linalg.cholesky(covariance)).T)
        mean_rest = (rest[rows].sum() + n_components * common_rest) / total
        rests.append(mean_rest / max(n_features - n_components, 1))
    single = np.float32
    return Environments(
        center=center,
        inverse_scale=1.0 / np.maximum(spread, 1e-30),
        basis=basis.astype(single),
        centers=centers.astype(single),
        means=means.astype(single),
        whitening=np.array(whitening).astype(single),
        rest=np.array(rests),
        limit=np.ones(1),
    )


def _clusters(projected: np.ndarray, n_at_most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster (n,) of every projection, and the centers (n_clusters, n_cluster_components)."""
    places = projected[:, :N_CLUSTER_COMPONENTS]
    if n_at_most < 2:
        return np.zeros(len(projected), int), places.mean(axis=0)[None]
    from scipy.cluster.vq import kmeans2

    start = np.random.default_rng(0).choice(len(places), min(n_at_most, N_CLUSTERS), replace=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        centers, _ = kmeans2(places, places[start], minit="matrix", iter=30)
    filled, cluster = np.unique(_nearest(projected, centers), return_inverse=True)
    return cluster, centers[filled]


def _nearest(projected: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(n,) cluster of each projection: that with the nearest center."""
    places = projected[:, : centers.shape[1]]
    return np.argmin((centers**2).sum(axis=1) - 2.0 * (places @ centers.T.astype(places.dtype)), axis=1)
