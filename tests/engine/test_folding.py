"""Folded networks: the same outputs as the formula of the bare parameters, in the types that both machines take."""

from __future__ import annotations

import numpy as np
import pytest

from gmcore.engine import network as network_cpu
from gmcore.engine import network_cuda, reference
from gmcore.engine.evaluator_base import stress
from gmcore.engine.folding import fold
from support.networks import make_member
from support.tolerances import relative_error


def test_a_folded_network_computes_what_its_parameters_say(rng):
    member = make_member(rng, (7, 5, 4, 2))
    features = rng.normal(size=(6, 7))
    folded = fold(member)
    assert folded.layer_sizes == (7, 5, 4, 2)
    h = features - folded.mean
    for layer, (weights, biases) in enumerate(zip(folded.weights, folded.biases)):
        z = h @ weights + biases
        h = reference.SWISH * z / (1.0 + np.exp(-z)) if layer < 2 else z
    assert relative_error(h, reference.network(features, member)) < 1e-14


def test_parameters_in_single_precision_are_folded_in_double(rng):
    member = make_member(rng, (7, 5, 2))
    weights = [w.copy() for w in member.weights]
    for name in ("feature_mean", "feature_std"):
        setattr(member, name, getattr(member, name).astype(np.float32))
    member.weights = [w.astype(np.float32) for w in weights]
    folded = fold(member)
    assert {array.dtype for array in (folded.mean, *folded.weights, *folded.biases)} == {np.dtype(np.float64)}
    assert all(w.dtype == np.float32 for w in member.weights)  # left as they were


def test_both_machines_fold_in_one_place():
    assert network_cpu.fold is network_cuda.fold is fold


def test_stress_is_the_symmetric_part_over_the_volume(rng):
    g_strain = rng.normal(size=(2, 3, 3, 3))
    value = stress(g_strain, np.array([2.0, np.nan, 4.0]))
    assert np.array_equal(np.isnan(value).all(axis=(0, 2, 3)), [False, True, False])
    expected = (g_strain[1, 2, 0, 1] + g_strain[1, 2, 1, 0]) / 8.0
    assert value[1, 2, 0, 1] == value[1, 2, 1, 0] == pytest.approx(expected, rel=1e-15)
