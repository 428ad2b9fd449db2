"""Alignment against scipy's, and tensors that follow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gmcore.molecules.superposition import GeometryError, align, best_rotations, rotate_tensors, superpose
from support.tolerances import TOLERANCE, relative_error

FRAMES = np.random.default_rng(3).normal(size=(2, 5, 3))
REFERENCE = FRAMES[0]
LINE = np.arange(4.0)[:, None] * [1.0, 2.0, 3.0]


def rotations(n: int) -> np.ndarray:
    return Rotation.random(n, random_state=7).as_matrix()


def test_rotation_is_found_and_tensors_follow(rng):
    reference = rng.normal(size=(6, 3))
    tensor = rng.normal(size=(3, 3))
    turns = rotations(20)
    frames = reference @ np.swapaxes(turns, 1, 2) + rng.normal(size=(20, 1, 3))
    found = align(frames, reference)
    assert relative_error(found, np.swapaxes(turns, 1, 2)) < 1e-12
    in_lab = turns @ tensor @ np.swapaxes(turns, 1, 2)
    body = rotate_tensors(in_lab, found)
    assert relative_error(body, np.broadcast_to(tensor, (20, 3, 3))) < 1e-12
    members = rotate_tensors(np.stack([in_lab, 2 * in_lab], axis=1), found)
    assert relative_error(members[:, 1], 2 * body) < TOLERANCE["identity", "float64"]
    assert relative_error(superpose(frames, reference), np.broadcast_to(reference, frames.shape)) < 1e-12


def test_best_rotation_agrees_with_scipy_for_noisy_frames(rng):
    reference = rng.normal(size=(5, 3))
    frames = reference @ rotations(1)[0].T + 0.3 * rng.normal(size=(30, 5, 3))
    weights = rng.uniform(1.0, 20.0, size=5)
    found = align(frames, reference, weights)
    center = weights / weights.sum()
    for frame, rotation in zip(frames, found, strict=True):
        expected, _ = Rotation.align_vectors(reference - center @ reference, frame - center @ frame, weights)
        assert relative_error(rotation, expected.as_matrix()) < 1e-9
    assert not np.allclose(found, align(frames, reference))  # weights matter


def test_masses_as_weights_meet_the_eckart_conditions(rng):
    reference, masses = rng.normal(size=(5, 3)), rng.uniform(1.0, 60.0, size=5)
    frames = superpose(reference + 0.05 * rng.normal(size=(4, 5, 3)), reference, masses)
    torque = np.sum(masses[:, None] * np.cross(reference - masses @ reference / masses.sum(), frames), axis=1)
    assert np.abs(torque).max() < 1e-12 * masses.sum()


def test_rotations_stay_proper_for_mirror_images_and_planes(rng):
    reference = rng.normal(size=(6, 3))
    mirrored = reference * [1.0, 1.0, -1.0]
    flat = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])
    for found in (align(mirrored[None], reference), align(flat[None] @ rotations(1)[0].T, flat)):
        assert np.linalg.det(found) == pytest.approx(1.0)
        assert relative_error(found @ np.swapaxes(found, 1, 2), np.eye(3)[None]) < 1e-12


def test_bare_rotations_are_those_of_align_for_any_leading_axes(rng):
    frames, references = rng.normal(size=(4, 1, 5, 3)), rng.normal(size=(3, 5, 3))
    found, errors = best_rotations(frames, references)
    assert found.shape == (4, 3, 3, 3) and errors.shape == (4, 3)
    for k, reference in enumerate(references):
        assert relative_error(found[:, k], align(frames[:, 0], reference)) < TOLERANCE["identity", "float64"]
        apart = superpose(frames[:, 0], reference) - reference
        assert relative_error(errors[:, k], np.sum(apart**2, axis=(1, 2))) < 1e-12


def test_bare_rotations_take_atoms_on_one_line():
    rotation, error = best_rotations(LINE @ rotations(1)[0].T, LINE)
    assert np.linalg.det(rotation) == pytest.approx(1.0) and error < 1e-20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: align(FRAMES, REFERENCE[:4]), r"\(5, 3\) like the frames, got \(4, 3\)"),
        (lambda: align(FRAMES[0], REFERENCE), r"\(n, n_atoms, 3\), got \(5, 3\)"),
        (lambda: align(FRAMES * np.nan, REFERENCE), "must be finite, got 30 values"),
        (lambda: align(LINE[None], LINE), "three atoms that do not lie on one line"),
        (lambda: align(np.zeros((2, 1, 3)), np.zeros((1, 3))), "three atoms that do not lie on one line"),
        (lambda: align(FRAMES, REFERENCE, [1, 1, -1, 1, 1]), r"5 numbers that are not negative .* and a sum of 3"),
        (
            lambda: align(FRAMES, REFERENCE, [1.0]),
            r"5 numbers that are not negative and not .* got shape \(1,\)",
        ),
        (lambda: rotate_tensors(np.eye(3), np.eye(3)), r"must match, got \(3, 3\) and \(3, 3\)"),
        (
            lambda: rotate_tensors(np.zeros((4, 3, 3)), np.zeros((2, 3, 3))),
            r"must match, got \(4, 3, 3\) and \(2, 3, 3\)",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(GeometryError, match=message):
        call()
