"""The extrapolation grade: rare among structures like those of the training, large for others."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read

from gmcore.engine.evaluator import Evaluator
from gmcore.engine.structures import Batch
from gmcore.errors import GMError
from gmcore.kernels.contractions_cpu import n_features
from gmcore.uncertainty.environments import TrainingEnvironments, learn_environments
from support.models import make_head, random_parts


def rattled(n: int, seed: int, width: float = 0.04) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = molecule("CH3CH2OH")
        atoms.positions += rng.normal(scale=width, size=atoms.positions.shape)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def grades():
    settings, members = random_parts((make_head("energy", 3),), species=(1, 6, 8))
    evaluator = Evaluator(settings, members[:1])

    def features_of(frames):
        batch = Batch.from_atoms(frames)
        features = evaluator.hidden(batch, evaluator.find_pairs(batch))[0]
        return features, batch.species(evaluator.species), batch.offsets

    known = learn_environments(*features_of(rattled(600, 1)), 3)

    def of(frames):
        features, species, offsets = features_of(frames)
        atoms = known.grades(features, species)
        return known.structure_grades(atoms, offsets), np.split(atoms, offsets[1:-1])

    of.known = known
    return of


def test_few_structures_of_the_same_kind_lie_outside(grades):
    found, _ = grades(rattled(500, 2))
    assert np.mean(found > 1.0) <= 0.02


def test_other_structures_lie_outside(grades):
    wider = grades(rattled(100, 3, width=0.12))[0]
    assert np.mean(wider > 1.0) > 0.9
    stretched = molecule("CH3CH2OH")
    oxygen = int(np.flatnonzero(stretched.numbers == 8)[0])
    hydrogen = int(np.argmin(np.where(stretched.numbers == 1, stretched.get_distances(oxygen, range(9)), 9.0)))
    stretched.positions[hydrogen] += 0.4 * (stretched.positions[hydrogen] - stretched.positions[oxygen])
    found, atoms = grades([stretched])
    assert found[0] > 1.5 and np.argmax(atoms[0]) in (oxygen, hydrogen)
    exchanged = molecule("CH3CH2OH")
    exchanged.numbers[oxygen] = 6
    assert grades([exchanged])[0] > 1.5


def test_the_grade_is_that_of_the_formula(grades):
    """One cluster is enough to see the formula: a Mahalanobis distance with equal smallest variances."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(400, 12)) @ rng.normal(size=(12, 30)) + rng.normal(size=30)
    known = learn_environments(features, np.zeros(400, int), np.arange(401), 1).species[0]
    x = features[:7] + rng.normal(size=(7, 30))
    y = (x - known.center) * known.inverse_scale
    expected = []
    for row in y:
        p = row @ known.basis
        c = int(np.argmin(((p[: known.centers.shape[1]] - known.centers) ** 2).sum(axis=1)))
        inverse = known.whitening[c] @ known.whitening[c].T
        inside = (p - known.means[c]) @ inverse @ (p - known.means[c])
        expected.append((inside + (row @ row - p @ p) / known.rest[c]) / 30)
    np.testing.assert_allclose(known.grades(x) ** 2 * known.limit[0], expected, rtol=1e-4)


def test_arrays_make_the_same_environments(grades):
    arrays = grades.known.arrays()
    again = TrainingEnvironments.from_arrays(arrays, 3, n_features(3))
    features = np.random.default_rng(5).normal(size=(20, n_features(3))).astype(np.float32)
    species = np.arange(20) % 3
    np.testing.assert_array_equal(again.grades(features, species), grades.known.grades(features, species))
    for name, change in {
        "0/basis": lambda a: a[:5],
        "1/rest": lambda a: -a,
        "2/means": lambda a: np.full_like(a, np.nan),
        "limit": lambda a: a * 0.0,
        "0/limit": None,
    }.items():
        damaged = dict(arrays)
        if change is None:
            del damaged[name]
        else:
            damaged[name] = change(arrays[name])
        with pytest.raises(GMError, match="environments"):
            TrainingEnvironments.from_arrays(damaged, 3, n_features(3))


def test_a_species_seen_once_and_an_empty_structure():
    features = np.random.default_rng(6).normal(size=(4, 10))
    known = learn_environments(features, np.array([0, 1, 1, 1]), np.array([0, 2, 4]), 2)
    assert np.isfinite(known.grades(features, np.array([0, 1, 1, 1]))).all()
    np.testing.assert_array_equal(known.structure_grades(np.array([2.0, 1.0]), np.array([0, 0, 2, 2])) > 0, [0, 1, 0])
    with pytest.raises(GMError, match="none of species 2"):
        learn_environments(features, np.array([0, 1, 1, 1]), np.array([0, 2, 4]), 3)


@pytest.mark.slow
def test_complexes_of_cobalt(shared_data):
    """Learned from dynamics at 100 K: other frames of it lie inside; hotter, stretched and foreign ones do not."""
    cold = read(shared_data / "co_pdms_xtb/T100_s3.extxyz", ":")
    rng = np.random.default_rng(7)
    order = rng.permutation(len(cold))
    settings, members = random_parts(("energy",), species=(1, 6, 7, 8, 16, 27), r_max=6.5, n_basis=7, n_radial=5)
    evaluator = Evaluator(settings, members)

    def features_of(frames):
        batch = Batch.from_atoms(frames)
        features = evaluator.hidden(batch, evaluator.find_pairs(batch))[0]
        return features, batch.species(evaluator.species), batch.offsets

    known = learn_environments(*features_of([cold[k] for k in order[:200]]), 6)

    def outside(frames):
        features, species, offsets = features_of(frames)
        return np.mean(known.structure_grades(known.grades(features, species), offsets) > 1.0)

    assert outside([cold[k] for k in order[200:]]) <= 0.02
    assert outside(read(shared_data / "co_pdms_xtb/T500_s2.extxyz", "::10")) == 1.0
    assert outside(read(shared_data / "coh2ox_D/train.extxyz", "::10")) == 1.0
    changed = []
    for k in order[200:220]:
        frame = cold[k]
        metal = int(np.flatnonzero(frame.numbers == 27)[0])
        nearest = int(np.argsort(frame.get_distances(metal, range(len(frame))))[1])
        stretched, foreign = frame.copy(), frame.copy()
        stretched.positions[nearest] += 0.25 * (frame.positions[nearest] - frame.positions[metal])
        foreign.numbers[nearest] = 8
        changed += [stretched, foreign]
    assert outside(changed) == 1.0
