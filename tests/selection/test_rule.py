"""The rule of `gmcore.selection.choose` against its own words, step by step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from gmcore.errors import GMError
from gmcore.model import load_model
from gmcore.selection.candidates import Candidate, Run, read_candidates
from gmcore.selection.choose import CAP, NEAR, Wishes, _thinned, select_frames
from gmcore.selection.known import known_files, known_frames
from gmcore.selection.scores import Judge
from gmcore.selection.soundness import contact_faults
from gmcore.selection.space import species_means
from support.synthetic_runs import complex_molecule


@pytest.fixture(scope="module")
def judge(folder) -> Judge:
    return Judge("d_tensor", load_model(folder / "d.h5"), folder / "d.h5")


@pytest.fixture(scope="module")
def known(folder, judge):
    return known_frames(known_files(judge.model, judge.path), judge.model)


def rattled(n: int, size: float = 0.06) -> list[Atoms]:
    frames = [complex_molecule() for _ in range(n)]
    for k, frame in enumerate(frames):
        frame.rattle(size, seed=100 + k)
    return frames


def in_file(frames) -> list[Candidate]:
    return [Candidate(frame, "file", k) for k, frame in enumerate(frames)]


def test_structures_that_are_sound_or_not():
    overlapping, apart, alone = molecule("CH4"), molecule("CH4"), Atoms("H")
    overlapping.positions[1] = overlapping.positions[2] + [0.25, 0.0, 0.0]
    apart.positions[3] *= 4.0
    crystal = Atoms("NaCl", [[0, 0, 0], [2.8, 0, 0]], cell=[3.0, 6, 6], pbc=True)  # Na and Cl of the next cell
    argon = Atoms("Ar2", [[0, 0, 0], [9.0, 0, 0]])
    twice = Atoms("H2", np.zeros((2, 3)))
    sound = [molecule(name) for name in ("H2", "CO", "C60", "LiF", "SO2")]
    found = contact_faults([*sound, overlapping, apart, alone, crystal, argon, twice])
    assert found[: len(sound)] == [""] * len(sound)
    assert [text.partition(":")[0] for text in found[len(sound) :]] == [
        "the atoms H 1 and H 2 overlap",
        "atom H 3 has left",
        "",
        "the atoms Na 0 and Cl 1 overlap",
        "",
        found[-1].partition(":")[0],
    ]
    assert found[-1]


def test_distances_do_not_see_the_orientation_the_order_or_the_number_of_cells(judge):
    frame = rattled(1)[0]
    turned = frame[np.r_[0, 4:0:-1, 8:4:-1]]
    turned.rotate(50.0, (1.0, 2.0, -1.0))
    crystal = frame.copy()
    crystal.set_cell([5.0, 5.1, 5.2])
    crystal.pbc = True
    means = species_means(judge.model, [frame, turned, crystal, crystal.repeat((2, 1, 1))])
    assert np.allclose(means[0], means[1]) and np.allclose(means[2], means[3])
    assert not np.allclose(means[0], means[2])


def test_the_chosen_are_those_of_the_definition(judge, known):
    """Steps 4 to 6 with every distance written out."""
    frames = [*rattled(60), known[3], known[7]]
    scores = judge.scores(frames)
    found = select_frames(in_file(frames), [judge], [known], Wishes(9))
    rows = np.flatnonzero((scores.errors > np.median(scores.errors)) | (scores.grades > 1.0))
    n = len(rows)
    means = species_means(judge.model, [*(frames[row] for row in rows), *known]).reshape(n + len(known), -1)
    points = means / means.std(axis=0)
    matrix = np.sqrt(np.mean((points[:, None] - points[None]) ** 2, axis=-1))
    labeled = matrix[n:, n:] + np.diag(np.full(len(known), np.inf))
    matrix /= np.median(labeled.min(axis=1))
    weights = np.minimum(scores.errors[rows] / np.median(scores.errors), CAP)
    usable = matrix[:n, n:].min(axis=1) >= NEAR
    nearest, expected = matrix[:n, n:].min(axis=1), []
    for _ in range(9):
        expected.append(int(np.argmax(np.where(usable, weights * nearest, -1.0))))
        nearest = np.minimum(nearest, matrix[:n, expected[-1]])
    assert [entry.index for entry in found.chosen] == rows[expected].tolist()
    np.testing.assert_allclose(found.distances, matrix[expected, n:].min(axis=1), rtol=1e-8)
    assert not {60, 61} & {entry.index for entry in found.chosen}


def test_near_duplicates_of_labeled_and_of_chosen_frames_are_refused(judge, known):
    frames = rattled(6)
    near = [frame.copy() for frame in known[:10]]
    for frame in near:
        frame.rattle(1e-4, seed=1)
        frame.rotate(70.0, (1, 1, 0))
    found = select_frames(in_file(near + frames + frames), [judge], [known], Wishes(50, {"d_tensor": 0.0}))
    assert sorted(entry.index % 6 for entry in found.chosen) == [(10 + k) % 6 for k in (2, 3, 4, 5, 0, 1)]
    assert found.counts == {"correlated": 0, "certain": 0, "known": 10, "unneeded": 6}
    unlabeled = select_frames(in_file(frames + frames), [judge], [[]], Wishes(50, {"d_tensor": 0.0}))
    assert len(unlabeled.chosen) == 6 and np.isnan(unlabeled.distances).all()


def test_limits_and_why(judge, known):
    frames = rattled(10, 0.02) + rattled(10, 0.1)
    scores = judge.scores(frames)
    limit = float(np.sort(scores.errors)[-4])
    by_error = select_frames(in_file(frames), [judge], [known], Wishes(20, {"d_tensor": limit}))
    assert {entry.index for entry in by_error.chosen} == set(np.argsort(scores.errors)[-4:].tolist())
    assert all("x median" in why and "grade" not in why for why in by_error.reasons)
    by_grade = select_frames(in_file(frames), [judge], [known], Wishes(20, min_grade=2.0))
    assert {entry.index for entry in by_grade.chosen} == set(np.flatnonzero(scores.grades >= 2.0).tolist())
    none = select_frames(in_file(frames), [judge], [known], Wishes(20, {"d_tensor": 1e9}))
    assert not none.chosen and none.counts["certain"] == 20
    unknown = SimpleNamespace(path="raw.h5", scores=lambda frames: replace(scores, calibrated=False, grades=None))
    for wishes, words in (
        (Wishes(20, {"d_tensor": limit}), "raw.h5 has no calibrated errors of d_tensor"),
        (Wishes(20, min_grade=1.0), "raw.h5 must know grades"),
    ):
        with pytest.raises(GMError, match=words):
            select_frames(in_file(frames), [unknown], [known], wishes)


def test_runs_are_thinned_and_the_worst_frame_of_a_stretch_stays(folder, judge, known):
    run = Run.open(folder / "run")
    candidates = read_candidates([run], True, False, 1)
    found = select_frames(candidates, [judge], [known], Wishes(4))
    assert len(candidates) == 4 * 60
    assert found.counts["correlated"] > 100 and all(1.0 < g < 30.0 for g in found.inefficiencies)
    many = select_frames(candidates, [judge], [known], Wishes(200))
    assert many.counts["correlated"] == 0  # more are wanted than are independent
    sound = [entry for entry in candidates if not entry.fault]
    errors = judge.scores([entry.atoms for entry in sound]).errors
    rows, _ = _thinned(sound, errors, errors, 4)
    for series in range(4):
        own = [k for k, entry in enumerate(sound) if entry.series == series]
        assert own[int(np.argmax(errors[own]))] in rows
