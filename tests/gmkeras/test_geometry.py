"""The geometry of a batch through TensorFlow and back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from gmcore.engine.neighbors import build_pairs
from gmcore.engine.stages import make_geometry
from gmcore.engine.structures import Batch, SpeciesTable
from gmkeras.data import tensors
from gmkeras.geometry import geometry_from, geometry_inputs
from support.keras_models import keras_model, mixed_frames, prepared


def test_a_batch_has_the_geometry_that_the_engine_makes_of_its_structures():
    _, settings, _ = keras_model()
    frames, descriptor = mixed_frames(), settings.descriptor
    inputs, _ = prepared(settings, frames).batch(range(len(frames)))
    found = geometry_from([tensor.numpy() for tensor in geometry_inputs(tensors(inputs))])
    batch = Batch.from_atoms(frames)
    species = SpeciesTable(descriptor.species).index(batch.numbers)
    expected = make_geometry(batch, species, build_pairs(batch, descriptor.r_max))
    for name, value in expected._asdict().items():
        assert np.asarray(getattr(found, name)).dtype == np.asarray(value).dtype, name
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
